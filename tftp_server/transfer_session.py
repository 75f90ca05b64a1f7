"""One TFTP transfer with its socket (a transfer ID of its own) and its timer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cucm.events.files import FailureReason, FileTransport
from cucm.faults.catalogue.tftp import TFTP_PACKET
from cucm.net.reachability import drop_packets, take_packets
from tftp_server import packets
from tftp_server.packet_faults import FaultyWire
from tftp_server.packets import ErrorCode, Operation
from tftp_server.request_port import DATAGRAM_BYTES, Peer
from tftp_server.transfer import ReadTransfer, TransferState

if TYPE_CHECKING:
    from tftp_server.udp import TftpServer

ERROR_OPERATION: Final = Operation.ERROR.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Asked:
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


class TransferSession:
    """One transfer with its socket and its timer."""

    __slots__ = ("_deadline", "_ends", "_server", "_socket", "_timer", "_wire", "asked", "opening", "transfer")

    def __init__(self, server: TftpServer, asked: Asked, opening: bytes, transfer: ReadTransfer) -> None:
        """`opening` is the request's datagram. Raises OSError or LabError when no socket can be had."""
        self._server = server
        self._socket = server.new_socket(asked.own)
        self._timer: asyncio.TimerHandle | None = None
        self._wire: FaultyWire | None = None
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
        if self._wire is not None:
            self._wire.close()
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
        if not datagram.startswith(ERROR_OPERATION):  # two servers would answer each other's errors for ever
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
            if to is None and (self._wire is not None or self._server.faults.watches(TFTP_PACKET)):
                self._send_faulty(datagrams)
                return
            for datagram in datagrams:
                self._socket.sendto(datagram, to or self.asked.sender)
        except (BlockingIOError, InterruptedError):
            pass  # the send buffer is full: the rest counts as lost on the way, and the timer mends it
        except OSError as error:
            if to is None:
                self.transfer.fail(FailureReason.NETWORK, error.strerror or str(error))

    def _send_faulty(self, datagrams: Iterable[bytes]) -> None:
        asked = self.asked
        if self._wire is None:
            self._wire = FaultyWire(self._server.faults, asked.name, asked.sender, asked.own, self._put)
        for datagram in datagrams:
            self._wire.send(datagram)

    def _put(self, datagram: bytes) -> None:
        if not self._server.is_silent:
            self._socket.sendto(datagram, self.asked.sender)


_WRONG_TRANSFER_ID: Final = packets.encode_error(ErrorCode.UNKNOWN_TRANSFER_ID, "Unknown transfer ID")
