from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from cucm.errors import DecodeError
from tftp_server import packets
from tftp_server.http import decode_head
from tftp_server.packets import HEADER, Operation, Request, encode_acknowledgement
from tftp_server.transfer import ReadTransfer, TransferLimits, TransferState

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
NAMED = st.dictionaries(TEXT.filter(bool).map(str.lower), TEXT, max_size=3)


@given(st.sampled_from([Operation.READ_REQUEST, Operation.WRITE_REQUEST]), TEXT.filter(bool), TEXT, NAMED)
def test_requests_survive(operation: Operation, name: str, mode: str, options: dict[str, str]) -> None:
    lowered = {option.lower(): value for option, value in options.items()}
    request = Request(operation, name, mode.lower(), tuple(lowered.items()))
    # lower-casing is not idempotent in all of Unicode: such names are no test of the codec
    if request.mode == request.mode.lower() and all(option == option.lower() for option in lowered):
        assert packets.decode_request(packets.encode_request(request)) == request


def error_offset(decode: Callable[[bytes], object], data: bytes) -> int:
    """Where decoding failed; 0 if it did not. Any other error than `DecodeError` comes out."""
    try:
        decode(data)
    except DecodeError as error:
        return error.offset
    return 0


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda tail: b"\0\1" + tail))
def test_any_datagram_is_a_request_or_a_decode_error(datagram: bytes) -> None:
    for decode in (packets.decode_request, packets.decode_error, packets.decode_option_acknowledgement):
        offset = error_offset(decode, datagram)
        assert 0 <= offset <= max(len(datagram), packets.MAX_REQUEST_BYTES)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"GET /a HTTP/1.1\r\n" + tail))
def test_any_head_is_a_request_or_a_decode_error(head: bytes) -> None:
    assert 0 <= error_offset(decode_head, head) <= len(head)


@given(
    file=st.binary(max_size=3000),
    block_size=st.integers(8, 600),
    window=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.3),
    echo=st.floats(0, 0.5),
)
def test_a_lossy_and_echoing_network_delivers_the_file_in_order(
    file: bytes, block_size: int, window: int, seed: int, loss: float, echo: float
) -> None:
    """A receiver by RFC 7440 behind a network that loses and doubles packets, both ways."""
    chance = random.Random(seed)
    options = (("blksize", str(block_size)), ("windowsize", str(window)))
    transfer = ReadTransfer(Request(Operation.READ_REQUEST, "f", "octet", options), file, TransferLimits(tries=10_000))

    def network(datagrams: list[bytes]) -> list[bytes]:
        kept = [datagram for datagram in datagrams if chance.random() >= loss]
        return [copy for datagram in kept for copy in [datagram] * (1 + (chance.random() < echo))]

    received, expected, done, since = b"", 0, False, 0
    to_client = network(list(transfer.start()))
    for _ in range(100_000):
        if transfer.state is not TransferState.ACTIVE:
            break
        to_server: list[bytes] = []
        for datagram in to_client:
            operation, number = HEADER.unpack_from(datagram)
            if operation == Operation.OPTION_ACKNOWLEDGEMENT:
                to_server.append(encode_acknowledgement(0))
                continue
            if number == expected + 1 and not done:
                expected += 1
                since += 1
                received += datagram[4:]
                done = len(datagram) - 4 < block_size
            else:
                since = window  # a gap or an echo: say where we are
            if done or since >= window:
                to_server.append(encode_acknowledgement(expected))
                since = 0
        to_client = []
        for datagram in network(to_server):
            if transfer.state is TransferState.ACTIVE:
                to_client += transfer.receive(datagram)
        if not to_client and transfer.state is TransferState.ACTIVE:
            to_client = list(transfer.timed_out())
        to_client = network(to_client)
    assert transfer.state is TransferState.DONE
    assert received == file
