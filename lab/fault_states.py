"""Faults that are states: brought about in the lab when they are set, undone when they end.

A state point (`is_state` in the catalogue) has a `Bringer` here: it finds the parts of the lab that the rule matches,
changes them, tells of each hit (`record`) and returns what undoes it all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from cucm.errors import UsageError
from cucm.faults import Fault

if TYPE_CHECKING:
    from lab.runtime import Lab

Undo = Callable[[], Awaitable[None]]


class Record(Protocol):
    """Told for each part of the lab that was hit, with the fields of the point's `match`."""

    def __call__(self, **request: str) -> None: ...


Bringer = Callable[["Lab", Fault, Record], Awaitable[Undo]]
"""Raises UsageError when the rule matches no part of this lab, LabError when it cannot be brought about; then nothing
has changed."""

BRINGERS: Final[Mapping[str, Bringer]] = {}
"""By the name of the state point; a test keeps it complete."""


class FaultStates:
    """The states in force in one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._undo: dict[str, Undo] = {}

    async def begin(self, fault: Fault) -> None:
        """`fault` is on the board. Raises UsageError, LabError: nothing has changed then."""

        def record(**request: str) -> None:
            self._lab.faults.record(fault.id, **request)

        self._undo[fault.id] = await BRINGERS[fault.point.name](self._lab, fault, record)

    async def end(self, fault_id: str) -> None:
        """Undo it. Nothing happens for a fault that is no state. Raises LabError when it cannot be undone."""
        undo = self._undo.pop(fault_id, None)
        if undo is not None:
            await undo()


def matching(fault: Fault, parts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Names of the parts whose fields the rule matches. Raises UsageError when there is none."""
    found = [name for name, fields in parts.items() if fault.matches(fields)]
    if not found:
        known = ", ".join(parts) or "none"
        raise UsageError("`match` fits no part of this lab", where=f"fault {fault.id}", mend=f"there are: {known}")
    return found
