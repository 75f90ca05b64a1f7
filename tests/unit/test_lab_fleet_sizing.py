from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.fleet import BEGIN, END, table, with_table
from lab.fleet.sizing import PhoneCost, minutes

COST = PhoneCost(server_ms=6.0, phone_ms=6.0, setup_ms=1.0)


def test_twice_the_phones_take_twice_as_long() -> None:
    few, many = (minutes(COST, phones) for phones in (10_000, 20_000))
    assert many / few == pytest.approx(2, rel=0.01)


def test_one_core_does_the_work_of_both_processes() -> None:
    assert minutes(COST, 10_000, cores=1) == pytest.approx(minutes(COST, 10_000, cores=2) * 13 / 7, rel=0.01)


def test_from_some_cores_on_the_servers_process_decides() -> None:
    assert minutes(PhoneCost(4.0, 20.0), 10_000, cores=16) == minutes(PhoneCost(4.0, 20.0), 10_000, cores=64)


def test_costs_come_from_a_run() -> None:
    stages = [{"server_cpu_s": 0.2, "phone_cpu_s": 0.3}, {"server_cpu_s": 0.4, "phone_cpu_s": 0.3}]
    cost = PhoneCost.of({"request": {"phones": 100}, "stages": stages, "setup_cpu_s": 0.7})
    assert (cost.server_ms, cost.phone_ms, cost.setup_ms) == pytest.approx((6.0, 6.0, 2.0))


def test_the_page_takes_a_new_table_and_keeps_the_rest() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_table(with_table(page, "| new |"), "| newer |") == f"before\n{BEGIN}\n| newer |\n{END}\nafter\n"


def test_the_page_shows_what_was_measured() -> None:
    docs = Path(__file__).parents[2] / "docs"
    measured = json.loads((docs / "fleet.json").read_text())
    assert table(measured["runs"]) in (docs / "howto" / "large-fleets.md").read_text()
    assert all(run["arrived"] == run["phones"] for run in measured["runs"])
