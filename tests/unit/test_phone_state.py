from __future__ import annotations

import pytest

from phone_agent.state import TRANSITIONS, IllegalTransition, PhoneState, require_transition


def test_every_state_has_a_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(PhoneState)
    assert set().union(*TRANSITIONS.values()) == set(PhoneState)


def test_power_can_be_cut_in_every_state() -> None:
    assert all(PhoneState.OFF in after for before, after in TRANSITIONS.items() if before is not PhoneState.OFF)


def test_no_state_follows_itself() -> None:
    assert all(before not in after for before, after in TRANSITIONS.items())


def test_what_may_not_follow_is_refused() -> None:
    require_transition(PhoneState.OFF, PhoneState.REQUESTING_ADDRESS)
    with pytest.raises(IllegalTransition, match="only: requesting-address"):
        require_transition(PhoneState.OFF, PhoneState.REGISTERED)
