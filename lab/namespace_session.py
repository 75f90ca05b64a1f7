"""Inside the namespaces of `cucm-lab exec`: a lab on its real addresses, and the command on a wire to it.

The lab's end of the wire has an address for every machine of the topology, the command's end one of its own, in a
network namespace below. Nothing leads out of either.
"""

from __future__ import annotations

if __name__ == "__main__":
    from cucm import quiet_start

    quiet_start.begin()

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from cucm import quiet_start
from cucm.errors import EnvironmentProblem, LabError
from cucm.events import EventRecord
from cucm.events.dhcp import Option66Set, Option150Set
from cucm.events.running import LabRestored
from cucm.machine import machine_problem
from cucm.roles import CertificateUnit
from lab import namespace_start
from lab.api.server import API_HOST, ApiServer
from lab.dhcp_pools import DhcpPool
from lab.dhcp_server import DhcpServer
from lab.lab_folder import LabFolder, Wishes
from lab.namespace import DEFAULT_NETWORK, LAB_NAME, Session
from lab.running_lab import RunningLab
from lab.runtime import Lab
from lab.start_progress import start_progress
from lab.topology import DEFAULT_POOL, Topology
from lab.web_server import NodeWeb

LAB_END: Final = "lab0"
COMMAND_END: Final = "eth0"
COMMAND_HOST: Final = 250
"""Where the command is; no packaged topology has a machine there."""
LEASED_HOSTS: Final = (210, 239)
"""What an unknown DHCP client on the wire gets."""
WIRE_UP_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.005
"""The kernel tells nobody when a process has made its namespace."""
_STARTER: Final = Path(namespace_start.__file__)


async def run(session: Session) -> int:
    """The command's exit code as a shell has it."""
    ended = asyncio.get_running_loop().create_future()
    _watch(session.lifeline, ended)
    with LabFolder(Path(session.directory)) as folder:
        description = folder.describe(Wishes(session.topology or None, IPv4Network(DEFAULT_NETWORK)))
        _lay_addresses(description.topology, description.network)
        clock = folder.clock()
        lab = Lab(description.topology, description.options(folder.directory), clock=clock)
        running = RunningLab(lab, clock)
        async with AsyncExitStack() as parts:
            with start_progress(lab, is_wanted=sys.stderr.isatty()):
                await running.start(phones=session.phones)
            parts.push_async_callback(running.stop)
            folder.keep()
            api = ApiServer(running, private_name=LAB_NAME)
            await api.start()
            parts.push_async_callback(api.stop)
            await _start_beside(lab, parts)
            _name_hosts(description.topology, description.network, Path(session.directory))
            here = {"CUCM_LAB_DIRECTORY": session.directory, "CUCM_LAB_API": api.urls[0]}
            return await _run_command(session, here, description.network, ended)


def _watch(lifeline: int, ended: asyncio.Future[None]) -> None:
    """`ended` is done when the process outside is gone, or this one is asked to end."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(lifeline)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(lifeline, end)
    loop.add_signal_handler(signal.SIGTERM, end)


# --- the network


def _lay_addresses(topology: Topology, network: IPv4Network) -> None:
    """The lab's end of the wire, for now without another end."""
    hosts = dict.fromkeys((API_HOST, *(host for _, host in _machines(topology))))
    lines = ["link set lo up", f"link add {LAB_END} type veth peer name {COMMAND_END}", f"link set {LAB_END} up"]
    lines += [f"addr add {network[host]}/24 dev {LAB_END}" for host in hosts]
    _ip(lines)


def _machines(topology: Topology) -> Iterator[tuple[str, int]]:
    """Name and host number of all there are, servers, nodes and phones."""
    yield "dhcp", topology.dhcp.host
    yield "sftp", topology.sftp.host
    for cluster in topology.clusters.values():
        yield from ((node.name, node.host) for node in cluster.nodes)
    yield from ((name, plain.host) for name, plain in topology.plain_servers.items())
    yield from ((phone.name, phone.host) for phone in topology.phones)


def _ip(lines: list[str]) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"],  # noqa: S607
        input="\n".join(lines),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode == -signal.SIGINT:
        raise KeyboardInterrupt  # Ctrl-C met `ip` first
    if done.returncode != 0:
        why = " ".join(done.stderr.split())[:200]
        raise EnvironmentProblem(f"the network of the lab cannot be made: {why}", mend="see `cucm-lab doctor`")


