"""The server's transfer IDs: a port of its own for every transfer, taken from ports that have rested."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from cucm.machine import descriptor_limit
from cucm.net.addresses import bind_udp
from cucm.net.reachability import drop_packets, take_packets
from cucm.net.readers import Readers
from cucm.net.timer_wheel import TimerWheel
from tftp_server.request_port import DATAGRAM_BYTES, Peer

RESTING_PORTS: Final = 32
"""A port is not taken again before this many others have been given back: transfer IDs that follow one another differ,
and what a client sends late to its old transfer meets no new one (RFC 1350 has them drawn at random)."""
MAX_IDLE_PORTS: Final = 512
"""Ports kept open for transfers to come; any more are closed as they are given back."""
FILES_PER_PORT: Final = 32
"""Of so many files that the process may have open, one port at most is kept: its two sockets would be missed where the
limit is low."""
TRIM_S: Final = 5.0
"""Ports that nobody needed for so long are closed, but for those that rest."""
MAX_STALE: Final = 64
"""Datagrams of an earlier client that are thrown away when a port is taken again."""
_SHARED: Final = socket.SO_REUSEADDR if sys.platform == "linux" else socket.SO_REUSEPORT


def _ignore(_datagram: bytes, _stranger: Peer) -> None:
    pass


class TransferPort:
    """One port at the address `own`, connected to one client at a time.

    The trick: two sockets share the port. One is connected to the client, so that a block costs no address, neither
    as the kernel's work nor as Python objects. The other gets what comes from anybody else, which a connected socket
    alone would let the kernel refuse unseen. Raises OSError or LabError when no socket can be had.
    """

    __slots__ = ("_others", "_previous", "_readers", "_socket", "client", "on_stranger", "own", "receive", "send")

    def __init__(self, own: str, readers: Readers) -> None:
        self.own = own
        self.client: Peer = ()
        self.on_stranger: Callable[[bytes, Peer], None] = _ignore
        self._previous: Peer = ()
        self._readers = readers
        self._others = bind_udp(own, 0)
        try:
            self._socket = _sharing_the_port_of(self._others)
        except OSError:
            self._others.close()
            raise
        self.receive = self._socket.recv
        """Of the connected socket: what the client has sent. ConnectionRefusedError: see `send`."""
        self.send = self._socket.send
        """To the client. ConnectionRefusedError tells of an earlier datagram: the client's port was closed."""
        try:
            readers.add(self._others.fileno(), self._on_stranger)
            readers.add(self._socket.fileno(), self.discard)
        except OSError:
            self.close()
            raise

    def lead_to(self, client: Peer) -> bool:
        """From now on it is this client's. What came from another before is thrown away; whether that was all of it.

        Raises OSError.
        """
        self._socket.connect(client)
        self.client = client
        return self.discard()

    def on_readable(self, callback: Callable[[], object]) -> None:
        """Call back when something has come from the client."""
        self._readers.redirect(self._socket.fileno(), callback)

    def rest(self) -> None:
        """No transfer has it any more: what still comes is ignored."""
        self._previous = self.client
        self.on_stranger = _ignore
        self._readers.redirect(self._socket.fileno(), self.discard)

    def discard(self) -> bool:
        """Throw away what waits to be read, MAX_STALE datagrams of it; whether nothing more waits."""
        for _ in range(MAX_STALE):
            try:
                self.receive(1)
            except BlockingIOError:
                return True
            except OSError:  # of an earlier datagram
                continue
        return False

    def send_to(self, datagram: bytes, stranger: Peer) -> None:
        """Raises OSError."""
        self._others.sendto(datagram, stranger)

    def fall_silent(self) -> None:
        """The network loses what comes."""
        for one in (self._others, self._socket):
            self._readers.remove(one.fileno())
            drop_packets(one)

    def speak_again(self, callback: Callable[[], object]) -> None:
        for one in (self._others, self._socket):
            take_packets(one)
        self._readers.add(self._others.fileno(), self._on_stranger)
        self._readers.add(self._socket.fileno(), callback)

    def close(self) -> None:
        for one in (self._others, self._socket):
            self._readers.remove(one.fileno())
            one.close()

    def _on_stranger(self) -> None:
        with contextlib.suppress(OSError):  # nothing there, or an error of an earlier datagram
            datagram, stranger = self._others.recvfrom(DATAGRAM_BYTES)
            if stranger != self._previous:  # a late datagram of the transfer before is nobody's business
                self.on_stranger(datagram, stranger)


