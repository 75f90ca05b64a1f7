"""A running lab: clusters, phones and DHCP of a topology, on real sockets inside one /24 of loopback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, TypeVar

from cucm.certificates import lsc, manufacturing_ca, mic
from cucm.clock import Clock, SystemClock
from cucm.database import Device
from cucm.errors import UsageError
from cucm.events import EventLog
from cucm.events.administration import Option150Set
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.net.addresses import detect_ports
from cucm.roles import CertificateUnit
from cucm.signalling import DeviceSecurityMode
from cucm.versions import profile_of
from lab.cluster import CALLMANAGER_GROUP, Cluster
from lab.node import Node, NodePlan, Surroundings
from lab.served_files import ServedFiles
from lab.topology import DEFAULT_NETWORK, ClusterTable, NodeTable, PhoneTable, Topology
from phone_agent.boot import PhoneModel
from phone_agent.driver import Phone, PhonePorts, PhoneSettings
from phone_agent.flash import DeviceIdentity, Flash

Part = TypeVar("Part")

_DAY_S: Final = 86_400.0
PHONE_CERTIFICATES_DAYS_AGO: Final = 20


@dataclass(frozen=True, slots=True)
class LabOptions:
    """`directory` is empty and the lab's own; `network` a /24 of 127.0.0.0/8; `seed` makes serial numbers."""

    directory: Path
    network: IPv4Network = DEFAULT_NETWORK
    seed: int = 0


