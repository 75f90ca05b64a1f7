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
from typing import Final

from cucm.net.addresses import binding_problem, new_socket

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
