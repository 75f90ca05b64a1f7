"""The servers beside the clusters, as a topology describes them: DHCP, SFTP, and plain call servers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cucm.certificates import node_certificate
from cucm.roles import CertificateUnit
from cucm.whole_files import write_private
from lab.dhcp_pools import DhcpPool
from lab.dhcp_server import DhcpServer
from lab.plain_server import PlainServer
from lab.sftp_server import SftpServer
from lab.topology import DEFAULT_POOL, PhoneTable, PlainServerTable

if TYPE_CHECKING:
    from lab.runtime import Lab

_DAY_S: Final = 86_400.0


def build_dhcp(
    lab: Lab, network: IPv4Network, phones: Mapping[str, tuple[str, str]], state_file: Path | None = None
) -> DhcpServer:
    """`phones`, which are in `network`: address and group by MAC. One pool for all, and one for each group that is told
    something else.
    """
    table = lab.topology.dhcp
    told = _first_option_150(lab)
    return DhcpServer(
        lab.address(table.host),
        port=lab.ports.dhcp,
        pools=[
            DhcpPool(
                name=name,
                network=network,
                reservations={
                    mac: address
                    for mac, (address, group) in phones.items()
                    if name == (group if group in told else DEFAULT_POOL)
                },
                option_150=servers,
                lease_s=table.lease_s,
            )
            for name, servers in told.items()
        ],
        state_file=state_file,
        clock=lab.clock,
        emit=lab.events.emitter("dhcp:lab"),
        faults=lab.faults,
    )


def _first_option_150(lab: Lab) -> dict[str, tuple[str, ...]]:
    """By DHCP pool."""
    topology = lab.topology
    named = topology.clusters[topology.option_150]
    default = tuple(lab.address(node.host) for node in named.nodes if "TFTP" in named.services_of(node))
    hosts = {node.name: node.host for each in topology.clusters.values() for node in each.nodes}
    return {DEFAULT_POOL: default} | {
        name: tuple(lab.address(hosts[node]) for node in pool.option_150) for name, pool in topology.dhcp.pools.items()
    }


def sftp_password_file(lab: Lab) -> Path:
    """For users of an SFTP client of their own: mode 0600, and beside what the server hands out."""
    return lab.options.directory / "sftp" / "password"


def build_sftp(lab: Lab) -> SftpServer:
    """Its folder and its password file are made."""
    table = lab.topology.sftp
    folder = lab.options.directory / "sftp"
    (folder / "files" / table.directory).mkdir(parents=True, exist_ok=True, mode=0o700)
    _tell_password(sftp_password_file(lab), f"{table.password}\n".encode())
    return SftpServer(
        lab.address(table.host),
        port=lab.ports.sftp,
        directory=folder / "files",
        user=table.user,
        password=table.password,
        host_key=folder / "host_key",
        emit=lab.events.emitter("sftp:lab"),
        faults=lab.faults,
    )


def build_plain_server(lab: Lab, name: str, table: PlainServerTable, phones: Mapping[str, PhoneTable]) -> PlainServer:
    """`phones` by device name: those it gives files to and lets in."""
    identity = node_certificate(
        lab.keys,
        CertificateUnit.CALLMANAGER,
        name,
        seed=lab.options.seed,
        not_before=lab.clock.now() // _DAY_S * _DAY_S - _DAY_S,
    )
    return PlainServer(
        name,
        lab.address(table.host),
        phones,
        identity,
        ports=lab.ports,
        served=lab.served,
        events=lab.events,
        now=lab.clock.now,
        keys=lab.keys,
        faults=lab.faults,
    )


def _tell_password(path: Path, told: bytes) -> None:
    if not path.exists() or path.read_bytes() != told:
        write_private(path, told)
