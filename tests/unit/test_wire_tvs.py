from __future__ import annotations

import pytest

from cucm.errors import DecodeError, EncodeError, LimitExceeded, WireError
from cucm.wire.tvs import (
    CONNECTION_CLOSED,
    MAX_BUFFERED,
    MAX_MESSAGE,
    NEED_DATA,
    Element,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsConnection,
    TvsMessage,
    VerifyRequest,
    VerifyResponse,
    encode_message,
)

QUERY = QueryCertificateRequest.build(1001, "CP-8861-SEPB000B4BA0AEE", "CN=a;O=b", "CN=c", b"\x01\x02")
ANSWER = QueryCertificateResponse.build(1001, 0, bytes(1451), (0, 3), 86400)


def drain(connection: TvsConnection) -> list[TvsMessage]:
    messages = []
    while isinstance(event := connection.next_event(), TvsMessage):
        messages.append(event)
    return messages


def failure_of(connection: TvsConnection) -> WireError:
    with pytest.raises(WireError) as caught:
        connection.next_event()
    return caught.value


@pytest.mark.parametrize("message", [QUERY, ANSWER], ids=lambda m: m.type.name)
def test_byte_by_byte(message: TvsMessage) -> None:
    connection, data = TvsConnection(), TvsConnection().send(message)
    for byte in data[:-1]:
        connection.receive_data(bytes([byte]))
        assert connection.next_event() == NEED_DATA
    connection.receive_data(data[-1:])
    assert connection.next_event() == message
    assert connection.next_event() == NEED_DATA
    connection.receive_eof()
    assert connection.next_event() == CONNECTION_CLOSED
    assert connection.next_event() == CONNECTION_CLOSED


def test_several_messages_in_one_read_and_the_rest_in_another() -> None:
    data = encode_message(QUERY) * 3 + encode_message(ANSWER)
    connection = TvsConnection()
    connection.receive_data(data[:-5])
    assert drain(connection) == [QUERY] * 3
    connection.receive_data(data[-5:])
    assert drain(connection) == [ANSWER]


def test_messages_before_the_end_are_still_read() -> None:
    connection = TvsConnection()
    connection.receive_data(encode_message(QUERY) * 2)
    connection.receive_eof()
    assert drain(connection) == [QUERY, QUERY]
    assert connection.next_event() == CONNECTION_CLOSED


@pytest.mark.parametrize("length", [1, 9, 10, 11, len(encode_message(QUERY)) - 1])
def test_end_in_mid_message(length: int) -> None:
    connection = TvsConnection()
    connection.receive_data(encode_message(ANSWER) + encode_message(QUERY)[:length])
    connection.receive_eof()
    assert connection.next_event() == ANSWER
    failure = failure_of(connection)
    assert isinstance(failure, DecodeError)
    assert (failure.offset, failure.what) == (length, "connection closed in mid-message")


@pytest.mark.parametrize(("start", "offset"), [(b"\x16\x03\x01", 0), (b"\x57\x00", 1), (b"\x57\x01\x63", 2)])
def test_garbage_is_refused_at_its_first_byte(start: bytes, offset: int) -> None:
    connection = TvsConnection()
    connection.receive_data(start)
    failure = failure_of(connection)
    assert isinstance(failure, DecodeError)
    assert failure.offset == offset


def test_a_failed_connection_stays_failed_and_keeps_nothing() -> None:
    connection = TvsConnection()
    connection.receive_data(b"x")
    failure = failure_of(connection)
    connection.receive_data(encode_message(QUERY))
    connection.receive_eof()
    assert failure_of(connection) is failure


def test_a_malformed_body_fails_after_the_good_messages() -> None:
    bad = bytearray(encode_message(VerifyResponse.build(1, 0)))
    bad[12] = 2
    connection = TvsConnection()
    connection.receive_data(encode_message(QUERY) + bytes(bad))
    assert connection.next_event() == QUERY
    failure = failure_of(connection)
    assert isinstance(failure, DecodeError)
    assert (failure.offset, failure.path) == (11, "VERIFY_RESPONSE.STATUS")


def test_a_message_above_the_limit_is_refused_when_its_header_is_there() -> None:
    connection = TvsConnection(max_message=1000)
    connection.receive_data(encode_message(QUERY) + encode_message(ANSWER)[:10])
    assert connection.next_event() == QUERY
    failure = failure_of(connection)
    assert isinstance(failure, LimitExceeded)
    assert failure.what == "message of 1480 bytes, 1000 are allowed"


def test_a_message_as_long_as_the_limit_passes() -> None:
    connection = TvsConnection(max_message=1480)
    connection.receive_data(encode_message(ANSWER))
    assert connection.next_event() == ANSWER


def test_a_message_one_byte_longer_than_the_limit_does_not() -> None:
    connection = TvsConnection(max_message=1479)
    connection.receive_data(encode_message(ANSWER))
    assert isinstance(failure_of(connection), LimitExceeded)


def test_the_longest_message_passes() -> None:
    longest = VerifyResponse(1, 0, 1, (Element(7, b"\0"), Element(99, bytes(0xFFFF - 4 - 3))))
    data = encode_message(longest)
    assert len(data) == MAX_MESSAGE
    connection = TvsConnection()
    connection.receive_data(data)
    assert connection.next_event() == longest


def test_messages_are_counted() -> None:
    connection = TvsConnection(max_messages=2)
    connection.receive_data(encode_message(QUERY) * 2)
    assert drain(connection) == [QUERY, QUERY]
    connection.receive_data(b"\x57")
    failure = failure_of(connection)
    assert isinstance(failure, LimitExceeded)
    assert failure.what == "more than 2 messages on one connection"


def test_a_reader_that_does_not_read_costs_a_bounded_amount() -> None:
    connection = TvsConnection(max_messages=100_000)
    data = encode_message(QUERY)
    for _ in range(2 * MAX_BUFFERED // len(data)):
        connection.receive_data(data)
    for _ in range(MAX_BUFFERED // len(data)):
        assert connection.next_event() == QUERY
    assert failure_of(connection).what == f"more than {MAX_BUFFERED} bytes came at once"


def test_send_refuses_what_does_not_fit() -> None:
    with pytest.raises(EncodeError):
        TvsConnection().send(VerifyResponse(1 << 32, 0, 1, ()))


def test_bytes_behind_a_gap_are_not_pieced_together() -> None:
    """What no longer fitted is lost; later bytes must not complete the message that it cut."""
    data = encode_message(VerifyRequest.build(1, "CP-8861-SEP000000000000", bytes(60_000)))
    connection = TvsConnection()
    connection.receive_data(data * (MAX_BUFFERED // len(data) + 1))
    for _ in range(MAX_BUFFERED // len(data)):
        assert isinstance(connection.next_event(), VerifyRequest)
    connection.receive_data(bytes(60_000))
    assert failure_of(connection).what == f"more than {MAX_BUFFERED} bytes came at once"
