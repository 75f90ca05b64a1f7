"""Who has which network of loopback (a /24 for each lab, a /16 for the phones of each fleet), and how a lab finds a
free one when many start at once.

A claim is an abstract Unix socket of the network's name: it lives in the same network namespace as the addresses, and
the system frees it when the process dies. Programs that are no labs are seen by the ports they hold.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Self

from cucm.errors import AddressBusy, EnvironmentProblem
from cucm.machine import machine_problem

FIRST_BLOCK: Final = 64
LAST_BLOCK: Final = 250
"""Networks are drawn from 127.64.0.0 to 127.250.255.0: the lower ones are for people to name."""
ATTEMPTS: Final = 4096
_STEP: Final = 7919
"""A prime: steps of it visit every network before one comes again."""
_TABLES: Final = tuple(Path("/proc/net") / name for name in ("tcp", "udp"))


class NetworkClaim:
    """Held from `take` or `draw` until `release`; use as a context manager."""

    def __init__(self, network: IPv4Network, held: socket.socket | None) -> None:
        self.network = network
        self._held = held

    @classmethod
    def take(cls, network: IPv4Network) -> Self:
        """Raises AddressBusy if another lab has it, EnvironmentProblem. Elsewhere than on Linux the claim is empty."""
        if not _can_claim():
            return cls(network, None)
        try:
            return cls(network, _bound(f"\0cucm-lab network {network}"))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise machine_problem(error, str(network), failed="the network cannot be claimed") from error
            mend = "let `--network auto` find a free one, or end the other lab"
            raise AddressBusy("another lab has this network", where=str(network), mend=mend) from error

    @classmethod
    def draw(cls, wish: Path) -> Self:
        """A network that nobody has; for the same folder the same one, if it is free. Raises EnvironmentProblem."""
        if not _can_claim():
            raise EnvironmentProblem(
                "this system does not tell which networks are free", where="--network auto", mend="name one"
            )
        for network in _candidates(wish):
            try:
                claim = cls.take(network)
            except AddressBusy:
                continue
            if network not in _networks_in_use():
                return claim
            claim.release()
        raise EnvironmentProblem(
            f"{ATTEMPTS} networks are all in use", where="--network auto", mend="end some labs, or name one"
        )

    def release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()


def _bound(name: str) -> socket.socket:
    """A socket of this abstract name, which no other can have while it is open. Raises OSError."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(name)
    except OSError:
        held.close()
        raise
    return held


def _can_claim() -> bool:
    return sys.platform == "linux"


def _candidates(wish: Path) -> Iterator[IPv4Network]:
    count = (LAST_BLOCK - FIRST_BLOCK + 1) * 256
    first = int.from_bytes(hashlib.sha256(bytes(wish.absolute())).digest()[:4])
    for number in range(ATTEMPTS):
        place = (first + number * _STEP) % count
        yield IPv4Network(f"127.{FIRST_BLOCK + place // 256}.{place % 256}.0/24")


def _networks_in_use() -> set[IPv4Network]:
    """The /24 of every address a TCP or UDP socket of this machine is bound to."""
    lines = [line for table in _TABLES if table.exists() for line in table.read_text().splitlines()[1:]]
    addresses = {line.split()[1].partition(":")[0] for line in lines}
    numbers = (int.from_bytes(bytes.fromhex(address), sys.byteorder) for address in addresses)
    return {IPv4Network((IPv4Address(number), 24), strict=False) for number in numbers}
