"""One node of a cluster: its folder, its database, its certificates and keys, and the services that run on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cucm.certificates import node_certificate
from cucm.clock import Clock
from cucm.database import NodeDatabase
from cucm.errors import UsageError
from cucm.events import EventLog
from cucm.events.administration import ServiceStarted, ServiceStopped
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.net.addresses import PortMap
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.roles import CertificateUnit
from cucm.versions import VersionProfile
from lab.call_processing import CallProcessing
from lab.served_files import ServedFiles
from lab.topology import Service
from tftp_server.node_files import NodeFileStore
from tftp_server.server import FileServer
from tvs_server.certificate_cache import CertificateCache, FreshnessMode
from tvs_server.server import TvsServer

OWN_UNITS: Final = (
    CertificateUnit.CALLMANAGER,
    CertificateUnit.TVS,
    CertificateUnit.CAPF,
    CertificateUnit.ITLRECOVERY,
    CertificateUnit.TOMCAT,
)


class RunningService(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a node is made of: who it is, where it lives, and what its cluster gives it."""

    name: str
    address: str
    directory: Path
    profile: VersionProfile
    services: tuple[Service, ...]
    tls_profile: TlsProfile
    ports: PortMap


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all parts of one lab share. `seed` makes serial numbers; `manufacturing_ca` is DER, it issued the MICs."""

    events: EventLog
    clock: Clock
    keys: KeyStore
    served: ServedFiles
    seed: int
    manufacturing_ca: bytes


class Node:
    """A node with its services; each is started, stopped and restarted by its name in Serviceability."""

    def __init__(self, plan: NodePlan, surroundings: Surroundings, tvs_cache: FreshnessMode) -> None:
        self.name = plan.name
        self.address = plan.address
        self.directory = plan.directory
        self.services = plan.services
        self.tvs_cache = tvs_cache
        self._plan = plan
        self._around = surroundings
        self._running: dict[str, RunningService] = {}
        self._identities: dict[CertificateUnit, Identity] = {}
        (plan.directory / "security").mkdir(parents=True, mode=0o700)
        (plan.directory / "tftp").mkdir()
        self.database = NodeDatabase(plan.directory / "node.db").create()

    # --- certificates and files

    def install_identity(self, unit: CertificateUnit, identity: Identity) -> None:
        """Put an own certificate and its key in place, on disk and in the database."""
        security = self.directory / "security"
        (security / f"{unit}.pem").write_bytes(identity.certificate_pem)
        _write_private(security / f"{unit}.key", identity.private_key_der)
        self.database.put_certificate(
            identity.certificate_der, unit, self.name, self.address, moment=self._around.clock.now()
        )
        self._identities[unit] = identity

    def identity(self, unit: CertificateUnit) -> Identity:
        try:
            return self._identities[unit]
        except KeyError:
            known = ", ".join(self._identities)
            raise UsageError(f"{self.name} has no {unit} certificate", mend=f"one of: {known}") from None

    def certificate(self, unit: CertificateUnit) -> bytes:
        """The DER that an administrator downloads as `<unit>.pem`. Raises UsageError if the node has none."""
        return self.identity(unit).certificate_der

    @property
    def ctl_file(self) -> Path:
        return self.directory / "tftp" / "CTLFile.tlv"

    def alter_ctl_file(self, from_end: int) -> None:
        """Change one byte of the file on disk, `from_end` bytes before its end, as an attacker or a bad disk would."""
        data = bytearray(self.ctl_file.read_bytes())
        if from_end > len(data):
            raise UsageError(f"CTLFile.tlv has {len(data)} bytes only", where="from_end", mend="give a smaller number")
        data[-from_end] ^= 0x01
        self.ctl_file.write_bytes(bytes(data))

    # --- services

    def runs(self, service: str) -> bool:
        return service in self._running

    async def start(self) -> None:
        """Start every service of the node; if one cannot, those started before it are stopped again."""
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

    async def start_service(self, service: Service) -> None:
        """Start it; an impostor in its place ends first. Nothing happens when it runs already."""
        await self._end_impostor(service)
        if service in self._running:
            return
        await self._begin(service, self._new_service(service))

    async def stop_service(self, service: str) -> None:
        running = self._running.pop(service, None)
        if running is not None:
            await running.stop()
            self._tell(ServiceStopped(self.name, service))

    async def restart_service(self, service: Service) -> None:
        await self.stop_service(service)
        await self.start_service(service)

    async def replace_tvs_by_impostor(self) -> None:
        """End TVS and let a server with a key and certificate of its own answer on its port, under its name."""
        await self.stop_service("TVS")
        false_identity = node_certificate(
            self._around.keys,
            CertificateUnit.TVS,
            self.name,
            seed=self._around.seed,
            not_before=self._around.clock.now() - 60,
            subject=self.identity(CertificateUnit.TVS).subject,
            key_label=f"impostor {self.name}",
        )
        await self._begin(IMPOSTOR, self._tvs(false_identity), "TVS", impostor=True)

    async def _end_impostor(self, service: str) -> None:
        if service == "TVS":
            await self.stop_service(IMPOSTOR)

    async def _begin(
        self, key: str, service: RunningService, name: str | None = None, *, impostor: bool = False
    ) -> None:
        await service.start()
        self._running[key] = service
        self._tell(ServiceStarted(self.name, name or key, self.address, impostor))

    def _tell(self, event: ServiceStarted | ServiceStopped) -> None:
        self._around.events.emit(f"node:{self.name}", event)

    def _new_service(self, service: Service) -> RunningService:
        makers: Mapping[str, Callable[[], RunningService]] = {
            "TVS": lambda: self._tvs(self.identity(CertificateUnit.TVS)),
            "TFTP": self._file_server,
            "CallManager": self._call_processing,
            "CAPF": _CapfService,
        }
        return makers[service]()

    def _tvs(self, identity: Identity) -> TvsServer:
        emit = self._around.events.emitter(f"tvs:{self.name}")
        cache = CertificateCache(
            self.directory / "node.db",
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
            now=self._around.clock.now,
        )

    def _file_server(self) -> RunningService:
        emit = self._around.events.emitter(f"tftp:{self.name}")
        store = NodeFileStore(self.directory, self.name, self._plan.profile, self._around.clock, emit)
        recorded = self._around.served.recording(self.name, store)
        return _FileService(FileServer(self.address, recorded, tftp_port=self._plan.ports.tftp, emit=emit), store)

    def _call_processing(self) -> CallProcessing:
        identity = self.identity(CertificateUnit.CALLMANAGER)
        return CallProcessing(
            self.name,
            self.address,
            self.database,
            (identity.certificate_der, identity.private_key_der),
            client_cas=self._client_cas,
            profile=self._plan.tls_profile,
            now=self._around.clock.now,
            emit=self._around.events.emitter(f"callmanager:{self.name}"),
        )

    def _client_cas(self) -> tuple[bytes, ...]:
        """Who may have issued a phone's certificate: own CAPF, CAPF-trust, and the manufacturing CA (MIC)."""
        capf = (CertificateUnit.CAPF, CertificateUnit.CAPF_TRUST)
        stored = (item.der for unit in capf for item in self.database.certificates(unit))
        return (*stored, self._around.manufacturing_ca)

    @property
    def registered_devices(self) -> frozenset[str]:
        """Names of the devices registered with this node's CallManager now: the cluster's view, not the phone's."""
        running = self._running.get("CallManager")
        return frozenset(running.registered) if isinstance(running, CallProcessing) else frozenset()

    async def close(self) -> None:
        try:
            await self.stop()
        finally:
            self.database.close()


IMPOSTOR: Final = "impostor of TVS"


@dataclass(frozen=True, slots=True)
class _FileService:
    """The file server with the store it serves from, which ends with it."""

    server: FileServer
    store: NodeFileStore

    async def start(self) -> None:
        try:
            await self.server.start()
        except BaseException:
            self.store.close()
            raise

    async def stop(self) -> None:
        try:
            await self.server.stop()
        finally:
            self.store.close()


class _CapfService:
    """CAPF as far as it is emulated: LSCs are issued inside the lab, its wire protocol (3804) is absent."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
