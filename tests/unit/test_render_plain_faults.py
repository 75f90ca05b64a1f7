from __future__ import annotations

import pytest

from cucm.events import Event, faults, files
from cucm.events.phone import PoweredOff
from cucm.render.plain import headline
from cucm.render.plain_faults import fault_headline


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            faults.FaultSet("f", "tftp.packet", "drop", {"file": "CTL*", "block": "2"}),
            "FAULT f set: drop at tftp.packet where file=CTL* block=2",
        ),
        (faults.FaultSet("f", "tftp.packet", "drop", {}), "FAULT f set: drop at tftp.packet"),
        (
            faults.FaultFired("f", "tftp.packet", "drop", 3, {"file": "a", "phone": ""}),
            "FAULT f hits (3): drop at tftp.packet, file=a",
        ),
        (faults.FaultEnded("f", 2, missed=False), "FAULT f ended after 2 hits"),
        (faults.FaultEnded("f", 1, missed=False), "FAULT f ended after 1 hit"),
        (faults.FaultEnded("f", 0, missed=True), "FAULT f ended after 0 hits, and should have hit"),
        (files.FileAltered("a", "truncated", "00", "01", 7), "a is served truncated: 7 bytes"),
        (
            files.FileNotAltered("a", "stale", "no other version of it was served before"),
            "a cannot be served stale and is served as it is: no other version of it was served before",
        ),
        (PoweredOff(), None),
    ],
)
def test_faults_in_plain_words(event: Event, text: str | None) -> None:
    assert fault_headline(event) == text
    if text is not None:
        assert headline(event) == text
