from __future__ import annotations

import pytest

from lab.fleet.calibration import OVERLAP
from lab.fleet.sizing import FLOOR_S, LEAVE_MS, NODE_S, REFRESH_MS, REFRESH_S, START_S, PhoneCost, minutes

COST = PhoneCost(server_ms=6.0, phone_ms=6.0, setup_ms=1.0)


def test_twice_the_phones_take_twice_as_long() -> None:
    few, many = (minutes(COST, phones) for phones in (10_000, 20_000))
    assert many / few == pytest.approx(2, rel=0.03)


def test_a_fleet_of_nobody_takes_what_the_lab_takes() -> None:
    assert 60 * minutes(COST, 0, nodes=8) == pytest.approx(START_S + FLOOR_S + 8 * NODE_S)


def test_every_part_of_a_run_has_its_time() -> None:
    """A thousand phones, so that milliseconds of one are seconds of all; those of the phones' process decide."""
    at_rest = START_S + FLOOR_S + 2 * NODE_S
    boots = 3.0 / OVERLAP * (1 + REFRESH_MS / REFRESH_S)
    assert 60 * minutes(PhoneCost(2.0, 3.0, 0.5), 1000) == pytest.approx(at_rest + 0.5 + boots + LEAVE_MS)


def test_one_core_does_the_work_of_both_processes() -> None:
    one, two = minutes(COST, 10_000, cores=1), minutes(COST, 10_000, cores=2)
    assert 1.7 < one / two < 2  # what is done one after the other is not halved


def test_from_some_cores_on_the_servers_process_decides() -> None:
    assert minutes(PhoneCost(4.0, 20.0), 10_000, cores=16) == minutes(PhoneCost(4.0, 20.0), 10_000, cores=64)


def test_costs_come_from_a_run() -> None:
    stages = [{"server_cpu_s": 0.2, "phone_cpu_s": 0.3}, {"server_cpu_s": 0.4, "phone_cpu_s": 0.3}]
    loads = [{"node": name, "service": service} for name in ("one", "two") for service in ("TVS", "TFTP")]
    cost = PhoneCost.of({"request": {"phones": 100}, "stages": stages, "loads": loads, "setup_cpu_s": 0.2 + 2 * NODE_S})
    assert (cost.server_ms, cost.phone_ms, cost.setup_ms) == pytest.approx((6.0, 6.0, 2.0))
