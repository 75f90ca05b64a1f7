"""A phone's HTTP reader: one GET on one connection to port 6970, written byte for byte as the phone does."""

from __future__ import annotations

import asyncio
from typing import Final

from cucm.errors import DecodeError, EncodeError, LimitExceeded, WireError
from cucm.net.stream import Stream
from cucm.net.tls import open_stream
from cucm.records import dataclass
from phone_agent.commands import FetchAttempt, FetchStatus
from phone_agent.network_trouble import words_of

HTTP_PORT: Final = 6970
MAX_FILE_SIZE: Final = 2048 * 1024
"""Bytes; `GHTTP-LIMIT downdload will be limited to 2048 KB` (facts 3.5)."""
MAX_HEAD: Final = 16 * 1024
CONNECT_TIMEOUT_S: Final = 5.0
"""UNKNOWN on the phone."""
DEADLINE_S: Final = 30.0
"""For one whole file, connecting included. UNKNOWN on the phone."""

MAX_DETAIL: Final = 128
"""Characters of a server's status line that are kept for the record."""

_STATUSES: Final = {
    401: FetchStatus.ACCESS_ERROR,
    403: FetchStatus.ACCESS_ERROR,
    404: FetchStatus.NOT_FOUND,
}


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """`content_length` is None where the server announced none: the file ends with the connection."""

    status: int
    phrase: str
    content_length: int | None


def get_request(file_name: str, host: str, port: int = HTTP_PORT) -> bytes:
    """The phone's request: no space after `Host:`, no other header (facts 7.1: 64 bytes in the published trace).

    Raises EncodeError for a name that would change the request's shape.
    """
    if not file_name or not file_name.isascii() or not file_name.isprintable() or " " in file_name:
        raise EncodeError("not a file name that a request line can carry", where=repr(file_name))
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"GET /{file_name} HTTP/1.1\r\nHost:{authority}\r\n\r\n".encode("ascii")


def decode_head(head: bytes) -> ResponseHead:
    """Status line and headers, without the empty line; names in any case and order. Raises DecodeError."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    code, _, phrase = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdecimal():
        raise DecodeError("no HTTP/1 status line", offset=0, path="status line")
    headers = [_decode_header(line) for line in lines]
    if any(name == "transfer-encoding" for name, _ in headers):
        raise DecodeError("a transfer coding, which was not asked for", offset=0, path="Transfer-Encoding")
    lengths = {value for name, value in headers if name == "content-length"}
    return ResponseHead(int(code), phrase, _decode_length(lengths))


def _decode_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise DecodeError("not a header line", offset=0, path=repr(line[:40]))
    return name.lower(), value.strip()


def _decode_length(values: set[str]) -> int | None:
    if not values:
        return None
    text = values.pop()
    if values or not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise DecodeError("no single length in bytes", offset=0, path="Content-length")
    return int(text)


class Response:
    """A response without I/O: give it what comes in, `content` is set when the file is whole.

    Bytes after the announced length are left alone: the phone asks for one file per connection (facts 7.1).
    Raises DecodeError and LimitExceeded.
    """

    def __init__(self, max_size: int = MAX_FILE_SIZE) -> None:
        self.head: ResponseHead | None = None
        self.content: bytes | None = None
        self._max_size = max_size
        self._received = bytearray()

    def receive_data(self, data: bytes) -> None:
        self._received += data
        if self.head is None:
            self._take_head()
        if self.head is None:
            return
        length = self.head.content_length
        if (len(self._received) if length is None else length) > self._max_size:
            raise LimitExceeded(f"larger than {self._max_size} bytes")
        if length is not None and len(self._received) >= length:
            self.content = bytes(self._received[:length])

    def receive_eof(self) -> None:
        if self.head is None:
            raise DecodeError("the connection ended in the head", offset=len(self._received), path="head")
        if self.head.content_length is not None:
            what = f"the connection ended, {self.head.content_length} bytes were announced"
            raise DecodeError(what, offset=len(self._received), path="body")
        self.content = bytes(self._received)

    def _take_head(self) -> None:
        head, end, rest = bytes(self._received).partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD:
            raise LimitExceeded(f"response head larger than {MAX_HEAD} bytes")
        if end:
            self.head = decode_head(head)
            self._received = bytearray(rest)


async def fetch_http(
    server: str,
    file_name: str,
    *,
    port: int = HTTP_PORT,
    local_address: str | None = None,
    max_size: int = MAX_FILE_SIZE,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
) -> tuple[FetchAttempt, bytes | None]:
    """Read one file; what goes wrong on the network is in the attempt's status.

    Raises EncodeError for a name that does not fit a request line.
    """
    request = get_request(file_name, server, port)
    try:
        async with asyncio.timeout(deadline_s):
            stream = await open_stream(server, port, local_address=local_address, connect_timeout_s=connect_timeout_s)
            try:
                status, detail, content = await _exchange(stream, request, max_size)
            finally:
                await stream.close()
    except TimeoutError as error:
        status, detail, content = FetchStatus.TIMEOUT, str(error) or f"not complete within {deadline_s:g} s", None
    except (OSError, WireError) as error:
        status, detail, content = FetchStatus.ERROR, words_of(error), None
    return FetchAttempt(server, "http", status, detail), content


async def _exchange(stream: Stream, request: bytes, max_size: int) -> tuple[FetchStatus, str, bytes | None]:
    stream.write(request)
    response = Response(max_size)
    while True:
        data = await stream.read()
        if data:
            response.receive_data(data)
        else:
            response.receive_eof()
        head = response.head
        if head is None:
            continue
        detail = f"{head.status} {head.phrase}"[:MAX_DETAIL]
        if head.status != 200:  # the page that explains it is of no use to a phone
            return _STATUSES.get(head.status, FetchStatus.ERROR), detail, None
        if response.content is not None:
            return FetchStatus.OK, detail, response.content
