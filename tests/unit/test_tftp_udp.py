"""The TFTP port on real sockets, with clients that lose, echo, intrude and fall silent; on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import inspect
import selectors
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, TypeVar

import pytest
import uvloop

from cucm.errors import AddressBusy
from cucm.events import Event, EventLog
from cucm.events.files import (
    FailureReason,
    FileNotFound,
    FileRefused,
    FileRequested,
    FileServed,
    RefusalReason,
    TransferFailed,
    TransferIntruded,
    TransferRetransmitted,
)
from tftp_server.file_store import FileStore, MappingStore, NotServed, NotServedReason
from tftp_server.packets import (
    HEADER,
    ErrorCode,
    Operation,
    Request,
    decode_error,
    decode_operation,
    encode_acknowledgement,
    encode_error,
    encode_request,
)
from tftp_server.transfer import TransferLimits
from tftp_server.udp import TftpLimits, TftpServer

Kind = TypeVar("Kind", bound=Event)
FILES = {"a": b"a" * 700, "b": b"b" * 100, "itl": bytes(range(256)) * 24}
QUICK = TransferLimits(tries=3, first_timeout_s=0.05, longest_timeout_s=0.1)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on asyncio's own loop and on uvloop."""

    @wraps(test)
    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**arguments))

    signature = inspect.signature(test)
    new_loop = inspect.Parameter("new_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[new_loop, *signature.parameters.values()])  # type: ignore[attr-defined]
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)


class Served:
    """A server under test and what it told."""

    def __init__(self, server: TftpServer, log: EventLog) -> None:
        self.server = server
        self.log = log
        self.address = (server.address, server.port)
        self._news = asyncio.Event()
        log.subscribe(lambda _record: self._news.set())

    def events(self) -> list[Event]:
        return [record.event for record in self.log]

    async def next(self, kind: type[Kind]) -> Kind:
        """The first event of a kind, waited for."""
        async with asyncio.timeout(20):
            while True:
                for event in self.events():
                    if isinstance(event, kind):
                        return event
                self._news.clear()
                await self._news.wait()

    def time_passes(self) -> None:
        """Whoever the server waits for has not answered in time: without a clock, so that a slow client is none."""
        for session in tuple(self.server._sessions.values()):
            session._since -= 60
            self.server.wheel.remove(session)
            session.time_is_up()


@asynccontextmanager
async def serving(
    address: str, store: FileStore | None = None, limits: TftpLimits | None = None
) -> AsyncIterator[Served]:
    log = EventLog()
    server = TftpServer(
        address, 0, store or MappingStore(FILES), emit=log.emitter("tftp"), limits=limits or TftpLimits()
    )
    server.start()
    try:
        yield Served(server, log)
    finally:
        server.stop()


class Client:
    """A raw socket; its waits run in a thread, beside the server's loop."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.settimeout(20)
        self.transfer: tuple[str, int] = ("", 0)

    async def ask(self, server: tuple[str, int], name: str, mode: str = "octet", **options: int) -> bytes:
        asked = tuple((option, str(value)) for option, value in options.items())
        self.socket.sendto(encode_request(Request(Operation.READ_REQUEST, name, mode, asked)), server)
        return await self.receive()

    async def receive(self) -> bytes:
        datagram, self.transfer = await asyncio.to_thread(self.socket.recvfrom, 70_000)
        return datagram

    def acknowledge(self, number: int) -> None:
        self.socket.sendto(encode_acknowledgement(number), self.transfer)

    def is_silent(self) -> bool:
        """Whether nothing waits to be read."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(10)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(20)
        return False


@contextmanager
def client(address: str) -> Iterator[Client]:
    own = Client(address)
    try:
        yield own
    finally:
        own.socket.close()


def error_of(datagram: bytes) -> int:
    assert decode_operation(datagram) is Operation.ERROR
    return decode_error(datagram)[0]


