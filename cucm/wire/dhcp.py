"""DHCP messages (RFC 2131, 2132): bytes to values and back, without I/O.

Strict about structure, permissive about unknown options: those survive decode and encode, in their order. Options cut
into pieces are joined (RFC 3396), also across the `file` and `sname` fields (option 52). Addresses are dotted text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import Final, TypeVar

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.records import dataclass
from cucm.wire.dhcp_options import (
    PARSERS,
    DhcpOption,
    MessageType,
    OptionCode,
    address_bytes,
    address_text,
    as_address,
    as_address_list,
    as_number,
    as_text,
    number_bytes,
    option_path,
)

SERVER_PORT: Final = 67
"""Of servers and of relay agents (RFC 2131, 4.1)."""
CLIENT_PORT: Final = 68
NO_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - what a field without address holds; nothing is bound to it
BROADCAST_ADDRESS: Final = "255.255.255.255"
BROADCAST_FLAG: Final = 0x8000
ETHERNET: Final = 1
INFINITE_LEASE_S: Final = 0xFFFFFFFF
LEAST_BYTES: Final = 300
"""Messages are padded to this many; relay agents may throw shorter ones away (RFC 1542, 2.1)."""
DEFAULT_MAX_BYTES: Final = 548
"""What every client takes: an IP datagram of 576 bytes without its headers (RFC 2131, 2; option 57 may say more)."""
IP_AND_UDP_BYTES: Final = 28
"""Option 57 counts them, a datagram's content does not."""
MAX_BYTES: Final = 4096
"""Of a message that is read. Ours; no network carries more in one Ethernet frame than 1472."""
MAX_OPTIONS: Final = 128
"""Different options in one message. Ours; real ones have about two dozen."""
MAGIC: Final = b"\x63\x82\x53\x63"

T = TypeVar("T")

_FIXED: Final = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s4s")
_SNAME_AT: Final = 44
_FILE_AT: Final = 108
_SNAME_BYTES: Final = 64
_FILE_BYTES: Final = 128
_OPTIONS_AT: Final = _FIXED.size
_MAX_PIECE: Final = 255
# plain integers: each byte of padding is compared with them, and with a member of an enum that takes far longer
_PAD: Final = int(OptionCode.PAD)
_END: Final = int(OptionCode.END)
_u8, _u16, _u32 = as_number(1), as_number(2), as_number(4)


class Operation(IntEnum):
    REQUEST = 1
    REPLY = 2


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """`options` without PAD, END and OVERLOAD, each code once when decoded. `sname` and `file` are without their
    trailing zeros, and empty when they carried options. A property raises DecodeError if its option does not parse,
    which none of a decoded message does; None: the option is not there.
    """

    op: int
    xid: int
    chaddr: bytes
    options: tuple[DhcpOption, ...] = ()
    htype: int = ETHERNET
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: str = NO_ADDRESS
    yiaddr: str = NO_ADDRESS
    siaddr: str = NO_ADDRESS
    giaddr: str = NO_ADDRESS
    sname: bytes = b""
    file: bytes = b""

    def find(self, code: int) -> bytes | None:
        for option in self.options:
            if option[0] == code:
                return option[1]
        return None

    @property
    def message_type(self) -> int | None:
        """A MessageType, or the number of one that is unknown."""
        return self._parsed(OptionCode.MESSAGE_TYPE, _u8)

    @property
    def message_type_word(self) -> str:
        """`discover`, `offer`, ...; the number of a type that is unknown, "" where none is said."""
        kind = self.message_type
        try:
            return MessageType(kind).name.lower() if kind is not None else ""
        except ValueError:
            return str(kind)

    @property
    def server_identifier(self) -> str | None:
        return self._parsed(OptionCode.SERVER_IDENTIFIER, as_address)

    @property
    def requested_address(self) -> str | None:
        return self._parsed(OptionCode.REQUESTED_ADDRESS, as_address)

    @property
    def lease_s(self) -> int | None:
        return self._parsed(OptionCode.LEASE_TIME, _u32)

    @property
    def renewal_s(self) -> int | None:
        """T1."""
        return self._parsed(OptionCode.RENEWAL_TIME, _u32)

    @property
    def rebinding_s(self) -> int | None:
        """T2."""
        return self._parsed(OptionCode.REBINDING_TIME, _u32)

    @property
    def subnet_mask(self) -> str | None:
        return self._parsed(OptionCode.SUBNET_MASK, as_address)

    @property
    def tftp_servers(self) -> tuple[str, ...] | None:
        """Option 150."""
        return self._parsed(OptionCode.TFTP_SERVER_ADDRESSES, as_address_list)

    @property
    def tftp_server_name(self) -> str | None:
        """Option 66: a name or an address as text."""
        return self._parsed(OptionCode.TFTP_SERVER_NAME, as_text)

    @property
    def message(self) -> str | None:
        """Option 56: why the server refuses."""
        return self._parsed(OptionCode.MESSAGE, as_text)

    @property
    def max_message_bytes(self) -> int:
        """What the sender takes of a datagram's content: option 57, or what every client takes."""
        said = self._parsed(OptionCode.MAXIMUM_MESSAGE_SIZE, _u16)
        return max(said - IP_AND_UDP_BYTES, DEFAULT_MAX_BYTES) if said is not None else DEFAULT_MAX_BYTES

    def _parsed(self, code: OptionCode, parse: Callable[[bytes], T]) -> T | None:
        value = self.find(code)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as problem:
            raise DecodeError(str(problem), offset=_OPTIONS_AT, path=option_path(code)) from None


