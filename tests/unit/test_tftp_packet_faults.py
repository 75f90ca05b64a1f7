"""Faults of TFTP requests and packets: what a raw client sees, and what becomes of transfers of phone and tftpy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tftpy
from test_tftp_udp import FILES, Served, client, error_of

from cucm.events import EventLog
from cucm.events.faults import FaultFired
from cucm.events.files import FailureReason, FileRefused, FileServed, RefusalReason, TransferFailed
from cucm.faults import FaultBoard, fault_of
from cucm.net.reachability import Reachability
from phone_agent.commands import FetchStatus
from phone_agent.tftp_client import fetch_tftp
from tftp_server import packet_faults
from tftp_server.file_store import MappingStore
from tftp_server.packet_faults import FaultyWire, corrupted
from tftp_server.packets import (
    HEADER,
    ErrorCode,
    Operation,
    Request,
    decode_error,
    encode_data,
    encode_error,
    encode_option_acknowledgement,
    encode_request,
)
from tftp_server.transfer import TransferLimits
from tftp_server.udp import TftpLimits, TftpServer

Draw = Callable[[], str]
QUICK = TransferLimits(tries=4, first_timeout_s=0.05, longest_timeout_s=0.1)
"""For phones, which wait on the server's own loop; a client in a thread may be slower than that on a busy machine."""
PATIENT = TransferLimits(tries=4, first_timeout_s=20, longest_timeout_s=20)
ITL = FILES["itl"]


class Faulty(Served):
    def __init__(self, server: TftpServer, log: EventLog, board: FaultBoard) -> None:
        super().__init__(server, log)
        self.board = board

    def requests_hit(self) -> list[dict[str, str]]:
        return [dict(event.request) for event in self.events() if isinstance(event, FaultFired)]

    async def fetch(self, name: str, **how: Any) -> tuple[FetchStatus, bytes | None]:
        """As a phone does."""
        attempt, data = await fetch_tftp(self.address[0], name, port=self.address[1], **{"timeout_s": 0.2} | how)
        return attempt.status, data


@asynccontextmanager
async def faulty(
    address: str, point: str, action: str, limits: TransferLimits = QUICK, **rule: Any
) -> AsyncIterator[Faulty]:
    log = EventLog()
    board = FaultBoard(log.emitter("lab:faults"))
    board.set(fault_of({"id": "it", "point": point, "action": action, **rule}))
    server = TftpServer(
        address, 0, MappingStore(FILES), emit=log.emitter("tftp"), limits=TftpLimits(transfer=limits), faults=board
    )
    server.start()
    try:
        yield Faulty(server, log, board)
    finally:
        server.stop()


def packet(number: int) -> bytes:
    return encode_data(number, ITL[512 * number - 512 : 512 * number])


# --- requests


async def test_an_error_instead_of_the_file(loopback: Draw) -> None:
    rule = {"attributes": {"code": 0, "text": "Disk on fire"}, "match": {"file": "it*"}}
    async with faulty(loopback(), "tftp.request", "error", **rule) as served:
        with client(loopback()) as own:
            answer = await own.ask(served.address, "itl")
            assert decode_error(answer) == (0, "Disk on fire")
            assert HEADER.unpack_from(await own.ask(served.address, "a")) == (Operation.DATA, 1)
        refused = await served.next(FileRefused)
        assert (refused.reason, refused.status, refused.detail) == (RefusalReason.FAULT, 0, "Disk on fire")
        assert served.requests_hit() == [{"file": "itl", "peer": refused.peer}]


@pytest.mark.parametrize(
    ("code", "status"),
    [(1, FetchStatus.NOT_FOUND), (2, FetchStatus.ACCESS_ERROR), (8, FetchStatus.ERROR), (999, FetchStatus.ERROR)],
)
async def test_what_a_phone_makes_of_errors(loopback: Draw, code: int, status: FetchStatus) -> None:
    async with faulty(loopback(), "tftp.request", "error", attributes={"code": code}) as served:
        assert await served.fetch("itl") == (status, None)


