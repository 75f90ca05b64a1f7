"""How each state is brought about: by what an administrator, a firewall or an accident would do to the lab.

What undoes a state looks its parts up by name again: the lab may have been taken back to a checkpoint meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Protocol

from cucm.broken_certificates import expired, not_yet_valid, wrong_key
from cucm.clock import MovableClock
from cucm.errors import UsageError
from cucm.faults import Fault
from cucm.faults.catalogue import cluster as points
from cucm.identity import Identity
from cucm.net.reachability import Reachability
from cucm.roles import CertificateUnit
from lab.node import ServiceState

if TYPE_CHECKING:
    from lab.node import Node
    from lab.runtime import Lab
    from lab.topology import Service

Undo = Callable[[], Awaitable[None]]


class Record(Protocol):
    """Told for each part of the lab before it is hit (the clock: after it), with the fields of the point's `match`."""

    def __call__(self, **request: str) -> None: ...


Bringer = Callable[["Lab", Fault, Record], Awaitable[Undo]]
"""Raises UsageError when the rule matches no part of this lab, LabError when it cannot be brought about; then nothing
has changed."""

PRESENTED: Final[Mapping[CertificateUnit, Service]] = {
    CertificateUnit.TVS: "TVS",
    CertificateUnit.CALLMANAGER: "CallManager",
}
"""Which service shows which certificate."""


async def set_port(lab: Lab, fault: Fault, record: Record) -> Undo:
    how = Reachability.REFUSE if isinstance(fault.action, points.Refuse) else Reachability.UNREACHABLE
    layers = lab.disturbed.reachability
    chosen = _services(lab, fault)

    async def undo_one(name: str, service: Service) -> None:
        if service in lab.node(name).services:
            lab.node(name).set_reachability(service, layers.without((name, service), fault.id))
        layers.take_away((name, service), fault.id)

    async with AsyncExitStack() as if_it_fails:
        for name, service in chosen:
            record(**_place(lab, name), service=service)
            before = lab.node(name).reachability_of(service)
            layers.lay((name, service), fault.id, how, before=before)
            if_it_fails.push_async_callback(undo_one, name, service)
            lab.node(name).set_reachability(service, how)
        return _all_of(if_it_fails)


async def end_process(lab: Lab, fault: Fault, record: Record) -> Undo:
    running = [
        (name, service)
        for name, service in _services(lab, fault)
        if lab.node(name).state_of(service) is ServiceState.RUNNING
    ]
    if not running:
        raise UsageError("what it matches does not run", where=f"fault {fault.id}", mend="start it first")

    async def undo_one(name: str, service: Service) -> None:
        node = lab.node(name)
        if node.is_up and service in node.services:
            await node.start_service(service)

    async with AsyncExitStack() as if_it_fails:
        for name, service in running:
            node = lab.node(name)
            record(**_place(lab, name), service=service)
            if_it_fails.push_async_callback(undo_one, name, service)
            await (node.crash_service if isinstance(fault.action, points.Crash) else node.stop_service)(service)
        return _all_of(if_it_fails)


async def end_machine(lab: Lab, fault: Fault, record: Record) -> Undo:
    nodes = [name for name in _nodes(lab, fault) if lab.node(name).is_up]
    if not nodes:
        raise UsageError("what it matches is down already", where=f"fault {fault.id}", mend="start it first")

    async def undo_one(name: str) -> None:
        if not lab.node(name).is_up:
            await lab.cluster_with(name).start_node(name)

    async with AsyncExitStack() as if_it_fails:
        for name in nodes:
            record(**_place(lab, name))
            if_it_fails.push_async_callback(undo_one, name)
            await lab.cluster_with(name).crash_node(name)
            if isinstance(fault.action, points.Restart):
                await lab.cluster_with(name).start_node(name)
        return _all_of(if_it_fails)


async def break_certificate(lab: Lab, fault: Fault, record: Record) -> Undo:
    parts = {
        f"{name} {unit}": (name, unit)
        for name, node in _all_nodes(lab).items()
        for unit in PRESENTED
        if node.has_identity(unit)
    }
    fields = {key: {**_place(lab, name), "unit": str(unit)} for key, (name, unit) in parts.items()}
    chosen = [parts[key] for key in matching(fault, fields)]
    broken = {place: _broken(lab, fault, *place) for place in chosen}  # all can be made, or nothing changes
    layers = lab.disturbed.certificates

    async def undo_one(name: str, unit: CertificateUnit) -> None:
        await _present(lab.node(name), unit, layers.without((name, unit), fault.id))
        layers.take_away((name, unit), fault.id)

    async with AsyncExitStack() as if_it_fails:
        for (name, unit), identity in broken.items():
            record(**_place(lab, name), unit=str(unit))
            layers.lay((name, unit), fault.id, identity, before=None)
            if_it_fails.push_async_callback(undo_one, name, unit)
            await _present(lab.node(name), unit, identity)
        return _all_of(if_it_fails)


