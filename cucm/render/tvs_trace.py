"""TVS events as the lines of CUCM's detailed TVS trace (facts 10, 2.5 to 2.8; the order is the published trace's).

`HH:MM:SS.mmm | debug text`, time in UTC; a text with line breaks in it goes on without prefix, as in the original.
Other releases pad the prefix and bracket what belongs together: `cucm.versions.TraceDialect`.
The original's oddities are kept: `addded`, `Session Id : 0` whatever the session, and responses printed with the
labels of the CAPF protocol, so that the certificate appears as `ReasonInfo`, the status as `Version` and the time to
live as `PublicKey`. The addresses and descriptors in it are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


_REMEMBERED_ANSWERS: Final = 256

Pieces = tuple[str, ...]
"""Lines with their ends behind an empty one: joined by time and prefix, each begins with it."""


class TvsTrace:
    """Renders the records of one TVS server in its release's dialect.

    Each event is one text made by one format string, with time and prefix put in there, and parts that come again (a
    certificate's) are remembered as lines to be joined by it: forty lines for each query would otherwise cost as much
    as its handshake.
    """

    def __init__(self, dialect: TraceDialect = TraceDialect.PLAIN) -> None:
        self._prefix = _PREFIXES[dialect]
        self._is_bracketed = dialect is TraceDialect.BRACKETED
        self._second: int | None = None
        self._second_text = ""
        self._millisecond: int | None = None
        self._moment = self._head = ""

    def lines(self, record: EventRecord) -> list[str]:
        """The trace lines of an event; none for events the original says nothing about."""
        text = self.text(record)
        return text.split("\n") if text else []

    def texts(self, records: Sequence[EventRecord]) -> list[str]:
        """The `text` of each record that has one, in order."""
        if self._is_bracketed:
            return [text for record in records if (text := self.text(record))]
        texts, renderers, now = [], _RENDERERS, self._millisecond
        for _, time, _, event in records:  # as `text` does it, without a call for each
            render = renderers.get(type(event))
            if render is not None:
                millisecond = round(time * 1_000_000) // 1000
                if millisecond != now:
                    self._begin_millisecond(millisecond)
                    now = millisecond
                text = render(event, self._head)
                if text:
                    texts.append(text)
        return texts

    def text(self, record: EventRecord) -> str:
        """The same lines in one piece, without a line break at the end; "" for none."""
        _, time, _, event = record
        render = _RENDERERS.get(type(event))
        if render is None:
            return ""
        millisecond = round(time * 1_000_000) // 1000
        if millisecond != self._millisecond:
            self._begin_millisecond(millisecond)
        text = render(event, self._head)
        if text and self._is_bracketed:
            return f"{self._moment}{ENTRY_MARK}\n{text}\n{self._moment}{EXIT_MARK}"
        return text

    def _begin_millisecond(self, millisecond: int) -> None:
        self._millisecond = millisecond
        second, thousandths = divmod(millisecond, 1000)
        if second != self._second:
            self._second = second
            self._second_text = f"{datetime.fromtimestamp(second, UTC):%H:%M:%S}"
        self._moment = f"{self._second_text}.{thousandths:03d}"
        self._head = self._moment + self._prefix


# Of each kind of event: its lines, each begun by `p` (time and prefix) but for those that go on without.


def _accepted(event: TvsConnectionAccepted, p: str) -> str:
    number, peer, descriptor = event.accepted, event.peer, event.socket
    return (
        f"{p}Accepted TCP connection from socket {event.listening_socket:#010x}, fd = {descriptor}\n"
        f"{p}Total Session attempted = {event.attempted} accepted = {number}\n"
        f"{p}tvsGetNextThread\n"
        f"{p}Recd event\n"
        f"{p}new ph on fd {descriptor}\n"
        f"{p}{number}:UNKNOWN:Got a new SCB from RBTree\n"
        f"{p}ipAddrStr (Phone) {peer}\n"
        f"{p}{event.connection + 1}:UNKNOWN:Got a new ph conn {peer} on {descriptor}, Total Acc = {number}..\n"
        f"{p}addded {descriptor} to readset"
    )


def _handshake_begun(event: TvsHandshakeBegun, p: str) -> str:
    return f"{p}after select, {event.socket} was set\n{p}ipAddrStr (Phone) {event.peer}"


def _handshake_done(event: TvsHandshakeDone, p: str) -> str:
    return (
        f"{p}tvsSSLHandShakeNotify\n"
        f"{p}{event.peer}: tvsSSLHandShake Session ciphers - {event.cipher}\n"
        f"{p}addded {event.socket} to readset\n"
        f"{p}Recd event\n"
        f"{p}TLS HS Done for ph_conn"
    )


def _request(event: TvsRequestReceived, p: str) -> str:
    # one more than the accepted count, as in the published trace [inferred]
    connection, kind = event.connection + 1, event.message_type
    serial, issuer = serial_hex(event.serial), printable(event.issuer)
    came = (
        f"{p}{connection}:UNKNOWN:Incoming Phone Msg:\n"
        f"{_dump(event.data, p)}"
        f"{p.join(_DECODED[kind])}{event.payload_length}\n"
        f"{p}{connection}:UNKNOWN:TVS CORE: Rcvd Event: {_EVENT_NAMES[kind]} in State: TVS_STATE_AWAIT_REQ\n"
    )
    if kind == MessageType.QUERY_CERTIFICATE_REQUEST:
        return (
            f"{came}{p}tvsHandleQueryCertReq\n"
            f"{p}tvsHandleQueryCertReq : Subject Name is: {printable(event.subject)}\n"
            f"{p}tvsHandleQueryCertReq : Issuer Name is: {issuer}\n"
            f"{p}tvsHandleQueryCertReq : Serial Number is: {serial}"
        )
    return (
        f"{came}{p}tvsGetIssuerNameFromX509 - issuerName : {issuer}  and Length: {len(event.issuer)}\n"
        f"{p}tvsGetSerialNumberFromX509 - serialNumber : {serial} and Length: {len(event.serial)}"
    )


def _looked_up(event: TvsCertificateLookedUp, p: str) -> str:
    steps = event.steps
    key = printable(event.key)
    text = "".join([_step(step, key, p) for step in steps])
    if not steps or not steps[-1].found:
        return f"{text}{p}getCertificateInformation(cert) : certificate not found"
    text = f"{text}{p}convertX509ToDER -x509cert : {X509_ADDRESS}"
    if event.message_type == MessageType.QUERY_CERTIFICATE_REQUEST:
        # published without its neighbours: this place, where the published trace has a gap, is [inferred]
        return f"{text}\n{p}tvsHandleQueryCertReq: Timer started from tvsHandleNewPhConnection"
    return f"{text}\n{p}Certificate compare return =0\n{p}Certificate found and equal" if event.equal else text


def _step(step: CacheStep, key: str, p: str) -> str:
    function = f"{_CACHE_CLASSES[step.cache]}::getCertificateInformation"
    looking = f"{p}{function} - Looking up the certificate cache using Unique MAP ID : {key}\n"
    if not step.found:
        return f"{looking}{p}ERROR:{function} - Cannot find the certificate in the cache\n"
    roles = "".join([f"{p}{function} - {{role : {role}}}\n" for role in step.roles])
    return f"{looking}{p}{function} - Found entry {{rolecount : {len(step.roles)}}}\n{roles}"


def _response(event: TvsResponseSent, p: str) -> str:
    message, kind = "", event.message_type
    if kind is not None and event.payload_length is not None:
        message = (
            f"{p}{event.connection + 1}:UNKNOWN:{_ACTIONS[kind]}\n"
            f"{p.join(_DECODED[kind])}{event.payload_length}\n"
            f"{p.join(_answered(event.certificate, event.status, event.ttl_s))}"
        )
    return f"{message}{p}Sending TLS Msg ..\n{_dump_answer(event.data, p)}{p}ipAddrStr (Phone) {event.peer}"


@lru_cache(maxsize=_REMEMBERED_ANSWERS)
def _answered(certificate: bytes | None, status: int | None, ttl_s: int | None) -> Pieces:
    """Elements under CAPF's labels (facts 2.5). What an absent element prints is UNKNOWN: nothing, here."""
    pieces = [""]
    if certificate is not None:
        pieces += [f"ReasonInfo : {_as_c_string(certificate)}\n", "Number of Certs : 1\n", "Cert[0] :\n"]
        pieces += [f"Cert Type : 0\n{_dump_head(certificate)}", *_rows(certificate)]
    pieces.append(f"Version : {status}\n")
    if ttl_s is not None:
        seconds = ttl_s.to_bytes(4, "big")
        pieces += [f"PublicKey :\n{_dump_head(seconds)}", *_rows(seconds)]
    return tuple(pieces)


_DECODED: Final[dict[int, Pieces]] = {
    kind: (
        "",
        "tvsPhoneDecodeMsg -\nDecoded Phone Msg:\n",
        f"Protocol Discriminator: {PROTOCOL_DISCRIMINATOR:x}\n",
        f"MsgType : {kind.log_name}\n",
        "Session Id : 0\n",
        "Length : ",
    )
    for kind in MessageType
}


def _cache_loaded(event: TvsCacheLoaded, p: str) -> str:
    """Only the local CTL's refreshing is published (facts 2.7); that a key's eToken lines follow it is [inferred]."""
    if event.cache is not CacheName.LOCAL_CTL or not event.changed:
        return ""
    lines = [
        "",
        "CertificateCache::localCTLCacheMonitor - CTLFile.tlv has been modified . Recaching CTL Certificate Cache",
        "updateLocalCTLCache : Refreshing the local CTL certificate cache",
        *[line for key in event.keys for line in _cached(key)],
    ]
    return f"\n{p}".join(lines)[1:]


def _cached(key: str) -> list[str]:
    lines = [f"tvs_sql_get_all_CTL_certificate - Unique Key used for Caching :: {printable(key)}, length : {len(key)}"]
    if key.endswith(ETOKEN_ISSUERS):
        lines += ["subjectName and issuerName matches for eToken certificate", "This is SAST eToken cert"]
    return lines


def _dump(data: bytes, p: str) -> str:
    return f"{_dump_head(data)}{p.join(('', *_rows(data)))}"


def _dump_answer(data: bytes, p: str) -> str:
    """The first row alone tells sessions apart: the others are the same in all answers about one certificate."""
    first = data[:HEX_DUMP_ROW].hex(" ")
    return f"{_dump_head(data)}{p}{first}\n{p.join(_rows_behind(data[HEX_DUMP_ROW:HEX_DUMP_BYTES]))}"


def _dump_head(data: bytes) -> str:
    return f"HEX_DUMP: Len = {len(data)}:\n"


def _rows(data: bytes) -> list[str]:
    shown = data[:HEX_DUMP_BYTES].hex(" ")
    return [f"{shown[at : at + _ROW_TEXT - 1]}\n" for at in range(0, len(shown), _ROW_TEXT)]


@lru_cache(maxsize=_REMEMBERED_ANSWERS)
def _rows_behind(data: bytes) -> Pieces:
    return "", *_rows(data)


def _as_c_string(data: bytes) -> str:
    """What `%s` makes of it: up to the first NUL. Bytes a terminal cannot show are left out."""
    return "".join(chr(byte) for byte in data.split(b"\0", 1)[0] if 0x20 <= byte < 0x7F)


_RENDERERS: Final[dict[type, Callable[[Any, str], str]]] = {
    TvsCacheLoaded: _cache_loaded,
    TvsConnectionAccepted: _accepted,
    TvsHandshakeBegun: _handshake_begun,
    TvsHandshakeDone: _handshake_done,
    TvsRequestReceived: _request,
    TvsCertificateLookedUp: _looked_up,
    TvsResponseSent: _response,
}