async def test_a_lost_request_is_asked_again(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.request", "silent", times=1) as served:
        assert await served.fetch("itl") == (FetchStatus.OK, ITL)
        assert served.board.status("it").hits == 1


async def test_a_silent_server_is_given_up(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.request", "silent") as served:
        assert await served.fetch("itl", timeout_s=0.05) == (FetchStatus.TIMEOUT, None)
        assert served.board.status("it").hits == 5
        assert served.server.transfers == 0


# --- packets


async def test_a_dropped_packet_comes_again(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "drop", match={"block": "3"}, times=1) as served:
        assert await served.fetch("itl") == (FetchStatus.OK, ITL)
        assert (await served.next(FileServed)).retransmissions >= 1
        assert served.requests_hit()[0]["block"] == "3"


async def test_dropped_for_ever_the_transfer_fails_on_both_sides(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "drop", match={"block": "2"}) as served:
        assert await served.fetch("itl", timeout_s=0.1) == (FetchStatus.TIMEOUT, None)
        assert (await served.next(TransferFailed)).reason is FailureReason.SILENCE


async def test_a_duplicate_changes_nothing(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "duplicate") as served:
        with client(loopback()) as own:
            assert await own.ask(served.address, "itl") == packet(1)
            assert await own.receive() == packet(1)
        assert await served.fetch("itl") == (FetchStatus.OK, ITL)


async def test_packets_of_a_window_change_places(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "reorder", PATIENT, match={"block": "2"}, times=1) as served:
        with client(loopback()) as own:
            await own.ask(served.address, "itl", windowsize=4)
            own.acknowledge(0)
            blocks = [HEADER.unpack_from(await own.receive())[1] for _ in range(4)]
            assert blocks == [1, 3, 2, 4]


async def test_two_that_both_change_places_have_done_so_once(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "reorder", PATIENT, match={"block": "[23]"}, times=2) as served:
        with client(loopback()) as own:
            await own.ask(served.address, "itl", windowsize=4)
            own.acknowledge(0)
            blocks = [HEADER.unpack_from(await own.receive())[1] for _ in range(4)]
            assert blocks == [1, 3, 2, 4]


async def test_without_a_window_the_repetition_comes_first(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "reorder", match={"block": "2"}, times=1) as served:
        assert await served.fetch("itl") == (FetchStatus.OK, ITL)


async def test_a_late_packet_is_overtaken(loopback: Draw) -> None:
    rule = {"match": {"block": "1"}, "times": 1, "attributes": {"seconds": 0.1}}
    async with faulty(loopback(), "tftp.packet", "delay", PATIENT, **rule) as served:
        with client(loopback()) as own:
            await own.ask(served.address, "itl", windowsize=3)
            own.acknowledge(0)
            received = [HEADER.unpack_from(await own.receive())[1] for _ in range(3)]
            assert received[:2] == [2, 3]
            assert received[2] == 1
        assert await served.fetch("itl") == (FetchStatus.OK, ITL)


async def test_what_is_still_late_when_the_transfer_ends_never_comes(loopback: Draw) -> None:
    rule = {"match": {"block": "1"}, "times": 1, "attributes": {"seconds": 600}}
    async with faulty(loopback(), "tftp.packet", "delay", **rule) as served:
        assert await served.fetch("a") == (FetchStatus.OK, FILES["a"])
        await served.next(FileServed)
        assert served.server.transfers == 0


async def test_a_corrupted_block_changes_one_bit_of_the_file(loopback: Draw) -> None:
    rule = {"match": {"block": "2"}, "attributes": {"offset": 7}}
    async with faulty(loopback(), "tftp.packet", "corrupt", **rule) as served:
        status, data = await served.fetch("itl")
        assert status is FetchStatus.OK
        assert data == ITL[:519] + bytes([ITL[519] ^ 1]) + ITL[520:]


async def after(seconds: float) -> None:
    """That long on the loop's own clock, for what must not happen meanwhile."""
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, over.set_result, None)
    await over


async def test_of_late_packets_a_bounded_number_waits_and_none_outlives_the_transfer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packet_faults, "MAX_DELAYED", 2)
    board = FaultBoard()
    board.set(fault_of({"point": "tftp.packet", "action": "delay", "attributes": {"seconds": 0.02}}))
    sent: list[bytes] = []
    wire = FaultyWire(board, "itl", ("127.0.0.1", 1), "127.0.0.1", sent.append)
    for number in (1, 2, 3):
        wire.send(packet(number))
    await after(0.06)
    assert sent == [packet(1), packet(2)]
    wire.send(packet(4))
    wire.close()
    await after(0.06)
    assert sent == [packet(1), packet(2)]


async def test_a_late_packet_is_lost_when_the_network_is_gone_by_then(loopback: Draw) -> None:
    rule = {"match": {"block": "1"}, "times": 1, "attributes": {"seconds": 0.05}}
    async with faulty(loopback(), "tftp.packet", "delay", PATIENT, **rule) as served:
        with client(loopback()) as own:
            own.socket.sendto(encode_request(Request(Operation.READ_REQUEST, "itl", "octet")), served.address)
            await served.next(FaultFired)
            served.server.set_reachability(Reachability.UNREACHABLE)
            await after(0.1)
            assert own.is_silent()


