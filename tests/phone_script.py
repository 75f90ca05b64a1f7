"""Two small clusters with real keys and real signed files, and a scripted world that answers a booting phone."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.clock import Clock, MovableClock
from cucm.events import Event
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import DigestAlgorithm, Record, blank_record, build_trust_list
from phone_agent.boot import BootOutcome, PhoneModel, boot
from phone_agent.commands import (
    Command,
    Enter,
    Fetch,
    FetchAttempt,
    FetchResult,
    FetchStatus,
    Note,
    QueryTvs,
    Register,
    RegistrationResult,
    RegistrationStatus,
    RequestTftpServers,
    Sleep,
    Store,
    StoreResult,
    TvsAnswer,
    TvsFailure,
)
from phone_agent.flash import DeviceIdentity, FlashContents
from phone_agent.state import PhoneState, require_transition

NOW = 1_480_401_239.0
"""Nov 29 2016 06:33:59 UTC, the seed's moment."""
MAC = "B000B4BA0AEE"
PHONE = PhoneModel(MAC, "8861")
KEYS = KeyStore()
E = TypeVar("E", bound=Event)
SAST, CCM_TFTP, CAPF, TVS = TrustRole.SAST, TrustRole.CALLMANAGER_TFTP, TrustRole.CAPF, TrustRole.TVS


def record(function: int, identity: Identity) -> Record:
    return Record.build(
        function=function,
        dns_name="node",
        subject=identity.subject,
        issuer=identity.issuer,
        serial=identity.serial,
        public_key=identity.public_key_record,
        signature=identity.certificate_signature,
        certificate=identity.certificate_der,
        ip_address="192.0.2.1",
    )


def signed_list(signer: Identity, records: Iterable[Record], file_name: str, timestamp: int = int(NOW)) -> bytes:
    return build_trust_list(
        signer=signer.signer_id,
        records=tuple(records),
        digest=DigestAlgorithm.SHA1,
        sign=signer.sign,
        signature_length=signer.signature_length,
        file_name=file_name,
        timestamp=timestamp,
    )


@dataclass(frozen=True)
class Cluster:
    """A mixed-mode cluster with tokenless CTL, two nodes; everything it serves is signed by its CallManager key."""

    name: str
    address: str

    def _node(self, unit: CertificateUnit, host: str) -> Identity:
        return node_certificate(
            KEYS, unit, host, seed=1, not_before=NOW - 86_400, key_label=f"conversation {unit} {host}"
        )

    @cached_property
    def call_manager(self) -> Identity:
        return self._node(CertificateUnit.CALLMANAGER, f"{self.name}pub")

    @cached_property
    def subscriber(self) -> Identity:
        return self._node(CertificateUnit.CALLMANAGER, f"{self.name}sub")

    @cached_property
    def tvs(self) -> Identity:
        return self._node(CertificateUnit.TVS, f"{self.name}pub")

    @cached_property
    def capf(self) -> Identity:
        return capf_certificate(KEYS, f"{self.name}pub", seed=1, not_before=NOW - 86_400)

    def ctl(self, *, signer: Identity | None = None, timestamp: int = int(NOW)) -> bytes:
        records = [
            record(SAST, self.call_manager),
            record(CCM_TFTP, self.call_manager),
            record(CAPF, self.capf),
            record(CCM_TFTP, self.subscriber),
        ]
        return signed_list(signer or self.call_manager, records, "CTLFile.tlv", timestamp)

    def itl(self, *, signer: Identity | None = None, with_tvs: bool = True, timestamp: int = int(NOW)) -> bytes:
        signer = signer or self.call_manager
        records = [record(SAST, signer), record(CCM_TFTP, signer), record(CAPF, self.capf)]
        return signed_list(signer, records + [record(TVS, self.tvs)] * with_tvs, "ITLFile.tlv", timestamp)

    def blank_itl(self) -> bytes:
        records = [record(CAPF, self.capf), blank_record(CCM_TFTP), blank_record(TVS)]
        return signed_list(self.call_manager, records, "ITLFile.tlv")

    def configuration(self, *, mode: int = 3, tvs: bool = True, call_managers: Iterable[str] | None = None) -> bytes:
        addresses = [self.address] if call_managers is None else list(call_managers)
        group = "".join(
            f"<member priority='{index}'><callManager><name>{self.name}-{index}</name>"
            f"<processNodeName>{address}</processNodeName></callManager></member>"
            for index, address in enumerate(addresses)
        )
        servers = "".join(
            f"<member priority='{index}'><port>2445</port><address>{address}</address></member>"
            for index, address in reversed(list(enumerate((self.address, f"{self.address}9") if tvs else ())))
        )
        return (
            f"<device><devicePool><callManagerGroup><members>{group}</members></callManagerGroup></devicePool>"
            f"<TVS><members>{servers}</members></TVS><versionStamp>{self.name}</versionStamp>"
            f"<deviceSecurityMode>{mode}</deviceSecurityMode></device>"
        ).encode()

    def signed(self, content: bytes, *, signer: Identity | None = None, name: str = f"SEP{MAC}.cnf.xml") -> bytes:
        signer = signer or self.call_manager
        return build_signed_file(
            content,
            signer=signer.signer_id,
            file_name=name,
            digest=DigestAlgorithm.SHA1,
            sign=signer.sign,
            signature_length=signer.signature_length,
            timestamp=int(NOW),
        )

    def files(self, **changes: bytes | None) -> dict[str, bytes | FetchStatus]:
        """What its TFTP service has for the phone; `ctl`, `itl`, `configuration` change a file, None removes it."""
        known: dict[str, bytes | None] = {
            "ctl": self.ctl(),
            "itl": self.itl(),
            "configuration": self.signed(self.configuration()),
        } | changes
        names = {
            "ctl": f"CTLSEP{MAC}.tlv",
            "itl": f"ITLSEP{MAC}.tlv",
            "configuration": f"SEP{MAC}.cnf.xml.sgn",
        }
        return {names[key]: content for key, content in known.items() if content is not None}

    def holding(self, **changes: Any) -> FlashContents:
        """The flash of a phone that lives in this cluster."""
        contents = FlashContents(
            ctl=self.ctl(),
            itl=self.itl(),
            configuration=self.configuration(),
            configuration_name=f"SEP{MAC}.cnf.xml",
            lsc=phone_identity(self),
            tftp_servers=(self.address,),
        )
        return replace(contents, **changes)


