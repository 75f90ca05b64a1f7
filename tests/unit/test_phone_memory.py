from __future__ import annotations

import json

import pytest

from phone_agent.memory import PhoneMemory
from phone_agent.state import PhoneState
from phone_agent.verdicts import Verdict


def test_a_memory_survives_being_written_down():
    verdicts = (Verdict("CTL", "accepted", "leap-of-faith"), Verdict("TVS", "vouched", "CN=a"))
    memory = PhoneMemory(PhoneState.UNREGISTERED, "ucm", ("Trust List Updated",), verdicts, seeks=True)
    assert PhoneMemory.of_json(json.loads(json.dumps(memory.as_json()))) == memory
    assert PhoneMemory.of_json(PhoneMemory().as_json()) == PhoneMemory()


@pytest.mark.parametrize("change", [{"state": "asleep"}, {"verdicts": [["CTL"]]}, {"verdicts": 1}, {"seeks": None}])
def test_what_is_no_memory(change):
    value = PhoneMemory().as_json() | change
    if change == {"seeks": None}:
        del value["seeks"]
    with pytest.raises((ValueError, KeyError, TypeError)):
        PhoneMemory.of_json(value)
