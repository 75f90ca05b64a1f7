"""One TFTP transfer on its port, and its waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cucm.events.files import FailureReason, FileTransport
from tftp_server import packets
from tftp_server.packet_faults import FaultyWire
from tftp_server.packets import ErrorCode, Operation
from tftp_server.request_port import Peer
from tftp_server.transfer import ReadTransfer, TransferState

if TYPE_CHECKING:
    from tftp_server.udp import TftpServer

ERROR_OPERATION: Final = Operation.ERROR.to_bytes(2, "big")
ANSWER_BYTES: Final = 256
"""Read of a client's datagram: an acknowledgement has 4 bytes, of an error's text the beginning is told. Python takes
this much from its own small blocks, and does not ask the system's allocator."""
MAX_WAITING: Final = 256
"""Datagrams that are read at once; a client that has sent more gets no answer before the next turn."""
_ACTIVE: Final = TransferState.ACTIVE


class Asked:
    """Who asked for what, and at which of our addresses (`own`).

    `key`: both ends of what the client knows of a transfer; `who`: the first fields of every file event.
    """

    __slots__ = ("key", "name", "own", "sender", "who")

    def __init__(self, sender: Peer, own: str, name: str) -> None:
        self.sender = sender
        self.own = own
        self.name = name
        self.key = sender, own
        self.who = FileTransport.TFTP, sender[0], sender[1], name


class TransferSession:
    """One transfer with its port; it waits in the server's wheel."""

    __slots__ = (
        "_ends",
        "_is_late",
        "_port",
        "_receive",
        "_send_one",
        "_server",
        "_since",
        "_take",
        "_wheel",
        "_wire",
        "asked",
        "opening",
        "slot",
        "transfer",
    )

    def __init__(self, server: TftpServer, asked: Asked, opening: bytes, transfer: ReadTransfer) -> None:
        """`opening` is the request's datagram. Raises OSError or LabError when no port can be had."""
        self._server = server
        self._wheel = server.wheel
        self._port = port = server.take_port(asked)
        self._receive = port.receive
        self._send_one = port.send
        self._take = transfer.receive
        self._wire: FaultyWire | None = None
        self._since = self._wheel.now
        self._ends = self._since + server.limits.transfer_s
        self._is_late = False
        self.slot = 0
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
        self._port.on_stranger = self._turn_away
        self._port.on_readable(self.on_readable)
        self.send(self.transfer.start())
        self._go_on()

    def end(self, farewell: bytes | None = None) -> None:
        if farewell is not None:
            self.send([farewell])
        self._wheel.remove(self)
        if self._wire is not None:
            self._wire.close()
        self._server.leave_port(self._port)

    def fall_silent(self) -> None:
        """Nothing arrives and nothing is sent; the waits go on, as they do for packets that are lost."""
        self._port.fall_silent()

    def speak_again(self) -> None:
        self._port.speak_again(self.on_readable)

    def take_what_waits(self) -> None:
        """All that the client has sent so far: doubled acknowledgements may lie before the last one."""
        for _ in range(MAX_WAITING):
            if not self.on_readable() or self.transfer.state is not _ACTIVE:
                return

    def on_readable(self) -> bool:
        """Take a datagram of the client; False if none is there. What a block costs is here and in `ReadTransfer`."""
        try:
            datagram = self._receive(ANSWER_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionRefusedError:
            self._client_is_gone()
        except OSError as error:
            self.transfer.fail(FailureReason.NETWORK, error.strerror or str(error))
        else:
            answers = self._take(datagram)
            if answers:
                self._since = self._wheel.now
                self._server.outbox.append((self, answers))
                if self._is_late:
                    self._wait_anew()
        if self.transfer.state is not _ACTIVE:
            self._server.is_over(self)
        return True

    def _client_is_gone(self) -> None:
        """A datagram of ours met a closed port: who has closed his transfer ID never answers, so nobody waits for him.
        What he sent before still counts, his last acknowledgement above all.
        """
        with contextlib.suppress(OSError):  # nothing more has come
            for _ in range(MAX_WAITING):
                if self.transfer.state is _ACTIVE:
                    self._take(self._receive(ANSWER_BYTES))
        if self.transfer.state is _ACTIVE:
            self.transfer.fail(FailureReason.NETWORK, "the client has closed its port")
        self._server.is_over(self)

    def time_is_up(self) -> None:
        """The wheel's call: the client has been silent, or has been heard since."""
        if self.transfer.state is not _ACTIVE:
            return
        self._server.begin_turn()
        now = self._wheel.now
        if now >= self._ends:
            self.transfer.fail(FailureReason.TOO_SLOW, "the transfer has lasted too long")
        elif now >= self._since + self.transfer.timeout_s:
            again = self.transfer.timed_out()
            if again:
                self._is_late = True
                self._server.tell_retransmitted(self)
                self.send(again)
                self._since = now
        self._go_on()

    def _go_on(self) -> None:
        if self.transfer.state is _ACTIVE:
            self._wait()
        else:
            self._server.finish(self)

    def _wait(self) -> None:
        self._wheel.add(self, self._since + self.transfer.timeout_s)

    def _wait_anew(self) -> None:
        """The back-off may be over: the wait that ends far away is given up."""
        self._is_late = self.transfer.attempt > 1
        self._wheel.remove(self)
        self._wait()

    def _turn_away(self, datagram: bytes, stranger: Peer) -> None:
        if not datagram.startswith(ERROR_OPERATION) and not self._server.is_silent:
            # an error is not answered: two servers would answer each other's for ever
            with contextlib.suppress(OSError):
                self._port.send_to(_WRONG_TRANSFER_ID, stranger)
        self._server.tell_intruded(self, stranger)

    def send(self, datagrams: Iterable[bytes]) -> None:
        """To the client; what cannot leave now counts as lost on the way, and the wait for an answer mends it."""
        try:
            if self._server.is_plain and self._wire is None:
                for datagram in datagrams:
                    self._send_one(datagram)
            elif not self._server.is_silent:
                self._send_faulty(datagrams)
        except (BlockingIOError, InterruptedError):
            pass  # the send buffer is full
        except ConnectionRefusedError:
            self._client_is_gone()
        except OSError as error:
            self.transfer.fail(FailureReason.NETWORK, error.strerror or str(error))
            self._server.is_over(self)

    def _send_faulty(self, datagrams: Iterable[bytes]) -> None:
        asked = self.asked
        if self._wire is None:
            self._wire = FaultyWire(self._server.faults, asked.name, asked.sender, asked.own, self._put)
        for datagram in datagrams:
            self._wire.send(datagram)

    def _put(self, datagram: bytes) -> None:
        if not self._server.is_silent:
            self._send_one(datagram)


_WRONG_TRANSFER_ID: Final = packets.encode_error(ErrorCode.UNKNOWN_TRANSFER_ID, "Unknown transfer ID")
