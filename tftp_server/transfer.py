"""One TFTP read as the server plays it, without sockets or clocks (RFC 1350, 2347, 2348, 2349, 7440).

Packets are numbered from 1 without end; the option acknowledgement counts as packet 0. What was acknowledged is a
number too, so "send", "go back" and "done" are one subtraction each, and the 16-bit numbers on the wire roll over
wherever they must.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cucm.errors import DecodeError
from cucm.events.files import FailureReason, RefusalReason
from cucm.records import dataclass
from tftp_server import packets
from tftp_server.packets import ErrorCode, Operation, Request
from tftp_server.prepared_packets import Packets, PreparedFiles

DEFAULT_BLOCK_SIZE: Final = 512
SMALLEST_BLOCK_SIZE: Final = 8
LARGEST_BLOCK_SIZE: Final = 65464
"""RFC 2348."""
LARGEST_WINDOW: Final = 65535
"""RFC 7440; what we grant is `TransferLimits.window_blocks` at most."""
MAX_NETASCII_BYTES: Final = 4 * 1024 * 1024
"""A text file is converted at one go on the event loop; phones ask for octets."""
_ACKNOWLEDGEMENT: Final = Operation.ACKNOWLEDGEMENT.to_bytes(2, "big")
_NOBODY_SAYS: Final = None
"""Equal to no datagram, not even to an empty one: whatever comes has to be looked at."""


class TransferState(StrEnum):
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Bounds of one transfer. The time to wait doubles from `first_timeout_s` to `longest_timeout_s` with every try."""

    tries: int = 6
    first_timeout_s: float = 1.0
    longest_timeout_s: float = 8.0
    timeout_option_s: int = 30
    """A longer `timeout` asked for by the client (RFC 2349 allows 255) is not granted."""
    window_blocks: int = 64
    window_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Terms:
    """What client and server agreed on; `granted` are the options of the OACK, in the order they were asked."""

    block_size: int = DEFAULT_BLOCK_SIZE
    window_blocks: int = 1
    timeout_s: int | None = None
    granted: tuple[tuple[str, str], ...] = ()


_PLAIN_TERMS: Final = Terms()


