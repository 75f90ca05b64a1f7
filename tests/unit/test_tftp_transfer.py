"""The transfer without I/O: a client is a handful of lines here, so every loss and every echo can be written down."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from cucm.events.files import FailureReason, RefusalReason
from tftp_server import transfer as module
from tftp_server.packets import (
    HEADER,
    ErrorCode,
    Operation,
    Request,
    decode_option_acknowledgement,
    encode_acknowledgement,
    encode_error,
)
from tftp_server.transfer import ReadTransfer, RequestRefused, TransferLimits, TransferState, negotiate

LIMITS = TransferLimits()


def reading(file: bytes, mode: str = "octet", limits: TransferLimits = LIMITS, **options: object) -> ReadTransfer:
    asked = tuple((name, str(value)) for name, value in options.items())
    return ReadTransfer(Request(Operation.READ_REQUEST, "file", mode, asked), file, limits)


def blocks(datagrams: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """(number, data) of DATA packets."""
    for datagram in datagrams:
        assert datagram[:2] == b"\0\3"
    return [(HEADER.unpack_from(datagram)[1], datagram[4:]) for datagram in datagrams]


def numbers(datagrams: Sequence[bytes]) -> list[int]:
    return [number for number, _ in blocks(datagrams)]


def acknowledge(transfer: ReadTransfer, number: int) -> Sequence[bytes]:
    return transfer.receive(encode_acknowledgement(number))


def download(transfer: ReadTransfer) -> bytes:
    """A faultless client."""
    received = b""
    answers = transfer.start()
    if answers[0][:2] == b"\0\6":
        answers = acknowledge(transfer, 0)
    while transfer.state is TransferState.ACTIVE:
        parts = blocks(answers)
        received += b"".join(data for _, data in parts)
        answers = acknowledge(transfer, parts[-1][0])
    assert not answers
    return received


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 5000])
@pytest.mark.parametrize("options", [{}, {"blksize": 8}, {"blksize": 1428}, {"windowsize": 4}, {"tsize": 0}])
def test_whole_files(size: int, options: dict[str, int]) -> None:
    file = bytes(range(256)) * (size // 256) + bytes(size % 256)
    transfer = reading(file, **options)
    assert download(transfer) == file
    assert transfer.state is TransferState.DONE
    assert transfer.digest() == hashlib.sha256(file).hexdigest()
    assert transfer.retransmissions == 0
    assert transfer.sent_bytes == size


def test_a_file_that_fills_its_blocks_ends_with_an_empty_one() -> None:
    transfer = reading(bytes(512))
    assert blocks(transfer.start()) == [(1, bytes(512))]
    assert blocks(acknowledge(transfer, 1)) == [(2, b"")]
    assert transfer.state is TransferState.ACTIVE
    assert acknowledge(transfer, 2) == ()
    assert transfer.state is TransferState.DONE


def test_block_numbers_roll_over_in_lock_step_and_in_windows() -> None:
    file = b"".join(number.to_bytes(8, "big") for number in range(70_000)) + b"end"
    assert download(reading(file, blksize=8)) == file
    assert download(reading(file, blksize=8, windowsize=7)) == file


# -- options --------------------------------------------------------------------------------------------------------


def test_options_are_granted_in_the_order_they_were_asked() -> None:
    transfer = reading(bytes(5000), tsize=0, windowsize=3, blksize=1428, timeout=2)
    (oack,) = transfer.start()
    granted = (("tsize", "5000"), ("windowsize", "3"), ("blksize", "1428"), ("timeout", "2"))
    assert decode_option_acknowledgement(oack) == granted
    assert transfer.timeout_s == 2
    assert numbers(acknowledge(transfer, 0)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blksize", "7"),
        ("blksize", "0"),
        ("blksize", "-1"),
        ("blksize", "1e3"),
        ("blksize", ""),
        ("blksize", "٥١٢"),
        ("blksize", "9" * 11),
        ("timeout", "0"),
        ("timeout", "31"),
        ("timeout", "256"),
        ("windowsize", "0"),
        ("windowsize", "65536"),
        ("tsize", "many"),
        ("multicast", ""),
    ],
)
def test_options_out_of_range_or_unknown_are_left_out(name: str, value: str) -> None:
    transfer = reading(b"file", **{name: value})
    assert transfer.terms.granted == ()
    assert blocks(transfer.start()) == [(1, b"file")]


def test_what_is_larger_than_we_give_is_granted_smaller() -> None:
    assert negotiate([("blksize", "70000")], 1, LIMITS).granted == (("blksize", "65464"),)
    assert negotiate([("windowsize", "65535")], 1, LIMITS).granted == (("windowsize", "64"),)
    both = negotiate([("windowsize", "64"), ("blksize", "65464")], 1, LIMITS)
    assert both.window_blocks * both.block_size <= LIMITS.window_bytes


def test_the_size_of_an_empty_file_is_not_told() -> None:
    assert negotiate([("tsize", "0")], 0, LIMITS).granted == ()


def test_the_option_acknowledgement_is_repeated_until_acknowledged() -> None:
    transfer = reading(b"file", tsize=0)
    (oack,) = transfer.start()
    assert transfer.timed_out() == (oack,)
    assert acknowledge(transfer, 1) == ()  # there was no block 1 yet
    assert blocks(acknowledge(transfer, 0)) == [(1, b"file")]
    assert acknowledge(transfer, 0) == ()


# -- loss and echo --------------------------------------------------------------------------------------------------


def test_lost_packets_are_sent_again_with_back_off_and_not_for_ever() -> None:
    transfer = reading(bytes(600), limits=TransferLimits(tries=5, first_timeout_s=1, longest_timeout_s=4))
    first = transfer.start()
    waits = []
    while transfer.state is TransferState.ACTIVE:
        waits.append(transfer.timeout_s)
        again = transfer.timed_out()
        assert list(again) == (list(first) if transfer.state is TransferState.ACTIVE else [])
    assert waits == [1, 2, 4, 4, 4]
    assert transfer.failure is FailureReason.SILENCE
    assert transfer.retransmissions == 4


def test_an_answer_ends_the_back_off() -> None:
    transfer = reading(bytes(2000))
    transfer.start()
    transfer.timed_out()
    transfer.timed_out()
    assert (transfer.timeout_s, transfer.attempt) == (4, 3)
    acknowledge(transfer, 1)
    assert (transfer.timeout_s, transfer.attempt) == (1, 1)


def test_a_timeout_the_client_asked_for_stays_as_it_is() -> None:
    transfer = reading(bytes(600), timeout=3)
    transfer.start()
    transfer.timed_out()
    assert transfer.timeout_s == 3


def test_every_acknowledgement_twice_causes_no_data_twice() -> None:
    """The sorcerer's apprentice: with each echo answered, every block from there on would go out twice."""
    transfer = reading(bytes(5000))
    sent = numbers(transfer.start())
    for number in range(1, 11):
        sent += numbers(acknowledge(transfer, number))
        sent += numbers(acknowledge(transfer, number)) if transfer.state is TransferState.ACTIVE else []
    assert sent == list(range(1, 11))
    assert transfer.state is TransferState.DONE


