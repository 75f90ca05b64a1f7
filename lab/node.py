"""One node of a cluster: its folder, its database, its certificates and keys, and the services that run on it.

Everything a node is lies in its folder (`node.db`, `security/`, `tftp/`), so that a lab that was killed is opened again
from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.certificates import node_certificate
from cucm.clock import Clock
from cucm.database import DatabaseRole, NodeDatabase
from cucm.errors import LabError, UsageError
from cucm.events import EventLog
from cucm.events.administration import (
    ReachabilityChanged,
    ServiceCrashed,
    ServiceStarted,
    ServiceStopped,
    ServiceUnchanged,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.net.addresses import PortMap
from cucm.net.listener import Limits
from cucm.net.reachability import Reachability
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.records import dataclass
from cucm.roles import CertificateUnit
from cucm.versions import VersionProfile
from cucm.whole_files import remove_unfinished, write_private, write_whole
from lab.admission import ClusterDevices
from lab.call_processing import CallProcessing
from lab.capf import CertificateAuthorityProxyFunction
from lab.key_making import keys_made
from lab.node_services import ChangeNotification, FileService, RunningService
from lab.served_files import ServedFiles
from lab.topology import FeatureService, Service
from tftp_server.content_faults import FaultyStore, ServedVersions
from tftp_server.node_files import NodeFileStore
from tftp_server.server import FileServer
from tvs_server.certificate_cache import CertificateCache, FreshnessMode
from tvs_server.server import TvsServer

DEFAULT_STATIONS: Final = Limits().connections
IMPOSTOR: Final = "impostor of TVS"
CHANGE_NOTIFICATION: Final[Literal["CertificateChangeNotification"]] = "CertificateChangeNotification"
"""The network service that copies trust certificates between nodes (facts 5.5)."""
DATABASE_FILE: Final = "node.db"
_CLIENT_CA_STORES: Final = (
    CertificateUnit.CAPF,
    CertificateUnit.CAPF_TRUST,
    CertificateUnit.CALLMANAGER_TRUST,
)
"""Whose certificates CallManager and TVS take as issuers of phones' certificates: CAPF-trust (facts 9.3) and, where
bulk import puts another cluster's CAPF, CallManager-trust (facts 9.1, 11 F7)."""


def _nobody_cares(_device: str) -> None:
    pass


class ServiceState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a node is made of: who it is, where it lives, and what its cluster gives it."""

    name: str
    cluster: str
    address: str
    directory: Path
    profile: VersionProfile
    services: tuple[FeatureService, ...]
    tls_profile: TlsProfile
    ports: PortMap
    is_publisher: bool = True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all parts of one lab share. `seed` makes serial numbers; `manufacturing_ca` is DER, it issued the MICs."""

    events: EventLog
    clock: Clock
    keys: KeyStore
    served: ServedFiles
    seed: int
    manufacturing_ca: bytes
    faults: FaultSource = NO_FAULTS
    stations: int = DEFAULT_STATIONS
    """Connections that a CallManager lets in; a registered phone is one that stays."""


