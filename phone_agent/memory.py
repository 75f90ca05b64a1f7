"""What a phone that is on knows besides its flash: kept when the lab's state is, so that it can go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cucm.records import dataclass
from phone_agent.state import PhoneState
from phone_agent.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class PhoneMemory:
    """`call_manager` has the phone, or had it last; `status_messages` and `verdicts` as `Phone` tells them.

    `seeks`: it has lost its CallManager and tries those of its group again and again.
    """

    state: PhoneState = PhoneState.OFF
    call_manager: str = ""
    status_messages: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    seeks: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "state": self.state.value,
            "call_manager": self.call_manager,
            "status_messages": list(self.status_messages),
            "verdicts": [list(map(str, verdict)) for verdict in self.verdicts],
            "seeks": self.seeks,
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> PhoneMemory:
        """What `as_json` gave. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(
            PhoneState(value["state"]),
            str(value["call_manager"]),
            tuple(map(str, value["status_messages"])),
            tuple(Verdict(*map(str, verdict)) for verdict in value["verdicts"]),
            bool(value["seeks"]),
        )
