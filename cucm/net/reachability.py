"""What the network does with packets for a port: lets them through, refuses them as a firewall does, or loses them.

No root is needed: a socket filter (`SO_ATTACH_FILTER`, classic BPF) that keeps nothing makes the kernel drop what
arrives at a socket before TCP sees it: no SYN is answered, no segment acknowledged (measured: Linux 6.18, 127/8 and
::1). Where there are no such filters, a full accept queue drops SYNs too.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from cucm.net.addresses import bind_tcp, binding_problem, new_socket

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
"""Linux numbers that the socket module does not name."""
_KEEP_NOTHING: Final = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
"""One instruction of classic BPF, `BPF_RET | BPF_K` with 0: keep 0 bytes of the packet."""
_QUEUE_FILLERS: Final = 16
"""Connections to oneself that fill the shortest accept queue a system grants."""
_FILL_TIMEOUT_S: Final = 0.05


class Reachability(StrEnum):
    OPEN = "open"
    REFUSE = "refuse"
    """New connections are answered with a reset (TCP) or `port unreachable` (UDP); those that stand go on."""
    UNREACHABLE = "unreachable"
    """Packets vanish: who connects hears nothing until the own deadline, connections that stand fall silent."""


def drop_packets(sock: socket.socket) -> bool:
    """Let the kernel drop what arrives at `sock` from now on, unseen and unacknowledged.

    False where the system has no such filters. What `sock` itself sends still leaves: do not write.
    """
    if sys.platform != "linux":
        return False
    program = struct.pack("@HP", 1, ctypes.addressof(_KEEP_NOTHING))  # struct sock_fprog
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:  # a sandbox may forbid it
        return False
    return True


def take_packets(sock: socket.socket) -> None:
    """Undo `drop_packets`. What peers send again arrives."""
    if sys.platform == "linux":
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


class PortHolder:
    """A TCP port without a service, held in the state `how` until `close`: for services that have no `Listener`.

    Port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem; ValueError for `Reachability.OPEN`.
    """

    def __init__(self, address: str, port: int, how: Reachability) -> None:
        if how is Reachability.OPEN:
            raise ValueError("a port without a service cannot be open")
        self.address = address
        self.how = how
        self._fillers: list[socket.socket] = []
        if how is Reachability.REFUSE:
            self._socket = bind_silent_tcp(address, port)
            self.port: int = self._socket.getsockname()[1]
            return
        self._socket = bind_tcp(address, port, backlog=0)
        self.port = self._socket.getsockname()[1]
        if not drop_packets(self._socket):
            self._fillers = fill_accept_queue(self._socket)

    def close(self) -> None:
        """Free the port. May be called twice."""
        for filler in self._fillers:
            filler.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def bind_silent_tcp(address: str, port: int) -> socket.socket:
    """A socket that holds the port and does not listen: the kernel answers each SYN with a reset."""
    bound = new_socket(address, port, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise binding_problem(error, address, port, "TCP") from error
    return bound


def fill_accept_queue(listening: socket.socket) -> list[socket.socket]:
    """Connect to a socket that listens with backlog 0 until its queue is full: the kernel then drops SYNs.

    The returned connections keep it full. Nobody may accept from it meanwhile.
    """
    fillers = []
    for _ in range(_QUEUE_FILLERS):
        filler = socket.socket(listening.family, socket.SOCK_STREAM)
        filler.settimeout(_FILL_TIMEOUT_S)
        try:
            filler.connect(listening.getsockname())
        except OSError:
            filler.close()
            break
        fillers.append(filler)
    return fillers
