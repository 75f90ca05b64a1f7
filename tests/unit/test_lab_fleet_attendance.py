from __future__ import annotations

import pytest

from cucm.events import Event, EventRecord
from cucm.events.cluster import RegistrationAccepted, RegistrationEnd, RegistrationEnded
from lab.fleet.attendance import Attendance
from lab.fleet.batch import Holding, PhoneFinding

NOTHING = Holding(None, None, None)
REGISTERED = {"SEP1": (PhoneFinding("registered"), NOTHING)}


def accepted(node: str) -> tuple[str, Event]:
    return node, RegistrationAccepted("tls", "127.2.0.10", 40000, "SEP1", "AES256-SHA", "TLSv1.2")


def ended(node: str, reason: RegistrationEnd) -> tuple[str, Event]:
    return node, RegistrationEnded("tls", "127.2.0.10", 40000, "SEP1", reason)


def heard(*events: tuple[str, Event]) -> Attendance:
    attendance = Attendance({"src-pub": "source", "dst-pub": "destination"})
    for number, (node, event) in enumerate(events):
        attendance(EventRecord(number, 0.0, f"callmanager:{node}", event))
    return attendance


@pytest.mark.parametrize("reason", [RegistrationEnd.CONNECTION_BROKEN, RegistrationEnd.CONNECTION_CLOSED])
def test_a_phone_taken_away_with_its_batch_is_where_it_was(reason: RegistrationEnd) -> None:
    assert heard(accepted("src-pub"), ended("src-pub", reason)).places(REGISTERED) == {"SEP1": ("source", "src-pub")}


@pytest.mark.parametrize("reason", [RegistrationEnd.DEREGISTERED, RegistrationEnd.EXPIRED])
def test_a_registration_that_ended_is_none(reason: RegistrationEnd) -> None:
    assert heard(accepted("src-pub"), ended("src-pub", reason)).places(REGISTERED) == {}


def test_taken_away_here_and_registered_there_is_there() -> None:
    moved = heard(accepted("src-pub"), ended("src-pub", RegistrationEnd.CONNECTION_BROKEN), accepted("dst-pub"))
    assert moved.places(REGISTERED) == {"SEP1": ("destination", "dst-pub")}


def test_registered_at_both_is_told_as_such() -> None:
    both = heard(accepted("src-pub"), accepted("dst-pub"))
    assert both.places(REGISTERED) == {"SEP1": ("source and destination", "dst-pub")}


def test_only_who_says_so_himself_is_registered() -> None:
    assert heard(accepted("src-pub")).places({"SEP1": (PhoneFinding("unregistered"), NOTHING)}) == {}
    assert heard().places(REGISTERED) == {}
