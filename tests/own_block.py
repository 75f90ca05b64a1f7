"""Which part of loopback the tests of this process have for themselves."""

from __future__ import annotations

import os
import socket
from typing import Final

FIRST_BLOCK: Final = 20
LAST_BLOCK: Final = 63
"""Above those of fleets' phones (`lab.fleet.servers`), below those from which labs draw (`lab.network_claim`): a lab
that finds a free network must not find one that a test is about to use.
"""


def _claimed() -> int:
    """The number of a /16 that no other process of tests has; the system frees the claim when this one ends."""
    blocks = range(FIRST_BLOCK, LAST_BLOCK + 1)
    first = os.getpid() % len(blocks)
    for block in [*blocks[first:], *blocks[:first]]:
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0cucm-lab tests 127.{block}.0.0/16")
        except OSError:
            held.close()
        else:
            held.detach()
            return block
    raise RuntimeError("too many processes run tests at once")


OWN_BLOCK: Final = _claimed()
"""The tests' networks are 127.OWN_BLOCK.X.0/24: X to 250 are drawn (`loopback`), those above have fixed users."""
