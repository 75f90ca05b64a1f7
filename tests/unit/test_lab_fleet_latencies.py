from __future__ import annotations

import pickle

import pytest

from lab.fleet.latencies import RESOLUTION, Latencies


def test_nothing_has_no_percentile() -> None:
    nothing = Latencies()
    assert (len(nothing), nothing.percentile(99), nothing.mean_s, nothing.bars()) == (0, 0.0, 0.0, [])


@pytest.mark.parametrize("share", [1, 50, 90, 99, 100])
def test_a_percentile_is_right_within_the_resolution(share: int) -> None:
    measured = Latencies(number / 1000 for number in range(1, 101))
    exact = share / 1000
    assert exact <= measured.percentile(share) * 1.000001 <= exact * RESOLUTION * 1.0001


def test_merged_is_as_if_measured_together() -> None:
    left, right = Latencies([0.001, 0.5]), Latencies([0.25])
    left.merge(right)
    assert left == Latencies([0.001, 0.5, 0.25])
    assert left.longest_s == 0.5
    assert left.mean_s == pytest.approx(0.751 / 3)


def test_it_goes_to_another_process_and_back() -> None:
    measured = Latencies([0.001, 0.5, 0.0])
    assert pickle.loads(pickle.dumps(measured)) == measured


def test_a_million_times_is_as_cheap_as_once() -> None:
    measured = Latencies()
    measured.add(0.25, times=1_000_000)
    assert measured.as_json()["count"] == 1_000_000
    assert measured.as_json()["p99_ms"] == 250.0


def test_bars_lose_nobody() -> None:
    measured = Latencies(number / 100 for number in range(1, 501))
    bars = measured.bars(20)
    assert sum(count for _, count in bars) == 500
    assert len(bars) <= 21
    assert [bound for bound, _ in bars] == sorted(bound for bound, _ in bars)
