"""A cluster: its nodes, their replication, and what an administrator does to its stores, lists and parameters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cucm.database import Device, PutOutcome
from cucm.errors import LabError, UsageError
from cucm.events.administration import NodeCrashed, NodeStarted, ParameterSet
from cucm.key_store import KeyKind
from cucm.roles import CertificateUnit
from cucm.versions import VersionProfile
from cucm.whole_files import remove_unfinished
from lab.bulk_certificates import BulkCertificateManagement
from lab.certificate_management import CertificateManagement, NodeCertificates
from lab.cluster_state import ClusterState
from lab.node import CHANGE_NOTIFICATION, Node, Surroundings
from lab.phone_resets import PHONE_INTERACTION_PARAMETER, PhoneResets
from lab.replication import Replication
from lab.topology import DEFAULT_POOL, ClusterTable, FeatureService, Service
from lab.trust_list_commands import TrustListCommands
from tftp_server.cluster_view import ROLLBACK_PARAMETER, SECURITY_MODE_PARAMETER
from tvs_server.certificate_cache import FreshnessMode

_log = logging.getLogger(__name__)

SERVICES: Final[tuple[Service, ...]] = ("CallManager", "TVS", "TFTP", "CAPF", CHANGE_NOTIFICATION)
CHANGE_NOTIFICATION_S: Final = 1800.0
"""CN_SYNC_TIMER: how often certificate change notification looks for differences (facts 5.5)."""


class Cluster:
    """`nodes` by name, the publisher first: its database is the one that is written."""

    def __init__(
        self, name: str, table: ClusterTable, profile: VersionProfile, nodes: list[Node], surroundings: Surroundings
    ) -> None:
        self.name = name
        self.table = table
        self.version = table.version
        self.profile = profile
        self.nodes = {node.name: node for node in nodes}
        self.publisher = nodes[0]
        self._around = surroundings
        remove_unfinished(self.directory)
        self._state = ClusterState(self.directory / "cluster.json")
        view = NodeCertificates(name, table, profile, self.nodes, self._state, surroundings)
        self.trust_lists = TrustListCommands(view)
        emit = surroundings.events.emitter(f"cluster:{name}")
        self.replication = Replication(
            self.publisher.database,
            {node.name: node.database for node in nodes[1:]},
            surroundings.clock,
            emit,
            surroundings.faults.at(cluster=name),
        )
        self.phone_resets = PhoneResets(name, self.nodes, self.replication.settle, emit)
        self.certificates = CertificateManagement(view, self._renewed)
        self.bulk = BulkCertificateManagement(
            name,
            self.publisher.name,
            table.version,
            _BulkSource(self),
            state_file=self.directory / "bulk.json",
            local_address=self.publisher.address,
            emit=emit,
        )
        self._synchronising: asyncio.Task[None] | None = None
        for node in nodes:
            node.on_registered = partial(self._registered, node)

    def _registered(self, at: Node, device: str) -> None:
        """A device that registers with one node leaves the others: registration is the cluster's."""
        for node in self.nodes.values():
            if node is not at and node.call_processing is not None:
                node.call_processing.release(device)

    async def _renewed(self, unit: CertificateUnit, nodes: Collection[Node]) -> None:
        if self.profile.phone_interaction:
            await self.phone_resets.after_change((unit,), nodes, f"new {unit} certificate")

    @property
    def directory(self) -> Path:
        return self.publisher.directory.parent

    # --- installation

    def keys_wanted(self) -> list[tuple[str, KeyKind]]:
        """Labels and kinds of the keys that the installation takes; none when it is done."""
        if self._state.is_installed:
            return []
        tokens = self.trust_lists.token_keys_wanted() if self.table.security_mode == "mixed-etoken" else ()
        return [*self.certificates.keys_wanted(), *tokens]

    def install(self) -> None:
        """What the installer and the first administrator leave behind: nodes, groups, certificates, mixed mode.

        Nothing happens to a cluster that was installed before, except that what a kill interrupted is finished.
        """
        if self._state.is_installed:
            self._take_services_from_database()
            self._take_tvs_cache()
            self.certificates.finish_interrupted()
            return
        database = self.publisher.database
        for node, table in zip(self.nodes.values(), self.table.nodes, strict=True):
            database.add_node(node.name, node.address, services=self.table.services_of(table))
        for group, members in self._callmanager_groups().items():
            database.put_callmanager_group(group, members)
        for pool, group in {DEFAULT_POOL: DEFAULT_POOL, **self.table.device_pools}.items():
            database.put_device_pool(pool, group)
        self.certificates.install()
        self.set_parameter(SECURITY_MODE_PARAMETER, "0")
        self._secure()
        self._state.mark_installed()

    def _secure(self) -> None:
        if self.table.security_mode == "mixed":
            self.trust_lists.set_mixed_mode()
        elif self.table.security_mode == "mixed-etoken":
            self.trust_lists.run_ctl_client()

    def _callmanager_groups(self) -> dict[str, Sequence[str]]:
        default = [node.name for node in self.nodes_running("CallManager")][:3]
        return {**({DEFAULT_POOL: default} if default else {}), **self.table.callmanager_groups}

    # --- life

    async def start(self) -> None:
        """Start replication, wait until every subscriber that may has the publisher's data, then all services."""
        await self.replication.start()
        await self.replication.settle()
        for node in self.nodes.values():
            await node.start()
        self._synchronising = asyncio.create_task(self._synchronise_again_and_again())

    async def close(self, *, at_once: bool = False) -> None:
        """Stop everything; also if one node cannot stop well. `at_once`: connections are reset."""
        if self._synchronising is not None:
            self._synchronising.cancel()
            await asyncio.wait([self._synchronising])
        errors: list[BaseException] = []
        for node in reversed(self.nodes.values()):
            try:
                await (node.halt() if at_once else node.stop())
            except Exception as error:
                errors.append(error)
        await self.replication.stop()
        for node in self.nodes.values():
            node.database.close()
        if errors:
            raise errors[0]

    async def crash_node(self, node: str) -> None:
        """The machine dies: its services reset their connections, and nothing replicates from or to it."""
        one = self.node(node)
        await one.crash()
        self._connect_those_up()
        self._around.events.emit(f"cluster:{self.name}", NodeCrashed(node))

    async def start_node(self, node: str) -> None:
        """Start the machine again with all its services. Raises AddressBusy, EnvironmentProblem."""
        one = self.node(node)
        one.is_up = True
        self._connect_those_up()
        await one.start()
        self._around.events.emit(f"cluster:{self.name}", NodeStarted(node))

    def _connect_those_up(self) -> None:
        for node in list(self.nodes.values())[1:]:
            is_connected = node.is_up and self.publisher.is_up
            self.replication.set_connected(node.name, is_connected, is_publisher_up=self.publisher.is_up)

    async def _synchronise_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(CHANGE_NOTIFICATION_S)
            try:
                self.certificates.synchronise()
            except LabError:
                _log.exception("%s: certificate change notification", self.name)

    # --- Serviceability

    async def activate(self, node: str, service: FeatureService) -> bool:
        """The node has the service from now on: its certificate is made if it lacks one, and the service starts.

        False, and nothing happens, when it has been activated before, whether it runs or not.
        """
        one = self.node(node)
        self._require_up(one)
        if service == "CAPF" and one is not self.publisher and self.profile.capf_on_publisher_only:
            raise LabError(f"CUCM {self.version} has CAPF on the publisher only", where=node, mend="activate it there")
        await self.certificates.prepare_for(one, service)
        self._require_up(one)  # the machine may have gone down meanwhile
        if service in one.services:
            return False
        self._set_services(one, (*one.services, service))
        self.certificates.provide(one)
        await one.start_service(service)
        return True

    async def deactivate(self, node: str, service: FeatureService) -> None:
        """The node has the service no more; lists and configurations that name it follow.

        UsageError when it has not been activated.
        """
        one = self.node(node)
        one.require_service(service)
        self._require_up(one)
        await one.stop_service(service)
        self._set_services(one, tuple(each for each in one.services if each != service))

    def _require_up(self, node: Node) -> None:
        self.require_publisher()
        node.require_up()

    def _set_services(self, node: Node, services: tuple[Service, ...]) -> None:
        features = [service for service in services if service != CHANGE_NOTIFICATION]
        self.publisher.database.add_node(node.name, node.address, services=features)
        node.services = services

    def _take_services_from_database(self) -> None:
        """A lab that is resumed has the services of its database, not of its topology."""
        for node in self.nodes.values():
            known = set(self.publisher.database.services_of(node.name))
            node.services = tuple(one for one in SERVICES if one in known or one == CHANGE_NOTIFICATION)

    def _take_tvs_cache(self) -> None:
        kept = self._state.tvs_cache
        if kept is not None:
            for node in self.nodes.values():
                node.tvs_cache = FreshnessMode(kept)

    # --- the CLI and CM Administration

    def set_parameter(self, name: str, value: str) -> None:
        self.require_publisher()
        self.publisher.database.set_parameter(name, value)
        self._around.events.emit(f"cluster:{self.name}", ParameterSet(self.name, name, value))

    async def set_enterprise_parameter(self, name: str, value: str) -> None:
        """As `set_parameter`, with what comes of it at once: for a rollback, phones restart by themselves (facts 7.3).

        LabError for a parameter that the release does not have.
        """
        if name == PHONE_INTERACTION_PARAMETER and not self.profile.phone_interaction:
            raise LabError(
                f"CUCM {self.version} has no “{name}”",
                where=self.name,
                mend="it came with 14; before, the administrator resets the phones",
            )
        self.set_parameter(name, value)
        if (name, value) == (ROLLBACK_PARAMETER, "True"):
            await self.phone_resets.reset_all(f"“{name}” is {value}")

    def add_device(self, device: Device) -> None:
        self.require_publisher()
        self.publisher.database.put_device(device)

    def add_devices(self, devices: Sequence[Device]) -> None:
        """Many at once, in far fewer transactions."""
        self.require_publisher()
        self.publisher.database.put_devices(devices)

    def remove_device(self, name: str) -> None:
        self.require_publisher()
        self.publisher.database.delete_device(name)

    async def set_tvs_cache(self, mode: FreshnessMode) -> None:
        """How fresh TVS's certificate cache is, from its next start on; where TVS runs it is restarted for it."""
        self._state.set_tvs_cache(mode)
        self._take_tvs_cache()
        for node in self.nodes.values():
            if node.runs("TVS"):
                await node.restart_service("TVS")

    def callmanager_group_of_pool(self, pool: str) -> str:
        """The CallManager group of a device pool. Raises UsageError if there is no such pool."""
        pools = {DEFAULT_POOL: DEFAULT_POOL, **self.table.device_pools}
        if pool not in pools:
            raise UsageError(f"{self.name} has no device pool {pool!r}", mend=f"one of: {', '.join(pools)}")
        return pools[pool]

    def require_publisher(self) -> None:
        """Raises LabError while the publisher is down: all administration is done there."""
        if not self.publisher.is_up:
            raise LabError(
                f"the publisher {self.publisher.name} is down and nobody else can write the database",
                mend="start the publisher first",
            )

    # --- views

    def node(self, name: str) -> Node:
        """Raises UsageError if the cluster has none of that name."""
        try:
            return self.nodes[name]
        except KeyError:
            raise UsageError(f"no node {name!r} in {self.name}", mend=f"one of: {', '.join(self.nodes)}") from None

    def nodes_running(self, service: str) -> list[Node]:
        """Nodes on which a service is activated, whether it is up or not."""
        return [node for node in self.nodes.values() if service in node.services]

    @property
    def tftp_addresses(self) -> tuple[str, ...]:
        return tuple(node.address for node in self.nodes_running("TFTP"))

    @property
    def registered_devices(self) -> frozenset[str]:
        return frozenset().union(*(node.registered_devices for node in self.nodes.values()))


class _BulkSource:
    """What bulk certificate management sees of its cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def version(self) -> str:
        return self._cluster.version

    def require_up(self) -> None:
        self._cluster.require_publisher()

    def own_certificates(self, unit: CertificateUnit) -> Sequence[tuple[str, bytes]]:
        return self._cluster.certificates.own(unit)

    def upload(self, der: bytes, store: CertificateUnit) -> PutOutcome:
        return self._cluster.certificates.upload(der, store)

    async def imported(self, units: Sequence[CertificateUnit]) -> None:
        nodes = tuple(self._cluster.nodes.values())
        await self._cluster.phone_resets.after_change(units, nodes, f"bulk import of {', '.join(units)}")
