"""TVS events as the lines of CUCM's detailed TVS trace (facts 10, 2.5 to 2.8; the order is the published trace's).

`HH:MM:SS.mmm | debug text`, time in UTC; a text with line breaks in it goes on without prefix, as in the original.
Other releases pad the prefix and bracket what belongs together: `cucm.versions.TraceDialect`.
The original's oddities are kept: `addded`, `Session Id : 0` whatever the session, and responses printed with the
labels of the CAPF protocol, so that the certificate appears as `ReasonInfo`, the status as `Version` and the time to
live as `PublicKey`. The addresses and descriptors in it are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from cucm.certificates import EMULATED_MANUFACTURER
from cucm.events import EventRecord
from cucm.events.tvs import (
    CacheName,
    CacheStep,
    TvsCacheLoaded,
    TvsCertificateLookedUp,
    TvsConnectionAccepted,
    TvsEvent,
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
_ROW_TEXT: Final = 3 * HEX_DUMP_ROW
"""Characters of a row and what stands between it and the next: two digits and a space for each byte."""
ETOKEN_ISSUERS: Final = ("cn=Cisco Manufacturing CA;o=Cisco Systems", EMULATED_MANUFACTURER)
"""Whose certificates are eTokens' (facts 2.7), and who stands for it in the lab."""
X509_ADDRESS: Final = "0xbb696e0"
"""A pointer of the original process; ours has none to show."""

_CACHE_CLASSES: Final = {CacheName.DATABASE: "CertificateDBCache", CacheName.LOCAL_CTL: "CertificateCTLCache"}
_EVENT_NAMES: Final[dict[int, str]] = {
    MessageType.QUERY_CERTIFICATE_REQUEST: "TVS_EV_QUERY_CERT_REQ",
    # not published for VERIFY: formed like the other [inferred]
    MessageType.VERIFY_REQUEST: "TVS_EV_CERT_VERIFICATION_REQ",
}
_ACTIONS: Final[dict[int, str]] = {
    MessageType.QUERY_CERTIFICATE_RESPONSE: "Sending QUERY_CERT_RES msg",
    MessageType.VERIFY_RESPONSE: "Sending CERT_VERIF_RES msg",
}


_PREFIXES: Final = {TraceDialect.PLAIN: " | debug ", TraceDialect.BRACKETED: " |   debug "}
ENTRY_MARK: Final = " |-->debug"
EXIT_MARK: Final = " |<--debug"
"""What these two enclose in the original is UNKNOWN (a function's lines, by the looks of them): here, one event's."""


_PREFIX_HERE: Final = "\0"
"""Stands for time and prefix in a text that is put together; `printable` lets no NUL into it otherwise."""
_REMEMBERED_ANSWERS: Final = 256