# --- reading


def decode_message(data: bytes) -> DhcpMessage:
    """Raises DecodeError (offset and path) or LimitExceeded."""
    if len(data) > MAX_BYTES:
        raise LimitExceeded(f"{len(data)} bytes, at most {MAX_BYTES} are read", where="DHCP message")
    if len(data) < _OPTIONS_AT:
        raise DecodeError(f"{len(data)} bytes where the fixed fields need {_OPTIONS_AT}", offset=0, path="")
    (op, htype, hlen, hops, xid, secs, flags, *addresses, chaddr, sname, file, magic) = _FIXED.unpack_from(data)
    _check_fixed(op, htype, hlen, magic)
    options, overload = _read_all_options(data)
    ciaddr, yiaddr, siaddr, giaddr = map(address_text, addresses)
    return DhcpMessage(
        op,
        xid,
        chaddr[:hlen],
        options,
        htype=htype,
        hops=hops,
        secs=secs,
        flags=flags,
        ciaddr=ciaddr,
        yiaddr=yiaddr,
        siaddr=siaddr,
        giaddr=giaddr,
        sname=b"" if overload & _SNAME_HAS_OPTIONS else sname.rstrip(b"\0"),
        file=b"" if overload & _FILE_HAS_OPTIONS else file.rstrip(b"\0"),
    )


def _check_fixed(op: int, htype: int, hlen: int, magic: bytes) -> None:
    if op not in Operation._value2member_map_:
        raise DecodeError(f"{op} is neither 1 (request) nor 2 (reply)", offset=0, path="op")
    if hlen > 16 or (htype == ETHERNET and hlen != 6):
        raise DecodeError(f"{hlen} bytes is no length of a hardware address of type {htype}", offset=2, path="hlen")
    if magic != MAGIC:
        raise DecodeError(f"{magic.hex()} is not DHCP's magic cookie", offset=_OPTIONS_AT - 4, path="magic")


_FILE_HAS_OPTIONS: Final = 1
_SNAME_HAS_OPTIONS: Final = 2


class _Pieces:
    """Options as they are met: pieces of one code joined, first offset kept, every known value checked at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._values: dict[int, bytes] = {}
        self._offsets: dict[int, int] = {}

    def read(self, start: int, end: int, path: str) -> None:
        for offset, code, value in _pieces(self._data, start, end, path):
            if code not in self._values and len(self._values) >= MAX_OPTIONS:
                raise LimitExceeded(f"more than {MAX_OPTIONS} options", where=f"offset {offset}, {path}")
            self._offsets.setdefault(code, offset)
            self._values[code] = self._values.get(code, b"") + value

    def overload(self) -> int:
        """Which of the other fields carry options too."""
        value = self._values.pop(OptionCode.OVERLOAD, None)
        if value is None:
            return 0
        if len(value) != 1 or value[0] not in (1, 2, 3):
            offset = self._offsets[OptionCode.OVERLOAD] + 2
            raise DecodeError(f"{value.hex()} is not 1, 2 or 3", offset=offset, path=option_path(OptionCode.OVERLOAD))
        return value[0]

    def checked(self) -> tuple[DhcpOption, ...]:
        for code, value in self._values.items():
            parse = PARSERS.get(code)
            if parse is not None:
                try:
                    parse(value)
                except ValueError as problem:
                    raise DecodeError(str(problem), offset=self._offsets[code] + 2, path=option_path(code)) from None
        return tuple(DhcpOption(code, value) for code, value in self._values.items())


def _read_all_options(data: bytes) -> tuple[tuple[DhcpOption, ...], int]:
    pieces = _Pieces(data)
    pieces.read(_OPTIONS_AT, len(data), "options")
    overload = pieces.overload()
    if overload & _FILE_HAS_OPTIONS:  # the order in which RFC 3396 joins
        pieces.read(_FILE_AT, _FILE_AT + _FILE_BYTES, "file")
    if overload & _SNAME_HAS_OPTIONS:
        pieces.read(_SNAME_AT, _SNAME_AT + _SNAME_BYTES, "sname")
    if overload and pieces.overload():
        raise DecodeError(
            "stands inside a field that it names", offset=_SNAME_AT, path=option_path(OptionCode.OVERLOAD)
        )
    return pieces.checked(), overload


def _pieces(data: bytes, start: int, end: int, path: str) -> Iterator[tuple[int, int, bytes]]:
    """Offset, code and value of each piece up to END; what stands behind END is not looked at."""
    position = start
    while position < end:
        code = data[position]
        if code == _END:
            return
        if code == _PAD:
            position += 1
            continue
        if position + 1 >= end:
            raise DecodeError("ends before its length", offset=position, path=f"{path}: {option_path(code)}")
        length = data[position + 1]
        following = position + 2 + length
        if following > end:
            what = f"length {length}, but only {end - position - 2} bytes are left"
            raise DecodeError(what, offset=position + 1, path=f"{path}: {option_path(code)}")
        yield position, code, data[position + 2 : following]
        position = following
    raise DecodeError("the END option is missing", offset=end, path=path)


# --- writing


def encode_message(message: DhcpMessage, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The message in at most `max_bytes`; options that do not fit go to `file` and `sname` if these are empty (52).

    Values are taken as they are, right or wrong. Raises EncodeError for what does not fit its field or the message.
    """
    pieces: list[bytes] = []
    for option in message.options:
        pieces += _cut(option)
    room = max_bytes - _OPTIONS_AT - 1
    file, sname = message.file, message.sname
    if sum(map(len, pieces)) > room:
        overload, (options, file, sname) = _spread(pieces, room - 3, file, sname)
        pieces = [bytes((OptionCode.OVERLOAD, 1, overload)), *options]
    data = _fixed_bytes(message, sname, file) + b"".join(pieces) + bytes((OptionCode.END,))
    return data.ljust(min(LEAST_BYTES, max_bytes), b"\0")


