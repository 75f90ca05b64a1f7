"""What of a running lab no file tells: which phones are on and what they know, which services run and are reached.

Read when a checkpoint is made; brought back when a lab has been started on the files of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cucm.errors import UsageError
from cucm.net.reachability import Reachability
from lab.node import IMPOSTOR, Node, ServiceState
from lab.runtime import PHONES_AT_ONCE, Lab
from phone_agent.memory import PhoneMemory
from phone_agent.state import PhoneState

WAKE_DEADLINE_S: Final = 60.0
"""How long phones may take in all to be registered again."""


def standing_of(lab: Lab) -> dict[str, Any]:
    """As JSON values; only what differs from a lab that has just been started."""
    nodes = {_name_of(node): standing for node in _nodes(lab) if (standing := _standing_of(node))}
    phones = {name: phone.memory.as_json() for name, phone in lab.phones.items() if phone.state is not PhoneState.OFF}
    servers = {
        "dhcp": {"running": lab.dhcp.is_running, "reachability": lab.dhcp.reachability.value},
        "sftp": {"running": lab.sftp.is_running},
    }
    return {"nodes": nodes, "phones": phones, **servers}


async def bring_back(lab: Lab, standing: Mapping[str, Any]) -> tuple[str, ...]:
    """Make a lab that was just started stand like that; names what could not be. Raises LabError, UsageError."""
    try:
        for name, known in standing["nodes"].items():
            await _bring_back_node(lab, name, known)
        different = await _wake(lab, {name: PhoneMemory.of_json(one) for name, one in standing["phones"].items()})
        await _bring_back_servers(lab, standing)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the checkpoint does not tell how the lab stood: {error}", mend="delete it") from error
    return different


def database_files(lab: Lab) -> list[Path]:
    """Of all nodes, publishers last: a copy of a subscriber must not know more than that of its publisher."""
    nodes = sorted(_nodes(lab), key=lambda node: node.is_publisher)
    return [node.database.path for node in nodes]


def _nodes(lab: Lab) -> list[Node]:
    return [node for cluster in lab.clusters.values() for node in cluster.nodes.values()]


def _name_of(node: Node) -> str:
    return f"{node.directory.parent.name}/{node.name}"


def _standing_of(node: Node) -> dict[str, Any]:
    """Empty for a node in order."""
    states = {service: node.state_of(service).value for service in node.services}
    reached = {service: node.reachability_of(service).value for service in node.services}
    standing = {
        "services": {name: state for name, state in states.items() if node.is_up and state != ServiceState.RUNNING},
        "reachability": {name: how for name, how in reached.items() if how != Reachability.OPEN},
        "impostor": node.runs(IMPOSTOR),
        "down": not node.is_up,
    }
    return standing if any(standing.values()) else {}


async def _bring_back_node(lab: Lab, name: str, standing: Mapping[str, Any]) -> None:
    node = lab.node(name)
    if standing["down"]:
        await lab.cluster(name.partition("/")[0]).crash_node(node.name)
    for service, how in standing["reachability"].items():
        node.set_reachability(service, Reachability(how))
    for service, state in standing["services"].items():
        match ServiceState(state):
            case ServiceState.STOPPED:
                await node.stop_service(service)
            case ServiceState.CRASHED:
                await node.crash_service(service)
            case _:
                pass
    if standing["impostor"]:
        await node.replace_tvs_by_impostor()


async def _wake(lab: Lab, memories: Mapping[str, PhoneMemory]) -> tuple[str, ...]:
    """The phones that are not as they were."""
    turn = asyncio.Semaphore(PHONES_AT_ONCE)

    async def wake(name: str, memory: PhoneMemory) -> None:
        async with turn:
            await lab.phone(name).wake(memory)

    tasks = [asyncio.create_task(wake(*item)) for item in memories.items() if item[0] in lab.phones]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=WAKE_DEADLINE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tuple(name for name, memory in memories.items() if not _is_as(lab, name, memory))


def _is_as(lab: Lab, name: str, memory: PhoneMemory) -> bool:
    phone = lab.phones.get(name)
    was_registered = memory.state is PhoneState.REGISTERED
    return phone is not None and (phone.state is PhoneState.REGISTERED) is was_registered


async def _bring_back_servers(lab: Lab, standing: Mapping[str, Any]) -> None:
    if not standing["sftp"]["running"]:
        await lab.sftp.crash()
    lab.dhcp.set_reachability(Reachability(standing["dhcp"]["reachability"]))
    if not standing["dhcp"]["running"]:
        await lab.dhcp.crash()
