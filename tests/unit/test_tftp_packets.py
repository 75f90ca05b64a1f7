"""Our codec against RFC 1350/2347 by hand, and against tftpy's codec in both directions."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tftpy import TftpPacketTypes as theirs  # noqa: N813 - a module
from tftpy.TftpPacketFactory import TftpPacketFactory

from cucm.errors import DecodeError, EncodeError
from tftp_server import packets
from tftp_server.packets import ErrorCode, Operation, Request

READ = b"\0\1SEP1.cnf.xml\0octet\0"


@pytest.fixture(autouse=True)
def _quiet_tftpy() -> None:
    logging.getLogger("tftpy").setLevel(logging.CRITICAL)


def test_a_request_by_hand() -> None:
    request = Request(Operation.READ_REQUEST, "SEP1.cnf.xml", "octet")
    assert packets.decode_request(READ) == request
    assert packets.encode_request(request) == READ


def test_mode_and_option_names_are_read_in_any_case() -> None:
    request = packets.decode_request(b"\0\1Ringlist.xml\0OcTeT\0BLKSIZE\x001428\0tSize\x000\0")
    assert request.name == "Ringlist.xml"
    assert request.mode == "octet"
    assert request.options == (("blksize", "1428"), ("tsize", "0"))


def test_a_name_that_is_no_utf8_is_escaped() -> None:
    assert packets.decode_request(b"\0\1a\xff\0octet\0").name == "a\\xff"
    assert packets.decode_request("\0\1größe\0octet\0".encode()).name == "größe"


@pytest.mark.parametrize(
    ("datagram", "path"),
    [
        (b"", "operation"),
        (b"\0", "operation"),
        (b"\0\0a\0octet\0", "operation"),
        (b"\0\7a\0octet\0", "operation"),
        (b"\1\1a\0octet\0", "operation"),
        (b"\0\3\0\1data", "operation"),
        (b"\0\4\0\1", "operation"),
        (b"\0\1", "request"),
        (b"\0\1a", "request"),
        (b"\0\1a\0", "request"),
        (b"\0\1a\0octet", "request"),
        (b"\0\1a\0octet\0blksize\0", "request"),
        (b"\0\1a\0octet\0blksize\x00512", "request"),
        (b"\0\1\0octet\0", "name"),
        (b"\0\1a\0octet\0\x00512\0", "options"),
        (b"\0\1a\0octet\0tsize\x000\0TSIZE\x000\0", "options"),
        (b"\0\1a\0octet\0" + b"".join(b"o%d\0v\0" % n for n in range(33)), "options"),
        (b"\0\1" + b"a" * 505 + b"\0octet\0", "request"),
    ],
)
def test_malformed_requests_are_refused_with_the_place(datagram: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        packets.decode_request(datagram)
    assert caught.value.path == path
    assert 0 <= caught.value.offset <= max(len(datagram), packets.MAX_REQUEST_BYTES)


def test_every_beginning_of_a_request_is_refused() -> None:
    whole = READ + b"blksize\x001428\0"
    for length in range(len(whole)):
        if length != len(READ):
            with pytest.raises(DecodeError):
                packets.decode_request(whole[:length])


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(EncodeError):
        packets.encode_request(Request(Operation.READ_REQUEST, "a\0b", "octet"))
    with pytest.raises(EncodeError):
        packets.encode_request(Request(Operation.READ_REQUEST, "a" * 600, "octet"))


def test_block_numbers_roll_over_to_0() -> None:
    assert packets.encode_data(65536, b"x") == b"\0\3\0\0x"
    assert packets.encode_acknowledgement(65537) == b"\0\4\0\1"


def test_errors_by_hand() -> None:
    assert packets.encode_error(ErrorCode.FILE_NOT_FOUND, "File not found") == b"\0\5\0\1File not found\0"
    assert packets.decode_error(b"\0\5\0\1File not found\0") == (1, "File not found")
    assert packets.decode_error(b"\0\5\0\x08") == (8, "")
    with pytest.raises(DecodeError):
        packets.decode_error(b"\0\5\0")
    with pytest.raises(DecodeError):
        packets.decode_option_acknowledgement(b"\0\4\0\1")


# -- tftpy as oracle ------------------------------------------------------------------------------------------------


def parsed(datagram: bytes) -> Any:
    return TftpPacketFactory().parse(datagram)


@pytest.mark.parametrize("options", [(), (("blksize", "1428"),), (("tsize", "0"), ("blksize", "8192"))])
@pytest.mark.parametrize("operation", [Operation.READ_REQUEST, Operation.WRITE_REQUEST])
def test_requests_agree_with_tftpy(operation: Operation, options: tuple[tuple[str, str], ...]) -> None:
    ours = Request(operation, "SEPB000B4BA0AEE.cnf.xml.sgn", "octet", options)
    packet: Any = theirs.TftpPacketRRQ() if operation is Operation.READ_REQUEST else theirs.TftpPacketWRQ()
    packet.filename, packet.mode, packet.options = ours.name, ours.mode, dict(options)
    assert packet.encode().buffer == packets.encode_request(ours)
    assert packets.decode_request(packet.buffer) == ours
    read_back = parsed(packets.encode_request(ours))
    assert (read_back.opcode, read_back.filename, read_back.mode) == (operation, ours.name, ours.mode)
    assert tuple(read_back.options.items()) == options


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 512, bytes(range(256)) * 32])
@pytest.mark.parametrize("block", [0, 1, 255, 65535])
def test_data_and_acknowledgements_agree_with_tftpy(block: int, content: bytes) -> None:
    data: Any = theirs.TftpPacketDAT()
    data.blocknumber, data.data = block, content
    assert data.encode().buffer == packets.encode_data(block, memoryview(content))
    acknowledgement: Any = theirs.TftpPacketACK()
    acknowledgement.blocknumber = block
    assert acknowledgement.encode().buffer == packets.encode_acknowledgement(block)
    read_back = parsed(packets.encode_data(block, content))
    assert (read_back.blocknumber, read_back.data) == (block, content)


@pytest.mark.parametrize("code", range(1, 9))
def test_errors_agree_with_tftpy(code: int) -> None:
    error: Any = theirs.TftpPacketERR()
    error.errorcode = code
    text = error.errmsgs[code].decode()
    assert error.encode().buffer == packets.encode_error(code, text)
    assert packets.decode_error(error.buffer) == (code, text)
    assert parsed(packets.encode_error(code, text)).errorcode == code


def test_option_acknowledgements_agree_with_tftpy() -> None:
    options = (("blksize", "1428"), ("tsize", "41943040"))
    oack: Any = theirs.TftpPacketOACK()
    oack.options = dict(options)
    assert oack.encode().buffer == packets.encode_option_acknowledgement(options)
    assert packets.decode_option_acknowledgement(oack.buffer) == options
    assert tuple(parsed(packets.encode_option_acknowledgement(options)).options.items()) == options