class Lab:
    """Built by `start`; `stop` ends every service and phone. Use as an async context manager."""

    def __init__(
        self, topology: Topology, options: LabOptions, *, clock: Clock | None = None, keys: KeyStore | None = None
    ) -> None:
        self.topology = topology
        self.options = options
        self.clock = clock or SystemClock()
        self.keys = keys or KeyStore()
        self.events = EventLog(self.clock)
        self.served = ServedFiles()
        self.clusters: dict[str, Cluster] = {}
        self.phones: dict[str, Phone] = {}
        self._option_150: tuple[str, ...] = ()
        self._ports = detect_ports(self._address(1))

    async def __aenter__(self) -> Lab:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Install the clusters and start their services; phones stay off. Raises AddressBusy, EnvironmentProblem."""
        maker = self._manufacturing_ca()
        around = Surroundings(self.events, self.clock, self.keys, self.served, self.options.seed, maker.certificate_der)
        try:
            for name, table in self.topology.clusters.items():
                self.clusters[name] = self._build_cluster(name, table, around)
                self.clusters[name].install()
            for phone in self.topology.phones:
                self._provision(phone)
                self.phones[phone.name] = self._build_phone(phone, maker)
            self.set_option_150(self.topology.option_150)
            for cluster in self.clusters.values():
                for node in cluster.nodes.values():
                    await node.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End everything that was started, also after a failed start, and also if one part cannot end well."""
        async with AsyncExitStack() as parts:  # the last one in is the first to end
            for cluster in reversed(self.clusters.values()):
                for node in reversed(cluster.nodes.values()):
                    parts.push_async_callback(node.close)
            for phone in self.phones.values():
                parts.push_async_callback(phone.power_off)

    # --- parts by name

    def cluster(self, name: str) -> Cluster:
        """Raises UsageError if there is none of this name."""
        return _named(self.clusters, name, "cluster")

    def phone(self, name: str) -> Phone:
        """By device name (`SEP...`). Raises UsageError if there is none."""
        return _named(self.phones, name, "phone")

    def cluster_of_node(self, node: str) -> str | None:
        return next((name for name, cluster in self.clusters.items() if node in cluster.nodes), None)

    # --- operations that are no single cluster's

    def set_option_150(self, cluster: str) -> None:
        """From now on DHCP names this cluster's TFTP nodes; a phone learns it when it boots."""
        self._option_150 = self.cluster(cluster).tftp_addresses
        self.events.emit("dhcp:lab", Option150Set(self._option_150))

    async def tftp_servers(self) -> tuple[str, ...]:
        """What DHCP answers a phone that asks for option 150."""
        return self._option_150

    def provision(self, phone: str, cluster: str) -> None:
        """Add the device to the cluster's database."""
        table = next((item for item in self.topology.phones if item.name == phone), None)
        if table is None:
            raise UsageError(f"no phone {phone!r} in this lab", mend=f"one of: {', '.join(self.phones)}")
        self.cluster(cluster).add_device(_device(table))

    # --- building

    def _address(self, host: int) -> str:
        return str(self.options.network[host])

    def _manufacturing_ca(self) -> Identity:
        return manufacturing_ca(self.keys, seed=self.options.seed, not_before=self._days_ago(365))

    def _days_ago(self, days: float) -> float:
        return self.clock.now() // _DAY_S * _DAY_S - days * _DAY_S

    def _build_cluster(self, name: str, table: ClusterTable, around: Surroundings) -> Cluster:
        nodes = [Node(self._node_plan(name, table, node), around, table.tvs_cache) for node in table.nodes]
        return Cluster(name, table, profile_of(table.version), nodes, around)

    def _node_plan(self, cluster: str, table: ClusterTable, node: NodeTable) -> NodePlan:
        return NodePlan(
            name=node.name,
            address=self._address(node.host),
            directory=self.options.directory / "clusters" / cluster / node.name,
            profile=profile_of(table.version),
            services=node.services,
            tls_profile=table.tls_profile,
            ports=self._ports,
        )

    def _provision(self, phone: PhoneTable) -> None:
        for cluster in phone.provisioned_in:
            self.clusters[cluster].add_device(_device(phone))

    def _phone_certificate(
        self, kind: Callable[..., Identity], issuer: Identity, table: PhoneTable, issued: float
    ) -> Identity:
        return kind(
            issuer,
            self.keys,
            model=table.model,
            mac=table.mac,
            serial_number=table.serial_number,
            seed=self.options.seed,
            not_before=issued,
        )

    def _build_phone(self, table: PhoneTable, maker: Identity) -> Phone:
        flash = Flash(self.options.directory / "phones" / table.name)
        capf = self.clusters[table.lsc_from].publisher.identity(CertificateUnit.CAPF)
        issued = self._days_ago(PHONE_CERTIFICATES_DAYS_AGO)
        flash.store(
            lsc=_device_identity(self._phone_certificate(lsc, capf, table, issued)),
            mic=_device_identity(self._phone_certificate(mic, maker, table, issued)),
        )
        settings = PhoneSettings(
            local_address=self._address(table.host),
            ports=PhonePorts(tftp=self._ports.tftp),
            tls_profile=table.tls_profile,
        )
        return Phone(
            PhoneModel.of(table.mac, table.model),
            flash,
            _Option150(self),
            settings=settings,
            clock=self.clock,
            emit=self.events.emitter(f"phone:{table.name}"),
        )


class _Option150:
    """DHCP as far as this lab emulates it: a phone that asks is told the value of the moment."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def tftp_servers(self) -> tuple[str, ...]:
        return await self._lab.tftp_servers()

    async def close(self, *, release: bool) -> None:
        pass


def _named(parts: dict[str, Part], name: str, what: str) -> Part:
    try:
        return parts[name]
    except KeyError:
        raise UsageError(f"no {what} {name!r} in this lab", mend=f"one of: {', '.join(parts)}") from None


def _device(phone: PhoneTable) -> Device:
    return Device(
        name=phone.name,
        model=phone.model,
        description=f"{phone.model} of the lab",
        security_mode=DeviceSecurityMode[phone.security_mode.upper().replace("-", "_")],
        callmanager_group=CALLMANAGER_GROUP,
        device_pool="Default",
    )


def _device_identity(identity: Identity) -> DeviceIdentity:
    return DeviceIdentity(identity.certificate_der, identity.private_key_der)
