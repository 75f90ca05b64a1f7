"""TVS events as the lines of CUCM's detailed TVS trace (facts 10, 2.5 to 2.8; the order is the published trace's).

`HH:MM:SS.mmm | debug text`, time in UTC; a text with line breaks in it goes on without prefix, as in the original.
Other releases pad the prefix and bracket what belongs together: `cucm.versions.TraceDialect`.
The original's oddities are kept: `addded`, `Session Id : 0` whatever the session, and responses printed with the
labels of the CAPF protocol, so that the certificate appears as `ReasonInfo`, the status as `Version` and the time to
live as `PublicKey`. The addresses and descriptors in it are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from cucm.certificates import EMULATED_MANUFACTURER
from cucm.events import EventRecord
from cucm.events.tvs import (
    CacheName,
    CacheStep,
    TvsCacheLoaded,
    TvsCertificateLookedUp,
    TvsConnectionAccepted,
    TvsHandshakeBegun,
    TvsHandshakeDone,
    TvsRequestReceived,
    TvsResponseSent,
)
from cucm.names import serial_hex
from cucm.render.text import printable
from cucm.versions import TraceDialect
from cucm.wire.tvs import PROTOCOL_DISCRIMINATOR, MessageType

HEX_DUMP_BYTES: Final = 50
HEX_DUMP_ROW: Final = 8
ETOKEN_ISSUERS: Final = ("cn=Cisco Manufacturing CA;o=Cisco Systems", EMULATED_MANUFACTURER)
"""Whose certificates are eTokens' (facts 2.7), and who stands for it in the lab."""
X509_ADDRESS: Final = "0xbb696e0"
"""A pointer of the original process; ours has none to show."""

_CACHE_CLASSES: Final = {CacheName.DATABASE: "CertificateDBCache", CacheName.LOCAL_CTL: "CertificateCTLCache"}
_EVENT_NAMES: Final = {
    MessageType.QUERY_CERTIFICATE_REQUEST: "TVS_EV_QUERY_CERT_REQ",
    # not published for VERIFY: formed like the other [inferred]
    MessageType.VERIFY_REQUEST: "TVS_EV_CERT_VERIFICATION_REQ",
}
_ACTIONS: Final = {
    MessageType.QUERY_CERTIFICATE_RESPONSE: "Sending QUERY_CERT_RES msg",
    MessageType.VERIFY_RESPONSE: "Sending CERT_VERIF_RES msg",
}


_PREFIXES: Final = {TraceDialect.PLAIN: " | debug ", TraceDialect.BRACKETED: " |   debug "}
ENTRY_MARK: Final = " |-->debug"
EXIT_MARK: Final = " |<--debug"
"""What these two enclose in the original is UNKNOWN (a function's lines, by the looks of them): here, one event's."""


class TvsTrace:
    """Renders the records of one TVS server in its release's dialect."""

    def __init__(self, dialect: TraceDialect = TraceDialect.PLAIN) -> None:
        self._prefix = _PREFIXES[dialect]
        self._is_bracketed = dialect is TraceDialect.BRACKETED

    def lines(self, record: EventRecord) -> list[str]:
        """The trace lines of an event; none for events the original says nothing about."""
        render = _RENDERERS.get(type(record.event))
        if render is None:
            return []
        moment = f"{datetime.fromtimestamp(record.time, UTC):%H:%M:%S.%f}"[:-3]
        prefix = moment + self._prefix
        lines = [line for text in render(record.event) for line in (prefix + text).split("\n")]
        return [moment + ENTRY_MARK, *lines, moment + EXIT_MARK] if lines and self._is_bracketed else lines


def _accepted(event: TvsConnectionAccepted) -> Iterator[str]:
    number = event.accepted
    yield f"Accepted TCP connection from socket {event.listening_socket:#010x}, fd = {event.socket}"
    yield f"Total Session attempted = {event.attempted} accepted = {number}"
    yield "tvsGetNextThread"
    yield "Recd event"
    yield f"new ph on fd {event.socket}"
    yield f"{number}:UNKNOWN:Got a new SCB from RBTree"
    yield f"ipAddrStr (Phone) {event.peer}"
    yield f"{_prefix(event)}Got a new ph conn {event.peer} on {event.socket}, Total Acc = {number}.."
    yield f"addded {event.socket} to readset"


def _handshake_begun(event: TvsHandshakeBegun) -> Iterator[str]:
    yield f"after select, {event.socket} was set"
    yield f"ipAddrStr (Phone) {event.peer}"


def _handshake_done(event: TvsHandshakeDone) -> Iterator[str]:
    yield "tvsSSLHandShakeNotify"
    yield f"{event.peer}: tvsSSLHandShake Session ciphers - {event.cipher}"
    yield f"addded {event.socket} to readset"
    yield "Recd event"
    yield "TLS HS Done for ph_conn"


def _request(event: TvsRequestReceived) -> Iterator[str]:
    message_type = MessageType(event.message_type)
    yield from _dump(f"{_prefix(event)}Incoming Phone Msg:", event.data)
    yield from _decoded(message_type, event.payload_length)
    yield f"{_prefix(event)}TVS CORE: Rcvd Event: {_EVENT_NAMES[message_type]} in State: TVS_STATE_AWAIT_REQ"
    yield from _asked(event, message_type)


