"""HTTP on 6970 as CUCM's TFTP service speaks it: one file per connection, headers in Cisco's order (facts 8)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http
import re
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_to_bytes

from cucm.errors import DecodeError
from cucm.events import Emit
from cucm.events.files import (
    FailureReason,
    FileNotFound,
    FileRefused,
    FileRequested,
    FileServed,
    FileTransport,
    RefusalReason,
    TransferFailed,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.http import HTTP_RESPONSE, Status
from cucm.net.listener import Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import Address, Stream
from cucm.records import dataclass
from tftp_server.file_store import FileStore, NotServed, NotServedReason, look_up
from tftp_server.response_faults import BrokenOff, Delivery

HTTP_CONNECTIONS: Final = 2500
"""CUCM's own greatest number of HTTP connections (facts 8)."""
MAX_HEAD_BYTES: Final = 8 * 1024
MAX_REQUEST_LINE_BYTES: Final = 2 * 1024
MAX_HEADERS: Final = 64
CHUNK_BYTES: Final = 64 * 1024
TRANSFER_S: Final = 3600.0
"""However slowly a client takes a file, it does not keep its place longer than this."""
LINGER_BYTES: Final = 256 * 1024
LINGER_S: Final = 1.0
"""How much, and for how long, a refused client may still send before the connection is closed."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_TOKEN_CHARACTERS: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f]")

REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    503: "Service Unavailable",
}
"""Only `200 OK` is attested (facts 8); the other phrases are those of RFC 9110 [inferred]. A fault's status may be any
other: its phrase is looked up in Python's list."""

DEFAULT_HTTP_LIMITS: Final = Limits(connections=HTTP_CONNECTIONS, connections_per_address=HTTP_CONNECTIONS)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """`name` is the path without its first slash, percent-decoded; bytes that are no UTF-8 are escaped."""

    method: str
    name: str


def decode_head(head: bytes) -> RequestHead:
    """A request's head, up to and with its empty line. Raises `DecodeError`."""
    lines = head.removesuffix(_END_OF_HEAD).split(b"\r\n")
    if len(lines) > MAX_HEADERS + 1:
        raise DecodeError(f"{len(lines) - 1} header fields", offset=0, path="headers")
    decoded = _decode_request_line(lines[0])
    offset = len(lines[0]) + 2
    for line in lines[1:]:
        _check_header(line, offset)
        offset += len(line) + 2
    return decoded


def _decode_request_line(line: bytes) -> RequestHead:
    if len(line) > MAX_REQUEST_LINE_BYTES:
        raise DecodeError(f"a request line of {len(line)} bytes", offset=MAX_REQUEST_LINE_BYTES, path="request line")
    words = line.split(b" ")
    if len(words) != 3 or not words[0] or not _TOKEN_CHARACTERS.issuperset(words[0]):
        raise DecodeError("no METHOD /NAME HTTP/1.1", offset=0, path="request line")
    method, target, version = words
    if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise DecodeError("neither HTTP/1.1 nor HTTP/1.0", offset=len(line) - len(version), path="version")
    if not target.startswith(b"/"):
        raise DecodeError("a target that does not start with /", offset=len(method) + 1, path="target")
    return RequestHead(method.decode(), unquote_to_bytes(target[1:]).decode("utf-8", "backslashreplace"))


def _check_header(line: bytes, offset: int) -> None:
    name, colon, value = line.partition(b":")
    if not colon or not name or not _TOKEN_CHARACTERS.issuperset(name):
        raise DecodeError("not a header field", offset=offset, path="headers")
    if _CONTROL.search(value):
        raise DecodeError("a control character in a header field", offset=offset, path="headers")