@lru_cache
def phone_identity(cluster: Cluster) -> DeviceIdentity:
    identity = lsc(
        cluster.capf, KEYS, model="CP-8861", mac=MAC, serial_number="FCH18198CNQ", seed=1, not_before=NOW - 86_400
    )
    return DeviceIdentity(identity.certificate_der, identity.private_key_der)


OLD = Cluster("old", "192.0.2.1")
NEW = Cluster("new", "198.51.100.1")


def vouch(identity: Identity, roles: tuple[int, ...] = (0, 3), ttl_s: int | None = 86_400) -> TvsAnswer:
    return TvsAnswer(0, identity.certificate_der, roles, ttl_s)


@dataclass
class World:
    """Answers commands; every command is kept in `commands`, every event in `events`.

    `files`: name -> content or trouble, absent: not found. `tvs`: one answer per query, in order. `registrations`:
    address -> result, absent: registered. `dhcp`: option 150.
    """

    files: Mapping[str, bytes | FetchStatus] = field(default_factory=dict)
    tvs: list[TvsAnswer | TvsFailure] = field(default_factory=list)
    registrations: Mapping[str, RegistrationStatus] = field(default_factory=dict)
    dhcp: tuple[str, ...] | None = (NEW.address,)
    flash_error: str | None = None
    clock: Clock = field(default_factory=lambda: MovableClock(NOW, frozen=True))
    contents: FlashContents = field(default_factory=FlashContents)
    commands: list[Command] = field(default_factory=list)
    state: PhoneState = PhoneState.OFF

    def boot(self, *, attempts: int = 1) -> BootOutcome:
        self.commands.clear()
        self.state = PhoneState.OFF
        return self.run(boot(PHONE, self.contents, self.clock, attempts=attempts))

    def run(self, steps: Generator[Command, Any, Any]) -> Any:
        reply = None
        while True:
            try:
                command = steps.send(reply)
            except StopIteration as stop:
                return stop.value
            self.commands.append(command)
            reply = self.answer(command)

    def answer(self, command: Command) -> Any:
        match command:
            case RequestTftpServers():
                return self.dhcp
            case Fetch(file_name=name, servers=servers):
                return self._file(self.files.get(name, FetchStatus.NOT_FOUND), servers[0])
            case QueryTvs():
                return self.tvs.pop(0)
            case Register(address=address):
                return RegistrationResult(self.registrations.get(address, RegistrationStatus.REGISTERED))
            case Store(changes=changes):
                if self.flash_error is None:
                    self.contents = replace(self.contents, **changes)
                return StoreResult(self.flash_error)
            case Enter(state=state):
                require_transition(self.state, state)
                self.state = state
                return None
            case Note() | Sleep():
                return None

    @staticmethod
    def _file(content: bytes | FetchStatus, server: str) -> FetchResult:
        if isinstance(content, FetchStatus):
            return FetchResult(content, attempts=(FetchAttempt(server, "tftp", content, content.value),))
        attempt = FetchAttempt(server, "http", FetchStatus.OK, "200 OK")
        return FetchResult(FetchStatus.OK, content, server, "http", (attempt,))

    @property
    def events(self) -> list[Event]:
        return [command.event for command in self.commands if isinstance(command, Note)]

    def only(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def queries(self) -> list[QueryTvs]:
        return [command for command in self.commands if isinstance(command, QueryTvs)]

    @property
    def fetched(self) -> list[str]:
        return [command.file_name for command in self.commands if isinstance(command, Fetch)]

    @property
    def registered_with(self) -> list[Register]:
        return [command for command in self.commands if isinstance(command, Register)]


def moving(files: Mapping[str, bytes | FetchStatus] | None = None, **fields: Any) -> World:
    """A phone of OLD that is now given NEW's TFTP server."""
    holding = fields.pop("contents", None) or OLD.holding()
    return World(files=NEW.files() if files is None else files, contents=holding, **fields)