def most_kept(descriptors: int) -> int:
    """How many idle ports all servers of a process keep besides those that rest, if it may have so many files open."""
    return max(0, min(MAX_IDLE_PORTS, descriptors // FILES_PER_PORT) - RESTING_PORTS - 1)


class TransferPorts:
    """Gives a port to each transfer, and takes it back. Waits in the wheel while there are ports to spare."""

    kept: ClassVar[int] = 0
    """Idle ports of all servers of this process, but for those that rest and the next that is taken."""

    def __init__(self, readers: Readers, wheel: TimerWheel) -> None:
        self.slot = 0
        self._most_kept = most_kept(descriptor_limit())
        self._kept = 0
        self._readers = readers
        self._wheel = wheel
        self._idle: deque[TransferPort] = deque()
        self._spare = 0
        """The fewest that were idle since they were last counted."""
        self._waits = False

    def take(self, own: str, client: Peer) -> TransferPort:
        """A port at the address `own` that leads to this client. Raises OSError, LabError."""
        port = self._rested(own)
        if port is not None and _leads_to(client, port):
            return port
        # none has rested, or an earlier client floods the one that has: what he sent would pass for the new one's
        port = TransferPort(own, self._readers)
        if _leads_to(client, port):
            return port
        raise OSError(errno.EBUSY, "strangers fill a new port")

    def give_back(self, port: TransferPort) -> None:
        if len(self._idle) > RESTING_PORTS and TransferPorts.kept >= self._most_kept:
            port.close()
            return
        port.rest()
        self._idle.append(port)
        self._count()
        if not self._waits and len(self._idle) > RESTING_PORTS:
            self._waits = True
            self._spare = RESTING_PORTS
            self._wheel.add(self, self._wheel.now + TRIM_S)

    def time_is_up(self) -> None:
        """Close what was never needed since the last time."""
        for _ in range(self._spare - RESTING_PORTS):
            self._idle.popleft().close()
        self._count()
        self._spare = len(self._idle)
        self._waits = self._spare > RESTING_PORTS
        if self._waits:
            self._wheel.add(self, self._wheel.now + TRIM_S)

    def close(self) -> None:
        """The idle ones; who has one closes it."""
        self._wheel.remove(self)
        self._waits = False
        while self._idle:
            self._idle.pop().close()
        self._count()

    def _count(self) -> None:
        kept = len(self._idle) - RESTING_PORTS - 1
        if kept < 0:
            kept = 0
        TransferPorts.kept += kept - self._kept
        self._kept = kept

    def _rested(self, own: str) -> TransferPort | None:
        if len(self._idle) <= RESTING_PORTS:
            return None
        port = self._idle.popleft()
        self._count()
        self._spare = min(self._spare, len(self._idle))
        if port.own == own:
            return port
        port.close()  # a server on all addresses is asked at more than one
        return None


def _leads_to(client: Peer, port: TransferPort) -> bool:
    """Whether it does from now on; otherwise it is closed. Raises OSError."""
    is_empty = False
    try:
        is_empty = port.lead_to(client)
    finally:
        if not is_empty:
            port.close()
    return is_empty


def _sharing_the_port_of(first: socket.socket) -> socket.socket:
    """A second socket at the same address and port; there can be no third, of whatever program."""
    second = socket.socket(first.family, socket.SOCK_DGRAM)
    try:
        second.setblocking(False)
        for one in (first, second):
            one.setsockopt(socket.SOL_SOCKET, _SHARED, 1)
        second.bind(first.getsockname())
        for one in (first, second):
            one.setsockopt(socket.SOL_SOCKET, _SHARED, 0)
    except OSError:
        second.close()
        raise
    return second
