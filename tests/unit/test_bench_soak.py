"""The soak: what it looks at, and that it says no where something rises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lab_on_sockets import network_of

from bench.soak import ATTRIBUTES, Sample, Soak, report, rules, soak
from cucm.faults import fault_of
from cucm.faults.catalogue import POINTS
from lab.lab_folder import LabFolder, Wishes


def sample(number: int, **changes: float) -> Sample:
    return replace(Sample(number, 1.0, 100.0, 60, 10, 5.0, 2.0, number), **changes)  # type: ignore[arg-type]


def test_what_stays_is_flat_and_a_warm_up_is_forgiven() -> None:
    found = Soak("x", 0, [sample(n, memory_mb=50.0 + min(n, 3) * 20) for n in range(20)])
    assert found.is_flat
    assert report(found).endswith("\nflat")


@pytest.mark.parametrize("name", ["memory_mb", "descriptors", "tasks", "folder_mb", "databases_mb"])
def test_what_rises_is_named(name: str) -> None:
    found = Soak("x", 0, [sample(n, **{name: 10.0 + 5 * n}) for n in range(20)])
    assert not found.is_flat
    assert f"{name} rose from" in report(found)
    assert report(found).endswith("\nNOT FLAT")


def test_lost_events_and_what_did_not_come_back_are_a_no() -> None:
    assert not Soak("x", 0, missing_events=1).is_flat
    assert not Soak("x", 0, different=["SEP1"]).is_flat


def test_every_action_takes_part_with_attributes_that_it_has() -> None:
    assert set(rules()) == {(point.name, action.name) for point in POINTS.values() for action in point.actions}
    for (point, action), attributes in ATTRIBUTES.items():
        assert fault_of({"point": point, "action": action, "attributes": attributes}).point.name == point
    found = Soak("x", 0, hits={"tvs.request drop": 2})
    assert "tvs.request drop" not in found.never_hit
    assert len(found.never_hit) == len(rules()) - 1


async def test_a_short_one_on_a_lab(tmp_path: Path, loopback: Callable[[], str]) -> None:
    with LabFolder(tmp_path / "lab") as folder:
        found = await soak(folder, Wishes("subscriber", network_of(loopback)), seconds=100, rounds=3, seed=1)
    assert found.resets >= 3
    assert found.missing_events == 0
    assert found.different == []
    assert [one.rounds for one in found.samples] == [3]
    assert found.samples[0].events > 100
