"""TFTP over UDP: the listening port, and a socket of its own (a transfer ID) for every transfer.

Plain non-blocking sockets and `add_reader`, not datagram endpoints: those cost half a millisecond per transfer and
take one datagram per turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
from tftp_server import packets
from tftp_server.file_store import FileStore, NotServed, NotServedReason, look_up
from tftp_server.packets import ErrorCode, Operation, Request
from tftp_server.transfer import ReadTransfer, RequestRefused, TransferLimits, TransferState

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked for the listening port. The usual 208 KiB lose requests when hundreds of phones boot at once."""
REQUESTS_PER_TURN: Final = 64
"""Requests taken from the listening port before transfers get their turn again."""
DATAGRAM_BYTES: Final = 2048
"""Read per datagram: a request has 512 at most, an acknowledgement 4; the rest of a longer one is cut off."""
_SO_RCVBUFFORCE: Final = 33
_IP_PKTINFO: Final = 8
"""Linux numbers that the socket module does not name (Python 3.11)."""

_log = logging.getLogger(__name__)

Peer = tuple[Any, ...]
"""A socket address: IP address and port first."""


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
        self._socket.close()

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
        self.loop: asyncio.AbstractEventLoop
        self._store = store
        self._emit = emit
        self.limits = limits
        self._socket: socket.socket | None = None
        self._finds_own_address = False
        self._sessions: dict[tuple[Peer, str], _Session] = {}
        self._per_address: Counter[str] = Counter()

    @property
    def transfers(self) -> int:
        """How many transfers are under way."""
        return len(self._sessions)

    def start(self) -> None:
        """Bind on the running loop; port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem."""
        self.loop = asyncio.get_running_loop()
        listening = bind_udp(self.address, self.port)
        self.port = listening.getsockname()[1]
        self.receive_buffer_bytes = _enlarge_receive_buffer(listening, self.limits.receive_buffer_bytes)
        self._finds_own_address = self.address == "0.0.0.0" and sys.platform == "linux"  # noqa: S104 - compared
        if self._finds_own_address:
            listening.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._socket = listening
        self.loop.add_reader(listening, self._on_readable)

    def stop(self) -> None:
        """Close the port and end all transfers with an ERROR packet."""
        if self._socket is None:
            return
        self.loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        farewell = packets.encode_error(ErrorCode.UNDEFINED, "Server stopped")
        for session in tuple(self._sessions.values()):
            session.transfer.fail(FailureReason.SERVER_STOPPED, "the server was stopped")
            self.finish(session, farewell)

    # -- what a session asks of its server ---------------------------------------------------------------------

    def new_socket(self, own: str) -> socket.socket:
        return bind_udp(own, 0)

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
            if self._socket is None:
                return
            try:
                datagram, sender, own = self._receive(self._socket)
            except OSError:  # nothing left, or an error that belongs to an earlier datagram
                return
            try:
                self._take(datagram, sender, own)
            except Exception:
                _log.exception("a TFTP request from %s failed", sender[0])

    def _receive(self, listening: socket.socket) -> tuple[bytes, Peer, str]:
        """A datagram, its sender and the own address it was sent to, which answers must come from."""
        if not self._finds_own_address:
            datagram, sender = listening.recvfrom(DATAGRAM_BYTES)
            return datagram, sender, self.address
        datagram, ancillary, _, sender = listening.recvmsg(DATAGRAM_BYTES, 64)
        return datagram, sender, _own_address(ancillary) or self.address

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
                if self._socket is not None:
                    self._socket.sendto(datagram, asked.sender)
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


def _enlarge_receive_buffer(listening: socket.socket, wanted_bytes: int) -> int:
    """Ask for `wanted_bytes`; what the kernel grants, in its own count (Linux counts its overhead: twice as much)."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted_bytes)
    if sys.platform == "linux" and listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 2 * wanted_bytes:
        with contextlib.suppress(OSError):  # only root may pass the system's limit
            listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted_bytes)
    return listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _own_address(ancillary: Sequence[tuple[int, int, bytes]]) -> str | None:
    for level, kind, content in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # struct in_pktinfo: interface, own address, destination in the packet
            return socket.inet_ntoa(struct.unpack_from("=I4s4s", content)[1])
    return None
