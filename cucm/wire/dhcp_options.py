"""DHCP options (RFC 2132): codes, what their values mean, and making them."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final, NamedTuple

from cucm.errors import EncodeError


class MessageType(IntEnum):
    """Values of option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class OptionCode(IntEnum):
    """Options that something here reads or writes; names of RFC 2132, 3046 (82) and 5859 (150)."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    DOMAIN_NAME_SERVER = 6
    HOST_NAME = 12
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    PARAMETER_REQUEST_LIST = 55
    MESSAGE = 56
    MAXIMUM_MESSAGE_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    VENDOR_CLASS = 60
    CLIENT_IDENTIFIER = 61
    TFTP_SERVER_NAME = 66
    RELAY_AGENT_INFORMATION = 82
    TFTP_SERVER_ADDRESSES = 150
    END = 255


class DhcpOption(NamedTuple):
    """One option with its whole value, which may be longer than the 255 bytes of a piece on the wire."""

    code: int
    value: bytes


@lru_cache(maxsize=256)
def option_path(code: int) -> str:
    """`option 150 TFTP_SERVER_ADDRESSES`; the number alone for an option without a name here."""
    known = code in OptionCode._value2member_map_
    return f"option {code} {OptionCode(code).name}" if known else f"option {code}"


def as_number(size: int) -> Callable[[bytes], int]:
    """Reader of a number of exactly `size` bytes; like all readers here it raises ValueError."""

    def parse(value: bytes) -> int:
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes where {size} are needed")
        return int.from_bytes(value, "big")

    return parse


def address_text(value: bytes) -> str:
    """Of four bytes. A message holds a dozen addresses: `ipaddress` would be a quarter of what reading it costs."""
    return f"{value[0]}.{value[1]}.{value[2]}.{value[3]}"


def as_address(value: bytes) -> str:
    if len(value) != 4:
        raise ValueError(f"{len(value)} bytes where an address needs 4")
    return address_text(value)


def as_address_list(value: bytes) -> tuple[str, ...]:
    if not value or len(value) % 4:
        raise ValueError(f"{len(value)} bytes are no list of addresses of 4 bytes each")
    return tuple(address_text(value[at : at + 4]) for at in range(0, len(value), 4))


def as_text(value: bytes) -> str:
    """Trailing NULs are tolerated (RFC 2132, 2); a NUL inside is not: C code and we would read different names."""
    text = value.rstrip(b"\0")
    if not text:
        raise ValueError("is empty")
    if b"\0" in text:
        raise ValueError("has a NUL in the middle of a text")
    return text.decode("latin-1")


def as_some_bytes(value: bytes) -> bytes:
    if not value:
        raise ValueError("is empty")
    return value


_PARSERS: Final[dict[int, Callable[[bytes], Any]]] = {
    OptionCode.SUBNET_MASK: as_address,
    OptionCode.REQUESTED_ADDRESS: as_address,
    OptionCode.LEASE_TIME: as_number(4),
    OptionCode.MESSAGE_TYPE: as_number(1),
    OptionCode.SERVER_IDENTIFIER: as_address,
    OptionCode.PARAMETER_REQUEST_LIST: as_some_bytes,
    OptionCode.MESSAGE: as_text,
    OptionCode.MAXIMUM_MESSAGE_SIZE: as_number(2),
    OptionCode.RENEWAL_TIME: as_number(4),
    OptionCode.REBINDING_TIME: as_number(4),
    OptionCode.CLIENT_IDENTIFIER: as_some_bytes,
    OptionCode.TFTP_SERVER_NAME: as_text,
    OptionCode.TFTP_SERVER_ADDRESSES: as_address_list,
}
PARSERS: Final = {int(code): parser for code, parser in _PARSERS.items()}
"""By plain integers: each option read is looked up here."""


def address_option(code: int, *addresses: str) -> DhcpOption:
    """An option of one or more addresses. Raises EncodeError."""
    return DhcpOption(code, b"".join(address_bytes(address, option_path(code)) for address in addresses))


def number_option(code: int, value: int, size: int) -> DhcpOption:
    """An option of one number of `size` bytes. Raises EncodeError."""
    return DhcpOption(code, number_bytes(value, size, option_path(code)))


def text_option(code: int, text: str) -> DhcpOption:
    """Without NUL at the end. Raises EncodeError for what is not latin-1."""
    try:
        return DhcpOption(code, text.encode("latin-1"))
    except UnicodeEncodeError:
        raise EncodeError(f"{text!r} is not latin-1", where=option_path(code), mend="use ASCII characters") from None


def type_option(message_type: MessageType) -> DhcpOption:
    return number_option(OptionCode.MESSAGE_TYPE, message_type, 1)


def number_bytes(value: int, size: int, where: str) -> bytes:
    """Raises EncodeError when the number does not fit."""
    if not 0 <= value < 1 << 8 * size:
        raise EncodeError(f"{value} does not fit {size} bytes", where=where, mend=f"use 0 to {(1 << 8 * size) - 1}")
    return value.to_bytes(size, "big")


@lru_cache(maxsize=1024)
def _packed(address: str) -> bytes:
    return IPv4Address(address).packed


def address_bytes(address: str, where: str) -> bytes:
    """Raises EncodeError for what is no IPv4 address."""
    try:
        return _packed(address)
    except AddressValueError:
        raise EncodeError(f"{address!r} is no IPv4 address", where=where, mend="give one like 127.0.11.32") from None
