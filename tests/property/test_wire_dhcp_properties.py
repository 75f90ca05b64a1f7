from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cucm.errors import EncodeError, WireError
from cucm.wire.dhcp import DhcpMessage, decode_message, encode_message
from cucm.wire.dhcp_options import DhcpOption

READ = {1, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 61, 66, 150}
"""Options whose values are checked."""
ADDRESSES = st.ip_addresses(v=4).map(str)
OPTIONS = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code not in READ), st.binary(max_size=400), max_size=12
).map(lambda values: tuple(DhcpOption(code, value) for code, value in values.items()))
FIELDS = st.binary(max_size=60).map(lambda field: field.rstrip(b"\0"))
MESSAGES = st.builds(
    DhcpMessage,
    op=st.sampled_from([1, 2]),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(min_size=6, max_size=6),
    options=OPTIONS,
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=ADDRESSES,
    yiaddr=ADDRESSES,
    siaddr=ADDRESSES,
    giaddr=ADDRESSES,
    sname=FIELDS,
    file=FIELDS,
)


@given(MESSAGES)
def test_round_trip(message: DhcpMessage) -> None:
    try:
        encoded = encode_message(message)
    except EncodeError:
        assert sum(len(option.value) for option in message.options) > 3000
        return
    assert decode_message(encoded) == message


@given(MESSAGES, st.integers(300, 700))
def test_a_short_message_is_never_exceeded_and_loses_nothing(message: DhcpMessage, most: int) -> None:
    try:
        encoded = encode_message(message, max_bytes=most)
    except EncodeError:
        return
    assert len(encoded) <= most
    assert decode_message(encoded) == message


@given(st.binary(max_size=700))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    for candidate in (data, encode_message(DhcpMessage(2, 1, bytes(6)))[:240] + data):
        try:
            decoded = decode_message(candidate)
        except WireError:
            continue
        assert decode_message(encode_message(decoded)) == decoded


@given(MESSAGES, st.data())
def test_any_byte_changed_is_a_message_or_a_wire_error(message: DhcpMessage, data: st.DataObject) -> None:
    try:
        encoded = bytearray(encode_message(message))
    except EncodeError:
        return
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_message(bytes(encoded))
        again = decode_message(encode_message(decoded, max_bytes=65000))
    except WireError:
        return
    assert again == decoded
