"""Lean TFTP and HTTP clients for load: one thread, a selector, every byte that comes is compared.

Not the lab's phone: its client is written for a phone's manners, and would be the slower side of the measurement.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from bench.load import Bounds, LoadResult

RETRANSMISSION_S: Final = 1.0
MAX_RETRANSMISSIONS: Final = 5
OPERATION_S: Final = 30.0
DEFAULT_BLOCK_BYTES: Final = 512
_TURN_S: Final = 0.05
_RECEIVE_BYTES: Final = 65536
_DATA, _ACK, _ERROR = 3, 4, 5


class Client(Protocol):
    """One operation under way: a socket, and what to do when it can be read or nothing comes."""

    socket: socket.socket
    failure: str | None
    deadline_s: float

    def readable(self, result: LoadResult) -> bool:
        """Whether the operation is over; `failure` says whether it went wrong."""
        ...

    def silent(self, result: LoadResult, now_s: float) -> bool:
        """Called when `deadline_s` has passed; whether the operation is over."""
        ...


@dataclass(frozen=True, slots=True)
class TftpFile:
    """The conversation that must happen: `blocks[n]` is the one right n-th datagram (0: the OACK, if any)."""

    request: bytes
    blocks: tuple[bytes, ...]
    acknowledgements: tuple[bytes, ...]
    first: int

    @classmethod
    def of(cls, name: str, content: bytes, block_bytes: int) -> TftpFile:
        """With the blksize option (RFC 2348) for any but the default size."""
        pieces = [content[at : at + block_bytes] for at in range(0, len(content) + 1, block_bytes)]
        if len(pieces) > 0xFFFF:
            raise ValueError("block numbers would roll over")
        has_option = block_bytes != DEFAULT_BLOCK_BYTES
        option = b"blksize\0%d\0" % block_bytes * has_option
        blocks = [b"\0\6" + option, *(struct.pack(">HH", _DATA, n) + piece for n, piece in enumerate(pieces, start=1))]
        acknowledgements = tuple(struct.pack(">HH", _ACK, n) for n in range(len(blocks)))
        request = b"\0\1" + name.encode() + b"\0octet\0" + option
        return cls(request, tuple(blocks), acknowledgements, 0 if has_option else 1)


class TftpClient:
    """Reads one file; the server's transfer ID is that of its first answer, the kernel drops all others."""

    __slots__ = (
        "_expected",
        "_file",
        "_is_connected",
        "_last",
        "_sent_again",
        "_server",
        "deadline_s",
        "failure",
        "socket",
    )

    def __init__(self, server: tuple[str, int], file: TftpFile) -> None:
        self._file = file
        self._server = server
        self._expected = file.first
        self._is_connected = False
        self._sent_again = 0
        self._last = file.request
        self.failure: str | None = None
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.deadline_s = time.perf_counter() + RETRANSMISSION_S
        self.socket.sendto(file.request, server)

    def readable(self, result: LoadResult) -> bool:
        try:
            data = self._receive()
        except BlockingIOError:
            return False
        except OSError as error:
            self.failure = type(error).__name__
            return True
        file, expected = self._file, self._expected
        if data != file.blocks[expected]:
            return self._unexpected(data, result)
        self._last = file.acknowledgements[expected]
        self.socket.send(self._last)
        self._expected = expected + 1
        self._sent_again = 0
        self.deadline_s = time.perf_counter() + RETRANSMISSION_S
        return expected + 1 == len(file.blocks)

    def silent(self, result: LoadResult, now_s: float) -> bool:
        if self._sent_again == MAX_RETRANSMISSIONS:
            self.failure = "no answer"
            return True
        self._sent_again += 1
        result.retransmissions += 1
        self.deadline_s = now_s + RETRANSMISSION_S
        if self._is_connected:
            self.socket.send(self._last)
        else:
            self.socket.sendto(self._last, self._server)
        return False

    def _receive(self) -> bytes:
        if self._is_connected:
            return self.socket.recv(_RECEIVE_BYTES)
        data, peer = self.socket.recvfrom(_RECEIVE_BYTES)
        self.socket.connect(peer)
        self._is_connected = True
        return data

    def _unexpected(self, data: bytes, result: LoadResult) -> bool:
        """A right datagram that came before is a repetition; everything else is a wrong byte or an error."""
        if data in self._file.blocks[self._file.first : self._expected]:
            result.repeats += 1
            return False
        self.failure = "error packet" if data[:2] == struct.pack(">H", _ERROR) else "wrong bytes"
        return True


