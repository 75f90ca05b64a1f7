"""The phone itself: its power and its flash."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from cucm.faults.points import Action, FaultPoint


class PowerLoss(Action):
    """The power fails: connections are reset, nothing more is said, flash holds what it held. The phone is off then."""

    name: ClassVar[str] = "power-loss"
    when: Annotated[Literal["before", "after"], Field(description="before the step is taken, or as soon as it is")] = (
        "before"
    )


class Full(Action):
    """The flash takes nothing more; it holds what it held."""

    name: ClassVar[str] = "full"


PHONE_STEP: Final = FaultPoint(
    "phone.step",
    "A phone takes a step of its boot or registration.",
    (PowerLoss,),
    {
        "phone": "device name",
        "step": "request-tftp-servers, fetch, query-tvs, store, register",
        "file": "name of the file it fetches",
        "stores": "what it stores: ctl, itl, configuration ..., with commas",
    },
)
PHONE_FLASH: Final = FaultPoint(
    "phone.flash",
    "A phone writes to its flash.",
    (Full,),
    {"phone": "device name", "stores": "what it stores: ctl, itl, configuration ..., with commas"},
)
POINTS: Final = (PHONE_STEP, PHONE_FLASH)
