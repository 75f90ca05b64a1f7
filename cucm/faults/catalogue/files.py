"""Files: what a node's TFTP service serves, by TFTP and HTTP alike."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint

MAX_BYTES: Final = 1 << 28
"""More than the largest file that is served."""
TRUST_LIST_LIMIT: Final = 64 * 1024
"""A phone loads no list above this (facts 3.5)."""
MAX_OVERSIZE: Final = 4 * 1024 * 1024
"""Twice what a phone downloads (facts 3.5)."""


class Stale(Action):
    """Serve the version that this node served before the present one; a CTL or ITL under any of its names. Where it has
    served no other since the lab was started or restored, the present one is served, and `file.not_altered` says so.
    """

    name: ClassVar[str] = "stale"


class Truncated(Action):
    """Serve only the beginning of the file, as if that were all."""

    name: ClassVar[str] = "truncated"
    bytes: Annotated[int, Field(ge=0, le=MAX_BYTES, description="how many are served")] = 256


class Tampered(Action):
    """One bit of the file is turned over."""

    name: ClassVar[str] = "tampered"
    offset: Annotated[
        int, Field(ge=-MAX_BYTES, le=MAX_BYTES - 1, description="in which byte: from 0, or negative from the end")
    ] = -1


class Unsigned(Action):
    """Take the signature off: of a .sgn file the content is served, of a list the list without its signature."""

    name: ClassVar[str] = "unsigned"


class WrongSigner(Action):
    """Sign the list or .sgn file anew, with another key: its certificate has the same names as the right one and
    another serial number.
    """

    name: ClassVar[str] = "wrong-signer"


class Oversized(Action):
    """Make the file larger than a phone takes: a list by records that say nothing, any other by line feeds at its end.
    Its signature does not cover them.
    """

    name: ClassVar[str] = "oversized"
    bytes: Annotated[
        int, Field(ge=TRUST_LIST_LIMIT + 1, le=MAX_OVERSIZE, description="how large it becomes at least")
    ] = TRUST_LIST_LIMIT + 1


FILE_CONTENT: Final = FaultPoint(
    "file.content",
    "The file server looks up a file that it has. What an action cannot do to a file is told as `file.not_altered`.",
    (Stale, Truncated, Tampered, Unsigned, WrongSigner, Oversized),
    {
        "cluster": "the cluster's name",
        "node": "the node's name",
        "file": "name of the file, as the client asks for it",
        "phone": "device name in the file's name: CTLSEP..., ITLSEP..., SEP...",
    },
)
POINTS: Final = (FILE_CONTENT,)
