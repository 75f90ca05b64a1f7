"""The port that TFTP requests come to: bound, refusing, or lost to the network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from cucm.net.addresses import bind_udp
from cucm.net.reachability import Reachability, drop_packets, take_packets

DATAGRAM_BYTES: Final = 2048
"""Read per datagram: a request has 512 at most, an acknowledgement 4; the rest of a longer one is cut off."""
_SO_RCVBUFFORCE: Final = 33
_IP_PKTINFO: Final = 8
"""Linux numbers that the socket module does not name (Python 3.11)."""

Peer = tuple[Any, ...]
"""A socket address: IP address and port first."""


class RequestPort:
    """`on_readable` is called when a datagram waits for `receive`. Port 0 becomes a free one.

    Raises AddressBusy and EnvironmentProblem, here and in `set`. While it refuses nothing is bound: an ICMP `port
    unreachable` is only sent for a port that nobody holds, so that another program may take it.
    """

    def __init__(
        self,
        address: str,
        port: int,
        on_readable: Callable[[], None],
        *,
        receive_buffer_bytes: int,
        how: Reachability,
    ) -> None:
        self.address = address
        self._on_readable = on_readable
        self._wanted_bytes = receive_buffer_bytes
        self._finds_own_address = address == "0.0.0.0" and sys.platform == "linux"  # noqa: S104 - compared
        self._loop = asyncio.get_running_loop()
        self._how = Reachability.OPEN
        self._socket = self._bind(port)
        self.port: int = self._socket.getsockname()[1]
        self.receive_buffer_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.set(how)

    def set(self, how: Reachability) -> None:
        """From now on the network treats requests like this."""
        if how is self._how:
            return
        if self._how is Reachability.REFUSE:
            self._socket = self._bind(self.port)
        elif self._how is Reachability.UNREACHABLE:
            self._be_found()
        self._how = how
        if how is Reachability.REFUSE:
            self.close()
        elif how is Reachability.UNREACHABLE:
            self._loop.remove_reader(self._socket)
            drop_packets(self._socket)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def receive(self) -> tuple[bytes, Peer, str]:
        """A datagram, its sender and the own address it was sent to, which answers must come from. Raises OSError."""
        if not self._finds_own_address:
            datagram, sender = self._socket.recvfrom(DATAGRAM_BYTES)
            return datagram, sender, self.address
        datagram, ancillary, _, sender = self._socket.recvmsg(DATAGRAM_BYTES, 64)
        return datagram, sender, _own_address(ancillary) or self.address

    def send(self, datagram: bytes, to: Peer) -> None:
        """Raises OSError."""
        self._socket.sendto(datagram, to)

    def _bind(self, port: int) -> socket.socket:
        bound = bind_udp(self.address, port)
        enlarge_receive_buffer(bound, self._wanted_bytes)
        if self._finds_own_address:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._loop.add_reader(bound, self._on_readable)
        return bound

    def _be_found(self) -> None:
        """What came meanwhile (without a filter in the kernel) has vanished."""
        take_packets(self._socket)
        with contextlib.suppress(OSError):
            while True:
                self._socket.recv(1)
        self._loop.add_reader(self._socket, self._on_readable)


def enlarge_receive_buffer(listening: socket.socket, wanted_bytes: int) -> int:
    """Ask for `wanted_bytes`; what the kernel grants, of which it takes half for its own accounts (Linux)."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted_bytes)
    granted = _granted(listening)
    if granted < wanted_bytes and sys.platform == "linux":
        with contextlib.suppress(OSError):  # only root may pass the system's limit
            listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted_bytes)
            granted = _granted(listening)
    return granted


def _granted(listening: socket.socket) -> int:
    """In the bytes that were asked for: Linux tells twice as many."""
    told = listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return told // 2 if sys.platform == "linux" else told


def _own_address(ancillary: Sequence[tuple[int, int, bytes]]) -> str | None:
    for level, kind, content in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # struct in_pktinfo: interface, own address, destination in the packet
            return socket.inet_ntoa(struct.unpack_from("=I4s4s", content)[1])
    return None
