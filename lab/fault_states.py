"""Faults that are states: brought about in the lab when they are set, undone when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cucm.faults import Fault
from lab.fault_bringers import BRINGERS, Undo

if TYPE_CHECKING:
    from lab.runtime import Lab


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

    def forget(self) -> None:
        """What they have disturbed is gone."""
        self._undo.clear()

    async def end(self, fault_id: str) -> None:
        """Undo it. Nothing happens for a fault that is no state. Raises LabError when it cannot be undone."""
        undo = self._undo.pop(fault_id, None)
        if undo is not None:
            await undo()
