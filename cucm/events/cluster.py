"""Events of call processing: which devices a CallManager took, which it turned away, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


class RegistrationRefusal(StrEnum):
    """Why a CallManager did not register a device."""

    CLIENT_CERTIFICATE = "client-certificate"
    """Not of a CA this node trusts, or out of its dates: refused in the TLS handshake (facts 11 F7)."""
    HANDSHAKE = "handshake"
    CERTIFICATE_NAME = "certificate-name"
    """The certificate belongs to another device."""
    UNKNOWN_DEVICE = "unknown-device"
    SECURITY_MODE = "security-mode"
    """The transport is not the one that the device's security profile demands (facts 7.7)."""
    DATABASE = "database"
    """The node could not read its own database."""
    MALFORMED = "malformed"
    METHOD = "method"
    EXTENSION = "extension"
    """Requires something of SIP that is not emulated (RFC 3261 8.2.2.3)."""
    DIGEST = "digest"
    """Wrong user or password (RFC 2617)."""
    TIMEOUT = "timeout"
    LIMIT = "limit"
    FAULT = "fault"
    """The lab was told to refuse it."""


class RegistrationEnd(StrEnum):
    """Why a registered device is no longer."""

    DEREGISTERED = "deregistered"
    CONNECTION_CLOSED = "connection-closed"
    CONNECTION_BROKEN = "connection-broken"
    EXPIRED = "expired"
    """Not refreshed in time."""
    REGISTERED_ELSEWHERE = "registered-elsewhere"
    """The device has registered with another node of its cluster."""
    SERVICE_STOPPED = "service-stopped"
    SERVICE_CRASHED = "service-crashed"


@dataclass(frozen=True, slots=True)
class CallProcessingEvent(Event):
    """What all of them have. `transport` is `tls` or `tcp`, `peer` the phone's IP address and `peer_port` its port."""

    transport: str
    peer: str
    peer_port: int


@dataclass(frozen=True, slots=True)
class RegistrationAccepted(CallProcessingEvent):
    """`cipher` and `tls_version` are empty over TCP."""

    kind: ClassVar[str] = "registration.accepted"
    device_name: str
    cipher: str
    tls_version: str


@dataclass(frozen=True, slots=True)
class RegistrationRefused(CallProcessingEvent):
    """`sip_status` is None when there was no SIP answer: refused by TLS or by the limits, or silent too long.

    Of a certificate refused by TLS `device_name` is the name in it: claimed, not proven.
    """

    kind: ClassVar[str] = "registration.refused"
    device_name: str | None
    reason: RegistrationRefusal
    sip_status: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class RegistrationEnded(CallProcessingEvent):
    kind: ClassVar[str] = "registration.ended"
    device_name: str
    reason: RegistrationEnd


@dataclass(frozen=True, slots=True)
class RegistrationChallenged(CallProcessingEvent):
    """401: the device must show that it knows its digest credentials. `stale`: those it showed were right once."""

    kind: ClassVar[str] = "registration.challenged"
    device_name: str
    stale: bool


@dataclass(frozen=True, slots=True)
class AlarmReceived(CallProcessingEvent):
    """A phone's alarm (facts 7.6). The last four: of a DeviceTLInfo, SHA-1 of its lists (None: not installed) and the
    TFTP servers they came from; None in other alarms.
    """

    kind: ClassVar[str] = "registration.alarm_received"
    device_name: str
    alarm: str
    ctl_signature: bytes | None = None
    ctl_tftp_server: str | None = None
    itl_signature: bytes | None = None
    itl_tftp_server: str | None = None


@dataclass(frozen=True, slots=True)
class AlarmRefused(CallProcessingEvent):
    kind: ClassVar[str] = "registration.alarm_refused"
    device_name: str | None
    sip_status: int
    detail: str
