"""TFTP over UDP: the listening port, and a socket of its own (a transfer ID) for every transfer.

Plain non-blocking sockets behind one reader of the loop, not datagram endpoints: those cost half a millisecond per
transfer and take one datagram per turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import field
from typing import Final

from cucm.errors import DecodeError, LabError
from cucm.events import Emit
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
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.tftp import TFTP_PACKET, TFTP_REQUEST, Error, Silent
from cucm.net.reachability import Reachability
from cucm.net.readers import Readers
from cucm.net.timer_wheel import TimerWheel
from cucm.records import dataclass
from tftp_server import packets
from tftp_server.file_store import FileStore, NotServed, NotServedReason, look_up
from tftp_server.packets import ErrorCode, Operation, Request
from tftp_server.prepared_packets import PreparedFiles
from tftp_server.request_port import Peer, RequestPort
from tftp_server.transfer import ReadTransfer, RequestRefused, TransferLimits, TransferState
from tftp_server.transfer_port import TransferPort, TransferPorts
from tftp_server.transfer_session import ERROR_OPERATION, Asked, TransferSession

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


class TftpServer:
    """Serves a `FileStore` by TFTP on one address; read-only."""

    def __init__(
        self,
        address: str,
        port: int,
        store: FileStore,
        *,
        emit: Emit,
        limits: TftpLimits,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        self.address = address
        self.port = port
        self.receive_buffer_bytes = 0
        self.is_silent = False
        self.is_plain = True
        """Neither silent nor has it rules for packets: what is sent just leaves."""
        self.wheel: TimerWheel
        self._readers: Readers
        self._ports: TransferPorts
        self._prepared = PreparedFiles()
        self._store = store
        self.emit = emit
        self.limits = limits
        self.faults = faults
        self._port: RequestPort | None = None
        self._reachability = Reachability.OPEN
        self._silent_ports: list[TransferPort] = []
        self._sessions: dict[tuple[Peer, str], TransferSession] = {}
        self.outbox: list[tuple[TransferSession, Sequence[bytes]]] = []
        """What goes out at the end of the turn.

        The trick: a datagram that is sent wakes its receiver. Sent in a row, the first wakes the other end and the
        others find it awake; one after each acknowledgement, every one may have to. And code that is run in a row
        finds the CPU's caches as it left them, which goes for `is_over` too.
        """
        self._over: dict[TransferSession, None] = {}
        self._per_address: dict[str, int] = {}  # a Counter adds and removes by calls of Python

    @property
    def transfers(self) -> int:
        """How many transfers are under way."""
        return len(self._sessions)

    def start(self) -> None:
        """Bind on the running loop; port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem."""
        loop = asyncio.get_running_loop()
        self.wheel = TimerWheel(loop)
        self._readers = Readers(loop, self.begin_turn, self._end_turn)
        self._ports = TransferPorts(self._readers, self.wheel)
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
        self.is_plain = False  # until the next turn looks
        for session in self._sessions.values():
            if is_silent:
                session.fall_silent()
            else:
                session.speak_again()
        self._close_silent_ports()

    def _end(self, farewell: bytes | None) -> None:
        if self._port is None:
            return
        self._port.close()
        self._port = None
        for session in tuple(self._sessions.values()):
            session.transfer.fail(FailureReason.SERVER_STOPPED, "the server was stopped")
            self.finish(session, farewell)
        self._close_silent_ports()
        self._ports.close()
        self.wheel.close()

    def _close_silent_ports(self) -> None:
        for silent in self._silent_ports:
            silent.close()
        self._silent_ports.clear()

    # -- what a session asks of its server ---------------------------------------------------------------------

    def begin_turn(self) -> None:
        """Once for all datagrams of a turn of the loop: what time it is, and whether a rule is for packets."""
        self.wheel.turn()
        self.is_plain = not (self.is_silent or self.faults.watches(TFTP_PACKET))

    def take_port(self, asked: Asked) -> TransferPort:
        """Raises OSError or LabError when none can be had."""
        return self._ports.take(asked.own, asked.sender)

    def leave_port(self, port: TransferPort) -> None:
        """Its transfer is over."""
        if self.is_silent:  # closed, it would answer the client with `port unreachable`; it ends for this side only
            self._silent_ports.append(port)
        else:
            self._ports.give_back(port)

    def is_over(self, session: TransferSession) -> None:
        """It is to be finished at the end of this turn."""
        self._over[session] = None

    def _end_turn(self) -> None:
        if self.outbox:
            outbox, self.outbox = self.outbox, []
            for session, datagrams in outbox:
                session.send(datagrams)
        if self._over:
            over, self._over = self._over, {}
            for session in over:
                self.finish(session)

    def finish(self, session: TransferSession, farewell: bytes | None = None) -> None:
        """Forget a transfer that is over, and tell how it went."""
        if self._sessions.get(session.asked.key) is not session:
            return  # who was told of another's end has stopped the server
        session.end(farewell)
        del self._sessions[session.asked.key]
        self._leave(session.asked.sender[0])
        transfer = session.transfer
        if transfer.state is TransferState.DONE:
            self.emit(FileServed(*session.asked.who, transfer.file_size, transfer.digest(), transfer.retransmissions))
        else:
            reason = transfer.failure or FailureReason.PROTOCOL
            self.emit(TransferFailed(*session.asked.who, reason, transfer.detail, transfer.sent_bytes))

    def tell_retransmitted(self, session: TransferSession) -> None:
        transfer = session.transfer
        self.emit(TransferRetransmitted(*session.asked.who, transfer.next_block, transfer.attempt))

    def tell_intruded(self, session: TransferSession, intruder: Peer) -> None:
        self.emit(TransferIntruded(*session.asked.who, *intruder[:2]))

    # -- requests ----------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        self.begin_turn()
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
            if not datagram.startswith(ERROR_OPERATION):
                refused = RequestRefused(RefusalReason.MALFORMED, ErrorCode.ILLEGAL_OPERATION, "Illegal TFTP operation")
                self._refuse(Asked(sender, own, ""), refused, str(error))
            return
        earlier = self._sessions.get((sender, own))
        if earlier is not None:
            # its last acknowledgement may wait unread: the client is done, and asks from the same port for another
            earlier.take_what_waits()
            self._end_turn()
            earlier = self._sessions.get((sender, own))
        if earlier is not None:
            if earlier.opening == datagram and earlier.takes_repetitions:
                return
            earlier.transfer.fail(FailureReason.SUPERSEDED, "the client asked anew from the same port")
            self.finish(earlier)
        self._open(request, datagram, Asked(sender, own, request.name))

    def _open(self, request: Request, datagram: bytes, asked: Asked) -> None:
        options = tuple([f"{name}={value}" for name, value in request.options]) if request.options else ()
        self.emit(FileRequested(*asked.who, datagram, options))
        if self.faults.watches(TFTP_REQUEST) and self._goes_wrong(asked):
            return
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
            address = asked.sender[0]
            self._per_address[address] = self._per_address.get(address, 0) + 1
            session.start()

    def _goes_wrong(self, asked: Asked) -> bool:
        """Whether a fault is this request's end."""
        match self.faults.fire(TFTP_REQUEST, file=asked.name, peer=str(asked.sender[0])):
            case Silent():
                return True
            case Error(code=code, text=text):
                self._refuse(asked, RequestRefused(RefusalReason.FAULT, code, text), text)
                return True
        return False

    def _new_session(self, request: Request, datagram: bytes, asked: Asked) -> TransferSession:
        if request.operation is Operation.WRITE_REQUEST:
            raise RequestRefused(RefusalReason.WRITE_REQUEST, ErrorCode.ACCESS_VIOLATION, "Access violation")
        if self._is_full(asked.sender[0]):
            raise _too_many()
        file = look_up(self._store, request.name)
        return TransferSession(
            self, asked, datagram, ReadTransfer(request, file, self.limits.transfer, self._prepared.packets)
        )

    def _is_full(self, address: str) -> bool:
        limits = self.limits
        return (
            len(self._sessions) >= limits.transfers or self._per_address.get(address, 0) >= limits.transfers_per_address
        )

    def _not_served(self, asked: Asked, error: NotServed) -> None:
        if error.reason is NotServedReason.BUSY:
            refused = RequestRefused(RefusalReason.BUSY, ErrorCode.UNDEFINED, "Requested file is Busy")
            self._refuse(asked, refused, error.what)
            return
        self.emit(FileNotFound(*asked.who, error.what))
        self._answer(asked, ErrorCode.FILE_NOT_FOUND, "File not found")

    def _refuse(self, asked: Asked, refused: RequestRefused, detail: str) -> None:
        self.emit(FileRefused(*asked.who, refused.reason, int(refused.code), detail))
        self._answer(asked, refused.code, refused.text)

    def _answer(self, asked: Asked, code: int, text: str) -> None:
        """An ERROR packet instead of a transfer, from a transfer ID of its own, or from port 69 if none can be had."""
        datagram = packets.encode_error(code, text)
        with contextlib.suppress(OSError):  # the client is not reachable: it will learn nothing, and we cannot help it
            try:
                port = self.take_port(asked)
            except (OSError, LabError):
                if self._port is not None:
                    self._port.send(datagram, asked.sender)
                return
            try:
                port.send(datagram)
            finally:
                self._ports.give_back(port)

    def _leave(self, address: str) -> None:
        left = self._per_address[address] - 1
        if left:
            self._per_address[address] = left
        else:
            del self._per_address[address]


def _too_many() -> RequestRefused:
    return RequestRefused(RefusalReason.TOO_MANY_TRANSFERS, ErrorCode.UNDEFINED, "Too many transfers")
