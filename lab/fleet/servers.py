"""The servers of a fleet: a lab whose phones live elsewhere, all of them provisioned in bulk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Final

from cucm.clock import Clock
from cucm.errors import AddressBusy, EnvironmentProblem
from cucm.identity import Identity
from cucm.net.tls import TlsProfile
from cucm.roles import CertificateUnit
from cucm.versions import profile_of
from lab.building import device_of
from lab.dhcp_server import DhcpServer
from lab.fleet.batch import PhoneState, Surroundings
from lab.fleet.plan import FleetPlan
from lab.fleet.population import Population, number_of
from lab.network_claim import NetworkClaim
from lab.operations import AddDevice, RemoveDevice
from lab.runtime import Lab, LabOptions
from lab.servers_beside import build_dhcp
from lab.topology import PhoneTable
from phone_agent.flash import DeviceIdentity, FlashContents

FIRST_BLOCK: Final = 2
LAST_BLOCK: Final = 19
"""Fleets' phones live in one of 127.2.0.0/16 to 127.19.0.0/16: labs that draw a network are elsewhere."""
FOLDER_PREFIX: Final = "cucm-fleet-"
"""Of the folder of a fleet's clusters, which goes with the run."""
KEPT_EVENTS: Final = 2000
"""Of a fleet's servers: reports count events as they come and keep none."""


@contextmanager
def phones_network() -> Iterator[IPv4Network]:
    """A /16 of loopback for the phones of one fleet, held until the end (on Linux). Raises EnvironmentProblem."""
    for block in range(FIRST_BLOCK, LAST_BLOCK + 1):
        network = IPv4Network(f"127.{block}.0.0/16")
        try:
            claim = NetworkClaim.take(network)
        except AddressBusy:
            continue
        with claim:
            yield network
        return
    raise EnvironmentProblem("all networks for phones of fleets are in use", mend="let another fleet end first")


class FleetLab(Lab):
    """A lab without phones of its own, whose databases and DHCP server know those of a population."""

    def __init__(self, plan: FleetPlan, population: Population, options: LabOptions, *, clock: Clock) -> None:
        self._plan = plan
        self._population = population
        super().__init__(plan.topology.model_copy(update={"phones": ()}), options, clock=clock)
        if plan.topology.plain_servers:
            self._tables = {table.name: table for table in population.tables()}

    def tables_after(self, models: frozenset[str]) -> Iterator[PhoneTable]:
        """The tables of all phones made after one of these."""
        for number, table in enumerate(self._population.tables()):
            if self._population.model_of(number).name in models:
                yield table

    def provision_all(self, cluster: str, tables: Iterable[PhoneTable], pool: str | None = None) -> None:
        """Add these devices to the cluster's database."""
        target = self.cluster(cluster)
        target.add_devices([device_of(table, target, pool or table.pool) for table in tables])

    def change_devices(self, step: AddDevice | RemoveDevice, models: frozenset[str]) -> None:
        """What the step says of one device, for all phones made after `models`."""
        if isinstance(step, AddDevice):
            self.provision_all(step.cluster, self.tables_after(models), step.pool)
            return
        cluster = self.cluster(step.cluster)
        for table in self.tables_after(models):
            cluster.remove_device(table.name)

    def model_of(self, device_name: str) -> str:
        """The phone of the topology that one of the fleet is made after."""
        return self._population.model_of(number_of(device_name)).name

    def states(self) -> Iterator[PhoneState]:
        """Every phone as it comes out of its box, with the certificates that its topology gives it."""
        factory = _CertificateFactory(self, self._plan.needs_mic)
        for phone, table in zip(self._population, self._population.tables(), strict=True):
            yield PhoneState(phone, factory.flash_of(table))

    def surroundings(self) -> Surroundings:
        """What phones in another process must know of this lab."""
        where = (self.address(self.topology.dhcp.host), self.ports.dhcp)
        return Surroundings(where, self.ports.tftp, self.clock.now() - time.time())

    def samples(self) -> tuple[dict[TlsProfile, Identity], Identity, Identity, TlsProfile]:
        """A CallManager's certificate for each TLS profile, a phone's, the one of who issued it, the phone's profile:
        what TLS in this lab is made of.
        """
        table = next(self._population.tables())
        if table.lsc_from is None:
            issuer, phone = self.phone_certificates.maker, self.phone_certificates.mic(table)
        else:
            issuer = self.cluster(table.lsc_from).publisher.identity(CertificateUnit.CAPF)
            phone = self.phone_certificates.lsc(table, issuer)
        nodes: dict[TlsProfile, Identity] = {}
        for name, cluster in self.topology.clusters.items():
            profile = cluster.tls_profile or TlsProfile(profile_of(cluster.version).tls_profile)
            own = self.cluster(name).nodes_running("CallManager")
            if own:
                nodes.setdefault(profile, own[0].identity(CertificateUnit.CALLMANAGER))
        return nodes, Identity.load(phone.certificate, phone.private_key, ours=True), issuer, table.tls_profile

    def _build(self) -> None:
        super()._build()
        for name in self.clusters:
            self.provision_all(name, (table for table in self._population.tables() if name in table.provisioned_in))

    def _build_dhcp(self) -> DhcpServer:
        where = {
            phone.mac: (phone.address, self._population.model_of(number).group)
            for number, phone in enumerate(self._population)
        }
        return build_dhcp(self, self._population.network, where)


class _CertificateFactory:
    """Makes flash contents; phones share one object for equal bytes, for the keys of a fleet are few."""

    def __init__(self, lab: FleetLab, needs_mic: bool) -> None:
        self._lab = lab
        self._needs_mic = needs_mic
        self._issuers: dict[str, Identity] = {}
        self._same: dict[bytes, bytes] = {}

    def flash_of(self, table: PhoneTable) -> FlashContents:
        issue, made = self._lab.phone_certificates, FlashContents()
        if table.lsc_from is not None:
            made = replace(made, lsc=self._shared(issue.lsc(table, self._capf(table.lsc_from))))
        if table.lsc_from is None or self._needs_mic:
            made = replace(made, mic=self._shared(issue.mic(table)))
        return made

    def _shared(self, made: DeviceIdentity) -> DeviceIdentity:
        return DeviceIdentity(made.certificate, self._same.setdefault(made.private_key, made.private_key))

    def _capf(self, cluster: str) -> Identity:
        if cluster not in self._issuers:
            self._issuers[cluster] = self._lab.cluster(cluster).publisher.identity(CertificateUnit.CAPF)
        return self._issuers[cluster]