def test_late_acknowledgements_of_long_ago_change_nothing() -> None:
    transfer = reading(bytes(5000))
    transfer.start()
    for number in (1, 2, 3):
        acknowledge(transfer, number)
    for number in (0, 1, 2, 5, 9, 40_000, 65_535):
        assert acknowledge(transfer, number) == ()
    assert transfer.next_block == 4


def test_a_window_is_taken_up_where_the_client_lost_it() -> None:
    transfer = reading(bytes(512 * 10), windowsize=4)
    transfer.start()
    assert numbers(acknowledge(transfer, 0)) == [1, 2, 3, 4]
    assert numbers(acknowledge(transfer, 2)) == [3, 4, 5, 6]  # 3 was lost
    assert numbers(acknowledge(transfer, 6)) == [7, 8, 9, 10]
    assert numbers(acknowledge(transfer, 10)) == [11]


def test_a_window_whose_first_block_was_lost_is_repeated_once() -> None:
    transfer = reading(bytes(512 * 20), windowsize=4)
    transfer.start()
    acknowledge(transfer, 0)
    assert numbers(acknowledge(transfer, 4)) == [5, 6, 7, 8]
    assert numbers(acknowledge(transfer, 4)) == [5, 6, 7, 8]
    assert acknowledge(transfer, 4) == ()
    assert transfer.retransmissions == 4