class Node:
    """A node with its services; each is started, stopped, restarted and crashed by its name in Serviceability."""

    def __init__(self, plan: NodePlan, surroundings: Surroundings, tvs_cache: FreshnessMode) -> None:
        self.name = plan.name
        self.address = plan.address
        self.directory = plan.directory
        self.services: tuple[Service, ...] = (*plan.services, CHANGE_NOTIFICATION)
        self.tvs_cache = tvs_cache
        self.is_up = True
        """Whether the machine runs; one that crashed is down until it is started, its database with it."""
        self.on_registered: Callable[[str], object] = _nobody_cares
        """Called with the device's name when one has registered with this node."""
        self._plan = plan
        self._around = surroundings
        self.faults = surroundings.faults.at(cluster=plan.cluster, node=plan.name)
        """What goes wrong at this node's services."""
        self._versions = ServedVersions()
        self._running: dict[str, RunningService] = {}
        self._crashed: set[str] = set()
        self._presented: dict[CertificateUnit, Identity] = {}
        self._reachability: dict[str, Reachability] = {}
        (plan.directory / "security").mkdir(parents=True, mode=0o700, exist_ok=True)
        (plan.directory / "tftp").mkdir(exist_ok=True)
        for folder in (self.security, plan.directory / "tftp"):
            remove_unfinished(folder)
        role = DatabaseRole.PUBLISHER if plan.is_publisher else DatabaseRole.SUBSCRIBER
        self.database = NodeDatabase(plan.directory / DATABASE_FILE).create(role=role)

    @property
    def is_publisher(self) -> bool:
        return self._plan.is_publisher

    # --- certificates and files

    @property
    def security(self) -> Path:
        """The folder of own certificates (`<unit>.pem`) and keys (`<unit>.key`, mode 0600)."""
        return self.directory / "security"

    def write_identity(self, unit: CertificateUnit, identity: Identity) -> None:
        """Put an own certificate and its key on the node's disk; the database learns of it from the publisher."""
        write_private(self.security / f"{unit}.key", identity.private_key_der)
        write_whole(self.security / f"{unit}.pem", identity.certificate_pem)

    def identity(self, unit: CertificateUnit) -> Identity:
        """Certificate and key as they lie on the node's disk. Raises UsageError if the node has none."""
        try:
            pem = (self.security / f"{unit}.pem").read_bytes()
            key = (self.security / f"{unit}.key").read_bytes()
        except OSError:
            known = ", ".join(sorted(path.stem for path in self.security.glob("*.pem")))
            raise UsageError(f"{self.name} has no {unit} certificate", mend=f"one of: {known}") from None
        return Identity.load(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER), key, ours=True)

    def present(self, unit: CertificateUnit, identity: Identity | None) -> None:
        """Let services show this certificate instead of the one on the disk, from their next start; None: that one."""
        if identity is None:
            self._presented.pop(unit, None)
        else:
            self._presented[unit] = identity

    def _shown(self, unit: CertificateUnit) -> Identity:
        return self._presented.get(unit) or self.identity(unit)

    def has_identity(self, unit: CertificateUnit) -> bool:
        return (self.security / f"{unit}.pem").exists()

    def certificate(self, unit: CertificateUnit) -> bytes:
        """The DER that an administrator downloads as `<unit>.pem`. Raises UsageError if the node has none."""
        return self.identity(unit).certificate_der

    @property
    def ctl_file(self) -> Path:
        return self.directory / "tftp" / "CTLFile.tlv"

    def alter_ctl_file(self, from_end: int) -> None:
        """Change one byte of the file on disk, `from_end` bytes before its end, as an attacker or a bad disk would.

        Raises UsageError if there is no such file or byte.
        """
        try:
            data = bytearray(self.ctl_file.read_bytes())
        except FileNotFoundError:
            raise UsageError(f"{self.name} has no CTLFile.tlv", mend="set the cluster to mixed mode first") from None
        if from_end > len(data):
            raise UsageError(f"CTLFile.tlv has {len(data)} bytes only", where="from_end", mend="give a smaller number")
        data[-from_end] ^= 0x01
        write_whole(self.ctl_file, bytes(data))

    # --- services

    def runs(self, service: str) -> bool:
        return service in self._running

    def state_of(self, service: str) -> ServiceState:
        if service in self._running:
            return ServiceState.RUNNING
        return ServiceState.CRASHED if service in self._crashed else ServiceState.STOPPED

    def reachability_of(self, service: str) -> Reachability:
        return self._reachability.get(service, Reachability.OPEN)

    async def start(self) -> None:
        """Start every service of the node; if one cannot, those started before it are stopped again."""
        self.is_up = True
        try:
            for service in self.services:
                await self.start_service(service)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every service, in the order of their starts; also if one of them cannot stop well."""
        async with AsyncExitStack() as services:
            for service in reversed(self._running):
                services.push_async_callback(self.stop_service, service)

    async def halt(self) -> None:
        """As `stop`, at once: whoever is connected is reset."""
        async with AsyncExitStack() as services:
            for service, running in reversed(self._running.items()):
                services.callback(self._tell, ServiceStopped(self.name, service))
                services.push_async_callback(running.crash)
            self._running = {}

    async def crash(self) -> None:
        """The machine dies with all its services; what is on its disk stays."""
        self.is_up = False  # first: what is just being restarted is not to come up on a dead machine
        for service in tuple(self._running):
            await self.crash_service(service)

    async def start_service(self, service: Service) -> bool:
        """Start it; an impostor in its place ends first. False, and nothing happens, when it runs already."""
        self.require_service(service)
        self.require_up()
        await self._end_impostor(service)
        if service in self._running:
            return False
        await self._begin(service, self._new_service(service))
        return True

    async def stop_service(self, service: str) -> bool:
        """Stop it, and an impostor in its place; one that has crashed counts as stopped from now on.

        False, and nothing happens, when there is none of these.
        """
        ended = await self._end_impostor(service)
        running, crashed = self._running.pop(service, None), service in self._crashed
        self._crashed.discard(service)
        if running is not None:
            await running.stop()
        elif not crashed:
            return ended
        self._tell(ServiceStopped(self.name, service))
        return True

    async def restart_service(self, service: Service) -> None:
        await self.stop_service(service)
        await self.start_service(service)

    async def crash_service(self, service: str) -> None:
        """Its process is killed; nobody starts it again until an administrator does."""
        running = self._running.pop(service, None)
        if running is not None:
            await running.crash()
            self._crashed.add(service)
            self._tell(ServiceCrashed(self.name, service))

    def set_reachability(self, service: Service, how: Reachability) -> None:
        """What becomes of packets to this service: also after it was restarted, until it is set to OPEN."""
        self.require_service(service)
        self._reachability[service] = how
        for key in (service, IMPOSTOR) if service == "TVS" else (service,):  # it answers on the same port
            if key in self._running:
                self._running[key].set_reachability(how)
        self._tell(ReachabilityChanged(self.name, service, how))

    async def replace_tvs_by_impostor(self) -> None:
        """End TVS and let a server with a key and certificate of its own answer on its port, under its name.

        Nothing happens when one does so already.
        """
        if IMPOSTOR in self._running:
            return
        self.require_service("TVS")
        label = f"impostor {self.name}"
        await keys_made(self._around.keys, [(label, 2048)])
        await self.stop_service("TVS")
        false_identity = node_certificate(
            self._around.keys,
            CertificateUnit.TVS,
            self.name,
            seed=self._around.seed,
            not_before=self._around.clock.now() - 60,
            subject=self.identity(CertificateUnit.TVS).subject,
            key_label=label,
        )
        await self._begin(IMPOSTOR, self._tvs(false_identity), "TVS", impostor=True)

    def require_up(self) -> None:
        """Raises LabError while the machine is down."""
        if not self.is_up:
            raise LabError(f"{self.name} is down", mend="start the node first")

    def require_service(self, service: str) -> None:
        """Raises UsageError unless the service is activated here."""
        if service not in self.services:
            raise UsageError(f"{service} is not activated on {self.name}", mend=f"it runs: {', '.join(self.services)}")

    async def _end_impostor(self, service: str) -> bool:
        return service == "TVS" and await self.stop_service(IMPOSTOR)

    async def _begin(
        self, key: str, service: RunningService, name: str | None = None, *, impostor: bool = False
    ) -> None:
        await service.start()
        self._running[key] = service
        self._crashed.discard(key)
        how = self.reachability_of(name or key)
        if how is not Reachability.OPEN:
            service.set_reachability(how)
        self._tell(ServiceStarted(self.name, name or key, self.address, impostor))

    def tell_unchanged(self, service: str, state: str) -> None:
        """An administrator asked for what was so already."""
        self._tell(ServiceUnchanged(self.name, service, state))

    def _tell(
        self, event: ServiceUnchanged | ServiceStarted | ServiceStopped | ServiceCrashed | ReachabilityChanged
    ) -> None:
        self._around.events.emit(f"node:{self.name}", event)

    def _new_service(self, service: Service) -> RunningService:
        makers: Mapping[str, Callable[[], RunningService]] = {
            "TVS": lambda: self._tvs(self._shown(CertificateUnit.TVS)),
            "TFTP": self._file_server,
            "CallManager": self._call_processing,
            "CAPF": self._capf,
            CHANGE_NOTIFICATION: ChangeNotification,
        }
        return makers[service]()

    def _tvs(self, identity: Identity) -> TvsServer:
        emit = self._around.events.emitter(f"tvs:{self.name}")
        cache = CertificateCache(
            self.directory / DATABASE_FILE,
            ctl_file=self.ctl_file,
            mode=self.tvs_cache,
            emit=emit,
        )
        return TvsServer(
            self.address,
            certificate_der=identity.certificate_der,
            private_key_der=identity.private_key_der,
            cache=cache,
            emit=emit,
            policy=ClientCertificatePolicy.REQUESTED,
            client_cas=self._client_cas(),
            profile=self._plan.tls_profile,
            faults=self.faults,
            now=self._around.clock.now,
        )

    def _file_server(self) -> RunningService:
        emit = self._around.events.emitter(f"tftp:{self.name}")
        store = NodeFileStore(self.directory, self.name, self._plan.profile, self._around.clock, emit)
        faulty = FaultyStore(store, self.faults, self._around.keys, versions=self._versions, emit=emit)
        recorded = self._around.served.recording(self.name, faulty)  # what a fault has altered is this node's too
        server = FileServer(self.address, recorded, tftp_port=self._plan.ports.tftp, emit=emit, faults=self.faults)
        return FileService(server, store)

    def _call_processing(self) -> CallProcessing:
        identity = self._shown(CertificateUnit.CALLMANAGER)
        return CallProcessing(
            self.name,
            self.address,
            ClusterDevices(self.database),
            (identity.certificate_der, identity.private_key_der),
            client_cas=self._client_cas,
            profile=self._plan.tls_profile,
            limits=Limits(connections=self._around.stations),
            now=self._around.clock.now,
            on_registered=lambda device: self.on_registered(device),
            emit=self._around.events.emitter(f"callmanager:{self.name}"),
            faults=self.faults,
        )

    def _capf(self) -> CertificateAuthorityProxyFunction:
        return CertificateAuthorityProxyFunction(
            self.name,
            self.identity(CertificateUnit.CAPF),
            keys=self._around.keys,
            clock=self._around.clock,
            seed=self._around.seed,
            emit=self._around.events.emitter(f"capf:{self.name}"),
        )

    def _client_cas(self) -> tuple[bytes, ...]:
        """Who may have issued a phone's certificate: see `_CLIENT_CA_STORES`, and the manufacturing CA (MIC)."""
        stored = (item.der for unit in _CLIENT_CA_STORES for item in self.database.certificates(unit))
        return (*stored, self._around.manufacturing_ca)

    @property
    def call_processing(self) -> CallProcessing | None:
        """The CallManager that runs now."""
        running = self._running.get("CallManager")
        return running if isinstance(running, CallProcessing) else None

    @property
    def capf(self) -> CertificateAuthorityProxyFunction | None:
        """The CAPF that runs now."""
        running = self._running.get("CAPF")
        return running if isinstance(running, CertificateAuthorityProxyFunction) else None

    @property
    def tvs(self) -> TvsServer | None:
        """What answers on the port of TVS now: the service, or an impostor in its place."""
        running = self._running.get("TVS") or self._running.get(IMPOSTOR)
        return running if isinstance(running, TvsServer) else None

    @property
    def file_server(self) -> FileServer | None:
        """The server of the TFTP service that runs now."""
        running = self._running.get("TFTP")
        return running.server if isinstance(running, FileService) else None

    @property
    def file_store(self) -> NodeFileStore | None:
        """What the TFTP service that runs now serves from."""
        running = self._running.get("TFTP")
        return running.store if isinstance(running, FileService) else None

    @property
    def registered_devices(self) -> frozenset[str]:
        """Names of the devices registered with this node's CallManager now: the cluster's view, not the phone's."""
        running = self.call_processing
        return frozenset(running.registered) if running else frozenset()

    async def close(self) -> None:
        try:
            await self.stop()
        finally:
            self.database.close()
