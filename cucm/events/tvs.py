"""Events of a TVS server: who came, what was asked, what the cache knew, what went back, and what was refused.

`connection` numbers the connections of one server object from 1; `peer` and `peer_port` are the client's.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from cucm.errors import TrustReason
from cucm.events import Event
from cucm.records import dataclass


class CacheName(StrEnum):
    """Which of TVS's two caches (facts 2.7)."""

    DATABASE = "database"
    LOCAL_CTL = "local-ctl"


class TvsRefusalReason(StrEnum):
    """Why a connection or request was not served."""

    LIMIT = "limit"
    HANDSHAKE = "handshake"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    CLIENT_CERTIFICATE = "client-certificate"
    TLS = "tls"
    """The session broke after its handshake: bytes that are no TLS, or an alert of the client's."""
    IDLE_TIMEOUT = "idle-timeout"
    REQUEST_TIMEOUT = "request-timeout"
    MALFORMED = "malformed"
    TOO_MUCH = "too-much"
    UNEXPECTED_MESSAGE = "unexpected-message"


@dataclass(frozen=True, slots=True)
class TvsServerStarted(Event):
    """The port is bound and the caches are loaded; counts are cache entries."""

    kind: ClassVar[str] = "tvs_server.started"
    address: str
    port: int
    database_entries: int
    local_ctl_entries: int


@dataclass(frozen=True, slots=True)
class TvsServerStopped(Event):
    kind: ClassVar[str] = "tvs_server.stopped"
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class TvsCacheLoaded(Event):
    """A cache was filled anew. `keys` are the Unique MAP IDs (upper-case serial and issuer), in the source's order."""

    kind: ClassVar[str] = "tvs.cache_loaded"
    cache: CacheName
    keys: tuple[str, ...]
    changed: bool
    """Because its source has changed, rather than at start."""


@dataclass(frozen=True, slots=True)
class TvsCacheNotLoaded(Event):
    """The source could not be read; the cache keeps what it had."""

    kind: ClassVar[str] = "tvs.cache_not_loaded"
    cache: CacheName
    detail: str


@dataclass(frozen=True, slots=True)
class TvsEvent(Event):
    """What all events of one connection have."""

    connection: int
    peer: str
    peer_port: int


@dataclass(frozen=True, slots=True)
class TvsConnectionAccepted(TvsEvent):
    """`socket` and `listening_socket` are file descriptors, `attempted` and `accepted` count since the start."""

    kind: ClassVar[str] = "tvs.connection_accepted"
    socket: int
    listening_socket: int
    attempted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class TvsConnectionRefused(Event):
    """A limit was reached; the connection was closed before it was given a number."""

    kind: ClassVar[str] = "tvs.connection_refused"
    peer: str
    peer_port: int
    reason: TvsRefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class TvsHandshakeBegun(TvsEvent):
    """The client's first bytes have come."""

    kind: ClassVar[str] = "tvs.handshake_begun"
    socket: int


@dataclass(frozen=True, slots=True)
class TvsHandshakeDone(TvsEvent):
    """`client_subject` is in Cisco's form; None when the client showed no certificate."""

    kind: ClassVar[str] = "tvs.handshake_done"
    socket: int
    cipher: str
    tls_version: str
    client_subject: str | None


@dataclass(frozen=True, slots=True)
class TvsHandshakeFailed(TvsEvent):
    """`alert` is what the client sent, if it sent one (it refused our certificate, say); `trust` why we refused its."""

    kind: ClassVar[str] = "tvs.handshake_failed"
    reason: TvsRefusalReason
    alert: str | None
    trust: TrustReason | None
    detail: str


@dataclass(frozen=True, slots=True)
class TvsRequestReceived(TvsEvent):
    """`data` is the whole message. For a QUERY_CERT the names are the request's own text, for a VERIFY they come out
    of its certificate; `serial` is raw.
    """

    kind: ClassVar[str] = "tvs.request_received"
    message_type: int
    session_id: int
    payload_length: int
    device_name: str
    subject: str
    issuer: str
    serial: bytes
    certificate: bytes | None
    data: bytes


@dataclass(frozen=True, slots=True)
class CacheStep:
    """One cache asked: whether the key was there, and with which roles."""

    cache: CacheName
    found: bool
    roles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TvsCertificateLookedUp(TvsEvent):
    """The caches asked in turn for `key`, the Unique MAP ID.

    `equal` (VERIFY of a key that is there): whether the certificate is the client's.
    """

    kind: ClassVar[str] = "tvs.certificate_looked_up"
    message_type: int
    key: str
    steps: tuple[CacheStep, ...]
    equal: bool | None


@dataclass(frozen=True, slots=True)
class TvsResponseSent(TvsEvent):
    """`data` is what went out. `message_type`, `status` and what follows are None for bytes that are no TVS message."""

    kind: ClassVar[str] = "tvs.response_sent"
    message_type: int | None
    payload_length: int | None
    status: int | None
    certificate: bytes | None
    roles: tuple[int, ...] | None
    ttl_s: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class TvsRequestRefused(TvsEvent):
    """No answer was given and the connection was closed (behaviour of the real TVS: UNKNOWN, facts 2.8)."""

    kind: ClassVar[str] = "tvs.request_refused"
    reason: TvsRefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class TvsConnectionClosed(TvsEvent):
    kind: ClassVar[str] = "tvs.connection_closed"
    requests: int
    """How many were answered."""
