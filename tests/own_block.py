"""Which part of loopback the tests of this process have for themselves."""

from __future__ import annotations

import errno
import os
import socket
import sys
from ipaddress import IPv4Network
from itertools import count
from typing import Final, NamedTuple

FIRST_BLOCK: Final = 20
FIRST_SHARED_BLOCK: Final = 44
LAST_BLOCK: Final = 63
"""Above those of fleets' phones (`lab.fleet.servers`), below those from which labs draw (`lab.network_claim`): a lab
that finds a free network must not find one that a test is about to use.
"""
SHARE: Final = 32
"""How many /24s each of the eight processes of a shared block has."""


class Part(NamedTuple):
    """127.`block`.`first`.0/24 and those that follow it, `size` of them."""

    block: int
    first: int
    size: int


def _claimed() -> Part:
    """A part that no other process of tests has; the system frees the claim when this one ends.

    A /16 each for the first 24 processes, an eighth of one each for 160 more: as many as cores is usual, and two runs
    side by side. Whoever comes then shares a part with another, as all do on systems that have no such claims.
    """
    whole = [Part(block, 0, 256) for block in range(FIRST_BLOCK, FIRST_SHARED_BLOCK)]
    shares = [
        Part(block, first, SHARE)
        for block in range(FIRST_SHARED_BLOCK, LAST_BLOCK + 1)
        for first in range(0, 256, SHARE)
    ]
    in_order = [parts[(os.getpid() + place) % len(parts)] for parts in (whole, shares) for place in range(len(parts))]
    if sys.platform == "linux":
        for part in in_order:
            if _claim(part):
                return part
    return in_order[-1]


def _claim(part: Part) -> bool:
    """Whether it is this process's now. Raises OSError."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0cucm-lab tests 127.{part.block}.{part.first}.0")
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    held.detach()
    return True


PART: Final = _claimed()


def _fixed(place: int) -> IPv4Network:
    """One of the last eight /24s of the part, which are never drawn."""
    return IPv4Network(f"127.{PART.block}.{PART.first + PART.size - 8 + place}.0/24")


FOR_RUNNING_LAB: Final = _fixed(0)
FOR_MIGRATE_FOLDER: Final = _fixed(1)
FOR_README: Final = _fixed(2)
FOR_CLAIMS: Final = _fixed(3)
FOR_ANOTHER_LAB: Final = _fixed(4)
"""Of a test that has a drawn network already; no fixture that outlives its test may have it."""

_DRAWN = count(os.getpid())


def drawn() -> IPv4Network:
    """The next of the others: runs one after the other do not begin with the same."""
    return IPv4Network(f"127.{PART.block}.{PART.first + next(_DRAWN) % (PART.size - 8)}.0/24")
