"""A running lab: clusters, phones, DHCP and SFTP of a topology, on real sockets inside one /24 of loopback.

Everything it knows lies in its folder; a lab on the folder of one that ended, or was killed, goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from cucm.clock import Clock, SystemClock
from cucm.errors import LabError, UsageError
from cucm.events import DEFAULT_RETENTION, EventLog
from cucm.events.administration import OperationPerformed, OperationRefused
from cucm.faults import Fault, FaultBoard, fault_of
from cucm.faults.board import FaultStatus
from cucm.faults.catalogue.cluster import REPLICATION_CHANGE
from cucm.faults.rules import FaultTable
from cucm.key_store import KeyStore
from cucm.machine import require_descriptors
from cucm.net.addresses import detect_ports
from cucm.net.alarms import Alarms
from cucm.records import dataclass
from cucm.versions import TraceDialect, profile_of
from lab.building import build_cluster, build_phone, device_of
from lab.capf import CertificateAuthorityProxyFunction
from lab.cluster import Cluster
from lab.dhcp_server import DhcpServer
from lab.disturbed_settings import DISTURBED_NAME, DisturbedSettings
from lab.fault_states import FaultStates
from lab.folder_claim import claim_folder
from lab.node import DEFAULT_STATIONS, Node, Surroundings
from lab.phone_certificates import PhoneCertificates
from lab.plain_server import PlainServer
from lab.served_files import FILE_NAME as SERVED_NAME
from lab.served_files import ServedFiles
from lab.servers_beside import build_dhcp, build_plain_server, build_sftp
from lab.sftp_server import SftpServer
from lab.topology import (
    DEFAULT_NETWORK,
    PhoneTable,
    Topology,
)
from phone_agent.driver import Phone
from phone_agent.flash import Flash

if TYPE_CHECKING:
    from lab.operations import Operation

Part = TypeVar("Part")

PHONES_AT_ONCE: Final = 16
"""Phones that are busy at the same time: two cores have no use for more."""
_OF_A_PHONE: Final = 9
"""Files and sockets while it boots and as it stays registered, at both ends. A lab that starts without them would let
nobody in, and its stories would seem to end otherwise."""
_OF_ITS_USERS: Final = 8
"""The API with a few who ask, a file that is written."""


@dataclass(frozen=True, slots=True)
class LabOptions:
    """`directory` is new, or an earlier lab's; `network` a /24 of 127.0.0.0/8; `seed` makes serial numbers.

    `events`: how many are kept, the newest. `stations`: connections that each CallManager lets in.
    """

    directory: Path
    network: IPv4Network = DEFAULT_NETWORK
    seed: int = 0
    events: int = DEFAULT_RETENTION
    stations: int = DEFAULT_STATIONS


class Lab:
    """Built by `start`; `stop` ends every service and phone. Use as an async context manager."""

    def __init__(
        self, topology: Topology, options: LabOptions, *, clock: Clock | None = None, keys: KeyStore | None = None
    ) -> None:
        self.topology = topology
        self.options = options
        self.clock = clock or SystemClock()
        self.keys = keys or KeyStore()
        self.alarms = Alarms(self.clock)
        """Wake phones that wait for a date."""
        self.events = EventLog(self.clock, retention=options.events)
        self.faults = FaultBoard(
            self.events.emitter("lab:faults"), {self.address(table.host): table.name for table in topology.phones}
        )
        self._states = FaultStates(self)
        self.disturbed = DisturbedSettings(options.directory / DISTURBED_NAME)
        self.served = ServedFiles()
        self.clusters: dict[str, Cluster] = {}
        self.phones: dict[str, Phone] = {}
        self.plain_servers: dict[str, PlainServer] = {}
        self.ports = detect_ports(self.address(1))
        self._tables = {table.name: table for table in topology.phones}
        self.phone_certificates = PhoneCertificates(self.keys, self.clock, options.seed)
        self._dhcp: DhcpServer | None = None
        self._sftp: SftpServer | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Install the clusters (or open them again) and start all servers; phones stay off.

        Raises AddressBusy, EnvironmentProblem, and UsageError for a folder of another lab.
        """
        claim_folder(self.options.directory, self.topology, self.options.network, self.options.seed)
        try:
            self._build()
            self._make_links_whole()
            await self.dhcp.start()
            await self.sftp.start()
            for server in self.plain_servers.values():
                await server.start()
            for cluster in self.clusters.values():
                await cluster.start()
            require_descriptors(_OF_ITS_USERS + _OF_A_PHONE * min(len(self.phones), PHONES_AT_ONCE))
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, at_once: bool = False) -> None:
        """End everything that was started, also after a failed start, and also if one part cannot end well.

        `at_once`: connections are reset, nobody says goodbye. Afterwards the lab may be started anew.
        """
        async with AsyncExitStack() as parts:  # the last one in is the first to end
            for server in (self._dhcp, self._sftp, *self.plain_servers.values()):
                if server is not None:
                    parts.push_async_callback(server.crash if at_once else server.stop)
            for cluster in self.clusters.values():
                parts.push_async_callback(cluster.close, at_once=at_once)
            for phone in self.phones.values():
                parts.push_async_callback(phone.crash if at_once else phone.power_off)

    # --- parts by name

    @property
    def dhcp(self) -> DhcpServer:
        """Raises LabError before the lab is started."""
        return _started(self._dhcp)

    @property
    def sftp(self) -> SftpServer:
        return _started(self._sftp)

    def cluster(self, name: str) -> Cluster:
        """Raises UsageError if there is none of this name."""
        return _named(self.clusters, name, "cluster")

    def node(self, name: str) -> Node:
        """By its name, with or without `cluster/` before it. Raises UsageError if there is none."""
        cluster, _, node = name.rpartition("/")
        if cluster:
            return self.cluster(cluster).node(node)
        nodes = {known: one for each in self.clusters.values() for known, one in each.nodes.items()}
        return _named(nodes, node, "node")

    def cluster_with(self, node: str) -> Cluster:
        """The cluster that has this node. Raises UsageError if none has."""
        self.node(node)
        return next(cluster for cluster in self.clusters.values() if node in cluster.nodes)

    def phone(self, name: str) -> Phone:
        """By device name (`SEP...`). Raises UsageError if there is none."""
        return _named(self.phones, name, "phone")

    def phones_named(self, name: str) -> tuple[Phone, ...]:
        """One phone, a group of phones, or `all`. Raises UsageError for a name that is none of these."""
        return tuple(self.phones[table.name] for table in self.topology.phones_named(name))

    def cluster_of_node(self, node: str) -> str | None:
        """The cluster's name, or that of a plain call server."""
        if node in self.plain_servers:
            return node
        return next((name for name, cluster in self.clusters.items() if node in cluster.nodes), None)

    def is_registered(self, device: str) -> bool:
        """Whether a cluster or a plain call server has the device registered now."""
        plain = (server.call_processing.registered for server in self.plain_servers.values())
        return any(device in known for known in (*(each.registered_devices for each in self.clusters.values()), *plain))

    @property
    def trace_dialects(self) -> dict[str, TraceDialect]:
        """The form of its TVS trace, by node."""
        clusters = self.topology.clusters.values()
        return {name: profile_of(each.version).trace_dialect for each in clusters for name in each.node_names}

    # --- operations

    async def perform(self, operation: Operation) -> None:
        """Tell of it, do it, and wait until replication that nobody disturbs has caught up.

        One that should be refused (`operation.refused`) is told with the refusal. Raises LabError: refused, or not
        refused as it should have been; UsageError when it names what the lab does not have.
        """
        text = operation.says(self)
        self.events.emit("lab:story", OperationPerformed(operation.do, text, operation.note))
        if not operation.refused:
            await operation.perform(self)
        else:
            await self._perform_refused(operation)
        await self.settle()

    async def _perform_refused(self, operation: Operation) -> None:
        try:
            await operation.perform(self)
        except LabError as refusal:
            if operation.refused not in str(refusal):
                raise
            self.events.emit("lab:story", OperationRefused(operation.do, str(refusal), refusal.mend or ""))
        else:
            raise LabError(f"was done, but should have been refused with “{operation.refused}”")

    async def settle(self) -> None:
        """Wait until every undisturbed subscriber has the publisher's data. LabError if that takes too long."""
        for cluster in self.clusters.values():
            await cluster.replication.settle()

    def set_option_150(self, addresses: tuple[str, ...], pool: str | None = None) -> None:
        """From now on DHCP names these TFTP servers, in one pool or in all; a phone learns it when it boots."""
        self.dhcp.set_option_150(addresses, pool)

    def provision(self, phone: str, cluster: str, pool: str | None = None) -> None:
        """Add the device to the cluster's database."""
        table = _named(self._tables, phone, "phone")
        self._add_device(table, self.cluster(cluster), pool or table.pool)

    async def _reset_phones(self, devices: tuple[str, ...]) -> None:
        """What a cluster tells its registered phones; one that does not come up again tells so itself."""
        turn = asyncio.Semaphore(PHONES_AT_ONCE)

        async def reset(phone: Phone) -> None:
            async with turn:
                with suppress(LabError):
                    await phone.reset()

        async with asyncio.TaskGroup() as resets:
            for name in devices:
                resets.create_task(reset(self.phones[name]))

    def capf(self, cluster: str) -> CertificateAuthorityProxyFunction:
        """The CAPF of a cluster, the publisher's first. Raises LabError when none runs."""
        for node in self.cluster(cluster).nodes.values():
            if node.capf is not None:
                return node.capf
        raise LabError(f"no CAPF runs in {cluster}", mend="start the service on the publisher")

    # --- faults

    async def set_fault(self, value: Mapping[str, Any] | FaultTable) -> Fault:
        """Put a fault in force, as `fault_of` reads it; a state has been brought about when this returns.

        Returns it with its id. Raises UsageError, FaultIdTaken, LimitExceeded, LabError; then nothing has changed.
        """
        fault = self.faults.set(fault_of(value))
        if fault.point.is_state:
            try:
                await self._states.begin(fault)
            except BaseException:
                self.faults.end(fault.id)
                raise
        elif fault.point is REPLICATION_CHANGE:  # a step under way began without asking about faults
            for cluster in self.clusters.values():
                await cluster.replication.steps_ended()
        return fault

    async def end_fault(self, fault_id: str) -> FaultStatus:
        """Take it out of force and undo what it brought about. Raises UsageError if none has this id.

        LabError when it cannot be undone: it has ended all the same.
        """
        self.faults.status(fault_id)
        try:
            await self._states.end(fault_id)
        finally:
            ended = self.faults.end(fault_id)
        return ended

    async def end_faults(self) -> list[FaultStatus]:
        """All of them, the newest first. Raises the first LabError when all have ended."""
        ended, troubles = [], []
        for status in reversed(tuple(self.faults)):
            try:
                ended.append(await self.end_fault(status.fault.id))
            except LabError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]
        return ended

    def forget_faults(self) -> None:
        """All out of force, and nothing undone: for a lab whose parts are built anew from files that know of none."""
        self._states.forget()
        self.disturbed = DisturbedSettings(self.options.directory / DISTURBED_NAME)
        self.faults.end_all()

    # --- building

    def address(self, host: int) -> str:
        """The address of a host number in the lab's network."""
        return str(self.options.network[host])

    def _make_links_whole(self) -> None:
        """Undo what faults had done to links when the lab was killed."""
        before = self.disturbed.left_over()
        for node, lag_s in before.lags.items():
            self.cluster_with(node).replication.set_lag(node, lag_s)
        for node, paused in before.pauses.items():
            replication = self.cluster_with(node).replication
            (replication.pause if paused else replication.resume)(node)
        self.disturbed.undone()

    def _build(self) -> None:
        self.served = ServedFiles(self.options.directory / SERVED_NAME)
        new = [table for table in self.topology.phones if not self._flash_folder(table).exists()]
        self.phone_certificates.prepare(new)
        around = Surroundings(
            self.events,
            self.clock,
            self.keys,
            self.served,
            self.options.seed,
            self.phone_certificates.maker.certificate_der,
            self.faults,
            self.options.stations,
        )
        self._dhcp = self._build_dhcp()
        self._sftp = build_sftp(self)
        for name, table in self.topology.clusters.items():
            self.clusters[name] = build_cluster(self, name, table, around)
            self.clusters[name].phone_resets.phones = self.phones.keys()
            self.clusters[name].phone_resets.on_reset = self._reset_phones
        self.keys.prepare(wanted for cluster in self.clusters.values() for wanted in cluster.keys_wanted())
        for cluster in self.clusters.values():
            cluster.install()
        for phone in self.topology.phones:
            for name in phone.provisioned_in:
                self._provision_once(phone, self.clusters[name])
            self.phones[phone.name] = build_phone(self, phone, Flash(self._flash_folder(phone)))
        for name, plain in self.topology.plain_servers.items():
            self.plain_servers[name] = build_plain_server(self, name, plain, self._tables)

    def _flash_folder(self, table: PhoneTable) -> Path:
        return self.options.directory / "phones" / table.name

    def _provision_once(self, table: PhoneTable, cluster: Cluster) -> None:
        """At installation only: a lab that is resumed keeps what its administrators have done since."""
        marker = cluster.directory / "provisioned"
        marker.mkdir(exist_ok=True)
        done = marker / table.name
        if not done.exists():
            self._add_device(table, cluster, table.pool)
            done.touch()

    def _add_device(self, table: PhoneTable, cluster: Cluster, pool: str) -> None:
        cluster.add_device(device_of(table, cluster, pool))

    def _build_dhcp(self) -> DhcpServer:
        """One pool for all phones, and one for each group that is told something else."""
        where = {phone.mac: (self.address(phone.host), phone.group) for phone in self.topology.phones}
        return build_dhcp(self, self.options.network, where, self.options.directory / "dhcp.json")


def _named(parts: Mapping[str, Part], name: str, what: str) -> Part:
    try:
        return parts[name]
    except KeyError:
        raise UsageError(f"no {what} {name!r} in this lab", mend=f"one of: {', '.join(parts)}") from None


def _started(part: Part | None) -> Part:
    if part is None:
        raise LabError("the lab has not been started")
    return part