def _cut(option: DhcpOption) -> list[bytes]:
    """Pieces of at most 255 bytes (RFC 3396); an empty value is one empty piece."""
    code, value = option
    if not _PAD < code < _END:
        raise EncodeError(f"{code} is no code of an option with a value", mend="use 1 to 254")
    if len(value) <= _MAX_PIECE:
        return [bytes((code, len(value))) + value]
    pieces = (value[at : at + _MAX_PIECE] for at in range(0, len(value), _MAX_PIECE))
    return [bytes((code, len(piece))) + piece for piece in pieces]


def _spread(
    pieces: Iterable[bytes], room: int, file: bytes, sname: bytes
) -> tuple[int, tuple[list[bytes], bytes, bytes]]:
    """Pieces in their order over the three fields, each closed by END; the value of option 52."""
    waiting = list(pieces)
    options = _fill(waiting, room)
    overload = 0
    if waiting and not file:
        overload |= _FILE_HAS_OPTIONS
        file = b"".join([*_fill(waiting, _FILE_BYTES - 1), bytes((OptionCode.END,))])
    if waiting and not sname:
        overload |= _SNAME_HAS_OPTIONS
        sname = b"".join([*_fill(waiting, _SNAME_BYTES - 1), bytes((OptionCode.END,))])
    if waiting:
        raise EncodeError("the options do not fit the message", mend="leave options out or allow a longer message")
    return overload, (options, file, sname)


def _fill(waiting: list[bytes], room: int) -> list[bytes]:
    """Takes pieces from the front of `waiting` as long as they fit `room`."""
    taken: list[bytes] = []
    while waiting and len(waiting[0]) <= room:
        room -= len(waiting[0])
        taken.append(waiting.pop(0))
    return taken


def _fixed_bytes(message: DhcpMessage, sname: bytes, file: bytes) -> bytes:
    for value, most, name in (
        (message.chaddr, 16, "chaddr"),
        (sname, _SNAME_BYTES, "sname"),
        (file, _FILE_BYTES, "file"),
    ):
        if len(value) > most:
            raise EncodeError(f"{len(value)} bytes", where=name, mend=f"at most {most} fit")
    try:
        return _FIXED.pack(
            message.op,
            message.htype,
            len(message.chaddr),
            message.hops,
            message.xid,
            message.secs,
            message.flags,
            address_bytes(message.ciaddr, "ciaddr"),
            address_bytes(message.yiaddr, "yiaddr"),
            address_bytes(message.siaddr, "siaddr"),
            address_bytes(message.giaddr, "giaddr"),
            message.chaddr,
            sname,
            file,
            MAGIC,
        )
    except struct.error:  # here is said which of them does not fit
        for size, name in ((1, "op"), (1, "htype"), (1, "hops"), (4, "xid"), (2, "secs"), (2, "flags")):
            number_bytes(getattr(message, name), size, name)
        raise


@lru_cache(maxsize=1024)
def is_host_address(address: str, mask: str | None = None) -> bool:
    """Whether one host can have this address: not unspecified, multicast, reserved or broadcast, nor, where a usable
    `mask` is known, its network's first or last address.
    """
    try:
        parsed = IPv4Address(address)
    except AddressValueError:
        return False
    number = int(parsed)
    if number >> 24 == 0 or number >> 28 >= 0xE:
        return False
    host_bits = int(IPv4Address(mask)) ^ 0xFFFFFFFF if mask is not None else 0
    if host_bits < 3 or host_bits & (host_bits + 1):  # /31, /32 have no such addresses; no mask at all
        return True
    return number & host_bits not in (0, host_bits)
