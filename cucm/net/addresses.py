"""Which addresses and ports a service may take, and binding them with errors that say how to mend things."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from contextlib import closing
from typing import Final

from cucm.errors import AddressBusy, EnvironmentProblem, LabError, UsageError
from cucm.machine import machine_problem
from cucm.records import dataclass

MACOS_ALIAS_HINT: Final = "on macOS each loopback address needs an alias first: sudo ifconfig lo0 alias {address} up"
PRIVILEGED_PORTS_HINT: Final = (
    "ports below 1024 need root, CAP_NET_BIND_SERVICE or a lower net.ipv4.ip_unprivileged_port_start; "
    "without them the lab uses 6969, 2222, 8080, 4443 and 6767"
)


def require_loopback(address: str, expose: bool) -> str | None:
    """None if `address` is a loopback address; the warning to print if it is not and `expose` allows it.

    Raises UsageError for any other address and for what is no IP address at all.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"{address!r} is not an IP address", mend="give one like 127.0.11.32") from None
    if parsed.is_loopback:
        return None
    if not expose:
        raise UsageError(
            f"{address} is not a loopback address, and this service is a lab toy",
            mend="use an address of 127.0.0.0/8, or --expose if you really mean it",
        )
    return (
        f"WARNING: listening on {address}, reachable from other machines. Certificates and keys of this lab are "
        "toys; never point real phones of a production cluster at it."
    )


def bind_tcp(address: str, port: int, *, backlog: int, is_shared: bool = False) -> socket.socket:
    """A listening, non-blocking socket; `is_shared`: with others that say so too. AddressBusy, EnvironmentProblem."""
    listening = new_socket(address, port, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT are no obstacle
        # what is accepted inherits it: without, Nagle and a late acknowledgement cost 40 ms
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((address, port))
        listening.listen(backlog)  # two servers may both bind; the second to listen is refused here
    except OSError as error:
        listening.close()
        raise binding_problem(error, address, port, "TCP") from error
    listening.setblocking(False)
    return listening


def hold_port(address: str, port: int) -> socket.socket:
    """Keeps a TCP port for those who share it, and takes no connection. Raises AddressBusy, EnvironmentProblem."""
    held = new_socket(address, port, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((address, port))
    except OSError as error:
        held.close()
        raise binding_problem(error, address, port, "TCP") from error
    return held


def bind_udp(address: str, port: int) -> socket.socket:
    """A bound, non-blocking socket. Raises AddressBusy, EnvironmentProblem."""
    bound = new_socket(address, port, socket.SOCK_DGRAM)
    try:
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise binding_problem(error, address, port, "UDP") from error
    bound.setblocking(False)
    return bound


def new_socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """One to be bound there. Raises EnvironmentProblem."""
    try:
        return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    except OSError as error:
        raise binding_problem(error, address, port, "UDP" if kind is socket.SOCK_DGRAM else "TCP") from error


def binding_problem(error: OSError, address: str, port: int, transport: str) -> LabError:
    """The error to raise for `error`, met when binding `address` and `port`."""
    where = f"{address} {transport} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return AddressBusy(
                "another program holds this address and port", where=where, mend=f"find it: ss -ltunp | grep :{port}"
            )
        case errno.EADDRNOTAVAIL:
            return AddressBusy("this machine has no such address", where=where, mend=_missing_address_hint(address))
        case errno.EACCES | errno.EPERM:
            return EnvironmentProblem("no right to take this port", where=where, mend=PRIVILEGED_PORTS_HINT)
        case _:
            problem = machine_problem(error, where)
            problem.mend = problem.mend or "see `cucm-lab doctor`"
            return problem


def _missing_address_hint(address: str) -> str:
    if sys.platform == "darwin":
        return MACOS_ALIAS_HINT.format(address=address)
    return "give an address of this machine; on Linux all of 127.0.0.0/8 is"


@dataclass(frozen=True, slots=True)
class PortMap:
    """Where the services with a port below 1024 are found; all other services keep the standard port."""

    tftp: int = 69
    sftp: int = 22
    http: int = 80
    https: int = 443
    dhcp: int = 67

    @property
    def is_standard(self) -> bool:
        return self == STANDARD_PORTS


STANDARD_PORTS: Final = PortMap()
UNPRIVILEGED_PORTS: Final = PortMap(tftp=6969, sftp=2222, http=8080, https=4443, dhcp=6767)


def detect_ports(address: str = "127.0.0.1") -> PortMap:
    """Standard ports if this process may bind them, else the unprivileged ones. Tried with a real UDP socket."""
    try:
        with closing(bind_udp(address, STANDARD_PORTS.tftp)):
            return STANDARD_PORTS
    except AddressBusy:
        return STANDARD_PORTS  # taken by somebody: no lack of rights
    except EnvironmentProblem:
        return UNPRIVILEGED_PORTS
