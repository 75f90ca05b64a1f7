"""What happens between phones and DHCP servers. `server` events are the server's view, `lease` events the phone's."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


class IgnoredReason(StrEnum):
    """Why a server answers nothing."""

    MALFORMED = "malformed"
    NOT_A_REQUEST = "not-a-request"
    UNKNOWN_TYPE = "unknown-type"
    NO_POOL = "no-pool"
    NO_FREE_ADDRESS = "no-free-address"
    UNKNOWN_CLIENT = "unknown-client"
    OTHER_SERVER = "other-server"
    NOT_ITS_ADDRESS = "not-its-address"
    NOT_RELAYED = "not-relayed"
    FULL = "full"
    NOT_SENT = "not-sent"
    NOT_KEPT = "not-kept"
    """The state file cannot be written."""


@dataclass(frozen=True, slots=True)
class DhcpOffered(Event):
    """`client` is the hardware address in upper-case hex, `relay` the giaddr, or empty."""

    kind: ClassVar[str] = "dhcp.offered"
    client: str
    address: str
    pool: str
    relay: str
    option_150: tuple[str, ...]
    option_66: str


@dataclass(frozen=True, slots=True)
class RogueServerAnswered(Event):
    """A server that nobody has set up said `message` (`offer`, `ack`) before the real one could."""

    kind: ClassVar[str] = "dhcp.rogue_answered"
    client: str
    server: str
    message: str
    option_150: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DhcpAcknowledged(Event):
    """`lease_s` is None for an answer to INFORM, which leases nothing."""

    kind: ClassVar[str] = "dhcp.acknowledged"
    client: str
    address: str
    pool: str
    relay: str
    option_150: tuple[str, ...]
    option_66: str
    lease_s: int | None


@dataclass(frozen=True, slots=True)
class DhcpRefused(Event):
    """The server answered NAK."""

    kind: ClassVar[str] = "dhcp.refused"
    client: str
    address: str
    pool: str
    detail: str


@dataclass(frozen=True, slots=True)
class DhcpDeclined(Event):
    """A client says that the address it was given is of no use to it."""

    kind: ClassVar[str] = "dhcp.declined"
    client: str
    address: str
    pool: str
    detail: str


@dataclass(frozen=True, slots=True)
class DhcpReleased(Event):
    kind: ClassVar[str] = "dhcp.released"
    client: str
    address: str
    pool: str


@dataclass(frozen=True, slots=True)
class DhcpIgnored(Event):
    """A message that gets no answer; `client` is empty where it could not be read."""

    kind: ClassVar[str] = "dhcp.ignored"
    peer: str
    port: int
    client: str
    reason: IgnoredReason
    detail: str


@dataclass(frozen=True, slots=True)
class Option150Set(Event):
    """`pool` is empty when all pools were set; no servers: the option is left out."""

    kind: ClassVar[str] = "dhcp.option_150_set"
    servers: tuple[str, ...]
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Option66Set(Event):
    """An empty `text`: the option is left out."""

    kind: ClassVar[str] = "dhcp.option_66_set"
    text: str
    pool: str = ""


class LeaseStep(StrEnum):
    """How a phone came to an acknowledgement: the client's states of RFC 2131, figure 5."""

    REBOOTING = "rebooting"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    RENEWING = "renewing"
    REBINDING = "rebinding"


@dataclass(frozen=True, slots=True)
class LeaseAcknowledged(Event):
    """`option` is "150", "66" or empty: the option that `tftp_servers` are from."""

    kind: ClassVar[str] = "lease.acknowledged"
    step: LeaseStep
    address: str
    server: str
    tftp_servers: tuple[str, ...]
    option: str
    option_66: str
    lease_s: float | None


@dataclass(frozen=True, slots=True)
class LeaseRefused(Event):
    """A server answered NAK: the phone gives the address up and starts over."""

    kind: ClassVar[str] = "lease.refused"
    step: LeaseStep
    server: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeaseDeclined(Event):
    """The phone was given an address that it cannot use."""

    kind: ClassVar[str] = "lease.declined"
    address: str
    server: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeaseNotObtained(Event):
    """No server has answered, or none with anything of use."""

    kind: ClassVar[str] = "lease.not_obtained"
    step: LeaseStep
    detail: str


@dataclass(frozen=True, slots=True)
class LeaseExpired(Event):
    kind: ClassVar[str] = "lease.expired"
    address: str
    server: str


@dataclass(frozen=True, slots=True)
class LeaseReleased(Event):
    kind: ClassVar[str] = "lease.released"
    address: str
    server: str


@dataclass(frozen=True, slots=True)
class LeaseMessageIgnored(Event):
    """Something came to the phone's DHCP port that it does not heed."""

    kind: ClassVar[str] = "lease.message_ignored"
    peer: str
    detail: str


@dataclass(frozen=True, slots=True)
class TftpServerNotUsable(Event):
    """What option 150 or 66 names and the phone cannot use."""

    kind: ClassVar[str] = "lease.tftp_server_not_usable"
    option: str
    text: str
    detail: str
