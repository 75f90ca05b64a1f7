from __future__ import annotations

import pytest

from cucm.errors import EnvironmentProblem
from lab.fleet import footprint
from lab.fleet.footprint import descriptors, private_bytes, require_descriptors
from lab.fleet.request import FleetRequest
from lab.topology import load_topology

TWO = load_topology("two-clusters")


def test_ten_thousand_phones_need_a_process_of_their_own_where_twenty_thousand_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(footprint, "raise_descriptor_limit", lambda: 20_000)
    require_descriptors(FleetRequest(10_000, workers=1), TWO)
    with pytest.raises(EnvironmentProblem, match="21760 open files in the servers' process") as refused:
        require_descriptors(FleetRequest(10_000, workers=0), TWO)
    assert "--workers 1" in (refused.value.mend or "")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_would_fit_is_told(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(footprint, "raise_descriptor_limit", lambda: 1024)
    with pytest.raises(EnvironmentProblem) as refused:
        require_descriptors(FleetRequest(5000, workers=workers), TWO)
    mend = refused.value.mend or ""
    fits = int(mend.partition("at most ")[2].split()[0])
    require_descriptors(FleetRequest(fits, workers=workers), TWO)
    with pytest.raises(EnvironmentProblem, match="open files"):
        require_descriptors(FleetRequest(fits + 1, workers=workers), TWO)
    needed = int(mend.partition("ulimit -n ")[2].partition(")")[0])
    monkeypatch.setattr(footprint, "raise_descriptor_limit", lambda: needed)
    require_descriptors(FleetRequest(5000, workers=workers), TWO)


def test_clusters_too_large_for_any_phone_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "raise_descriptor_limit", lambda: 512)
    with pytest.raises(EnvironmentProblem) as refused:
        require_descriptors(FleetRequest(1), load_topology("large-cluster"))
    assert "phones" not in (refused.value.mend or "")
    assert "ulimit -n" in (refused.value.mend or "")


def test_each_end_of_a_registration_is_one_descriptor() -> None:
    few, many = (descriptors(FleetRequest(phones, workers=4, concurrency=4), TWO) for phones in (40_000, 80_000))
    assert (many[0] - few[0], many[1] - few[1]) == (40_000, 10_000)


def test_processes_that_are_not_started_take_no_phones() -> None:
    one, many = (FleetRequest(400, workers=workers, concurrency=1) for workers in (1, 64))
    assert descriptors(many, TWO) == descriptors(one, TWO)


def test_memory_of_this_process_is_known_where_the_system_tells() -> None:
    before = private_bytes()
    kept = bytearray(b"x") * 200_000_000
    assert before == 0 or private_bytes() - before == pytest.approx(len(kept), rel=0.01)


def test_phones_of_a_scheduler_need_no_files_here() -> None:
    require_descriptors(FleetRequest(60_000, scheduler="tcp://127.0.0.1:8786"), TWO)
    with pytest.raises(EnvironmentProblem, match="open files"):
        require_descriptors(FleetRequest(10_000_000), TWO)
