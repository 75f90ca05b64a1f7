from __future__ import annotations

from dataclasses import replace

import pytest

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.wire.dhcp import (
    DEFAULT_MAX_BYTES,
    LEAST_BYTES,
    MAX_BYTES,
    MAX_OPTIONS,
    DhcpMessage,
    Operation,
    decode_message,
    encode_message,
    is_host_address,
)
from cucm.wire.dhcp_options import (
    DhcpOption,
    MessageType,
    OptionCode,
    address_option,
    number_option,
    text_option,
    type_option,
)

MAC = bytes.fromhex("b000b4ba0aee")
HEAD = (
    "02010600 11223344 00058000 00000000 7f000b64 00000000 7f000b65"  # up to the addresses
    "b000b4ba0aee" + "00" * 10
)
MAGIC = "63825363"
OFFER = DhcpMessage(
    Operation.REPLY,
    0x11223344,
    MAC,
    (type_option(MessageType.OFFER), address_option(OptionCode.TFTP_SERVER_ADDRESSES, "127.0.11.32", "127.0.11.33")),
    secs=5,
    flags=0x8000,
    yiaddr="127.0.11.100",
    giaddr="127.0.11.101",
)


def packet(options: str, sname: str = "", file: str = "", head: str = HEAD) -> bytes:
    fields = bytes.fromhex(head) + bytes.fromhex(sname).ljust(64, b"\0") + bytes.fromhex(file).ljust(128, b"\0")
    return fields + bytes.fromhex(MAGIC + options)


def test_a_message_has_the_bytes_of_the_standard() -> None:
    encoded = encode_message(OFFER)
    assert encoded == packet("350102 9608 7f000b20 7f000b21 ff").ljust(LEAST_BYTES, b"\0")
    decoded = decode_message(encoded)
    assert decoded == OFFER
    assert decoded.message_type is not None
    assert decoded.message_type == MessageType.OFFER
    assert decoded.tftp_servers == ("127.0.11.32", "127.0.11.33")


def test_every_option_that_is_read() -> None:
    decoded = decode_message(
        packet(
            "350105 3604 01020304 3204 01020305 3304 00000e10 3a04 00000708 3b04 00000c4e 0104 ffffff00"
            "42 05 6e616d6500 38 02 6e6f 3902 0400 ff"
        )
    )
    assert (decoded.server_identifier, decoded.requested_address) == ("1.2.3.4", "1.2.3.5")
    assert (decoded.lease_s, decoded.renewal_s, decoded.rebinding_s) == (3600, 1800, 3150)
    assert (decoded.subnet_mask, decoded.tftp_server_name, decoded.message) == ("255.255.255.0", "name", "no")
    assert decoded.max_message_bytes == 1024 - 28
    empty = DhcpMessage(1, 2, MAC)
    assert (empty.message_type, empty.lease_s, empty.tftp_servers) == (None, None, None)
    assert empty.max_message_bytes == DEFAULT_MAX_BYTES


def test_unknown_options_and_types_survive() -> None:
    decoded = decode_message(packet("35017f e0 03 010203 e1 00 ff"))
    assert decoded.message_type == 0x7F
    assert decoded.options[1:] == (DhcpOption(0xE0, b"\1\2\3"), DhcpOption(0xE1, b""))
    assert decode_message(encode_message(decoded)) == decoded


def test_long_options_are_cut_and_joined() -> None:
    long = replace(OFFER, options=(type_option(MessageType.ACK), DhcpOption(224, bytes(600))))
    encoded = encode_message(long)
    assert encoded.count(b"\xe0\xff") == 2
    assert decode_message(encoded) == long


def test_pieces_are_joined_across_the_three_fields_in_the_order_of_rfc_3396() -> None:
    decoded = decode_message(packet("340103 e0 01 61 ff", sname="e0 01 63 ff", file="00 e0 01 62 35 01 02 ff"))
    assert decoded.options == (DhcpOption(224, b"abc"), DhcpOption(53, b"\2"))
    assert (decoded.sname, decoded.file) == (b"", b"")


def test_fields_without_options_are_text() -> None:
    decoded = decode_message(packet("340101 ff", sname="6162", file="ff"))
    assert (decoded.sname, decoded.file) == (b"ab", b"")
    assert decode_message(packet("ff", sname="6162", file="63")).file == b"c"


def test_what_does_not_fit_goes_to_file_and_sname() -> None:
    options = (type_option(MessageType.ACK), *(DhcpOption(200 + n, bytes([n]) * 40) for n in range(10)))
    message = replace(OFFER, options=options)
    encoded = encode_message(message, max_bytes=DEFAULT_MAX_BYTES)
    assert len(encoded) <= DEFAULT_MAX_BYTES
    assert b"\x34\x01\x01" in encoded
    assert decode_message(encoded) == message
    both = replace(message, options=(*options, DhcpOption(220, bytes(40))))
    encoded = encode_message(both, max_bytes=DEFAULT_MAX_BYTES)
    assert b"\x34\x01\x03" in encoded
    assert decode_message(encoded) == both
    with pytest.raises(EncodeError, match="do not fit the message"):
        encode_message(replace(both, sname=b"taken", file=b"taken"), max_bytes=DEFAULT_MAX_BYTES)


