"""A UDP port on one network interface, for DHCP as on a real network. Needs Linux and root's rights."""

from __future__ import annotations

import socket
from typing import Final

from cucm.errors import EnvironmentProblem, UsageError
from cucm.net.addresses import binding_problem, new_socket

_SO_BINDTODEVICE: Final = 25
"""Linux's number; not named by the socket module of every Python we run on."""


def bind_interface(interface: str, port: int, address: str = "") -> socket.socket:
    """A non-blocking socket that hears and sends broadcasts on this interface alone, whatever addresses it has.

    With `address` 255.255.255.255 it hears nothing else, and another may have the port on an address.
    Raises UsageError (no such interface), AddressBusy, EnvironmentProblem.
    """
    try:
        socket.if_nametoindex(interface)
    except OSError:
        raise UsageError(f"no network interface {interface!r}", mend="`ip link` lists them") from None
    bound = new_socket(address, port, socket.SOCK_DGRAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        bound.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode() + b"\0")
        bound.bind((address, port))
    except PermissionError as error:
        bound.close()
        raise EnvironmentProblem(
            "no right to take this interface for itself", where=interface, mend="run as root, or use the relay form"
        ) from error
    except OSError as error:
        bound.close()
        raise binding_problem(error, interface, port, "UDP") from error
    bound.setblocking(False)
    return bound