class TvsTrace:
    """Renders the records of one TVS server in its release's dialect.

    Each event is one text made by one format string, parts that come again (a certificate's) are remembered, and time
    and prefix are put in by one `replace`: forty lines for each query would otherwise cost as much as its handshake.
    """

    def __init__(self, dialect: TraceDialect = TraceDialect.PLAIN) -> None:
        self._prefix = _PREFIXES[dialect]
        self._is_bracketed = dialect is TraceDialect.BRACKETED
        self._second: int | None = None
        self._second_text = ""

    def lines(self, record: EventRecord) -> list[str]:
        """The trace lines of an event; none for events the original says nothing about."""
        return self.text(record).split("\n")[:-1]

    def text(self, record: EventRecord) -> str:
        """The same as one text that ends with a line break; "" for none."""
        render = _RENDERERS.get(type(record.event))
        if render is None:
            return ""
        text = render(record.event)
        if not text:
            return ""
        second, microseconds = divmod(round(record.time * 1_000_000), 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = f"{datetime.fromtimestamp(second, UTC):%H:%M:%S}"
        moment = f"{self._second_text}.{microseconds // 1000:03d}"
        text = text.replace(_PREFIX_HERE, moment + self._prefix)
        return f"{moment}{ENTRY_MARK}\n{text}{moment}{EXIT_MARK}\n" if self._is_bracketed else text


def _accepted(event: TvsConnectionAccepted) -> str:
    number, peer, descriptor = event.accepted, event.peer, event.socket
    return (
        f"\0Accepted TCP connection from socket {event.listening_socket:#010x}, fd = {descriptor}\n"
        f"\0Total Session attempted = {event.attempted} accepted = {number}\n"
        "\0tvsGetNextThread\n"
        "\0Recd event\n"
        f"\0new ph on fd {descriptor}\n"
        f"\0{number}:UNKNOWN:Got a new SCB from RBTree\n"
        f"\0ipAddrStr (Phone) {peer}\n"
        f"\0{_connection(event)}Got a new ph conn {peer} on {descriptor}, Total Acc = {number}..\n"
        f"\0addded {descriptor} to readset\n"
    )


def _handshake_begun(event: TvsHandshakeBegun) -> str:
    return f"\0after select, {event.socket} was set\n\0ipAddrStr (Phone) {event.peer}\n"


def _handshake_done(event: TvsHandshakeDone) -> str:
    return (
        "\0tvsSSLHandShakeNotify\n"
        f"\0{event.peer}: tvsSSLHandShake Session ciphers - {event.cipher}\n"
        f"\0addded {event.socket} to readset\n"
        "\0Recd event\n"
        "\0TLS HS Done for ph_conn\n"
    )


def _request(event: TvsRequestReceived) -> str:
    connection = _connection(event)
    return (
        f"{_dump(f'{connection}Incoming Phone Msg:', event.data)}"
        f"{_decoded(event.message_type, event.payload_length)}"
        f"\0{connection}TVS CORE: Rcvd Event: {_EVENT_NAMES[event.message_type]} in State: TVS_STATE_AWAIT_REQ\n"
        f"{_asked(event)}"
    )


def _asked(event: TvsRequestReceived) -> str:
    serial, issuer = serial_hex(event.serial), printable(event.issuer)
    if event.message_type == MessageType.QUERY_CERTIFICATE_REQUEST:
        return (
            "\0tvsHandleQueryCertReq\n"
            f"\0tvsHandleQueryCertReq : Subject Name is: {printable(event.subject)}\n"
            f"\0tvsHandleQueryCertReq : Issuer Name is: {issuer}\n"
            f"\0tvsHandleQueryCertReq : Serial Number is: {serial}\n"
        )
    return (
        f"\0tvsGetIssuerNameFromX509 - issuerName : {issuer}  and Length: {len(event.issuer)}\n"
        f"\0tvsGetSerialNumberFromX509 - serialNumber : {serial} and Length: {len(event.serial)}\n"
    )


def _looked_up(event: TvsCertificateLookedUp) -> str:
    text = "".join([_step(step, printable(event.key)) for step in event.steps])
    if not event.steps or not event.steps[-1].found:
        return f"{text}\0getCertificateInformation(cert) : certificate not found\n"
    text = f"{text}\0convertX509ToDER -x509cert : {X509_ADDRESS}\n"
    if event.message_type == MessageType.QUERY_CERTIFICATE_REQUEST:
        # published without its neighbours: this place, where the published trace has a gap, is [inferred]
        return f"{text}\0tvsHandleQueryCertReq: Timer started from tvsHandleNewPhConnection\n"
    return f"{text}\0Certificate compare return =0\n\0Certificate found and equal\n" if event.equal else text


def _step(step: CacheStep, key: str) -> str:
    function = f"{_CACHE_CLASSES[step.cache]}::getCertificateInformation"
    text = f"\0{function} - Looking up the certificate cache using Unique MAP ID : {key}\n"
    if not step.found:
        return f"{text}\0ERROR:{function} - Cannot find the certificate in the cache\n"
    roles = "".join([f"\0{function} - {{role : {role}}}\n" for role in step.roles])
    return f"{text}\0{function} - Found entry {{rolecount : {len(step.roles)}}}\n{roles}"


def _response(event: TvsResponseSent) -> str:
    message = ""
    if event.message_type is not None and event.payload_length is not None:
        message = (
            f"\0{_connection(event)}{_ACTIONS[event.message_type]}\n"
            f"{_decoded(event.message_type, event.payload_length)}"
            f"{_answered(event.certificate, event.status, event.ttl_s)}"
        )
    return f"{message}{_dump('Sending TLS Msg ..', event.data)}\0ipAddrStr (Phone) {event.peer}\n"


@lru_cache(maxsize=_REMEMBERED_ANSWERS)
def _answered(certificate: bytes | None, status: int | None, ttl_s: int | None) -> str:
    """Elements under CAPF's labels (facts 2.5). What an absent element prints is UNKNOWN: nothing, here."""
    text = ""
    if certificate is not None:
        text = f"\0ReasonInfo : {_as_c_string(certificate)}\n\0Number of Certs : 1\n\0Cert[0] :\n"
        text += _dump("Cert Type : 0", certificate)
    text += f"\0Version : {status}\n"
    return text if ttl_s is None else text + _dump("PublicKey :", ttl_s.to_bytes(4, "big"))


def _decoded(message_type: int, payload_length: int) -> str:
    return f"{_DECODED[message_type]}{payload_length}\n"


_DECODED: Final[dict[int, str]] = {
    kind: "\0tvsPhoneDecodeMsg -\nDecoded Phone Msg:\n"
    f"\0Protocol Discriminator: {PROTOCOL_DISCRIMINATOR:x}\n"
    f"\0MsgType : {kind.log_name}\n"
    "\0Session Id : 0\n"
    "\0Length : "
    for kind in MessageType
}


def _cache_loaded(event: TvsCacheLoaded) -> str:
    """Only the local CTL's refreshing is published (facts 2.7); that a key's eToken lines follow it is [inferred]."""
    if event.cache is not CacheName.LOCAL_CTL or not event.changed:
        return ""
    text = (
        "\0CertificateCache::localCTLCacheMonitor - CTLFile.tlv has been modified . Recaching CTL Certificate Cache\n"
        "\0updateLocalCTLCache : Refreshing the local CTL certificate cache\n"
    )
    return text + "".join([_cached(key) for key in event.keys])


def _cached(key: str) -> str:
    text = f"\0tvs_sql_get_all_CTL_certificate - Unique Key used for Caching :: {printable(key)}, length : {len(key)}\n"
    if not key.endswith(ETOKEN_ISSUERS):
        return text
    return f"{text}\0subjectName and issuerName matches for eToken certificate\n\0This is SAST eToken cert\n"


def _connection(event: TvsEvent) -> str:
    """`8:UNKNOWN:`, the connection number. One more than the accepted count, as in the published trace [inferred]."""
    return f"{event.connection + 1}:UNKNOWN:"


def _dump(title: str, data: bytes) -> str:
    shown = data[:HEX_DUMP_BYTES].hex(" ")
    rows = "".join([f"\0{shown[at : at + _ROW_TEXT - 1]}\n" for at in range(0, len(shown), _ROW_TEXT)])
    return f"\0{title}\nHEX_DUMP: Len = {len(data)}:\n{rows}"


def _as_c_string(data: bytes) -> str:
    """What `%s` makes of it: up to the first NUL. Bytes a terminal cannot show are left out."""
    return "".join(chr(byte) for byte in data.split(b"\0", 1)[0] if 0x20 <= byte < 0x7F)


_RENDERERS: Final[dict[type, Callable[[Any], str]]] = {
    TvsCacheLoaded: _cache_loaded,
    TvsConnectionAccepted: _accepted,
    TvsHandshakeBegun: _handshake_begun,
    TvsHandshakeDone: _handshake_done,
    TvsRequestReceived: _request,
    TvsCertificateLookedUp: _looked_up,
    TvsResponseSent: _response,
}
