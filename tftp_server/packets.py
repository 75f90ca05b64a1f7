"""TFTP packets as bytes and values (RFC 1350, options RFC 2347).

Ours and not tftpy's codec: one block (decode the ACK, encode the DATA) costs 0.16 us here and 2.4 us there, which is
a sixth of the server's time for a 6 KB file; tftpy judges these functions in the tests instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Final

from cucm.errors import DecodeError, EncodeError
from cucm.records import dataclass

HEADER: Final = Struct("!HH")
"""Operation code and block number (DATA, ACK) or error code (ERROR)."""
MAX_REQUEST_BYTES: Final = 512
"""A request's greatest size in octets (RFC 2347)."""
MAX_OPTIONS: Final = 32
BLOCK_NUMBER_MASK: Final = 0xFFFF


class Operation(IntEnum):
    READ_REQUEST = 1
    WRITE_REQUEST = 2
    DATA = 3
    ACKNOWLEDGEMENT = 4
    ERROR = 5
    OPTION_ACKNOWLEDGEMENT = 6


class ErrorCode(IntEnum):
    """RFC 1350 appendix I, and 8 of RFC 2347."""

    UNDEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER_ID = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTIONS_REFUSED = 8


_REQUESTS: Final = {
    operation.to_bytes(2, "big"): operation for operation in (Operation.READ_REQUEST, Operation.WRITE_REQUEST)
}


@dataclass(frozen=True, slots=True)
class Request:
    """A read or write request: `mode` and option names in lower case, bytes that are no UTF-8 escaped."""

    operation: Operation
    name: str
    mode: str
    options: tuple[tuple[str, str], ...] = ()


def decode_request(datagram: bytes) -> Request:
    """The request that opens a transfer. Raises `DecodeError` for anything else, and for an option given twice."""
    if len(datagram) > MAX_REQUEST_BYTES:
        raise DecodeError(f"a request of {len(datagram)} bytes", offset=MAX_REQUEST_BYTES, path="request")
    operation = _REQUESTS.get(datagram[:2])
    if operation is None:
        raise DecodeError(f"{decode_operation(datagram).name} outside a transfer", offset=0, path="operation")
    name, mode, *options = _texts(datagram, "request", at_least=2)
    if not name:
        raise DecodeError("an empty file name", offset=2, path="name")
    return Request(operation, name, mode.lower(), _pairs(options) if options else ())


def decode_operation(datagram: bytes) -> Operation:
    """The operation code that every packet starts with. Raises `DecodeError`."""
    if len(datagram) < 2:
        raise DecodeError(f"a packet of {len(datagram)} bytes", offset=len(datagram), path="operation")
    code = int.from_bytes(datagram[:2], "big")
    try:
        return Operation(code)
    except ValueError:
        raise DecodeError(f"no operation has the code {code}", offset=0, path="operation") from None


def decode_error(datagram: bytes) -> tuple[int, str]:
    """Code and text of an ERROR packet; a missing text or NUL is forgiven. Raises `DecodeError` without a code."""
    if len(datagram) < HEADER.size or decode_operation(datagram) is not Operation.ERROR:
        raise DecodeError("not an ERROR packet", offset=0, path="error")
    text = datagram[HEADER.size :].partition(b"\0")[0]
    return HEADER.unpack_from(datagram)[1], _decode(text)


def decode_option_acknowledgement(datagram: bytes) -> tuple[tuple[str, str], ...]:
    """The options of an OACK packet, in order. Raises `DecodeError`."""
    if decode_operation(datagram) is not Operation.OPTION_ACKNOWLEDGEMENT:
        raise DecodeError("not an OACK packet", offset=0, path="operation")
    return _pairs(_texts(datagram, "options", at_least=0))


def encode_request(request: Request) -> bytes:
    """Raises `EncodeError` for texts with a NUL in them and for requests longer than RFC 2347 allows."""
    texts = [request.name, request.mode, *_flat(request.options)]
    datagram = request.operation.to_bytes(2, "big") + _terminated(texts)
    if len(datagram) > MAX_REQUEST_BYTES:
        raise EncodeError(f"a request of {len(datagram)} bytes", where="request")
    return datagram


def encode_data(block: int, data: bytes | memoryview) -> bytes:
    """DATA; `block` counts from 1 without end and is cut to 16 bits."""
    return HEADER.pack(Operation.DATA, block & BLOCK_NUMBER_MASK) + data


def encode_acknowledgement(block: int) -> bytes:
    return HEADER.pack(Operation.ACKNOWLEDGEMENT, block & BLOCK_NUMBER_MASK)


def encode_error(code: int, text: str) -> bytes:
    return HEADER.pack(Operation.ERROR, code) + _terminated([text])


def encode_option_acknowledgement(options: Iterable[tuple[str, str]]) -> bytes:
    return Operation.OPTION_ACKNOWLEDGEMENT.to_bytes(2, "big") + _terminated(_flat(options))


def _texts(datagram: bytes, path: str, *, at_least: int) -> list[str]:
    body = datagram[2:]
    if body and not body.endswith(b"\0"):
        raise DecodeError("the last text has no end", offset=len(datagram), path=path)
    # a NUL is a NUL in UTF-8, and nothing else has one: all texts are decoded at once
    texts = _decode(body).split("\0")[:-1]
    if len(texts) < at_least or len(texts) % 2:
        raise DecodeError(f"{len(texts)} texts instead of pairs", offset=len(datagram), path=path)
    return texts


def _pairs(texts: list[str]) -> tuple[tuple[str, str], ...]:
    if len(texts) > 2 * MAX_OPTIONS:
        raise DecodeError(f"{len(texts) // 2} options", offset=2, path="options")
    names = [name.lower() for name in texts[::2]]
    if "" in names or len(set(names)) != len(names):
        raise DecodeError("an option without a name, or one given twice", offset=2, path="options")
    return tuple(zip(names, texts[1::2], strict=True))


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [text for pair in pairs for text in pair]


def _terminated(texts: Iterable[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    if any(0 in text for text in encoded):
        raise EncodeError("a text with a NUL in it", where="packet")
    return b"".join(text + b"\0" for text in encoded)


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
