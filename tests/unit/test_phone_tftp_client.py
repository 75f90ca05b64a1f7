from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from cucm.errors import DecodeError, EncodeError
from phone_agent.commands import FetchStatus
from phone_agent.tftp_client import (
    MAX_RETRANSMISSIONS,
    MAX_STRANGERS,
    Datagram,
    ReadTransfer,
    decode_options,
    fetch_tftp,
    read_request,
)

SERVER = ("127.0.11.32", 69)
PEER = ("127.0.11.32", 40_001)
STRANGER = ("127.0.11.32", 40_002)


def data(block: int, payload: bytes) -> bytes:
    return struct.pack(">HH", 3, block & 0xFFFF) + payload


def ack(block: int) -> bytes:
    return struct.pack(">HH", 4, block & 0xFFFF)


def error(code: int, text: bytes = b"") -> bytes:
    return struct.pack(">HH", 5, code) + text + b"\0"


def oack(**options: int) -> bytes:
    return struct.pack(">H", 6) + b"".join(b"%s\0%d\0" % (name.encode(), value) for name, value in options.items())


def bytes_of(datagrams: list[Datagram]) -> list[bytes]:
    return [datagram.data for datagram in datagrams]


def new_transfer(**keywords: object) -> ReadTransfer:
    return ReadTransfer("CTLFile.tlv", SERVER, **keywords)  # type: ignore[arg-type]


# -- the request ----------------------------------------------------------------------------------------------------


def test_the_request_is_octet_mode_without_options() -> None:
    assert read_request("CTLSEPB000B4BA0AEE.tlv", {}) == b"\0\1CTLSEPB000B4BA0AEE.tlv\0octet\0"


def test_options_follow_the_mode() -> None:
    assert read_request("a", {"blksize": 1428, "tsize": 0}) == b"\0\1a\0octet\0blksize\x001428\0tsize\x000\0"


@pytest.mark.parametrize("name", ["", "a\0b", "é", "a" * 600])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(EncodeError):
        read_request(name, {})


# -- the course of a transfer ---------------------------------------------------------------------------------------


def test_a_file_of_two_blocks() -> None:
    transfer = new_transfer()
    assert transfer.start() == [Datagram(read_request("CTLFile.tlv", {}), SERVER)]
    assert transfer.receive(data(1, b"a" * 512), PEER) == [Datagram(ack(1), PEER)]
    assert transfer.outcome is None
    assert transfer.receive(data(2, b"b"), PEER) == [Datagram(ack(2), PEER)]
    assert transfer.outcome is not None
    assert (transfer.outcome.status, transfer.outcome.data) == (FetchStatus.OK, b"a" * 512 + b"b")


def test_a_server_may_answer_from_the_port_it_was_asked_on() -> None:
    transfer = new_transfer()
    assert transfer.receive(data(1, b"a"), SERVER) == [Datagram(ack(1), SERVER)]
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a"