class HttpClient:
    """GETs one file on a connection of its own."""

    __slots__ = ("_content", "_received", "_request", "deadline_s", "failure", "socket")

    def __init__(self, server: tuple[str, int], name: str, content: bytes) -> None:
        self._content = content
        self._received = bytearray()
        self.failure: str | None = None
        self.deadline_s = time.perf_counter() + OPERATION_S
        # on loopback connect returns when the kernel has queued the connection: no round trip is waited for
        self.socket = socket.create_connection(server, timeout=OPERATION_S)
        self.socket.sendall(f"GET /{name} HTTP/1.1\r\nHost:{server[0]}:{server[1]}\r\n\r\n".encode())
        self.socket.setblocking(False)

    def readable(self, _result: LoadResult) -> bool:
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            self.failure = type(error).__name__
            return True
        self._received += data
        if data:
            return False
        head, _, body = self._received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or body != self._content:
            self.failure = "wrong answer"
        return True

    def silent(self, _result: LoadResult, _now_s: float) -> bool:
        self.failure = "no answer"
        return True


@dataclass(slots=True)
class _Pool:
    """The clients under way."""

    begin: Callable[[], Client]
    bounds: Bounds
    result: LoadResult = field(default_factory=LoadResult)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    started: int = 0
    under_way: dict[Client, float] = field(default_factory=dict)

    def fill(self, ends_s: float) -> None:
        """Keep `concurrency` operations going until the bounds are reached."""
        bounds = self.bounds
        while len(self.under_way) < bounds.concurrency and self.started < bounds.operations:
            now_s = time.perf_counter()
            if now_s > ends_s:
                return
            self.started += 1
            try:
                client = self.begin()
            except OSError as error:
                self.result.failures[type(error).__name__] += 1
                continue
            self.under_way[client] = now_s
            self.selector.register(client.socket, selectors.EVENT_READ, client)

    def turn(self) -> None:
        for key, _ in self.selector.select(_TURN_S):
            client: Client = key.data
            if client.readable(self.result):
                self.end(client)

    def chase_silent(self) -> None:
        now_s = time.perf_counter()
        for client in [client for client in self.under_way if client.deadline_s < now_s]:
            if client.silent(self.result, now_s):
                self.end(client)

    def end(self, client: Client) -> None:
        self.selector.unregister(client.socket)
        client.socket.close()
        begun_s = self.under_way.pop(client)
        if client.failure is None:
            self.result.done += 1
            self.result.latencies_s.append(time.perf_counter() - begun_s)
        else:
            self.result.failures[client.failure] += 1


def load_files(begin: Callable[[], Client], bounds: Bounds) -> LoadResult:
    """Run the load in this process; `begin` starts one operation."""
    pool = _Pool(begin, bounds)
    begins_s = chased_s = time.perf_counter()
    with pool.selector:
        while True:
            pool.fill(begins_s + bounds.seconds)
            if not pool.under_way:
                break
            pool.turn()
            if time.perf_counter() - chased_s > _TURN_S:
                chased_s = time.perf_counter()
                pool.chase_silent()
    pool.result.wall_s = time.perf_counter() - begins_s
    return pool.result


def load_tftp(address: str, port: int, file: TftpFile, bounds: Bounds) -> LoadResult:
    return load_files(lambda: TftpClient((address, port), file), bounds)


def load_http(address: str, port: int, name: str, content: bytes, bounds: Bounds) -> LoadResult:
    return load_files(lambda: HttpClient((address, port), name, content), bounds)
