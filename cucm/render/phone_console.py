"""Phone events as the console of an 88xx prints them: `3320 NOT Nov 29 06:33:59.909322 SECUREAPP-text`.

Successful lines: the seed, in its order and wording, with the corrections of facts 1, and a few of facts 7.1 and 7.2.
**Failure lines of an 88xx are UNKNOWN (facts 10)**: where something fails this prints the text of a 79xx (`EROR:` and
`SECD:` replaced by the 88xx frame) or of firmware strings, and `UNKNOWN` where not even those exist. They are marked
"79xx" or "UNKNOWN" below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cucm.errors import TrustReason
from cucm.events import Event, EventRecord
from cucm.events import phone as events
from cucm.render.text import printable

FIRST_LINE_NUMBER: Final = 3232
"""The seed's first line; counts up from here at each boot."""
FIRST_PROCESS_ID: Final = 870
"""`dgetfile(870)` fetches the CTL, `dgetfile(877)` the ITL."""
PROCESS_ID_STEP: Final = 7
CONNECTION_HANDLE: Final = "0x40e01270"
"""A memory address of the seed's phone; it means nothing."""
HANDSHAKE_STATES: Final = "c:14 s:15"
"""79xx (facts 10); what the two numbers say is UNKNOWN."""
NOT_FOUND_CODE: Final = "2"
"""`XXTP complete - status = 2` (facts 7.1); the codes of time-outs and errors are UNKNOWN."""
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SIGNER_NOT_IN_LIST: Final = frozenset(
    reason for reason in TrustReason if reason.startswith("tvs-") or reason is TrustReason.SIGNER_UNKNOWN
)


class Line(NamedTuple):
    """`process` and `text` are joined by a hyphen."""

    level: str
    process: str
    text: str


class PhoneConsole:
    """Renders one phone's events. Keeps the line number and the process id of file downloads."""

    def __init__(self) -> None:
        self._number = FIRST_LINE_NUMBER
        self._process_id = FIRST_PROCESS_ID - PROCESS_ID_STEP

    def lines(self, record: EventRecord) -> list[str]:
        """Console lines of one event; none for what a console does not show. Times are UTC."""
        if isinstance(record.event, events.BootStarted):
            self._number = FIRST_LINE_NUMBER
            self._process_id = FIRST_PROCESS_ID - PROCESS_ID_STEP
        if isinstance(record.event, events.FileRequested):
            self._process_id += PROCESS_ID_STEP
        render = _RENDERERS.get(type(record.event))
        return [] if render is None else [self._format(record.time, line) for line in render(record.event)]

    def _format(self, moment: float, line: Line) -> str:
        number, self._number = self._number, self._number + 1
        process = line.process.format(pid=self._process_id)
        text = printable(line.text.replace("{pid}", str(self._process_id)))  # addresses come from the network
        return f"{number} {line.level} {_timestamp(moment)} {process}-{text}"


def _timestamp(moment: float) -> str:
    when = datetime.fromtimestamp(moment, UTC)
    return f"{_MONTHS[when.month - 1]} {when:%d %H:%M:%S.%f}"


def _secure(level: str, text: str) -> Line:
    return Line(level, "SECUREAPP", text)


def _get_file(text: str) -> Line:
    return Line("NOT", "dgetfile({pid})", text)


# --- files ---------------------------------------------------------------------------------------------------------


def _file_requested(event: events.FileRequested) -> list[Line]:
    source = event.file_name.removesuffix(".sgn")
    lines = [
        Line("NOT", "downd", "DDFORK - execing [/usr/sbin/dgetfile][-L620][ ]"),
        _get_file(f"GETXXTP [GT{{pid}}][src={source}][dest={event.destination}][serv=][serv6=][sec={event.secure}]"),
        _get_file("In normal mode, call - > makeXXTPrequest (V6...)"),
    ]
    if not event.secure:
        return [*lines, _get_file("XXTP Non secure file requested")]
    approved = f"authenticated file approved - add .sgn if necessary -- {event.file_name}"
    return [*lines, _get_file("XXTP Secure file requested"), _get_file(approved)]


def _file_received(event: events.FileReceived) -> list[Line]:
    return [_get_file("XXTP complete - status = 100"), _get_file(f"XXTP actualserver [{event.server}]")]


def _file_not_received(event: events.FileNotReceived) -> list[Line]:
    if event.status == "not-found":
        return [_get_file(f"XXTP complete - status = {NOT_FOUND_CODE}"), _get_file("File not found")]
    return [_get_file(f"XXTP complete - status = UNKNOWN ({event.status})")]


# --- trust lists and configuration ---------------------------------------------------------------------------------


def _not_loaded(event: events.TrustListNotLoaded) -> list[Line]:
    return [_secure("WRN", f"Could not load {event.trust_list} File from persistent memory.")]