def test_a_file_that_fills_its_last_block_ends_with_an_empty_one() -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    assert transfer.outcome is None
    transfer.receive(data(2, b""), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a" * 512


def test_block_numbers_roll_over() -> None:
    transfer = new_transfer(options={"blksize": 8})
    transfer.receive(oack(blksize=8), PEER)
    for block in range(1, 65_540):
        assert bytes_of(transfer.receive(data(block, b"12345678"), PEER)) == [ack(block)]
    transfer.receive(data(65_540, b""), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"12345678" * 65_539


def test_a_block_that_comes_again_is_acknowledged_again_once() -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    assert bytes_of(transfer.receive(data(1, b"a" * 512), PEER)) == [ack(1)]
    assert transfer.receive(data(1, b"a" * 512), PEER) == []
    assert bytes_of(transfer.handle_timeout()) == [ack(1)]
    assert bytes_of(transfer.receive(data(2, b"a" * 512), PEER)) == [ack(2)]
    assert bytes_of(transfer.receive(data(2, b"a" * 512), PEER)) == [ack(2)]
    transfer.receive(data(3, b""), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a" * 1024


@pytest.mark.parametrize("block", [0, 1, 4, 65_535])
def test_a_block_out_of_order_changes_nothing(block: int) -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    transfer.receive(data(2, b"a" * 512), PEER)
    before = transfer.progress
    assert transfer.receive(data(block, b"evil"), PEER) == []
    assert transfer.progress == before
    assert transfer.outcome is None


def test_time_outs_repeat_the_last_packet_and_end() -> None:
    transfer = new_transfer()
    sent = [bytes_of(transfer.handle_timeout()) for _ in range(MAX_RETRANSMISSIONS)]
    assert sent == [[read_request("CTLFile.tlv", {})]] * MAX_RETRANSMISSIONS
    assert transfer.handle_timeout() == []
    assert transfer.outcome is not None
    assert transfer.outcome.status is FetchStatus.TIMEOUT
    assert "no answer" in transfer.outcome.detail


def test_progress_gives_new_patience() -> None:
    transfer = new_transfer(max_retransmissions=1)
    transfer.handle_timeout()
    transfer.receive(data(1, b"a" * 512), PEER)
    assert bytes_of(transfer.handle_timeout()) == [ack(1)]
    assert transfer.outcome is None
    transfer.handle_timeout()
    assert transfer.outcome is not None
    assert "stopped answering" in transfer.outcome.detail


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (0, FetchStatus.ERROR),
        (1, FetchStatus.NOT_FOUND),
        (2, FetchStatus.ACCESS_ERROR),
        (3, FetchStatus.ERROR),
        (8, FetchStatus.ERROR),
        (65_535, FetchStatus.ERROR),
    ],
)
def test_error_codes_become_statuses_and_are_not_answered(code: int, status: FetchStatus) -> None:
    transfer = new_transfer()
    assert transfer.receive(error(code, b"File not found"), PEER) == []
    assert transfer.outcome is not None
    assert transfer.outcome.status is status
    assert transfer.outcome.detail == f"error {code}: File not found"


def test_an_error_in_the_middle_leaves_no_half_file() -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    transfer.receive(error(0, b"disk"), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data is None


# -- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", [STRANGER, ("127.0.99.99", PEER[1])])
def test_a_wrong_transfer_id_gets_error_5_and_changes_nothing(stranger: tuple[str, int]) -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    (answer,) = transfer.receive(data(2, b"evil"), stranger)
    assert answer == Datagram(error(5, b"Unknown transfer ID"), stranger)
    assert bytes_of(transfer.receive(data(2, b"good"), PEER)) == [ack(2)]
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a" * 512 + b"good"


def test_another_host_cannot_become_the_server() -> None:
    transfer = new_transfer()
    (answer,) = transfer.receive(data(1, b"evil"), ("127.0.99.99", 40_001))
    assert answer.data[:4] == struct.pack(">HH", 5, 5)
    assert transfer.outcome is None
    transfer.receive(data(1, b"good"), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"good"


def test_a_strangers_error_is_not_answered_and_not_believed() -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    assert transfer.receive(error(1), STRANGER) == []
    assert transfer.outcome is None


def test_answers_to_strangers_are_bounded() -> None:
    transfer = new_transfer()
    transfer.receive(data(1, b"a" * 512), PEER)
    answers = [transfer.receive(data(2, b"evil"), STRANGER) for _ in range(MAX_STRANGERS + 5)]
    assert sum(map(len, answers)) == MAX_STRANGERS


# -- options --------------------------------------------------------------------------------------------------------


def test_agreed_options_hold() -> None:
    transfer = new_transfer(options={"blksize": 1428, "tsize": 0})
    assert bytes_of(transfer.receive(oack(blksize=1024, tsize=1025), PEER)) == [ack(0)]
    assert bytes_of(transfer.receive(data(1, b"a" * 1024), PEER)) == [ack(1)]
    transfer.receive(data(2, b"b"), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a" * 1024 + b"b"


def test_a_repeated_oack_that_changes_nothing_is_acknowledged_again_once() -> None:
    transfer = new_transfer(options={"timeout": 2})
    transfer.receive(oack(timeout=2), PEER)
    assert bytes_of(transfer.receive(oack(timeout=2), PEER)) == [ack(0)]
    assert transfer.receive(oack(timeout=2), PEER) == []


def test_a_repeated_oack_is_acknowledged_again_once() -> None:
    transfer = new_transfer(options={"blksize": 1428})
    transfer.receive(oack(blksize=1428), PEER)
    assert bytes_of(transfer.receive(oack(blksize=1428), PEER)) == [ack(0)]
    assert transfer.receive(oack(blksize=1428), PEER) == []
    transfer.receive(data(1, b"a" * 1428), PEER)
    assert transfer.receive(oack(blksize=8), PEER) == []
    transfer.receive(data(2, b""), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a" * 1428


def test_a_server_that_ignores_options_works() -> None:
    transfer = new_transfer(options={"blksize": 1428, "tsize": 0})
    transfer.receive(data(1, b"a" * 512), PEER)
    transfer.receive(data(2, b"b"), PEER)
    assert transfer.outcome is not None
    assert transfer.outcome.data == b"a" * 512 + b"b"


@pytest.mark.parametrize("accepted", [{"blksize": 1429}, {"blksize": 7}, {"windowsize": 4}])
def test_options_that_were_not_asked_for_end_the_transfer_with_error_8(accepted: dict[str, int]) -> None:
    transfer = new_transfer(options={"blksize": 1428})
    (answer,) = transfer.receive(oack(**accepted), PEER)
    assert answer.data[:4] == struct.pack(">HH", 5, 8)
    assert transfer.outcome is not None
    assert transfer.outcome.status is FetchStatus.ERROR


def test_an_announced_size_is_checked_at_once_and_at_the_end() -> None:
    large = new_transfer(options={"tsize": 0}, max_size=1000)
    (answer,) = large.receive(oack(tsize=1001), PEER)
    assert answer.data[:4] == struct.pack(">HH", 5, 3)
    short = new_transfer(options={"tsize": 0})
    short.receive(oack(tsize=5), PEER)
    short.receive(data(1, b"four"), PEER)
    assert short.outcome is not None
    assert (short.outcome.status, short.outcome.data) == (FetchStatus.ERROR, None)


def test_the_size_cap_holds_without_tsize() -> None:
    transfer = new_transfer(max_size=1000)
    transfer.receive(data(1, b"a" * 512), PEER)
    (answer,) = transfer.receive(data(2, b"a" * 512), PEER)
    assert answer.data[:4] == struct.pack(">HH", 5, 3)
    assert transfer.outcome is not None
    assert transfer.outcome.data is None


def test_a_block_longer_than_agreed_is_refused() -> None:
    transfer = new_transfer()
    (answer,) = transfer.receive(data(1, b"a" * 513), PEER)
    assert answer.data[:4] == struct.pack(">HH", 5, 4)


NONSENSE = [
    b"",
    b"\0",
    b"\0\3\0",
    struct.pack(">HH", 1, 1),
    ack(1),
    struct.pack(">HH", 7, 0),
    oack(),
    b"\0\6blksize\0",
    b"\0\6blksize\x001428",
    b"\0\6blksize\0many\0",
    b"\0\6blksize\x0099999999999\0",
]


@pytest.mark.parametrize("datagram", NONSENSE)
def test_nonsense_ends_the_transfer_with_error_4(datagram: bytes) -> None:
    transfer = new_transfer(options={"blksize": 1428})
    answers = transfer.receive(datagram, PEER)
    assert [answer.data[:4] for answer in answers] == [struct.pack(">HH", 5, 4)]
    assert transfer.outcome is not None
    assert transfer.outcome.status is FetchStatus.ERROR
    assert transfer.receive(data(1, b"late"), PEER) == []


def test_no_operation_is_taken_for_a_block_before_the_first_one() -> None:
    transfer = new_transfer(options={"blksize": 512})
    transfer.receive(oack(blksize=512), PEER)
    assert bytes_of(transfer.receive(b"\xff\xff\xff\xff" + bytes(512), PEER)) == [error(4, b"Illegal TFTP operation")]
    assert transfer.outcome is not None
    assert transfer.outcome.status is FetchStatus.ERROR


def test_option_names_are_case_insensitive() -> None:
    assert decode_options(b"\0\6BlkSize\x001428\0") == {"blksize": 1428}
    with pytest.raises(DecodeError):
        decode_options(b"\0\6\0")


# -- on a socket ----------------------------------------------------------------------------------------------------


class ScriptedServer(asyncio.DatagramProtocol):
    """Answers from a second port, as TFTP servers do; `answer(datagram)` gives the datagrams for one received."""

    def __init__(self, answer: Callable[[bytes], list[bytes]], reply: socket.socket) -> None:
        self.answer = answer
        self.reply = reply
        self.clients: list[tuple[str, int]] = []
        self.received: list[bytes] = []

    def take(self, received: bytes, client: tuple[str, int]) -> None:
        self.clients.append(client)
        self.received.append(received)
        for datagram in self.answer(received):
            self.reply.sendto(datagram, client)


@contextmanager
def scripted(address: str, answer: Callable[[bytes], list[bytes]]) -> Iterator[tuple[int, ScriptedServer]]:
    loop = asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reply,
    ):
        server = ScriptedServer(answer, reply)
        for each in (listening, reply):
            each.bind((address, 0))
            each.setblocking(False)
            loop.add_reader(each, lambda each=each: server.take(*each.recvfrom(2000)))
        try:
            yield listening.getsockname()[1], server
        finally:
            loop.remove_reader(listening)
            loop.remove_reader(reply)


def one_block(received: bytes) -> list[bytes]:
    return [data(1, b"the file")] if received[1] == 1 else []


async def test_a_file_over_a_socket_from_the_phones_own_address(loopback: Callable[[], str]) -> None:
    server_address, phone_address = loopback(), loopback()
    with scripted(server_address, one_block) as (port, server):
        attempt, content = await fetch_tftp(server_address, "a.tlv", port=port, local_address=phone_address)
        assert (attempt.status, attempt.transport, content) == (FetchStatus.OK, "tftp", b"the file")
        assert server.received[0] == b"\0\1a.tlv\0octet\0"
        assert server.clients[0][0] == phone_address


async def test_a_lost_answer_is_asked_for_again(loopback: Callable[[], str]) -> None:
    address = loopback()
    requests = []

    def deaf_once(received: bytes) -> list[bytes]:
        requests.append(received)
        return one_block(received) if len(requests) > 1 else []

    with scripted(address, deaf_once) as (port, _):
        attempt, content = await fetch_tftp(address, "a", port=port, timeout_s=0.05)
    assert (attempt.status, content) == (FetchStatus.OK, b"the file")
    assert requests[0] == requests[1]


async def test_a_silent_server_is_a_time_out(loopback: Callable[[], str]) -> None:
    address = loopback()
    with scripted(address, lambda _: []) as (port, _):
        attempt, content = await fetch_tftp(address, "a", port=port, timeout_s=0.01, max_retransmissions=2)
        assert (attempt.status, content) == (FetchStatus.TIMEOUT, None)
    assert "after 3 packets" in attempt.detail


async def test_a_server_that_never_ends_meets_the_deadline(loopback: Callable[[], str]) -> None:
    """It repeats the first block again and again: traffic, but no progress."""
    address = loopback()
    with scripted(address, lambda received: [data(1, b"a" * 512)]) as (port, _):
        attempt, content = await fetch_tftp(
            address, "a", port=port, timeout_s=0.02, max_retransmissions=10_000, deadline_s=0.2
        )
    assert (attempt.status, content) == (FetchStatus.TIMEOUT, None)


async def test_old_blocks_do_not_count_as_answers(loopback: Callable[[], str]) -> None:
    """The server repeats its first block by itself, faster than the client's timer."""
    address = loopback()
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    first = data(1, b"a" * 512)

    with scripted(address, lambda received: [first] if received[1] == 1 else []) as (port, server):

        def repeat() -> None:
            if server.clients:
                server.reply.sendto(first, server.clients[0])
            timers.append(loop.call_later(0.005, repeat))

        repeat()
        attempt, _ = await fetch_tftp(address, "a", port=port, timeout_s=0.05, max_retransmissions=2, deadline_s=3)
        timers[-1].cancel()
    assert attempt.detail == "the server stopped answering after 3 packets"


async def test_no_server_at_all_is_a_time_out(loopback: Callable[[], str]) -> None:
    attempt, _ = await fetch_tftp(loopback(), "a", port=40_069, timeout_s=0.01, max_retransmissions=1)
    assert attempt.status is FetchStatus.TIMEOUT


async def test_an_unusable_local_address_is_an_error() -> None:
    attempt, content = await fetch_tftp("127.0.0.1", "a", local_address="192.0.2.1")
    assert (attempt.status, content) == (FetchStatus.ERROR, None)
    assert attempt.detail


async def test_an_unroutable_server_is_an_error() -> None:
    attempt, content = await fetch_tftp("255.255.255.255", "a")
    assert (attempt.status, content) == (FetchStatus.ERROR, None)


async def test_cancelling_leaves_nothing_open(loopback: Callable[[], str]) -> None:
    address = loopback()
    asked = asyncio.Event()

    def notice(_: bytes) -> list[bytes]:
        asked.set()
        return []

    with scripted(address, notice) as (port, _):
        fetching = asyncio.create_task(fetch_tftp(address, "a", port=port))
        async with asyncio.timeout(5):
            await asked.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching


def test_it_works_on_uvloop(loopback: Callable[[], str]) -> None:
    address = loopback()

    async def fetch() -> bytes | None:
        with scripted(address, one_block) as (port, _):
            return (await fetch_tftp(address, "a", port=port))[1]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(fetch()) == b"the file"