def encode_head(status: int, length: int) -> bytes:
    """CUCM's response head: these header fields, in this order, and no other (facts 8)."""
    lines = (
        f"HTTP/1.1 {status} {REASONS.get(status) or _phrase_of(status)}",
        f"Content-length: {length}",
        "Cache-Control: no-store",
        "Content-type: */*",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _phrase_of(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class _Refused(Exception):
    def __init__(self, status: int, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail


class HttpServer:
    """Serves a `FileStore` by HTTP on one address."""

    def __init__(
        self,
        address: str,
        port: int,
        store: FileStore,
        *,
        emit: Emit,
        limits: Limits,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        self._faults = faults
        self._store = store
        self.emit = emit
        self._limits = limits
        self._listener = Listener(
            address,
            port,
            self._serve,
            # a phone has a request's time, and no more, to say its one request
            limits=replace(limits, idle_timeout_s=min(limits.idle_timeout_s, limits.request_timeout_s)),
            faults=faults.at(service="TFTP"),
            on_refused=self._tell_turned_away,
        )

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def connections(self) -> int:
        return self._listener.connections

    async def start(self) -> None:
        """Bind and listen; port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem."""
        await self._listener.start()

    async def stop(self) -> None:
        await self._listener.stop()

    async def crash(self) -> None:
        """Every connection is reset; nothing is said to a client."""
        await self._listener.crash()

    def set_reachability(self, how: Reachability) -> None:
        """See `Listener.set_reachability`."""
        self._listener.set_reachability(how)

    async def _serve(self, stream: Stream) -> None:
        name = ""
        try:
            head = await self._read_head(stream)
            if head is None:
                return
            request = _decode(head)
            name = request.name
            self.emit(FileRequested(*_who(stream, name), head))
            await self._answer(stream, request)
        except _Refused as refused:
            self.emit(FileRefused(*_who(stream, name), refused.reason, refused.status, refused.detail))
            stream.write(encode_head(refused.status, 0))
            await stream.drain()
            if refused.reason is not RefusalReason.BUSY:  # all others may have sent more than was read
                await _linger(stream)

    async def _read_head(self, stream: Stream) -> bytes | None:
        """None if the client leaves without having said anything."""
        received = b""
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                while _END_OF_HEAD not in received:
                    if len(received) > MAX_HEAD_BYTES:
                        raise _Refused(400, RefusalReason.MALFORMED, f"a head of more than {MAX_HEAD_BYTES} bytes")
                    more = await stream.read()
                    if not more and not received:
                        return None
                    if not more:
                        raise _Refused(400, RefusalReason.MALFORMED, "the request ends within its head")
                    received += more
        except TimeoutError:
            raise _Refused(408, RefusalReason.TIMEOUT, f"{len(received)} bytes came in time") from None
        return received[: received.index(_END_OF_HEAD) + len(_END_OF_HEAD)]

    async def _answer(self, stream: Stream, request: RequestHead) -> None:
        if request.method not in {"GET", "HEAD"}:
            raise _Refused(405, RefusalReason.METHOD, f"method {request.method}")
        action = self._faults.fire(HTTP_RESPONSE, file=request.name, peer=stream.peer_address[0])
        if isinstance(action, Status):
            raise _Refused(action.code, RefusalReason.FAULT, f"a fault answers {action.code}")
        try:
            file = look_up(self._store, request.name)
        except NotServed as error:
            if error.reason is NotServedReason.BUSY:
                raise _Refused(503, RefusalReason.BUSY, error.what) from error
            self.emit(FileNotFound(*_who(stream, request.name), error.what))
            stream.write(encode_head(404, 0))
            return
        delivery = Delivery.of(action, len(file), CHUNK_BYTES)
        head = encode_head(200, delivery.announced)
        if request.method == "GET":
            await self._send(stream, request.name, head, file, delivery)
        else:
            stream.write(head)

    async def _send(self, stream: Stream, name: str, head: bytes, file: bytes, delivery: Delivery) -> None:
        sent = _Sent()
        try:
            await _send_all(stream, head, memoryview(file)[: delivery.sent], delivery, sent)
            await stream.flush()  # what still waits here when the connection closes is cut for a client that is slow
            await delivery.break_off(stream)
        except BrokenOff as end:
            self.emit(TransferFailed(*_who(stream, name), FailureReason.FAULT, str(end), sent.bytes))
        except (OSError, asyncio.CancelledError) as error:
            self.emit(TransferFailed(*_who(stream, name), *_why(error), sent.bytes))
            raise
        else:
            self.emit(FileServed(*_who(stream, name), len(file), sent.digest.hexdigest()))

    def _tell_turned_away(self, peer: Address, why: str) -> None:
        who = (FileTransport.HTTP, *peer, "")
        self.emit(FileRefused(*who, RefusalReason.TOO_MANY_CONNECTIONS, None, why))


class _TooSlow(TimeoutError):
    pass


class _Sent:
    """How much of a file has gone, and its SHA-256 so far."""

    def __init__(self) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()


async def _send_all(stream: Stream, head: bytes, body: memoryview, delivery: Delivery, sent: _Sent) -> None:
    """The body in pieces, so that one big file neither blocks the loop nor fills the memory.

    The head leaves with a body of one piece, which saves a small file half of its system calls and segments.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + TRANSFER_S
    if not 0 < len(body) <= delivery.piece:
        stream.write(head)
        head = b""
    while sent.bytes < len(body):
        if loop.time() > ends:
            raise _TooSlow("the transfer has lasted too long")
        piece = bytes(body[sent.bytes : sent.bytes + delivery.piece])
        sent.digest.update(piece)
        stream.write(head + piece if head else piece)
        await stream.drain()
        sent.bytes += len(piece)
        if delivery.pause_s:
            await asyncio.sleep(delivery.pause_s)


def _decode(head: bytes) -> RequestHead:
    try:
        return decode_head(head)
    except DecodeError as error:
        raise _Refused(400, RefusalReason.MALFORMED, str(error)) from error


async def _linger(stream: Stream) -> None:
    """Read on for a while: a connection closed on unread input is reset, and takes the answer with it."""
    unread = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while unread > 0 and (data := await stream.read()):
                unread -= len(data)


def _who(stream: Stream, name: str) -> tuple[FileTransport, str, int, str]:
    return FileTransport.HTTP, *stream.peer_address, name


def _why(error: BaseException) -> tuple[FailureReason, str]:
    if isinstance(error, asyncio.CancelledError):
        return FailureReason.SERVER_STOPPED, "the server was stopped"
    if isinstance(error, _TooSlow):
        return FailureReason.TOO_SLOW, str(error)
    reason = FailureReason.SILENCE if isinstance(error, TimeoutError) else FailureReason.NETWORK
    return reason, str(error)
