"""What a booting phone asks of the world, and what the world answers.

The boot is a generator (`phone_agent.boot`): it yields one of these commands and receives the value named beside it.

    RequestTftpServers  -> tuple[str, ...] | None    option 150; None when no DHCP server answered
    Fetch               -> FetchResult
    QueryTvs            -> TvsAnswer | TvsFailure
    Register            -> RegistrationResult
    Store               -> StoreResult
    Enter, Sleep, Note  -> None

Nothing in here raises: whatever goes wrong in an I/O step is a value, because for a phone it is an ordinary branch.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from cucm.errors import TrustReason
from cucm.events import Event
from cucm.records import dataclass
from cucm.wire.alarm import DeviceTlInfo
from phone_agent.state import PhoneState

NOT_SECURE: Final = 0
"""`[sec=0]`: the file is asked for under the given name (facts 7.1, trust lists)."""
SECURE_IF_TRUST_LIST: Final = 2
"""`[sec=2]`: the phone adds `.sgn` when it holds a trust list (facts 7.1, configuration)."""

FileTransport: TypeAlias = Literal["http", "tftp"]
SignallingTransport: TypeAlias = Literal["tls", "tcp"]


@dataclass(frozen=True, slots=True)
class RequestTftpServers:
    """Ask DHCP for option 150."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get one file: per server HTTP 6970, then TFTP 69, then the next server (facts 7.1).

    `destination` is the path on the phone that its console names; `secure` is the console's `[sec=N]`.
    """

    file_name: str
    servers: tuple[str, ...]
    destination: str
    secure: int


class FetchStatus(StrEnum):
    OK = "ok"
    NOT_FOUND = "not-found"
    TIMEOUT = "timeout"
    ACCESS_ERROR = "access-error"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class FetchAttempt:
    """One try at one server over one transport; `detail` is its status line or error text."""

    server: str
    transport: FileTransport
    status: FetchStatus
    detail: str


@dataclass(frozen=True, slots=True)
class FetchResult:
    """`data`, `server` and `transport` are set exactly when `status` is OK; `attempts` lists every try in order."""

    status: FetchStatus
    data: bytes | None = None
    server: str | None = None
    transport: FileTransport | None = None
    attempts: tuple[FetchAttempt, ...] = ()


@dataclass(frozen=True, slots=True)
class TvsServer:
    """A `<TVS><members><member>` of the stored configuration: lowest priority number first (facts 2.9)."""

    address: str
    port: int
    priority: int


@dataclass(frozen=True, slots=True)
class QueryTvs:
    """Ask one TVS server for the certificate with this issuer and serial (QUERY_CERT, facts 2).

    `accepted_certificates` are the DER certificates of the TVS records of the phone's ITL: the server's must be one.
    """

    server: TvsServer
    session_id: int
    device_name: str
    subject: str
    issuer: str
    serial: bytes
    accepted_certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TvsAnswer:
    """A decoded QUERY_CERT response, good or bad: deciding what it is worth is the boot's business."""

    status: int
    certificate: bytes | None
    roles: tuple[int, ...]
    ttl_s: int | None


@dataclass(frozen=True, slots=True)
class TvsFailure:
    """No answer could be had from this server."""

    reason: TrustReason
    detail: str


@dataclass(frozen=True, slots=True)
class Register:
    """Open the signalling connection to one CallManager and register.

    `trusted_certificates`: DER certificates of the CCM records of the phone's CTL; over TLS the server's must be one.
    `alarms` tell which lists the phone holds, in the order to be sent (facts 7.6). Without `digest_user` a challenge is
    not answered.
    """

    address: str
    port: int
    transport: SignallingTransport
    device_name: str
    trusted_certificates: tuple[bytes, ...] = ()
    alarms: tuple[DeviceTlInfo, ...] = ()
    digest_user: str = ""
    digest_password: str = field(default="", repr=False)


class RegistrationStatus(StrEnum):
    REGISTERED = "registered"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls-failed"


@dataclass(frozen=True, slots=True)
class RegistrationResult:
    """`sip_status` is the final SIP answer's number where one came; `detail` says in words what happened."""

    status: RegistrationStatus
    sip_status: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """Write these fields of `FlashContents` to flash, all or none."""

    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class StoreResult:
    """`error` is None when the flash took the change, else why not; the flash then holds what it held."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class Enter:
    """The phone is in this state from now on; a state that may not follow is a fault of the program."""

    state: PhoneState


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Note:
    """Tell the world of an event."""

    event: Event


Command: TypeAlias = RequestTftpServers | Fetch | QueryTvs | Register | Store | Enter | Sleep | Note

Outcome = TypeVar("Outcome")
Steps: TypeAlias = Generator[Command, Any, Outcome]
"""A piece of the boot: yields commands, receives each one's result, returns its outcome."""


def step_of(command: Command) -> dict[str, str] | None:
    """What a phone does now, in the words of the fault point `phone.step`; None for what is no step of its own."""
    match command:
        case RequestTftpServers():
            return {"step": "request-tftp-servers"}
        case Fetch(file_name=name):
            return {"step": "fetch", "file": name}
        case QueryTvs():
            return {"step": "query-tvs"}
        case Register():
            return {"step": "register"}
        case Store(changes=changes):
            return {"step": "store", "stores": stored_names(changes)}
        case _:
            return None


def stored_names(changes: Mapping[str, Any]) -> str:
    """`ctl,ctl_source`: the fields of the flash that are written."""
    return ",".join(sorted(changes))
