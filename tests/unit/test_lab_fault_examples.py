"""What an example of a fault may say, and when an event shows its effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from cucm.errors import UsageError
from cucm.events import EventLog
from cucm.events.faults import FaultFired
from lab.fault_examples import ExampleFile, ShownEvent
from lab.toml_files import read_toml

PREPARED = '[prepared]\nbooted = [{do = "boot-phone", phone = "SEPB000B4BA0AEE"}]\n'
EXAMPLE = """
[[example]]
point = "tvs.response"
action = "drop"
says = "Silence."
shows = {kind = "phone.tvs_query_failed"}
"""


def read(tmp_path: Path, text: str) -> ExampleFile:
    (tmp_path / "it.toml").write_text(text)
    return read_toml(tmp_path / "it.toml", ExampleFile)


def test_before_may_be_a_name(tmp_path: Path) -> None:
    (example,) = read(tmp_path, PREPARED + EXAMPLE + 'before = "booted"\nfault = {times = 1}\n').example
    assert [step.do for step in example.before] == ["boot-phone"]
    assert example.rule == {"point": "tvs.response", "action": "drop", "times": 1}
    assert example.topology == "two-clusters"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PREPARED + EXAMPLE + 'before = "boted"\n', "booted"),
        (EXAMPLE.replace("drop", "explode"), "explode"),
        (EXAMPLE + "fault = {match = {colour = 'red'}}\n", "colour"),
        (EXAMPLE + "fault = {attributes = {bytes = 1}}\n", "no attributes"),
        (EXAMPLE + "step = []\n", "did you mean steps"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("shown", "fits"),
    [
        ({}, True),
        ({"source": "lab:*"}, True),
        ({"source": "phone:*"}, False),
        ({"fields": {"point": "tvs.*", "hit": 1}}, True),
        ({"fields": {"hit": 2}}, False),
        ({"fields": {"hit": "1"}}, False),
        ({"fields": {"request": {"node": "a*"}}}, True),
        ({"fields": {"request": {"node": "b"}}}, False),
        ({"fields": {"colour": "*"}}, False),
    ],
)
def test_an_event_shows_it_when_all_fits(shown: dict[str, object], fits: bool) -> None:
    fired = FaultFired("it", "tvs.response", "drop", 1, {"node": "a1", "peer": "127.0.0.1"})
    record = EventLog().emit("lab:faults", fired)
    assert ShownEvent.model_validate({"kind": "fault.fired", **shown}).is_shown_by(record) is fits
    assert not ShownEvent.model_validate({"kind": "fault.set", **shown}).is_shown_by(record)