def _asked(event: TvsRequestReceived, message_type: MessageType) -> Iterator[str]:
    serial = serial_hex(event.serial)
    if message_type is MessageType.QUERY_CERTIFICATE_REQUEST:
        yield "tvsHandleQueryCertReq"
        yield f"tvsHandleQueryCertReq : Subject Name is: {printable(event.subject)}"
        yield f"tvsHandleQueryCertReq : Issuer Name is: {printable(event.issuer)}"
        yield f"tvsHandleQueryCertReq : Serial Number is: {serial}"
    else:
        yield f"tvsGetIssuerNameFromX509 - issuerName : {printable(event.issuer)}  and Length: {len(event.issuer)}"
        yield f"tvsGetSerialNumberFromX509 - serialNumber : {serial} and Length: {len(event.serial)}"


def _looked_up(event: TvsCertificateLookedUp) -> Iterator[str]:
    for step in event.steps:
        yield from _step(step, event.key)
    if not event.steps or not event.steps[-1].found:
        yield "getCertificateInformation(cert) : certificate not found"
        return
    yield f"convertX509ToDER -x509cert : {X509_ADDRESS}"
    if event.message_type == MessageType.QUERY_CERTIFICATE_REQUEST:
        # published without its neighbours: this place, where the published trace has a gap, is [inferred]
        yield "tvsHandleQueryCertReq: Timer started from tvsHandleNewPhConnection"
    elif event.equal:
        yield "Certificate compare return =0"
        yield "Certificate found and equal"


def _step(step: CacheStep, key: str) -> Iterator[str]:
    function = f"{_CACHE_CLASSES[step.cache]}::getCertificateInformation"
    yield f"{function} - Looking up the certificate cache using Unique MAP ID : {printable(key)}"
    if not step.found:
        yield f"ERROR:{function} - Cannot find the certificate in the cache"
        return
    yield f"{function} - Found entry {{rolecount : {len(step.roles)}}}"
    for role in step.roles:
        yield f"{function} - {{role : {role}}}"


def _response(event: TvsResponseSent) -> Iterator[str]:
    if event.message_type is not None and event.payload_length is not None:
        message_type = MessageType(event.message_type)
        yield f"{_prefix(event)}{_ACTIONS[message_type]}"
        yield from _decoded(message_type, event.payload_length)
        yield from _answered(event)
    yield from _dump("Sending TLS Msg ..", event.data)
    yield f"ipAddrStr (Phone) {event.peer}"


def _answered(event: TvsResponseSent) -> Iterator[str]:
    """Elements under CAPF's labels (facts 2.5). What an absent element prints is UNKNOWN: nothing, here."""
    if event.certificate is not None:
        yield f"ReasonInfo : {_as_c_string(event.certificate)}"
        yield "Number of Certs : 1"
        yield "Cert[0] :"
        yield from _dump("Cert Type : 0", event.certificate)
    yield f"Version : {event.status}"
    if event.ttl_s is not None:
        yield from _dump("PublicKey :", event.ttl_s.to_bytes(4, "big"))


def _decoded(message_type: MessageType, payload_length: int) -> Iterator[str]:
    yield "tvsPhoneDecodeMsg -\nDecoded Phone Msg:"
    yield f"Protocol Discriminator: {PROTOCOL_DISCRIMINATOR:x}"
    yield f"MsgType : {message_type.log_name}"
    yield "Session Id : 0"
    yield f"Length : {payload_length}"


def _cache_loaded(event: TvsCacheLoaded) -> Iterator[str]:
    """Only the local CTL's refreshing is published (facts 2.7); that a key's eToken lines follow it is [inferred]."""
    if event.cache is not CacheName.LOCAL_CTL or not event.changed:
        return
    yield "CertificateCache::localCTLCacheMonitor - CTLFile.tlv has been modified . Recaching CTL Certificate Cache"
    yield "updateLocalCTLCache : Refreshing the local CTL certificate cache"
    for key in event.keys:
        yield f"tvs_sql_get_all_CTL_certificate - Unique Key used for Caching :: {printable(key)}, length : {len(key)}"
        if key.endswith(ETOKEN_ISSUERS):
            yield "subjectName and issuerName matches for eToken certificate"
            yield "This is SAST eToken cert"


def _prefix(event: Any) -> str:
    """`8:UNKNOWN:`, the connection number. One more than the accepted count, as in the published trace [inferred]."""
    return f"{event.connection + 1}:UNKNOWN:"


def _dump(title: str, data: bytes) -> Iterator[str]:
    yield f"{title}\nHEX_DUMP: Len = {len(data)}:"
    shown = data[:HEX_DUMP_BYTES]
    for start in range(0, len(shown), HEX_DUMP_ROW):
        yield shown[start : start + HEX_DUMP_ROW].hex(" ")


def _as_c_string(data: bytes) -> str:
    """What `%s` makes of it: up to the first NUL. Bytes a terminal cannot show are left out."""
    return "".join(chr(byte) for byte in data.split(b"\0", 1)[0] if 0x20 <= byte < 0x7F)


_RENDERERS: Final[dict[type, Callable[[Any], Iterator[str]]]] = {
    TvsCacheLoaded: _cache_loaded,
    TvsConnectionAccepted: _accepted,
    TvsHandshakeBegun: _handshake_begun,
    TvsHandshakeDone: _handshake_done,
    TvsRequestReceived: _request,
    TvsCertificateLookedUp: _looked_up,
    TvsResponseSent: _response,
}