@on_both_loops
async def test_a_file_from_a_port_of_its_own_and_the_address_that_was_asked(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            assert await phone.ask(served.address, "a") == b"\0\3\0\1" + b"a" * 512
            assert phone.transfer[0] == served.server.address
            assert phone.transfer[1] != served.server.port
            phone.acknowledge(1)
            assert await phone.receive() == b"\0\3\0\2" + b"a" * 188
            assert served.server.transfers == 1
            phone.acknowledge(2)
            done = await served.next(FileServed)
            assert (done.peer, done.name, done.size, done.retransmissions) == (
                phone.socket.getsockname()[0],
                "a",
                700,
                0,
            )
            assert served.server.transfers == 0
            assert (await served.next(FileRequested)).request == b"\0\1a\0octet\0"


@on_both_loops
async def test_a_lost_acknowledgement_costs_one_retransmission(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            first = await phone.ask(served.address, "a")
            served.time_passes()
            assert await phone.receive() == first
            again = await served.next(TransferRetransmitted)
            assert (again.block, again.attempt) == (1, 2)
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            phone.acknowledge(2)
            assert (await served.next(FileServed)).retransmissions == 1


@on_both_loops
async def test_a_doubled_acknowledgement_brings_no_block_twice(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "itl")
            numbers = [1]
            while numbers[-1] < 13:
                phone.acknowledge(numbers[-1])
                phone.acknowledge(numbers[-1])
                numbers.append(HEADER.unpack_from(await phone.receive())[1])
            phone.acknowledge(13)
            assert (await served.next(FileServed)).retransmissions == 0
            assert numbers == list(range(1, 14))
            assert phone.is_silent()


@on_both_loops
async def test_a_stranger_gets_error_5_and_the_transfer_goes_on(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        address = loopback()
        with client(address) as phone, client(address) as stranger:
            await phone.ask(served.address, "a")
            stranger.transfer = phone.transfer
            stranger.acknowledge(1)
            assert error_of(await stranger.receive()) == ErrorCode.UNKNOWN_TRANSFER_ID
            intruded = await served.next(TransferIntruded)
            assert (intruded.peer_port, intruded.intruder_port) == (
                phone.socket.getsockname()[1],
                stranger.socket.getsockname()[1],
            )
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            phone.acknowledge(2)
            await served.next(FileServed)


@on_both_loops
async def test_a_strangers_error_is_not_answered(loopback: Callable[[], str]) -> None:
    """Two servers would answer each other's errors for ever."""
    async with serving(loopback()) as served:
        address = loopback()
        with client(address) as phone, client(address) as stranger:
            await phone.ask(served.address, "a")
            stranger.socket.sendto(encode_error(5, "Unknown transfer ID"), phone.transfer)
            await served.next(TransferIntruded)
            assert stranger.is_silent()
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"


@on_both_loops
async def test_a_silent_client_is_forgotten_after_a_few_tries(loopback: Callable[[], str]) -> None:
    async with serving(loopback(), limits=TftpLimits(transfer=QUICK)) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            failed = await served.next(TransferFailed)
            assert (failed.reason, failed.sent) == (FailureReason.SILENCE, 0)
            assert served.server.transfers == 0
            assert sum(isinstance(event, TransferRetransmitted) for event in served.events()) == QUICK.tries - 1


@on_both_loops
async def test_a_client_that_has_closed_its_port_is_not_waited_for(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "itl")
            phone.acknowledge(1)
        failed = await served.next(TransferFailed)
        assert (failed.reason, failed.detail) == (FailureReason.NETWORK, "the client has closed its port")
        assert served.server.transfers == 0
        assert not any(isinstance(event, TransferRetransmitted) for event in served.events())


@on_both_loops
async def test_what_a_client_acknowledged_before_it_closed_its_port_counts(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "b")
            (session,) = served.server._sessions.values()
            phone.acknowledge(1)
        session.send([b"a block again"])  # which meets the closed port before the acknowledgement is read
        assert (await served.next(FileServed)).size == len(FILES["b"])
        assert not any(isinstance(event, TransferFailed) for event in served.events())


@on_both_loops
async def test_a_client_that_dawdles_is_ended(loopback: Callable[[], str]) -> None:
    limits = TftpLimits(
        transfer_s=0.1, transfer=TransferLimits(tries=1000, first_timeout_s=0.02, longest_timeout_s=0.02)
    )
    async with serving(loopback(), limits=limits) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            assert (await served.next(TransferFailed)).reason is FailureReason.TOO_SLOW


@on_both_loops
async def test_a_repeated_request_is_one_transfer(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            first = phone.transfer
            phone.socket.sendto(b"\0\1a\0octet\0", served.address)
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            assert phone.transfer == first
            phone.acknowledge(2)
            await served.next(FileServed)
            assert sum(isinstance(event, FileRequested) for event in served.events()) == 1


@on_both_loops
async def test_a_repeated_request_that_comes_late_does_not_end_the_transfer(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "itl")
            first = phone.transfer
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            phone.socket.sendto(b"\0\1itl\0octet\0", served.address)
            with client(loopback()) as other:  # the server has read what came before this one's request
                await other.ask(served.address, "b")
            phone.acknowledge(2)
            assert (await phone.receive())[:4] == b"\0\3\0\3"
            assert phone.transfer == first


@on_both_loops
async def test_a_client_that_is_done_may_ask_again_from_its_port_at_once(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            for _ in range(5):
                assert await phone.ask(served.address, "b") == b"\0\3\0\1" + FILES["b"]
                phone.acknowledge(1)  # not read yet when the next request comes: no reason to take that for an echo
        await served.next(FileServed)
        assert sum(isinstance(event, FileRequested) for event in served.events()) == 5


@on_both_loops
async def test_a_client_is_done_though_its_next_request_is_read_first(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "b")
            phone.acknowledge(1)
            phone.socket.sendto(encode_request(Request(Operation.READ_REQUEST, "b", "octet")), served.address)
            served.server._on_readable()  # the port's turn comes before the transfer's
            assert await phone.receive() == b"\0\3\0\1" + FILES["b"]
        assert [event.kind for event in served.events()] == [
            FileRequested.kind,
            FileServed.kind,
            FileRequested.kind,
        ]


@on_both_loops
async def test_an_answer_ends_the_long_wait_too(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "itl")
            (session,) = served.server._sessions.values()
            for _ in range(3):  # each wait is twice as long as the one before
                served.time_passes()
                await phone.receive()
            far_away = session.slot
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            assert session.slot < far_away


@on_both_loops
async def test_a_client_that_starts_over_from_the_same_port_is_served_anew(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            first = phone.transfer
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            served.time_passes()  # it has fallen silent
            await served.next(TransferRetransmitted)
            phone.socket.sendto(b"\0\1a\0octet\0", served.address)
            while phone.transfer == first:
                datagram = await phone.receive()
            assert datagram[:4] == b"\0\3\0\1"
            assert (await served.next(TransferFailed)).reason is FailureReason.SUPERSEDED


@pytest.mark.parametrize("datagram", [b"\0\4\0\1", b"\0\5\0\0no\0", b"\xff", b""])
@on_both_loops
async def test_what_is_no_request_does_not_end_the_transfer(loopback: Callable[[], str], datagram: bytes) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone, client(loopback()) as other:
            await phone.ask(served.address, "a")
            first = phone.transfer
            phone.socket.sendto(datagram, served.address)
            await other.ask(served.address, "b")  # the server has read what came before
            phone.transfer = first
            phone.acknowledge(1)
            while (await phone.receive())[:4] != b"\0\3\0\2":
                pass
            assert not any(isinstance(event, TransferFailed) for event in served.events())


@on_both_loops
async def test_a_new_request_from_the_same_port_ends_the_old_transfer(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            assert await phone.ask(served.address, "b") == b"\0\3\0\1" + b"b" * 100
            assert (await served.next(TransferFailed)).reason is FailureReason.SUPERSEDED
            phone.acknowledge(1)
            assert (await served.next(FileServed)).name == "b"


@pytest.mark.parametrize("again", ["a", "b"])
@on_both_loops
async def test_a_client_that_is_done_asks_from_the_same_port_behind_its_doubled_acknowledgements(
    loopback: Callable[[], str], again: str
) -> None:
    """They wait unread at the transfer's port when the next request is read: the first is served nevertheless."""
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            phone.acknowledge(1)
            assert (await phone.receive())[:4] == b"\0\3\0\2"
            first = phone.transfer
            for _ in range(20):
                phone.acknowledge(1)
            phone.acknowledge(2)
            await phone.ask(served.address, again)
            assert phone.transfer != first or again == "b"
            done = await served.next(FileServed)
            assert (done.name, done.retransmissions) == ("a", 0)
            assert not any(isinstance(event, TransferFailed) for event in served.events())


@on_both_loops
async def test_a_clients_error_ends_the_transfer(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            phone.socket.sendto(encode_error(3, "flash full"), phone.transfer)
            failed = await served.next(TransferFailed)
            assert (failed.reason, failed.detail) == (FailureReason.CLIENT_ERROR, "ERROR 3 flash full")


@pytest.mark.parametrize(
    ("datagram", "code", "reason"),
    [
        (b"\0\2a\0octet\0", ErrorCode.ACCESS_VIOLATION, RefusalReason.WRITE_REQUEST),
        (b"\0\1a\0mail\0", ErrorCode.ILLEGAL_OPERATION, RefusalReason.MODE),
        (b"\0\1a\0octet", ErrorCode.ILLEGAL_OPERATION, RefusalReason.MALFORMED),
        (b"\0\1" + b"a" * 600 + b"\0octet\0", ErrorCode.ILLEGAL_OPERATION, RefusalReason.MALFORMED),
        (b"\0\4\0\1", ErrorCode.ILLEGAL_OPERATION, RefusalReason.MALFORMED),
        (b"\xff", ErrorCode.ILLEGAL_OPERATION, RefusalReason.MALFORMED),
        (b"", ErrorCode.ILLEGAL_OPERATION, RefusalReason.MALFORMED),
    ],
)
@on_both_loops
async def test_refusals(loopback: Callable[[], str], datagram: bytes, code: ErrorCode, reason: RefusalReason) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            phone.socket.sendto(datagram, served.address)
            assert error_of(await phone.receive()) == code
            refused = await served.next(FileRefused)
            assert (refused.reason, refused.status) == (reason, code)


@on_both_loops
async def test_an_error_packet_on_the_port_is_not_answered(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            phone.socket.sendto(encode_error(1, "nothing here"), served.address)
            assert (await phone.ask(served.address, "b"))[:4] == b"\0\3\0\1"  # the only datagram that came back
            assert phone.is_silent()


@pytest.mark.parametrize("name", ["nothing", "../../etc/passwd", "/etc/passwd", "x" * 400])
@on_both_loops
async def test_what_is_not_there_is_error_1(loopback: Callable[[], str], name: str) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            assert error_of(await phone.ask(served.address, name)) == ErrorCode.FILE_NOT_FOUND
            assert (await served.next(FileNotFound)).name == name


@on_both_loops
async def test_a_busy_store_is_error_0(loopback: Callable[[], str]) -> None:
    class Busy:
        def read(self, name: str) -> bytes:
            raise NotServed("being signed", reason=NotServedReason.BUSY)

    async with serving(loopback(), Busy()) as served:
        with client(loopback()) as phone:
            assert error_of(await phone.ask(served.address, "a")) == ErrorCode.UNDEFINED
            assert (await served.next(FileRefused)).reason is RefusalReason.BUSY


@pytest.mark.parametrize("limits", [TftpLimits(transfers=1), TftpLimits(transfers_per_address=1)])
@on_both_loops
async def test_transfers_are_limited(loopback: Callable[[], str], limits: TftpLimits) -> None:
    async with serving(loopback(), limits=limits) as served:
        address = loopback()
        with client(address) as first, client(address) as second:
            await first.ask(served.address, "b")
            assert error_of(await second.ask(served.address, "b")) == ErrorCode.UNDEFINED
            assert (await served.next(FileRefused)).reason is RefusalReason.TOO_MANY_TRANSFERS
            first.acknowledge(1)
            await served.next(FileServed)
            assert (await second.ask(served.address, "b"))[:4] == b"\0\3\0\1"


@on_both_loops
async def test_stopping_tells_the_clients(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            await phone.ask(served.address, "a")
            served.server.stop()
            assert error_of(await phone.receive()) == ErrorCode.UNDEFINED
            assert (await served.next(TransferFailed)).reason is FailureReason.SERVER_STOPPED
            served.server.stop()


@on_both_loops
async def test_a_taken_port_is_told(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        twin = TftpServer(*served.address, MappingStore({}), emit=lambda _event: None, limits=TftpLimits())
        with pytest.raises(AddressBusy):
            twin.start()
        twin.stop()


@on_both_loops
async def test_the_wildcard_address_answers_from_the_address_that_was_asked(loopback: Callable[[], str]) -> None:
    async with serving("0.0.0.0") as served:
        asked = loopback()
        with client(loopback()) as phone:
            assert (await phone.ask((asked, served.server.port), "b"))[:4] == b"\0\3\0\1"
            assert phone.transfer[0] == asked
            assert error_of(await phone.ask((asked, served.server.port), "nothing")) == ErrorCode.FILE_NOT_FOUND
            assert phone.transfer[0] == asked


@on_both_loops
async def test_the_receive_buffer_is_enlarged(loopback: Callable[[], str]) -> None:
    with client(loopback()) as plain:
        usual = plain.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    async with serving(loopback()) as served:
        assert served.server.receive_buffer_bytes >= usual
    async with serving(loopback(), limits=TftpLimits(receive_buffer_bytes=usual * 2)) as served:
        assert served.server.receive_buffer_bytes > usual


def herd(server: tuple[str, int], own: str, count: int, file: bytes) -> int:
    """`count` clients that send their requests before any reads an answer; how many got the whole file."""
    request = encode_request(Request(Operation.READ_REQUEST, "itl", "octet"))
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    received = {own_socket: bytearray() for own_socket in sockets}
    done = 0
    try:
        with selectors.DefaultSelector() as selector:
            for own_socket in sockets:
                own_socket.bind((own, 0))
                own_socket.sendto(request, server)
                selector.register(own_socket, selectors.EVENT_READ)
            while done < count and (ready := selector.select(timeout=15)):
                for key, _ in ready:
                    own_socket = key.fileobj
                    assert isinstance(own_socket, socket.socket)
                    datagram, transfer = own_socket.recvfrom(600)
                    number = HEADER.unpack_from(datagram)[1]
                    if number == len(received[own_socket]) // 512 + 1:
                        received[own_socket] += datagram[4:]
                    own_socket.sendto(encode_acknowledgement(number), transfer)
                    if len(datagram) < 516:
                        selector.unregister(own_socket)
                        done += received[own_socket] == file
    finally:
        for own_socket in sockets:
            own_socket.close()
    return done


@on_both_loops
async def test_500_clients_at_the_same_instant_are_all_served(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        done = await asyncio.to_thread(herd, served.address, loopback(), 500, FILES["itl"])
        assert done == 500
        assert not any(isinstance(event, FileRefused) for event in served.events())
