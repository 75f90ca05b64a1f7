"""TFTP over UDP: the listening port, and a socket of its own (a transfer ID) for every transfer.

Plain non-blocking sockets and `add_reader`, not datagram endpoints: those cost half a millisecond per transfer and
take one datagram per turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cucm.errors import DecodeError, LabError
from cucm.events import Emit
from cucm.events.files import (
    FailureReason,
    FileNotFound,
    FileRefused,
    FileRequested,
    FileServed,
    FileTransport,
    RefusalReason,
    TransferFailed,
    TransferIntruded,
    TransferRetransmitted,
)
from cucm.net.addresses import bind_udp
from cucm.net.reachability import Reachability, drop_packets, take_packets
from tftp_server import packets
from tftp_server.file_store import FileStore, NotServed, NotServedReason, look_up
from tftp_server.packets import ErrorCode, Operation, Request
from tftp_server.request_port import DATAGRAM_BYTES, Peer, RequestPort
from tftp_server.transfer import ReadTransfer, RequestRefused, TransferLimits, TransferState

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked for the listening port. The usual 208 KiB lose requests when hundreds of phones boot at once."""
REQUESTS_PER_TURN: Final = 64
"""Requests taken from the listening port before transfers get their turn again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TftpLimits:
    transfers: int = 4096
    transfers_per_address: int = 2048
    transfer_s: float = 3600.0
    """However slowly a client acknowledges, it does not keep its place longer than this."""
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES
    transfer: TransferLimits = field(default_factory=TransferLimits)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asked for what, and at which of our addresses (`own`)."""

    sender: Peer
    own: str
    name: str

    @property
    def key(self) -> tuple[Peer, str]:
        """Both ends of what the client knows of a transfer."""
        return self.sender, self.own

    @property
    def who(self) -> tuple[FileTransport, str, int, str]:
        """The first fields of every file event."""
        return FileTransport.TFTP, self.sender[0], self.sender[1], self.name