def _name_hosts(topology: Topology, network: IPv4Network, directory: Path) -> None:
    """/etc/hosts of the command: this mount namespace alone sees it. No name server answers."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{network[API_HOST]} {LAB_NAME}"]
    domains = {node.name: node.domain for each in topology.clusters.values() for node in each.nodes}
    for name, host in _machines(topology):
        domain = domains.get(name)
        names = f"{name}.{domain} {name}" if domain else name
        lines.append(f"{network[host]} {names}")
    _replace(directory, "hosts", "\n".join(lines) + "\n")
    _replace(directory, "resolv.conf", "# the lab has no name server\n")


def _replace(directory: Path, name: str, text: str) -> None:
    path = directory / f"exec-{name}"
    path.write_text(text, encoding="utf-8")
    if Path("/etc", name).exists():
        subprocess.run(["mount", "--bind", str(path), f"/etc/{name}"], check=True)  # noqa: S603, S607


# --- beside the lab


async def _start_beside(lab: Lab, parts: AsyncExitStack) -> None:
    """DHCP for clients on the wire, with the options of the lab's own server; the nodes' web ports."""
    for cluster in lab.clusters.values():
        for node in cluster.nodes.values():
            if node.has_identity(CertificateUnit.TOMCAT):
                web = NodeWeb(node.name, node.address, node.identity(CertificateUnit.TOMCAT), lab.ports)
                await web.start()
                parts.push_async_callback(web.stop)
    pool = lab.dhcp.pools[DEFAULT_POOL]
    network = lab.options.network
    first, last = (str(network[host]) for host in LEASED_HOSTS)
    wire = DhcpServer(
        lab.dhcp.address,
        pools=[DhcpPool(DEFAULT_POOL, network, first=first, last=last, option_150=pool.option_150)],
        clock=lab.clock,
        emit=lab.events.emitter("dhcp:wire"),
        broadcast=True,
        hears_only_broadcasts=True,
        interface=LAB_END,
        faults=lab.faults,
    )
    await wire.start()
    parts.push_async_callback(wire.stop)

    def follow(record: EventRecord) -> None:
        is_new = record.source == "dhcp:lab" and isinstance(record.event, Option150Set | Option66Set)
        if is_new or isinstance(record.event, LabRestored):
            now = lab.dhcp.pools[DEFAULT_POOL]
            wire.set_option_150(now.option_150)
            wire.set_option_66(now.option_66)

    parts.callback(lab.events.subscribe(follow))


# --- the command


async def _run_command(
    session: Session, here: Mapping[str, str], network: IPv4Network, ended: asyncio.Future[None]
) -> int:
    # from here on Ctrl-C is the command's affair, which gets it too; before, it ends the start
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--net", sys.executable, "-I", str(_STARTER), str(reading)),
            *(shutil.which("ip") or "ip", str(network[COMMAND_HOST]), COMMAND_END),
            *session.command,
            pass_fds=(reading,),
            env={**os.environ, **here},
        )
        await _join(process.pid)
        os.write(writing, b"!")
    finally:
        os.close(reading)
        os.close(writing)
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        process.terminate()
        return 128 + signal.SIGTERM
    return waiting.result() if waiting.result() >= 0 else 128 - waiting.result()


async def _join(pid: int) -> None:
    """Give the command's network namespace its end of the wire, as soon as there is that namespace."""
    async with asyncio.timeout(WIRE_UP_S):
        while _network_of(pid) == _network_of("self"):  # noqa: ASYNC110 (there is nothing to be told by)
            await asyncio.sleep(LOOK_AGAIN_S)
    _ip([f"link set {COMMAND_END} netns {pid}"])


def _network_of(process: int | str) -> Path:
    return Path(f"/proc/{process}/ns/net").readlink()


def main() -> int:
    session = Session.of(sys.argv[1])
    quiet_start.end()
    try:
        return asyncio.run(run(session))
    except KeyboardInterrupt:
        print("cucm-lab: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (LabError, OSError) as error:
        told = error if isinstance(error, LabError) else machine_problem(error)
        for label, text in (("cucm-lab: error", told.what), ("  where", told.where), ("  mend", told.mend)):
            if text:
                print(f"{label}: {text}", file=sys.stderr)
        return told.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