async def disturb_replication(lab: Lab, fault: Fault, record: Record) -> Undo:
    links = {
        link.node: (cluster.name, link.lag_s, link.paused)
        for cluster in lab.clusters.values()
        for link in cluster.replication.status()
    }
    chosen = matching(fault, {node: {"cluster": links[node][0], "node": node} for node in links})
    lags, pauses = lab.disturbed.lags, lab.disturbed.pauses

    async def undo_lag(node: str) -> None:
        lab.cluster_with(node).replication.set_lag(node, lags.without((node,), fault.id))
        lags.take_away((node,), fault.id)
        lab.disturbed.keep()

    async def undo_pause(node: str) -> None:
        if not pauses.without((node,), fault.id):
            lab.cluster_with(node).replication.resume(node)
        pauses.take_away((node,), fault.id)
        lab.disturbed.keep()

    async with AsyncExitStack() as if_it_fails:
        for node in chosen:
            cluster, lag_s, paused = links[node]
            record(cluster=cluster, node=node)
            if isinstance(fault.action, points.Lag):
                lags.lay((node,), fault.id, fault.action.seconds, before=lag_s)
                if_it_fails.push_async_callback(undo_lag, node)
                lab.disturbed.keep()
                lab.cluster_with(node).replication.set_lag(node, fault.action.seconds)
            else:
                pauses.lay((node,), fault.id, True, before=paused)
                if_it_fails.push_async_callback(undo_pause, node)
                lab.disturbed.keep()
                lab.cluster_with(node).replication.pause(node)
        return _all_of(if_it_fails)


async def move_clock(lab: Lab, fault: Fault, record: Record) -> Undo:
    clock = lab.clock
    if not isinstance(clock, MovableClock) or not isinstance(fault.action, points.Jump):
        raise UsageError("this lab runs by the system's clock", where=f"fault {fault.id}", mend="use `cucm-lab up`")
    seconds = fault.action.seconds
    clock.jump(seconds)  # there may be no such date
    record()

    async def undo() -> None:
        clock.jump(-seconds)

    return undo


BRINGERS: Final[Mapping[str, Bringer]] = {
    points.SERVICE_PORT.name: set_port,
    points.SERVICE_PROCESS.name: end_process,
    points.NODE_MACHINE.name: end_machine,
    points.NODE_CERTIFICATE.name: break_certificate,
    points.REPLICATION_LINK.name: disturb_replication,
    points.LAB_CLOCK.name: move_clock,
}
"""By the name of the state point."""


def _all_of(done: AsyncExitStack) -> Undo:
    """Undoes each thing, the last first, also when one of them cannot be undone. Raises what that one raises."""
    return done.pop_all().aclose


def matching(fault: Fault, parts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Names of the parts whose fields the rule matches. Raises UsageError when there is none."""
    found = [name for name, fields in parts.items() if fault.matches(fields)]
    if not found:
        known = ", ".join(parts) or "none"
        raise UsageError("`match` fits no part of this lab", where=f"fault {fault.id}", mend=f"there are: {known}")
    return found


def _all_nodes(lab: Lab) -> dict[str, Node]:
    return {name: node for cluster in lab.clusters.values() for name, node in cluster.nodes.items()}


def _place(lab: Lab, node: str) -> dict[str, str]:
    return {"cluster": lab.cluster_with(node).name, "node": node}


def _nodes(lab: Lab, fault: Fault) -> list[str]:
    return matching(fault, {name: _place(lab, name) for name in _all_nodes(lab)})


def _services(lab: Lab, fault: Fault) -> list[tuple[str, Service]]:
    parts = {
        f"{name} {service}": (name, service) for name, node in _all_nodes(lab).items() for service in node.services
    }
    fields = {key: {**_place(lab, name), "service": service} for key, (name, service) in parts.items()}
    return [parts[key] for key in matching(fault, fields)]


def _broken(lab: Lab, fault: Fault, node: str, unit: CertificateUnit) -> Identity:
    whole = lab.node(node).identity(unit)
    match fault.action:
        case points.Expired():
            return expired(whole, lab.clock.now())
        case points.NotYetValid():
            return not_yet_valid(whole, lab.clock.now())
        case _:
            return wrong_key(whole, lab.keys.key(f"impostor {node} {unit}"))


async def _present(node: Node, unit: CertificateUnit, identity: Identity | None) -> None:
    node.present(unit, identity)
    service = PRESENTED[unit]
    if node.runs(service):
        await node.restart_service(service)