class _Session:
    """One transfer with its socket and its timer."""

    __slots__ = ("_deadline", "_ends", "_server", "_socket", "_timer", "asked", "opening", "transfer")

    def __init__(self, server: TftpServer, asked: _Asked, opening: bytes, transfer: ReadTransfer) -> None:
        """`opening` is the request's datagram. Raises OSError or LabError when no socket can be had."""
        self._server = server
        self._socket = server.new_socket(asked.own)
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._ends = server.loop.time() + server.limits.transfer_s
        self.asked = asked
        self.opening = opening
        self.transfer = transfer

    @property
    def takes_repetitions(self) -> bool:
        """Whether the same request again is a late copy of the first: the client has not answered yet (then our timer
        repeats the answer), or has just answered. From a client that has fallen silent it is a new beginning.
        """
        return self.transfer.untouched or self.transfer.attempt == 1

    def start(self) -> None:
        self._server.loop.add_reader(self._socket, self._on_readable)
        self._send(self.transfer.start())
        self._wait()
        self._schedule()

    def end(self, farewell: bytes | None = None) -> None:
        if farewell is not None:
            self._send([farewell])
        if self._timer is not None:
            self._timer.cancel()
        self._server.loop.remove_reader(self._socket)
        if self._server.is_silent:
            self._server.keep_silent(self._socket)  # closed, it would answer the client with `port unreachable`
        else:
            self._socket.close()

    def fall_silent(self) -> None:
        """Nothing arrives and nothing is sent; the timer runs on, as it does for packets that are lost."""
        self._server.loop.remove_reader(self._socket)
        drop_packets(self._socket)

    def speak_again(self) -> None:
        take_packets(self._socket)
        self._server.loop.add_reader(self._socket, self._on_readable)

    def _on_readable(self) -> None:
        try:
            datagram, sender = self._socket.recvfrom(DATAGRAM_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.transfer.fail(FailureReason.NETWORK, error.strerror or str(error))
        else:
            if sender != self.asked.sender:
                self._turn_away(datagram, sender)
                return
            answers = self.transfer.receive(datagram)
            if answers:
                self._send(answers)
                self._wait()
        if self.transfer.state is not TransferState.ACTIVE:
            self._server.finish(self)

    def _turn_away(self, datagram: bytes, stranger: Peer) -> None:
        if not datagram.startswith(_ERROR_OPERATION):  # two servers would answer each other's errors for ever
            self._send([_WRONG_TRANSFER_ID], stranger)
        self._server.tell_intruded(self, stranger)

    def _wait(self) -> None:
        """Begin to wait for the client. The timer looks at `_deadline` when it fires: no timer per packet."""
        self._deadline = self._server.loop.time() + self.transfer.timeout_s
        if self._timer is not None and self._deadline < self._timer.when():  # the back-off is over
            self._timer.cancel()
            self._schedule()

    def _check_time(self) -> None:
        self._timer = None
        now = self._server.loop.time()
        if now >= self._ends:
            self.transfer.fail(FailureReason.TOO_SLOW, "the transfer has lasted too long")
        elif now >= self._deadline:
            again = self.transfer.timed_out()
            if again:
                self._server.tell_retransmitted(self)
                self._send(again)
                self._wait()
        self._schedule()

    def _schedule(self) -> None:
        if self.transfer.state is TransferState.ACTIVE:
            self._timer = self._server.loop.call_at(self._deadline, self._check_time)
        else:
            self._server.finish(self)

    def _send(self, datagrams: Iterable[bytes], to: Peer | None = None) -> None:
        if self._server.is_silent:
            return
        try:
            for datagram in datagrams:
                self._socket.sendto(datagram, to or self.asked.sender)
        except (BlockingIOError, InterruptedError):
            pass  # the send buffer is full: the rest counts as lost on the way, and the timer mends it
        except OSError as error:
            if to is None:
                self.transfer.fail(FailureReason.NETWORK, error.strerror or str(error))


_WRONG_TRANSFER_ID: Final = packets.encode_error(ErrorCode.UNKNOWN_TRANSFER_ID, "Unknown transfer ID")


class TftpServer:
    """Serves a `FileStore` by TFTP on one address; read-only."""

    def __init__(self, address: str, port: int, store: FileStore, *, emit: Emit, limits: TftpLimits) -> None:
        self.address = address
        self.port = port
        self.receive_buffer_bytes = 0
        self.is_silent = False
        self.loop: asyncio.AbstractEventLoop
        self._store = store
        self._emit = emit
        self.limits = limits
        self._port: RequestPort | None = None
        self._reachability = Reachability.OPEN
        self._silent_sockets: list[socket.socket] = []
        self._sessions: dict[tuple[Peer, str], _Session] = {}
        self._per_address: Counter[str] = Counter()

    @property
    def transfers(self) -> int:
        """How many transfers are under way."""
        return len(self._sessions)

    def start(self) -> None:
        """Bind on the running loop; port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem."""
        self.loop = asyncio.get_running_loop()
        self._port = RequestPort(
            self.address,
            self.port,
            self._on_readable,
            receive_buffer_bytes=self.limits.receive_buffer_bytes,
            how=self._reachability,
        )
        self.port = self._port.port
        self.receive_buffer_bytes = self._port.receive_buffer_bytes

    def stop(self) -> None:
        """Close the port and end all transfers with an ERROR packet."""
        self._end(packets.encode_error(ErrorCode.UNDEFINED, "Server stopped"))

    def crash(self) -> None:
        """End as a process that is killed: nothing is sent; clients that go on are told `port unreachable`."""
        self._end(None)

    def set_reachability(self, how: Reachability) -> None:
        """What the network does from now on with packets for this port and, if UNREACHABLE, for its transfers.

        Kept over `stop` and `start`. Transfers that are not over when the packets come through again go on. Raises
        AddressBusy when another program took the port while it refused.
        """
        if self._port is not None:
            self._port.set(how)
        self._reachability = how
        is_silent = how is Reachability.UNREACHABLE
        if is_silent is self.is_silent:
            return
        self.is_silent = is_silent
        for session in self._sessions.values():
            if is_silent:
                session.fall_silent()
            else:
                session.speak_again()
        self._close_silent_sockets()

    def _end(self, farewell: bytes | None) -> None:
        if self._port is None:
            return
        self._port.close()
        self._port = None
        for session in tuple(self._sessions.values()):
            session.transfer.fail(FailureReason.SERVER_STOPPED, "the server was stopped")
            self.finish(session, farewell)
        self._close_silent_sockets()

    def _close_silent_sockets(self) -> None:
        for silent in self._silent_sockets:
            silent.close()
        self._silent_sockets.clear()

    # -- what a session asks of its server ---------------------------------------------------------------------

    def new_socket(self, own: str) -> socket.socket:
        return bind_udp(own, 0)

    def keep_silent(self, of_ended: socket.socket) -> None:
        """Keep the socket of a transfer that has ended for this side only, until the network is back."""
        self._silent_sockets.append(of_ended)

    def finish(self, session: _Session, farewell: bytes | None = None) -> None:
        """Forget a transfer that is over, and tell how it went."""
        session.end(farewell)
        del self._sessions[session.asked.key]
        self._leave(session.asked.sender[0])
        transfer = session.transfer
        if transfer.state is TransferState.DONE:
            self._emit(FileServed(*session.asked.who, transfer.file_size, transfer.digest(), transfer.retransmissions))
        else:
            reason = transfer.failure or FailureReason.PROTOCOL
            self._emit(TransferFailed(*session.asked.who, reason, transfer.detail, transfer.sent_bytes))

    def tell_retransmitted(self, session: _Session) -> None:
        transfer = session.transfer
        self._emit(TransferRetransmitted(*session.asked.who, transfer.next_block, transfer.attempt))

    def tell_intruded(self, session: _Session, intruder: Peer) -> None:
        self._emit(TransferIntruded(*session.asked.who, *intruder[:2]))

    # -- requests ----------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        for _ in range(REQUESTS_PER_TURN):
            if self._port is None:
                return
            try:
                datagram, sender, own = self._port.receive()
            except OSError:  # nothing left, or an error that belongs to an earlier datagram
                return
            try:
                self._take(datagram, sender, own)
            except Exception:
                _log.exception("a TFTP request from %s failed", sender[0])

    def _take(self, datagram: bytes, sender: Peer, own: str) -> None:
        try:
            request = packets.decode_request(datagram)
        except DecodeError as error:
            # an ERROR is never answered, or two servers could play ping-pong for ever
            if not datagram.startswith(_ERROR_OPERATION):
                refused = RequestRefused(RefusalReason.MALFORMED, ErrorCode.ILLEGAL_OPERATION, "Illegal TFTP operation")
                self._refuse(_Asked(sender, own, ""), refused, str(error))
            return
        earlier = self._sessions.get((sender, own))
        if earlier is not None:
            if earlier.opening == datagram and earlier.takes_repetitions:
                return
            earlier.transfer.fail(FailureReason.SUPERSEDED, "the client asked anew from the same port")
            self.finish(earlier)
        self._open(request, datagram, _Asked(sender, own, request.name))

    def _open(self, request: Request, datagram: bytes, asked: _Asked) -> None:
        options = tuple(f"{name}={value}" for name, value in request.options)
        self._emit(FileRequested(*asked.who, datagram, options))
        try:
            session = self._new_session(request, datagram, asked)
        except NotServed as error:
            self._not_served(asked, error)
        except RequestRefused as refused:
            self._refuse(asked, refused, refused.text)
        except (OSError, LabError) as error:  # no socket to be had
            self._refuse(asked, _too_many(), str(error))
        else:
            self._sessions[asked.key] = session
            self._per_address[asked.sender[0]] += 1
            session.start()

    def _new_session(self, request: Request, datagram: bytes, asked: _Asked) -> _Session:
        if request.operation is Operation.WRITE_REQUEST:
            raise RequestRefused(RefusalReason.WRITE_REQUEST, ErrorCode.ACCESS_VIOLATION, "Access violation")
        if self._is_full(asked.sender[0]):
            raise _too_many()
        file = look_up(self._store, request.name)
        return _Session(self, asked, datagram, ReadTransfer(request, file, self.limits.transfer))

    def _is_full(self, address: str) -> bool:
        limits = self.limits
        return len(self._sessions) >= limits.transfers or self._per_address[address] >= limits.transfers_per_address

    def _not_served(self, asked: _Asked, error: NotServed) -> None:
        if error.reason is NotServedReason.BUSY:
            refused = RequestRefused(RefusalReason.BUSY, ErrorCode.UNDEFINED, "Requested file is Busy")
            self._refuse(asked, refused, error.what)
            return
        self._emit(FileNotFound(*asked.who, error.what))
        self._answer(asked, ErrorCode.FILE_NOT_FOUND, "File not found")

    def _refuse(self, asked: _Asked, refused: RequestRefused, detail: str) -> None:
        self._emit(FileRefused(*asked.who, refused.reason, int(refused.code), detail))
        self._answer(asked, refused.code, refused.text)

    def _answer(self, asked: _Asked, code: ErrorCode, text: str) -> None:
        """An ERROR packet instead of a transfer, from a transfer ID of its own, or from port 69 if none can be had."""
        datagram = packets.encode_error(code, text)
        with contextlib.suppress(OSError):  # the client is not reachable: it will learn nothing, and we cannot help it
            try:
                own = self.new_socket(asked.own)
            except (OSError, LabError):
                if self._port is not None:
                    self._port.send(datagram, asked.sender)
                return
            with own:
                own.sendto(datagram, asked.sender)

    def _leave(self, address: str) -> None:
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]


_ERROR_OPERATION: Final = Operation.ERROR.to_bytes(2, "big")


def _too_many() -> RequestRefused:
    return RequestRefused(RefusalReason.TOO_MANY_TRANSFERS, ErrorCode.UNDEFINED, "Too many transfers")
