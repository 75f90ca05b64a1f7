"""A phone's DHCP lease: who asks for it, what it says, how long it runs (RFC 2131). No I/O."""

from __future__ import annotations

from random import Random
from typing import Final

from cucm.errors import UsageError
from cucm.events import Emit, ignore
from cucm.events.dhcp import (
    LeaseReleased,
)
from cucm.records import dataclass
from cucm.wire.dhcp import (
    ETHERNET,
    INFINITE_LEASE_S,
    NO_ADDRESS,
    DhcpMessage,
    Operation,
)
from cucm.wire.dhcp_options import DhcpOption, MessageType, OptionCode, address_option, text_option, type_option

VENDOR_CLASS: Final = "Cisco Systems, Inc. IP Phone {model}"
"""Option 60, for example `Cisco Systems, Inc. IP Phone CP-8861` [recall]."""
REQUESTED_OPTIONS: Final = (1, 66, 6, 3, 15, 150, 35)
"""Option 55 and its order [recall: 79xx phones]. What an 8861 asks for is UNKNOWN."""
HOST_NAME: Final = "SEP{mac}"
"""Option 12 [recall: leases of Cisco phones bear the device name]."""
CONFIRMS_LEASE: Final = True
"""Whether a phone that boots with a lease still running asks for the same address again (INIT-REBOOT) or for any
(DISCOVER). UNKNOWN; RFC 2131, 3.2 recommends the first."""
T1_SHARE: Final = 0.5
T2_SHARE: Final = 0.875
"""Of the lease, where the server does not say (RFC 2131, 4.4.5)."""


@dataclass(frozen=True, slots=True)
class DhcpDeadlines:
    """How long a phone waits, in seconds. All UNKNOWN on the phone and shorter than the 4, 8, 16, 32 and 64 seconds of
    RFC 2131, 4.1: here no network lies between.

    A message is repeated after `first_s`, then after twice the time, `attempts` times in all (`confirm_attempts` for a
    lease that only needs confirmation), each time up to a tenth more or less. `decline_s`: pause after a decline.
    `check_s`: how often the lease is compared with the clock, which a story may move. `retry_s`: least time between
    two attempts to renew, in the lab's time (60 in RFC 2131, 4.4.5).
    """

    first_s: float = 1.0
    attempts: int = 3
    confirm_attempts: int = 2
    decline_s: float = 10.0
    check_s: float = 1.0
    retry_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server granted; times in Unix seconds of the lab's clock, None: never. `source` says which option
    `tftp_servers` come from: "150", "66" or None.
    """

    address: str
    server: str
    tftp_servers: tuple[str, ...]
    t1: float | None
    t2: float | None
    expiry: float | None
    option_66: str | None = None
    source: str | None = None

    def is_running(self, now: float) -> bool:
        return self.expiry is None or now < self.expiry


@dataclass(frozen=True, slots=True)
class DhcpIdentity:
    """Who asks. `relay` is the address of a phone that speaks like a relay agent; None: the phone broadcasts on its own
    network. `own` is the only address that it can have; None: any.
    """

    mac: bytes
    model: str
    relay: str | None = None
    own: str | None = None

    @classmethod
    def of(cls, mac: str, model: str, relay: str | None = None, own: str | None = None) -> DhcpIdentity:
        """`mac`: 12 hexadecimal digits. Without `own` it is that of the relay agent. Raises UsageError."""
        try:
            parsed = bytes.fromhex(mac)
        except ValueError:
            parsed = b""
        if len(parsed) != 6:
            raise UsageError(f"{mac!r} is no MAC address", mend="give 12 hexadecimal digits, like B000B4BA0AEE")
        return cls(parsed, model, relay, own or relay)

    def options(self) -> tuple[DhcpOption, ...]:
        """In every request: who this is and what it wants to know."""
        return (
            text_option(OptionCode.HOST_NAME, HOST_NAME.format(mac=self.mac.hex().upper())),
            DhcpOption(OptionCode.PARAMETER_REQUEST_LIST, bytes(REQUESTED_OPTIONS)),
            text_option(OptionCode.VENDOR_CLASS, VENDOR_CLASS.format(model=self.model)),
            self.identifier(),
        )

    def identifier(self) -> DhcpOption:
        """Option 61 in its usual form: hardware type and address [recall]."""
        return DhcpOption(OptionCode.CLIENT_IDENTIFIER, bytes((ETHERNET,)) + self.mac)


@dataclass(frozen=True, slots=True)
class Sending:
    """A message to send now: to the server that granted the lease (`server`), or, where None, to whoever hears it."""

    message: DhcpMessage
    server: str | None = None


def release(identity: DhcpIdentity, lease: Lease, randomness: Random, emit: Emit = ignore) -> Sending:
    """What an orderly end of the lease says; there is no answer to it."""
    emit(LeaseReleased(lease.address, lease.server))
    options = (
        type_option(MessageType.RELEASE),
        address_option(OptionCode.SERVER_IDENTIFIER, lease.server),
        identity.identifier(),
    )
    relay = identity.relay or NO_ADDRESS
    message = DhcpMessage(
        Operation.REQUEST,
        randomness.getrandbits(32),
        identity.mac,
        options,
        ciaddr=lease.address,
        giaddr=relay,
        hops=0 if identity.relay is None else 1,
    )
    return Sending(message, lease.server)


def lease_times(message: DhcpMessage, now: float) -> tuple[float | None, float | None, float | None]:
    """T1, T2 and expiry in Unix seconds; T1 and T2 of the server only if they are in order."""
    lease_s = message.lease_s or 0
    if lease_s == INFINITE_LEASE_S:
        return None, None, None
    t1: float | None = message.renewal_s
    t2: float | None = message.rebinding_s
    if t2 is None or not 0 < t2 <= lease_s:
        t2 = lease_s * T2_SHARE
    if t1 is None or not 0 < t1 <= t2:
        t1 = min(lease_s * T1_SHARE, t2)
    return now + t1, now + t2, now + lease_s