class RequestRefused(Exception):
    """A request that gets an ERROR packet: `code` and `text` of it, and our `reason`."""

    def __init__(self, reason: RefusalReason, code: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.code = code
        self.text = text


def negotiate(options: Sequence[tuple[str, str]], size: int, limits: TransferLimits) -> Terms:
    """Grant options: one that is unknown or out of its range is left out of the OACK, as RFC 2347 has it."""
    asked = {name: number for name, text in options if (number := _number(text)) is not None}
    values: dict[str, int] = {}
    if (block := asked.get("blksize", 0)) >= SMALLEST_BLOCK_SIZE:
        values["blksize"] = min(block, LARGEST_BLOCK_SIZE)
    block_size = values.get("blksize", DEFAULT_BLOCK_SIZE)
    if 1 <= (window := asked.get("windowsize", 0)) <= LARGEST_WINDOW:
        values["windowsize"] = min(window, limits.window_blocks, max(1, limits.window_bytes // block_size))
    if 1 <= (timeout := asked.get("timeout", 0)) <= limits.timeout_option_s:
        values["timeout"] = timeout
    if "tsize" in asked and size:  # curl takes a size of 0 for an error; left out, it reads an empty file
        values["tsize"] = size
    granted = tuple((name, str(values[name])) for name, _ in options if name in values)
    return Terms(block_size, values.get("windowsize", 1), values.get("timeout"), granted)


def _number(text: str) -> int | None:
    return int(text) if 0 < len(text) <= 10 and text.isascii() and text.isdigit() else None


def in_mode(mode: str, file: bytes) -> bytes:
    """The file as it goes over the wire in `mode`. Raises `RequestRefused` for mail and for unknown modes."""
    if mode == "octet":
        return file
    if mode != "netascii":
        raise RequestRefused(RefusalReason.MODE, ErrorCode.ILLEGAL_OPERATION, "Illegal TFTP mode")
    if len(file) > MAX_NETASCII_BYTES:
        raise RequestRefused(RefusalReason.TOO_LARGE, ErrorCode.UNDEFINED, "File too large for netascii")
    return _netascii(file)


@lru_cache(maxsize=8)
def _netascii(file: bytes) -> bytes:
    """Local text to netascii: LF becomes CR LF, CR becomes CR NUL (RFC 764 by way of RFC 1350)."""
    return file.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


class ReadTransfer:
    """The sending of one file. Every call that may send returns the datagrams to send, in order.

    `state` tells when it is over; `timeout_s` how long to wait for the client before calling `timed_out`. `prepare`
    gives the packets of a file, by its bytes as they go over the wire and the block size.
    """

    __slots__ = (
        "_acknowledged",
        "_attempt",
        "_awaited",
        "_file",
        "_last",
        "_limits",
        "_may_repeat",
        "_option_acknowledgement",
        "_packets",
        "_repeated",
        "_terms",
        "_wait_s",
        "_wire_bytes",
        "detail",
        "failure",
        "file_size",
        "request",
        "retransmissions",
        "state",
    )

    def __init__(
        self,
        request: Request,
        file: bytes,
        limits: TransferLimits,
        prepare: Callable[[bytes, int], Packets] | None = None,
    ) -> None:
        """Raises `RequestRefused` for write requests and for modes other than octet and netascii."""
        if request.operation is not Operation.READ_REQUEST:
            raise RequestRefused(RefusalReason.WRITE_REQUEST, ErrorCode.ACCESS_VIOLATION, "Access violation")
        data = in_mode(request.mode, file)
        self._terms = terms = negotiate(request.options, len(data), limits) if request.options else _PLAIN_TERMS
        sent = (prepare or PreparedFiles().packets)(data, terms.block_size)
        self.request = request
        self.file_size = len(file)
        self.state = TransferState.ACTIVE
        self.failure: FailureReason | None = None
        self.detail = ""
        self.retransmissions = 0
        self._file = sent if data is file else file  # whoever knows the digest, which is that of the file as it is
        self._packets = sent.packets
        self._wire_bytes = len(data)
        self._limits = limits
        self._option_acknowledgement = packets.encode_option_acknowledgement(terms.granted) if terms.granted else b""
        self._acknowledged = -1 if terms.granted else 0
        self._last = sent.count
        self._attempt = 1
        self._wait_s = float(terms.timeout_s or limits.first_timeout_s)
        self._may_repeat = terms.window_blocks > 1
        self._repeated = False
        self._awaited = self._next_awaited()

    @property
    def terms(self) -> Terms:
        return self._terms

    @property
    def timeout_s(self) -> float:
        return self._wait_s

    @property
    def attempt(self) -> int:
        """How often the packets that are now waiting for an acknowledgement were sent."""
        return self._attempt

    @property
    def next_block(self) -> int:
        """The first packet that is not acknowledged; 0 is the option acknowledgement."""
        return self._acknowledged + 1

    @property
    def untouched(self) -> bool:
        """Whether the client has not acknowledged anything yet."""
        return self._acknowledged == (-1 if self._terms.granted else 0)

    @property
    def sent_bytes(self) -> int:
        """Bytes the client acknowledged."""
        return min(max(self._acknowledged, 0) * self._terms.block_size, self._wire_bytes)

    def start(self) -> Sequence[bytes]:
        return self._window()

    def receive(self, datagram: bytes) -> Sequence[bytes]:
        """Take a datagram from the client's own address and port."""
        if datagram == self._awaited:
            # the trick: in lock-step the one datagram that brings the transfer forward is known beforehand, so that
            # a block of a network that loses nothing costs a comparison and a look into a tuple
            self._acknowledged = number = self._acknowledged + 1
            if number == self._last:
                self.state = TransferState.DONE
                self._awaited = _NOBODY_SAYS
                return ()
            packet = self._packets[number]
            self._awaited = _ACKNOWLEDGEMENT + packet[2:4]
            return (packet,)
        return self._take(datagram)

    def _take(self, datagram: bytes) -> Sequence[bytes]:
        if len(datagram) < packets.HEADER.size:
            return self._violation(f"a packet of {len(datagram)} bytes")
        operation, number = packets.HEADER.unpack_from(datagram)
        if operation == Operation.ACKNOWLEDGEMENT:
            return self._take_acknowledgement(number)
        if operation == Operation.ERROR:
            code, text = packets.decode_error(datagram)
            self.fail(FailureReason.CLIENT_ERROR, f"ERROR {code} {text}"[:200])
            return ()
        return self._violation(_name_of(datagram))

    def timed_out(self) -> Sequence[bytes]:
        """Nothing came within `timeout_s`: send again, or give up after the last try."""
        if self._attempt >= self._limits.tries:
            self.fail(FailureReason.SILENCE, f"no acknowledgement of block {self.next_block} in {self._attempt} tries")
            return ()
        self._attempt += 1
        if self._terms.timeout_s is None:
            self._wait_s = min(self._wait_s * 2, self._limits.longest_timeout_s)
        return self._again()

    def fail(self, reason: FailureReason, detail: str) -> None:
        """End it from outside: the client asked anew, the network or the server is gone."""
        if self.state is TransferState.ACTIVE:
            self.state = TransferState.FAILED
            self.failure = reason
            self.detail = detail

    def digest(self) -> str:
        """SHA-256 of the file in hex; meant to be asked once the transfer is done."""
        return hashlib.sha256(self._file).hexdigest() if isinstance(self._file, bytes) else self._file.digest()

    def _take_acknowledgement(self, number: int) -> Sequence[bytes]:
        progress = (number - self._acknowledged) & packets.BLOCK_NUMBER_MASK
        if progress == 0 and not self.untouched:
            return self._repeat_once()
        if progress == 0 or progress > self._in_flight():
            return ()  # of long ago, or never sent
        self._acknowledged += progress
        self._attempt = 1
        self._wait_s = float(self._terms.timeout_s or self._limits.first_timeout_s)
        self._may_repeat = self._terms.window_blocks > 1 and not self._repeated
        self._repeated = False
        if self._acknowledged == self._last:
            self.state = TransferState.DONE
            return ()
        self._awaited = self._next_awaited()
        return self._window()

    def _repeat_once(self) -> Sequence[bytes]:
        """A second acknowledgement of what is acknowledged already.

        In lock-step it must change nothing, or every duplicate doubles the traffic to the end (the sorcerer's
        apprentice). With a window it is also how a client says that it misses the first block (RFC 7440): go back
        once, and not again in the window after one that was sent twice, so that an echo of ours dies out.
        """
        if not self._may_repeat:
            return ()
        self._may_repeat = False
        return self._again()

    def _again(self) -> Sequence[bytes]:
        again = self._window()
        self._awaited = _NOBODY_SAYS
        self._repeated = True
        self.retransmissions += len(again)
        return again

    def _in_flight(self) -> int:
        if self._acknowledged < 0:
            return 1
        return min(self._terms.window_blocks, self._last - self._acknowledged)

    def _window(self) -> Sequence[bytes]:
        first = self._acknowledged + 1
        if first == 0:
            return (self._option_acknowledgement,)
        return [self._packets[number - 1] for number in range(first, first + self._in_flight())]

    def _next_awaited(self) -> bytes | None:
        """In lock-step one acknowledgement brings the transfer forward; while nothing was sent twice, that is all."""
        lock_step = self._terms.window_blocks == 1
        return packets.encode_acknowledgement(self.next_block) if lock_step else _NOBODY_SAYS

    def _violation(self, what: str) -> Sequence[bytes]:
        self.fail(FailureReason.PROTOCOL, what)
        return (packets.encode_error(ErrorCode.ILLEGAL_OPERATION, "Illegal TFTP operation"),)


def _name_of(datagram: bytes) -> str:
    try:
        return f"{packets.decode_operation(datagram).name} in a read transfer"
    except DecodeError as error:
        return error.what