def _list_accepted(event: events.TrustListAccepted) -> list[Line]:
    unseen = event.basis in (events.TrustBasis.LEAP_OF_FAITH, events.TrustBasis.BLANK_ITL)
    major, minor = event.version
    return [
        # for a blank ITL the line is [inferred]: there too the file is taken unseen
        _secure("NOT", "Using leap of faith to accept TL file" if unseen else HASHES_MATCH),
        _secure("WRN", "AUTH: early exit from parser loop; old version header?"),
        *([_secure("WRN", f"AUTH: hdr ver {major}.{minor} (knows only upto 1.1)")] if (major, minor) > (1, 1) else []),
        _secure("NOT", "updateFromFile: TL parse to table: CTL_SUCCESS"),
        _secure("NOT", "updateFromFile: Updating master TL table"),
        _secure("DEB", "TL file verified successfully."),
        _secure("INF", "TL file updated."),
        Line("NOT", "JAVA", "ConfigManager updateCTL() rc=8 retryCount=0, failReason:Success"),
    ]


HASHES_MATCH: Final = "Hashes match... authentication successful."


def _list_refused(event: events.TrustListRefused) -> list[Line]:
    return _refused(event.path, event.reason)


def _configuration_accepted(event: events.ConfigurationAccepted) -> list[Line]:
    unseen = event.basis in (events.TrustBasis.LEAP_OF_FAITH, events.TrustBasis.UNSIGNED_ALLOWED)
    return [] if unseen else [_secure("NOT", HASHES_MATCH)]


def _configuration_refused(event: events.ConfigurationRefused) -> list[Line]:
    return [] if event.reason is None else _refused(event.path, event.reason)


def _refused(path: str, reason: TrustReason) -> list[Line]:
    """79xx (facts 10): only `errcode 19 (signer not in CTL)` was seen, the codes of the other reasons are UNKNOWN."""
    known = reason in _SIGNER_NOT_IN_LIST
    code = "errclass 8, errcode 19 (signer not in CTL)" if known else f"errclass UNKNOWN ({reason})"
    failed_tvs = [_secure("ERR", "Failed to validate cert using TVS")] if reason.startswith("tvs-") else []
    return [
        *failed_tvs,
        _secure("ERR", f"verifyFile: sgn verify file failed <{path}>, {code}"),
        _secure("ERR", f"verifyFile: verify FAILED, <{path}>"),
    ]


# --- TVS -----------------------------------------------------------------------------------------------------------


def _tvs_not_used(event: events.TvsNotUsed) -> list[Line]:
    """Firmware strings (facts 7.2)."""
    if event.reason is TrustReason.TVS_NOT_IN_TRUST_LIST:
        return [_secure("WRN", "Not using TVS - TVS not in Trust list")]
    return [_secure("WRN", "VALIDATE CERT - TVS not enabled")]


def _cache_missed(_event: events.TvsCacheMissed) -> list[Line]:
    """79xx (facts 7.2)."""
    return [
        _secure("DEB", "TVS Certificate Authentication request"),
        _secure("DEB", "No matching entry found at cache"),
    ]


def _cache_flushed(_event: events.TvsCacheFlushed) -> list[Line]:
    """79xx (facts 7.2)."""
    return [_secure("NOT", "tvsFlushCertCache: Completed TVS Certificate cache flush request")]


def _connecting(event: events.TvsConnecting) -> list[Line]:
    return [_secure("INF", f"Attempting connect to TVS server addr [{event.address}], mode [IPv4]")]


def _connected(event: events.TvsConnected) -> list[Line]:
    address, descriptor = event.address, event.descriptor
    service = event.type_of_service
    return [
        *([] if service is None else [_secure("INF", f"TOS set to [{service}] on sock, [{address}][{descriptor}]")]),
        _secure("INF", f"TCP connect() successful, [{address}] [{descriptor}]"),
        _secure("DEB", f"BIO created with: addr:{address}, port:{event.port}, mode: IPv4"),
        _secure("INF", "Sec SSL Connection - TVS."),
    ]


def _client_certificate(event: events.TvsClientCertificateChosen) -> list[Line]:
    setup = "SSL session setup - "
    return [
        _secure("INF", f"{setup}Requesting Cert"),
        _secure("DEB", "Obtaining certificate."),
        _secure("INF", f"{setup}Get Active cert ok"),
        _secure("DEB", f"{setup}cert len={event.certificate_length}, type={event.certificate_type}"),
        _secure("DEB", f"Certificate subject name = {event.subject}"),
        _secure("DEB", f"{setup}Certificate issuer name = {event.issuer}"),
        _secure("INF", f"{setup}Requesting Pkey"),
        _secure("INF", f"{setup}Get private key ok"),
        _secure("DEB", f"{setup}key len={event.key_length}"),
        _secure("INF", "Setup SSL session - SSL use certificate okay"),
        _secure("INF", "Setup SSL session - SSL use private key okay"),
    ]


