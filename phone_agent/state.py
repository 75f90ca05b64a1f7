"""The states of a phone and which may follow which; the docs' diagram is drawn from `TRANSITIONS`.

The order of the boot is facts 7.1: address and TFTP servers, CTL, ITL, configuration, registration.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cucm.errors import LabError


class PhoneState(StrEnum):
    OFF = "off"
    REQUESTING_ADDRESS = "requesting-address"
    UPDATING_CTL = "updating-ctl"
    UPDATING_ITL = "updating-itl"
    UPDATING_CONFIGURATION = "updating-configuration"
    REGISTERING = "registering"
    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    """The boot is over and no CallManager took the phone, or the one that did is gone."""


TRANSITIONS: Final = MappingProxyType(
    {
        PhoneState.OFF: frozenset({PhoneState.REQUESTING_ADDRESS}),
        # without any TFTP server there is nothing to fetch: the phone goes on with what it has
        PhoneState.REQUESTING_ADDRESS: frozenset({PhoneState.UPDATING_CTL, PhoneState.REGISTERING, PhoneState.OFF}),
        # a model without security by default has no ITL (facts 11, F15)
        PhoneState.UPDATING_CTL: frozenset(
            {PhoneState.UPDATING_ITL, PhoneState.UPDATING_CONFIGURATION, PhoneState.OFF}
        ),
        PhoneState.UPDATING_ITL: frozenset({PhoneState.UPDATING_CONFIGURATION, PhoneState.OFF}),
        PhoneState.UPDATING_CONFIGURATION: frozenset({PhoneState.REGISTERING, PhoneState.OFF}),
        PhoneState.REGISTERING: frozenset({PhoneState.REGISTERED, PhoneState.UNREGISTERED, PhoneState.OFF}),
        PhoneState.REGISTERED: frozenset({PhoneState.UNREGISTERED, PhoneState.OFF}),
        # a phone without usable configuration starts over by itself (facts 7.1); one that has lost its CallManager
        # tries the others of its group
        PhoneState.UNREGISTERED: frozenset({PhoneState.REQUESTING_ADDRESS, PhoneState.REGISTERING, PhoneState.OFF}),
    }
)
"""state -> states that may follow. Power can be cut in any state."""


class IllegalTransition(LabError):
    """The program, not the phone, is wrong: a step of the boot out of its order."""


def require_transition(before: PhoneState, after: PhoneState) -> None:
    """Raises `IllegalTransition` when `after` may not follow `before`."""
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before]))
        raise IllegalTransition(f"a phone that is {before} cannot become {after} (only: {allowed})")