def test_which_byte_is_corrupted() -> None:
    assert corrupted(encode_data(1, b"abc"), 0) == encode_data(1, b"`bc")
    assert corrupted(encode_data(1, b"abc"), 4) == encode_data(1, b"acc"), "counting begins anew"
    assert corrupted(encode_data(2, b""), 1) == encode_data(3, b"")
    options = encode_option_acknowledgement([("blksize", "1428")])
    assert corrupted(options, 0) == options.replace(b"b", b"c", 1)


async def test_a_corrupted_option_is_refused_by_the_phone(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "corrupt", match={"block": "0"}) as served:
        assert await served.fetch("itl", options={"blksize": 1024}) == (FetchStatus.ERROR, None)
        failed = await served.next(TransferFailed)
        assert (failed.reason, failed.detail[:7]) == (FailureReason.CLIENT_ERROR, "ERROR 8")


async def test_a_block_from_another_port_is_turned_away_and_comes_again(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "wrong-tid", PATIENT, match={"block": "2"}, times=1) as served:
        with client(loopback()) as own:
            assert await own.ask(served.address, "itl") == packet(1)
            right = own.transfer
            own.acknowledge(1)
            assert await own.receive() == packet(2)
            wrong = own.transfer
            assert wrong[0] == right[0]
            assert wrong[1] not in (right[1], served.address[1])
            own.socket.sendto(encode_error(ErrorCode.UNKNOWN_TRANSFER_ID, "Unknown transfer ID"), wrong)
            served.time_passes()
            assert await own.receive() == packet(2)
            assert own.transfer == right


async def test_a_phone_turns_a_block_from_another_port_away(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "wrong-tid", match={"block": "2"}, times=1) as served:
        assert await served.fetch("itl") == (FetchStatus.OK, ITL)


async def test_whose_first_packet_comes_from_another_port_takes_that_for_the_servers(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "wrong-tid", match={"block": "1"}, times=1) as served:
        status, data = await served.fetch("itl", timeout_s=0.1)
        assert (status, data) == (FetchStatus.TIMEOUT, None)
        failed = await served.next(TransferFailed)
        assert (failed.reason, failed.detail[:7]) == (FailureReason.CLIENT_ERROR, "ERROR 5")


@pytest.mark.parametrize(
    ("action", "block"),
    [("drop", "3"), ("duplicate", "[!0]*"), ("reorder", "3"), ("delay", "3"), ("drop", "0")],
)
async def test_tftpy_gets_the_file_all_the_same(loopback: Draw, tmp_path: Path, action: str, block: str) -> None:
    """All but what the fault shows of tftpy 0.8.7: it gives up when an OACK comes twice."""
    rule: dict[str, Any] = {"match": {"block": block}}
    rule |= {} if action == "duplicate" else {"times": 1}
    rule |= {"attributes": {"seconds": 0.02}} if action == "delay" else {}
    logging.getLogger("tftpy").setLevel(logging.CRITICAL)
    into = tmp_path / "received"

    def download() -> None:
        tftpy.TftpClient(*served.address, options={"blksize": 512}).download("itl", str(into), timeout=5)

    async with faulty(loopback(), "tftp.packet", action, PATIENT, **rule) as served:
        downloading = asyncio.create_task(asyncio.to_thread(download))
        fired = asyncio.create_task(served.next(FaultFired))
        await asyncio.wait((downloading, fired), return_when=asyncio.FIRST_COMPLETED)
        if downloading.done():
            downloading.result()  # what went wrong before there was a fault is not hidden by waiting for one
        await fired
        if action in ("drop", "reorder"):
            served.time_passes()  # not by a clock, which would repeat the OACK to a tftpy that is slow
        await downloading
        assert into.read_bytes() == ITL
        assert served.board.status("it").hits


async def test_a_packet_fault_that_ends_within_a_transfer_leaves_it_whole(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "drop", PATIENT, match={"block": "2"}) as served:
        with client(loopback()) as own:
            assert await own.ask(served.address, "itl") == packet(1)
            own.acknowledge(1)
            await served.next(FaultFired)
            served.board.end("it")
            served.time_passes()
            assert await own.receive() == packet(2)


async def test_errors_of_the_server_are_no_packets_of_a_transfer(loopback: Draw) -> None:
    async with faulty(loopback(), "tftp.packet", "drop") as served:
        with client(loopback()) as own:
            assert error_of(await own.ask(served.address, "nothing")) == ErrorCode.FILE_NOT_FOUND