CHECK_STATUS: Final = "Sec SSL Connection - check status & perform handshake."


def _handshake_started(event: events.TvsHandshakeStarted) -> list[Line]:
    handle = f"handle {CONNECTION_HANDLE}, connDesc {event.descriptor} to table."
    return [_secure("DEB", f"Sec SSL Connection - Added SSL connection {handle}"), _secure("DEB", CHECK_STATUS)]


def _handshake_waiting(event: events.TvsHandshakeWaiting) -> list[Line]:
    waiting = f"Blocked TVS Secure Connection - Waiting ({event.flight}) ...."
    return [_secure("DEB", waiting), _secure("DEB", CHECK_STATUS)]


def _server_checked(event: events.TvsServerCertificateChecked) -> list[Line]:
    check = "SSL session setup Cert Verification - "
    asked = [
        _secure("DEB", f"{check}Role is = {event.role}"),
        _secure("INF", f"{check}Invoking certificate validation helper plugin."),
        _secure("INF", f"{check}Certificate validation helper plugin returned."),
    ]
    if not event.valid:  # UNKNOWN on an 88xx: the seed's words, negated
        return [
            *asked,
            _secure("ERR", f"{check}Certificate is invalid."),
            _secure("DEB", f"{check}returning validation result = 0"),
        ]
    return [
        *asked,
        _secure("INF", f"{check}Certificate is valid."),
        _secure("DEB", f"{check}returning validation result = 1"),
        # the downloader's child has ended meanwhile and the signal woke its accept() [inferred]; once in the seed, here
        Line("ERR", "downd", 'SOCKET accept errno=4 "Interrupted system call"'),
    ]


def _handshake_succeeded(event: events.TvsHandshakeSucceeded) -> list[Line]:
    return [
        _secure("NOT", "Sec SSL Connection - Handshake successful."),
        _secure("INF", "Sec SSL Connection - caching disabled, session not saved"),
        _secure("DEB", "Connection to server succeeded"),
        _secure("DEB", f"TVS provider Init - connect returned TVS srvr sock: {event.descriptor}"),
    ]


def _request_sent(event: events.TvsRequestSent) -> list[Line]:
    length = len(event.message)
    process = "TVS process request - "
    return [
        _secure("DEB", f"{process}processing TVS Query Certificate request."),
        _secure("NOT", f"{process}Successfully sent the TVS request to TVS server, bytes written : {length}"),
        _secure("DEB", f"==== {process}request byte dump ====, len = {length}"),
    ]


def _response_received(event: events.TvsResponseReceived) -> list[Line]:
    length = len(event.message)
    return [
        _secure("DEB", f"TVS Service receives {length} bytes of data"),
        _secure("DEB", f"==== TVS process response - response byte dump ====, len = {length}"),
        _secure("DEB", "Found the work order from pending req list element at index 0"),
    ]


def _certificate_cached(event: events.TvsCertificateCached) -> list[Line]:
    return [_secure("INF", f"TVS added cert to TVS cache - expires in {event.ttl_s // 3600} hours")]


def _query_failed(event: events.TvsQueryFailed) -> list[Line]:
    """79xx (facts 10, S-118699)."""
    failed = f"clpSetupSsl: ** SSL handshake failed, <{event.address}> {HANDSHAKE_STATES}"
    handshake = event.reason in (TrustReason.TVS_HANDSHAKE_FAILED, TrustReason.TVS_CERTIFICATE_NOT_TRUSTED)
    return [
        *([_secure("ERR", failed)] if handshake else []),
        _secure("ERR", f"clpSndStatus: SSL CLNT ERR, srvr<{event.address}>"),
    ]


_RENDERERS: Final[Mapping[type[Event], Callable[[Any], list[Line]]]] = MappingProxyType(
    {
        events.FileRequested: _file_requested,
        events.FileReceived: _file_received,
        events.FileNotReceived: _file_not_received,
        events.TrustListNotLoaded: _not_loaded,
        events.TrustListAccepted: _list_accepted,
        events.TrustListRefused: _list_refused,
        events.ConfigurationAccepted: _configuration_accepted,
        events.ConfigurationRefused: _configuration_refused,
        events.TvsNotUsed: _tvs_not_used,
        events.TvsCacheMissed: _cache_missed,
        events.TvsCacheFlushed: _cache_flushed,
        events.TvsConnecting: _connecting,
        events.TvsConnected: _connected,
        events.TvsClientCertificateChosen: _client_certificate,
        events.TvsHandshakeStarted: _handshake_started,
        events.TvsHandshakeWaiting: _handshake_waiting,
        events.TvsServerCertificateChecked: _server_checked,
        events.TvsHandshakeSucceeded: _handshake_succeeded,
        events.TvsRequestSent: _request_sent,
        events.TvsResponseReceived: _response_received,
        events.TvsCertificateCached: _certificate_cached,
        events.TvsQueryFailed: _query_failed,
    }
)