def test_in_windows_echoes_die_out() -> None:
    """A client that acknowledges every window twice must not make us send every window twice."""
    transfer = reading(bytes(512 * 400), windowsize=4)
    transfer.start()
    sent = numbers(acknowledge(transfer, 0))
    position = 0
    while transfer.state is TransferState.ACTIVE:
        position = min(position + 4, 401)
        sent += numbers(acknowledge(transfer, position))
        sent += numbers(acknowledge(transfer, position)) if transfer.state is TransferState.ACTIVE else []
    assert len(sent) <= 401 * 1.5 + 4
    assert transfer.state is TransferState.DONE


# -- refusals and ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mail", "binary", ""])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        reading(b"file", mode)
    assert (caught.value.reason, caught.value.code) == (RefusalReason.MODE, ErrorCode.ILLEGAL_OPERATION)


def test_writing_is_an_access_violation() -> None:
    with pytest.raises(RequestRefused) as caught:
        ReadTransfer(Request(Operation.WRITE_REQUEST, "file", "octet"), b"", LIMITS)
    assert (caught.value.reason, caught.value.code) == (RefusalReason.WRITE_REQUEST, ErrorCode.ACCESS_VIOLATION)


def test_netascii() -> None:
    file = b"a\nb\rc\r\n"
    transfer = reading(file, "netascii", tsize=0)
    assert transfer.terms.granted == (("tsize", "11"),)
    assert download(transfer) == b"a\r\nb\r\0c\r\0\r\n"
    assert transfer.digest() == hashlib.sha256(file).hexdigest()
    assert transfer.file_size == len(file)


def test_netascii_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NETASCII_BYTES", 3)
    assert download(reading(b"abcd")) == b"abcd"
    with pytest.raises(RequestRefused) as caught:
        reading(b"abcd", "netascii")
    assert caught.value.reason is RefusalReason.TOO_LARGE


@pytest.mark.parametrize(
    "datagram", [b"", b"\0", b"\0\4\0", b"\0\1file\0octet\0", b"\0\3\0\1x", b"\0\6\0\0", b"\0\x63\0\0"]
)
def test_anything_but_an_acknowledgement_ends_the_transfer_with_error_4(datagram: bytes) -> None:
    transfer = reading(bytes(600))
    transfer.start()
    (answer,) = transfer.receive(datagram)
    assert HEADER.unpack_from(answer) == (Operation.ERROR, ErrorCode.ILLEGAL_OPERATION)
    assert (transfer.state, transfer.failure) == (TransferState.FAILED, FailureReason.PROTOCOL)


def test_an_error_of_the_client_ends_the_transfer_without_an_answer() -> None:
    transfer = reading(bytes(600))
    transfer.start()
    assert transfer.receive(encode_error(0, "enough")) == ()
    assert (transfer.failure, transfer.detail) == (FailureReason.CLIENT_ERROR, "ERROR 0 enough")
    transfer.fail(FailureReason.SERVER_STOPPED, "later")
    assert transfer.failure is FailureReason.CLIENT_ERROR


@pytest.mark.parametrize("windowsize", [1, 4])
@pytest.mark.parametrize("repeats", [False, True])
def test_an_empty_datagram_is_no_acknowledgement(windowsize: int, repeats: bool) -> None:
    transfer = reading(bytes(512 * 10), windowsize=windowsize)
    transfer.start()
    acknowledge(transfer, 0)
    if repeats:
        transfer.timed_out()
    assert list(transfer.receive(b"")) == [encode_error(ErrorCode.ILLEGAL_OPERATION, "Illegal TFTP operation")]
    assert (transfer.failure, transfer.sent_bytes) == (FailureReason.PROTOCOL, 0)
