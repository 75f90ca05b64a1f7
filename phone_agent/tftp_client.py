"""A phone's TFTP reader (RFC 1350 with the options of RFC 2347 to 2349): the exchange without I/O, and a socket for it.

`ReadTransfer` takes datagrams and time-outs and says which datagrams to send; `fetch_tftp` runs one on a UDP socket.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from cucm.errors import DecodeError, EncodeError
from cucm.net.shared_turns import SharedTurns
from cucm.records import dataclass
from phone_agent.commands import FetchAttempt, FetchStatus

TFTP_PORT: Final = 69
PHONE_OPTIONS: Final[Mapping[str, int]] = MappingProxyType({})
"""Options in the read request. What an 8861 asks for is UNKNOWN; none is the one choice every server understands."""
DEFAULT_BLOCK_SIZE: Final = 512
SMALLEST_BLOCK_SIZE: Final = 8
LARGEST_BLOCK_SIZE: Final = 65464
MAX_FILE_SIZE: Final = 2048 * 1024
"""Bytes; `GHTTP-LIMIT downdload will be limited to 2048 KB` (facts 3.5), taken to hold for TFTP too [inferred]."""
RETRANSMISSION_TIMEOUT_S: Final = 1.0
"""UNKNOWN on the phone."""
MAX_RETRANSMISSIONS: Final = 4
"""In a row, without progress between them. UNKNOWN on the phone."""
TRANSFER_DEADLINE_S: Final = 60.0
"""For one whole file, whatever the progress. UNKNOWN on the phone."""
MAX_STRANGERS: Final = 16
"""Datagrams from wrong transfer IDs that are answered in one transfer; more of them are ignored."""
MAX_REQUEST: Final = 512
"""Bytes of a read request (RFC 2347)."""

_RRQ, _DATA, _ACK, _ERROR, _OACK = 1, 3, 4, 5, 6
_HEAD: Final = struct.Struct(">HH")
_ERROR_TEXTS: Final = MappingProxyType({3: b"File too large", 4: b"Illegal TFTP operation", 5: b"Unknown transfer ID"})
_DATA_OPERATION: Final = _DATA.to_bytes(2, "big")
_ACK_OPERATION: Final = _ACK.to_bytes(2, "big")
_NOTHING_STARTS_SO: Final = ()
"""No datagram starts with one of none, whatever a server may send."""
_REFUSED_OPTION: Final = 8
_ERROR_STATUSES: Final = MappingProxyType({1: FetchStatus.NOT_FOUND, 2: FetchStatus.ACCESS_ERROR})

Address = tuple[str, int]


class Datagram(NamedTuple):
    data: bytes
    address: Address


@dataclass(frozen=True, slots=True)
class TransferOutcome:
    """How a transfer ended; `data` is the whole file if `status` is OK, else None."""

    status: FetchStatus
    data: bytes | None
    detail: str


def silence_after(packets: int) -> str:
    """What is said of a server that never answered."""
    return f"no answer after {packets} packets"


def read_request(file_name: str, options: Mapping[str, int]) -> bytes:
    """A read request in octet mode. Raises EncodeError for a name or options that do not fit one."""
    try:
        name = file_name.encode("ascii")
    except UnicodeEncodeError:
        raise EncodeError("a file name on the wire is ASCII", where=repr(file_name)) from None
    fields = [name, b"octet"]
    for option, value in options.items():
        fields += [option.encode("ascii"), b"%d" % value]
    request = struct.pack(">H", _RRQ) + b"".join(field + b"\0" for field in fields)
    if not name or b"\0" in name or len(request) > MAX_REQUEST:
        raise EncodeError("not a file name that a read request can carry", where=repr(file_name))
    return request


class ReadTransfer:
    """One file read from one server, without I/O.

    The transfer ID of the server (its port) is that of its first answer. Every method returns the datagrams to send
    now; `outcome` is set when the transfer is over. A block that comes again is acknowledged again once; what is
    lost after that is up to `handle_timeout`, so that no two sides can double each other's traffic.
    """

    def __init__(
        self,
        file_name: str,
        server: Address,
        *,
        options: Mapping[str, int] = PHONE_OPTIONS,
        max_size: int = MAX_FILE_SIZE,
        max_retransmissions: int = MAX_RETRANSMISSIONS,
    ) -> None:
        self.outcome: TransferOutcome | None = None
        self.progress = 0
        """Grows whenever the server has brought the transfer forward; then its timer starts anew."""
        self._server = server
        self._peer: Address | None = None
        self._options = dict(options)
        self._max_size = max_size
        self._max_retransmissions = max_retransmissions
        self._block_size = DEFAULT_BLOCK_SIZE
        self._block = 0
        self._content = bytearray()
        self._announced_size: int | None = None
        self._is_agreed = False
        self._awaited: bytes | tuple[()] = _NOTHING_STARTS_SO
        self._repeated = False
        self._retransmissions = 0
        self._strangers = 0
        self._last = Datagram(read_request(file_name, options), server)

    def start(self) -> list[Datagram]:
        return [self._last]

    def handle_timeout(self) -> list[Datagram]:
        """The server was silent for one retransmission time-out."""
        if self._retransmissions >= self._max_retransmissions:
            packets = self._retransmissions + 1
            what = f"the server stopped answering after {packets} packets" if self._peer else silence_after(packets)
            return self._end(FetchStatus.TIMEOUT, what)
        self._retransmissions += 1
        return [self._last]

    def receive(self, data: bytes, source: Address) -> list[Datagram]:
        """One datagram has come from `source`."""
        if source == self._peer and data.startswith(self._awaited):
            # the trick: how the next block begins is known beforehand, and nearly all that comes is a whole block of it
            acknowledgement = _ACK_OPERATION + data[2:4]
            if len(data) != self._block_size + 4 or len(self._content) + len(data) > self._max_size:
                return self._take_block(data[4:], acknowledgement)
            self._content += data[4:]
            self._count_block()
            self._last = last = Datagram(acknowledgement, source)
            return [last]
        if self.outcome is not None:
            return []
        if source != self._peer and (self._peer is not None or source[0] != self._server[0]):
            return self._turn_away(data, source)
        try:
            return self._handle(data, source)
        except DecodeError as error:
            self._peer = source
            return self._give_up(4, f"malformed answer: {error}")

    # -- inside ------------------------------------------------------------------------------------------------

    def _handle(self, data: bytes, source: Address) -> list[Datagram]:
        opcode, number = _head(data)
        self.progress += self._peer is None
        self._peer = source
        match opcode:
            case 3:
                return self._handle_data(number, data[_HEAD.size :])
            case 5:
                return self._handle_error(number, data[_HEAD.size :])
            case 6:
                return self._handle_options(decode_options(data))
            case _:
                return self._give_up(4, f"unexpected opcode {opcode}")

    def _handle_data(self, number: int, payload: bytes) -> list[Datagram]:
        if number == self._block & 0xFFFF and self._block:
            return self._acknowledge_again()
        if number != (self._block + 1) & 0xFFFF:
            return []  # an old block, or one from the future: this side's timer asks again
        return self._take_block(payload, _HEAD.pack(_ACK, number))

    def _take_block(self, payload: bytes, acknowledgement: bytes) -> list[Datagram]:
        """The next block, to be acknowledged so."""
        if len(payload) > self._block_size:
            return self._give_up(4, f"block of {len(payload)} bytes, agreed were {self._block_size}")
        if len(self._content) + len(payload) > self._max_size:
            return self._give_up(3, f"larger than {self._max_size} bytes")
        self._content += payload
        self._count_block()
        if len(payload) < self._block_size:
            self._complete()
        self._last = self._to_peer(acknowledgement)
        return [self._last]

    def _count_block(self) -> None:
        self._block += 1
        self.progress += 1
        self._awaited = _DATA_OPERATION + (self._block + 1 & 0xFFFF).to_bytes(2, "big")
        self._repeated = False
        self._retransmissions = 0

    def _complete(self) -> None:
        """The short block is here. There is no dallying: a server that misses the last ACK times out by itself."""
        self._awaited = _NOTHING_STARTS_SO
        content = bytes(self._content)
        if self._announced_size not in (None, len(content)):
            self._end(FetchStatus.ERROR, f"{len(content)} bytes came, {self._announced_size} were announced")
        else:
            self.outcome = TransferOutcome(FetchStatus.OK, content, f"{len(content)} bytes")

    def _handle_options(self, accepted: Mapping[str, int]) -> list[Datagram]:
        if self._block:
            return []  # late repetition
        if self._is_agreed:
            return self._acknowledge_again()
        for option, value in accepted.items():
            if not self._may_accept(option, value):
                return self._give_up(_REFUSED_OPTION, f"the server sets option {option} to {value}")
        self._is_agreed = True
        self._block_size = accepted.get("blksize", DEFAULT_BLOCK_SIZE)
        self._announced_size = accepted.get("tsize")
        if (self._announced_size or 0) > self._max_size:
            return self._give_up(3, f"{self._announced_size} bytes announced, at most {self._max_size} are taken")
        self._repeated = False
        self._retransmissions = 0
        self._last = self._to_peer(_HEAD.pack(_ACK, 0))
        return [self._last]

    def _may_accept(self, option: str, value: int) -> bool:
        """RFC 2347: only what was asked for; RFC 2348: a block size not above the one asked for."""
        if option not in self._options:
            return False
        return option != "blksize" or SMALLEST_BLOCK_SIZE <= value <= self._options[option]

    def _handle_error(self, code: int, text: bytes) -> list[Datagram]:
        message = text.split(b"\0", 1)[0][:128].decode("ascii", "backslashreplace")
        return self._end(_ERROR_STATUSES.get(code, FetchStatus.ERROR), f"error {code}: {message}")

    def _acknowledge_again(self) -> list[Datagram]:
        if self._repeated:
            return []
        self._repeated = True
        return [self._last]

    def _turn_away(self, data: bytes, source: Address) -> list[Datagram]:
        """RFC 1350: a stranger gets ERROR 5 and changes nothing. An error is never answered with an error."""
        is_error = data[:2] == struct.pack(">H", _ERROR)
        if is_error or self._strangers >= MAX_STRANGERS:
            return []
        self._strangers += 1
        return [Datagram(_error(5), source)]

    def _give_up(self, code: int, detail: str) -> list[Datagram]:
        self._end(FetchStatus.ERROR, detail)
        return [self._to_peer(_error(code))]

    def _end(self, status: FetchStatus, detail: str) -> list[Datagram]:
        self._awaited = _NOTHING_STARTS_SO
        self.outcome = TransferOutcome(status, None, detail)
        return []

    def _to_peer(self, data: bytes) -> Datagram:
        return Datagram(data, self._peer or self._server)


def _head(data: bytes) -> tuple[int, int]:
    """Opcode and the number after it (block, error code; meaningless in an OACK)."""
    if len(data) < _HEAD.size:
        raise DecodeError("datagram too short", offset=len(data), path="tftp")
    opcode, number = _HEAD.unpack_from(data)
    return opcode, number


def decode_options(data: bytes) -> dict[str, int]:
    """Names (lower case) and values of an OACK. Raises DecodeError."""
    if not data.endswith(b"\0"):
        raise DecodeError("option list without end", offset=len(data), path="oack")
    fields = data[2:-1].split(b"\0")
    if len(fields) % 2:
        raise DecodeError("option without value", offset=len(data), path="oack")
    options: dict[str, int] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if not value.isdigit() or len(value) > 10:
            raise DecodeError("option value is no number", offset=2, path=f"oack.{name[:32].decode('latin-1')}")
        options[name.decode("latin-1").lower()] = int(value)
    return options


def _error(code: int) -> bytes:
    return _HEAD.pack(_ERROR, code) + _ERROR_TEXTS.get(code, b"Option refused") + b"\0"


class _SocketTransfer:
    """Runs a `ReadTransfer` on a socket of its own, read and timed with those of all other phones on the loop."""

    def __init__(self, transfer: ReadTransfer, local_address: str | None, timeout_s: float, family: int) -> None:
        self.slot = 0
        self._transfer = transfer
        self._timeout_s = timeout_s
        self._done: asyncio.Future[TransferOutcome] = asyncio.get_running_loop().create_future()
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if local_address is not None:
                self._socket.bind((local_address, 0))
        except OSError:
            self._socket.close()
            raise
        self._turns = SharedTurns.join()
        self._since = self._turns.wheel.now
        self._ends = self._since
        self._deadline_s = 0.0

    async def run(self, deadline_s: float) -> TransferOutcome:
        turns = self._turns
        self._deadline_s = deadline_s
        self._ends = self._since + deadline_s
        try:
            self._send(self._transfer.start())
            turns.readers.add(self._socket.fileno(), self._readable)
            self._wait()
            return await self._done
        finally:
            turns.readers.remove(self._socket.fileno())
            turns.wheel.remove(self)
            turns.leave()
            self._socket.close()

    def _readable(self) -> None:
        transfer = self._transfer
        before = transfer.progress
        try:
            data, source = self._socket.recvfrom(LARGEST_BLOCK_SIZE + _HEAD.size)
            self._send(transfer.receive(data, source[:2]))
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if transfer.progress != before:
            self._since = self._turns.wheel.now
        if transfer.outcome is not None:
            self._settle(transfer.outcome)

    def time_is_up(self) -> None:
        """The wheel's call: the server may have been silent, or heard since."""
        now = self._turns.wheel.now
        if now >= self._ends:
            self._settle(TransferOutcome(FetchStatus.TIMEOUT, None, f"not complete within {self._deadline_s:g} s"))
        elif now >= self._since + self._timeout_s:
            self._ask_again(now)
        if not self._done.done():
            self._wait()

    def _ask_again(self, now: float) -> None:
        self._since = now
        try:
            self._send(self._transfer.handle_timeout())
        except OSError as error:
            self._fail(error)
        if self._transfer.outcome is not None:
            self._settle(self._transfer.outcome)

    def _wait(self) -> None:
        self._turns.wheel.add(self, min(self._since + self._timeout_s, self._ends))

    def _send(self, datagrams: list[Datagram]) -> None:
        for data, address in datagrams:
            try:
                self._socket.sendto(data, address)
            except BlockingIOError:
                continue  # as good as lost on the wire: the timer repeats it

    def _settle(self, outcome: TransferOutcome) -> None:
        if not self._done.done():
            self._done.set_result(outcome)

    def _fail(self, error: OSError) -> None:
        if not self._done.done():
            self._done.set_exception(error)


async def fetch_tftp(
    server: str,
    file_name: str,
    *,
    port: int = TFTP_PORT,
    local_address: str | None = None,
    options: Mapping[str, int] = PHONE_OPTIONS,
    max_size: int = MAX_FILE_SIZE,
    timeout_s: float = RETRANSMISSION_TIMEOUT_S,
    max_retransmissions: int = MAX_RETRANSMISSIONS,
    deadline_s: float = TRANSFER_DEADLINE_S,
) -> tuple[FetchAttempt, bytes | None]:
    """Read one file from the server at this IP address; what goes wrong on the network is in the attempt's status.

    Raises EncodeError for a name that does not fit a read request.
    """
    transfer = ReadTransfer(
        file_name, (server, port), options=options, max_size=max_size, max_retransmissions=max_retransmissions
    )
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    try:
        outcome = await _SocketTransfer(transfer, local_address, timeout_s, family).run(deadline_s)
    except OSError as error:
        outcome = TransferOutcome(FetchStatus.ERROR, None, error.strerror or str(error))
    return FetchAttempt(server, "tftp", outcome.status, outcome.detail), outcome.data