@pytest.mark.parametrize(
    ("data", "what", "offset", "path"),
    [
        (b"\1" * 239, "239 bytes where the fixed fields need 240", 0, ""),
        (packet("ff", head="03" + HEAD[2:]), "3 is neither 1", 0, "op"),
        (packet("ff", head="020105" + HEAD[6:]), "5 bytes is no length", 2, "hlen"),
        (packet("ff", head="020611" + HEAD[6:]), "17 bytes is no length", 2, "hlen"),
        (packet("ff").replace(bytes.fromhex(MAGIC), b"abcd"), "61626364 is not", 236, "magic"),
        (packet("350101"), "the END option is missing", 243, "options"),
        (packet("35"), "ends before its length", 240, "options: option 53 MESSAGE_TYPE"),
        (packet("350105 96 08 01020304"), "length 8, but only 4", 244, "options: option 150 TFTP_SERVER_ADDRESSES"),
        (packet("350105 9603 010203 ff"), "3 bytes are no list", 245, "option 150 TFTP_SERVER_ADDRESSES"),
        (packet("9600 ff"), "0 bytes are no list", 242, "option 150 TFTP_SERVER_ADDRESSES"),
        (packet("35020101 ff"), "2 bytes where 1 are needed", 242, "option 53 MESSAGE_TYPE"),
        (packet("350101 350102 ff"), "2 bytes where 1", 242, "option 53 MESSAGE_TYPE"),
        (packet("3603010203 ff"), "3 bytes where an address needs 4", 242, "option 54 SERVER_IDENTIFIER"),
        (packet("420100 ff"), "is empty", 242, "option 66 TFTP_SERVER_NAME"),
        (packet("4203610062 ff"), "NUL in the middle", 242, "option 66 TFTP_SERVER_NAME"),
        (packet("3700 ff"), "is empty", 242, "option 55 PARAMETER_REQUEST_LIST"),
        (packet("340104 ff"), "04 is not 1, 2 or 3", 242, "option 52 OVERLOAD"),
        (packet("340101 ff", file="340102 ff"), "stands inside a field", 44, "option 52 OVERLOAD"),
        (packet("340102 ff", sname="e001"), "length 1", 0, ""),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: bytes, what: str, offset: int, path: str) -> None:
    if offset == 0 and what == "length 1":  # the field's zeros are the value and then PAD to its end
        offset, path, what = 108, "sname", "the END option is missing"
    with pytest.raises(DecodeError, match=what) as wrong:
        decode_message(data)
    assert (wrong.value.offset, wrong.value.path) == (offset, path)


def test_the_bounds() -> None:
    with pytest.raises(LimitExceeded, match="4097 bytes"):
        decode_message(bytes(MAX_BYTES + 1))
    fits = packet("".join(f"{code:02x}00" for code in range(67, 67 + MAX_OPTIONS) if code != 150) + "ff")
    assert len(decode_message(fits).options) == MAX_OPTIONS - 1
    with pytest.raises(LimitExceeded, match="more than 128 options"):
        decode_message(
            packet("".join(f"{code:02x}00" for code in range(67, 67 + MAX_OPTIONS + 2) if code != 150) + "ff")
        )


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (replace(OFFER, xid=1 << 32), "does not fit 4 bytes"),
        (replace(OFFER, hops=-1), "does not fit 1 bytes"),
        (replace(OFFER, chaddr=bytes(17)), "17 bytes"),
        (replace(OFFER, sname=bytes(65)), "65 bytes"),
        (replace(OFFER, yiaddr="phone"), "'phone' is no IPv4 address"),
        (replace(OFFER, options=(DhcpOption(255, b""),)), "255 is no code"),
        (replace(OFFER, options=(DhcpOption(0, b""),)), "0 is no code"),
    ],
)
def test_what_does_not_fit_is_not_encoded(message: DhcpMessage, what: str) -> None:
    with pytest.raises(EncodeError, match=what):
        encode_message(message)


def test_option_makers_refuse_what_does_not_fit() -> None:
    for make in (
        lambda: text_option(66, "☎"),
        lambda: number_option(51, 1 << 32, 4),
        lambda: address_option(150, "tftp.example"),
    ):
        with pytest.raises(EncodeError):
            make()


def test_wrong_options_can_be_made_on_purpose() -> None:
    wrong = replace(OFFER, options=(DhcpOption(150, b"abc"),))
    with pytest.raises(DecodeError, match="3 bytes are no list"):
        _ = wrong.tftp_servers
    with pytest.raises(DecodeError, match="3 bytes are no list"):
        decode_message(encode_message(wrong))


@pytest.mark.parametrize(
    ("address", "mask", "usable"),
    [
        ("127.0.11.101", None, True),
        ("127.0.11.101", "255.255.255.0", True),
        ("127.0.11.0", "255.255.255.0", False),
        ("127.0.11.255", "255.255.255.0", False),
        ("127.0.11.255", None, True),
        ("127.0.11.255", "255.0.255.0", True),
        ("10.0.0.1", "255.255.255.254", True),
        ("0.0.0.0", None, False),
        ("0.1.2.3", None, False),
        ("224.0.0.1", None, False),
        ("239.255.255.255", None, False),
        ("240.0.0.1", None, False),
        ("255.255.255.255", None, False),
        ("tftp.example", None, False),
        ("::1", None, False),
    ],
)
def test_which_addresses_a_host_can_have(address: str, mask: str | None, usable: bool) -> None:
    assert is_host_address(address, mask) is usable
