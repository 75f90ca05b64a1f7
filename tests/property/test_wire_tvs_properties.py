from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cucm.errors import DecodeError, LimitExceeded, WireError
from cucm.wire.tvs import (
    NEED_DATA,
    ConnectionClosed,
    Element,
    NeedData,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsConnection,
    TvsMessage,
    VerifyRequest,
    VerifyResponse,
    decode_message,
    encode_message,
)

FEW = settings(max_examples=80, derandomize=True)
PROPERTIES = ("device_name", "subject", "issuer", "serial", "certificate", "status", "roles", "ttl_s")

texts = st.text(st.characters(codec="latin-1", exclude_characters="\0"), max_size=40)
names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)
blobs = st.binary(max_size=60)
u8, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFFFFFF)
roles = st.none() | st.lists(u8, max_size=5)
ttls = st.none() | u32
unknown = st.lists(st.builds(Element, st.integers(10, 255) | st.just(0), blobs), max_size=4)

queries = st.builds(QueryCertificateRequest.build, u32, texts, texts, names, blobs)
built = st.one_of(
    queries,
    st.builds(VerifyRequest.build, u32, texts, blobs),
    st.builds(VerifyResponse.build, u32, u8, roles, ttls, u8),
    st.builds(QueryCertificateResponse.build, u32, u8, st.none() | blobs, roles, ttls, u8),
)


@st.composite
def messages(draw: st.DrawFn) -> TvsMessage:
    """A valid message with unknown elements at any place."""
    message = draw(built)
    elements = list(message.elements)
    for element in draw(unknown):
        elements.insert(draw(st.integers(0, len(elements))), element)
    return type(message)(message.session_id, draw(u8), message.version, tuple(elements))


def check_place(error: DecodeError, data: bytes) -> None:
    assert 0 <= error.offset <= len(data)
    assert error.path


def read_everything(message: TvsMessage) -> list[object]:
    return [getattr(message, name) for name in PROPERTIES if hasattr(type(message), name)]


@FEW
@given(messages())
def test_decode_of_encode_is_the_message(message: TvsMessage) -> None:
    decoded = decode_message(encode_message(message))
    assert decoded == message
    assert read_everything(decoded) == read_everything(message)


@FEW
@given(u32, texts, texts, names, blobs)
def test_a_query_says_what_it_was_built_from(
    session_id: int, device_name: str, subject: str, issuer: str, serial: bytes
) -> None:
    built_query = QueryCertificateRequest.build(session_id, device_name, subject, issuer, serial)
    decoded = decode_message(encode_message(built_query))
    assert isinstance(decoded, QueryCertificateRequest)
    assert (decoded.device_name, decoded.subject) == (device_name, subject)
    assert (decoded.issuer, decoded.serial) == (issuer, serial)


@settings(FEW, max_examples=400)
@given(messages(), st.data())
def test_any_changed_byte_gives_a_value_or_the_documented_error(message: TvsMessage, data: st.DataObject) -> None:
    wire = bytearray(encode_message(message))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_message(bytes(wire))
    except (DecodeError, LimitExceeded):
        return
    assert encode_message(decoded) == bytes(wire)
    read_everything(decoded)


@settings(FEW, max_examples=400)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x57", b"\x57\x01\x03\x00", b"\x57\x01\x04\xf7\0\0\3\xe9"]))
def test_no_bytes_raise_anything_else(data: bytes, start: bytes) -> None:
    for whole in (start + data, (start + b"\0\0\0\0")[:8] + len(data).to_bytes(2, "big") + data):
        try:
            decoded = decode_message(whole)
        except DecodeError as error:
            check_place(error, whole)
        except LimitExceeded:
            pass
        else:
            assert encode_message(decoded) == whole
            read_everything(decoded)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def events_of(chunks: list[bytes]) -> list[object]:
    """What a connection tells of these reads and the end behind them; the error last, if there is one."""
    connection = TvsConnection(max_message=300, max_messages=5)
    told: list[object] = []
    for chunk in [*chunks, None]:
        if chunk is None:
            connection.receive_eof()
        else:
            connection.receive_data(chunk)
        while True:
            try:
                event = connection.next_event()
            except WireError as error:
                told.append((type(error), str(error)))
                return told
            if isinstance(event, NeedData):
                break
            told.append(event)
            if isinstance(event, ConnectionClosed):
                break
    return told


@settings(FEW, max_examples=300)
@given(
    st.lists(messages(), max_size=7),
    st.binary(max_size=30),
    st.lists(st.integers(0, 5000), max_size=12),
    st.none() | st.tuples(st.integers(0, 5000), st.integers(1, 255)),
)
@example([], b"", [], None)
def test_any_chunking_gives_the_same_events(
    sent: list[TvsMessage], behind: bytes, cuts: list[int], flip: tuple[int, int] | None
) -> None:
    stream = bytearray(b"".join(map(encode_message, sent)) + behind)
    if flip is not None and stream:
        stream[flip[0] % len(stream)] ^= flip[1]
    data = bytes(stream)
    whole = events_of([data])
    assert events_of(pieces(data, cuts)) == whole
    assert events_of([data[i : i + 1] for i in range(len(data))]) == whole


@FEW
@given(st.lists(messages(), min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=8))
def test_what_was_sent_arrives(sent: list[TvsMessage], cuts: list[int]) -> None:
    data = b"".join(TvsConnection().send(message) for message in sent)
    connection, arrived = TvsConnection(), []
    for chunk in pieces(data, cuts):
        connection.receive_data(chunk)
        while (event := connection.next_event()) != NEED_DATA:
            arrived.append(event)
    assert arrived == sent


@pytest.mark.parametrize("position", range(153))
def test_every_byte_of_the_seeds_query_flipped(position: int) -> None:
    issuer, serial = "CN=stormin-WIN2012-CA", bytes.fromhex("24000000179479b8f124ac3f3b000000000017")
    subject = "CN=ucm11pub.stormin.local;OU=IST;O=Stormin;L=Brisbane;ST=QLD;C=AU"
    query = QueryCertificateRequest.build(1001, "CP-8861-SEPB000B4BA0AEE", subject, issuer, serial)
    wire = bytearray(encode_message(query))
    for bit in range(8):
        changed = bytearray(wire)
        changed[position] ^= 1 << bit
        try:
            decoded = decode_message(bytes(changed))
        except (DecodeError, LimitExceeded):
            continue
        assert encode_message(decoded) == bytes(changed)
        assert decoded != query
