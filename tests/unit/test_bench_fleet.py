"""Fleets on the bench page: one set of runs for the page, the goals, both models and docs/howto/large-fleets.md."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench import large_fleets
from bench.fleet import fleet_tables, middle, quieter
from bench.fleet_run import FleetRun, FleetTable
from bench.goals import FLEET_TABLE, GOALS, judge
from bench.machine import Placement
from bench.material import make_material
from bench.measurements import Bench
from bench.report import table
from bench.rounds import QUICK, Figures
from cucm.key_store import KeyStore
from lab.fleet.request import MAX_PHONES

DOCS = Path(__file__).parents[2] / "docs"
RUN = FleetRun(
    phones=100,
    workers=1,
    arrived=100,
    boot_s=1.0,
    migration_s=2.0,
    wall_s=5.0,
    predicted_s=4.0,
    cpu_ms_per_phone=10.0,
    server_cpu_ms_per_phone=5.0,
    floor_ms_per_phone=2.0,
    times_floor=5.0,
    memory_per_phone=65 * 1024.0,
    events_per_phone=95.0,
    p99_ms={"boot": 20.0},
    others_load=0.0,
    memory_at_phones=33 * 1024.0,
)


def test_one_set_of_runs_feeds_the_table_and_both_models(tmp_path: Path) -> None:
    plan = replace(QUICK, fleets=(3, MAX_PHONES + 1))
    bench = Bench(make_material(tmp_path, KeyStore()), Placement(None, None), plan, lambda _text: None)
    fleets, seconds, cpu = fleet_tables(bench, costs_of=4)
    assert isinstance(fleets, FleetTable)
    assert isinstance(cpu, Figures)
    assert not fleets.failures()
    assert not seconds.failures()
    (run,) = fleets.runs
    assert (run.phones, run.arrived, run.lost) == (3, 3, 0)
    assert run.workers >= 1
    assert run.predicted_s > 0
    assert run.times_floor == pytest.approx(run.cpu_ms_per_phone / run.floor_ms_per_phone, rel=0.01)
    assert cpu.series("3 phones on sockets") == [run.cpu_ms_per_phone]
    (ratio,) = seconds.series("3 phones: simulated ÷ on sockets", "value")
    assert ratio is not None
    assert ratio > 0
    # what this machine cannot carry is said to be missing, and takes nothing else with it
    ((name, reason),) = bench.missing.items()
    assert name == f"{MAX_PHONES + 1:,} phones"
    assert str(MAX_PHONES) in reason


def report(cpu_ms: float, arrived: int = 9, others_load: float | None = 0.0) -> dict[str, Any]:
    return {
        "request": {"phones": 9}, "arrived": arrived, "cpu_ms_per_phone": cpu_ms, "others_load": others_load
    }  # fmt: skip


def test_a_lost_phone_is_not_measured_away() -> None:
    whole, other, third, lossy = report(10.0), report(11.0), report(12.0), report(99.0, arrived=8, others_load=2.0)
    assert middle([third, whole, other]) is other
    assert middle([lossy, whole, other]) is lossy
    busy, silent = report(9.0, others_load=1.0), report(9.0, others_load=None)
    assert quieter(busy, whole) is whole
    assert quieter(busy, silent) is silent
    assert quieter(busy, lossy) is lossy


def test_goals_of_fleets_are_judged_by_their_sizes() -> None:
    many = replace(RUN, phones=1000, arrived=1000, times_floor=1.5)
    most = replace(RUN, phones=10_000, arrived=9_999, cpu_ms_per_phone=11.0)
    measured = FleetTable(FLEET_TABLE, [RUN, many, most])
    judged = [one for one in judge(GOALS, [measured]) if one.goal.area == "Fleet"]
    assert [one.is_met for one in judged] == [True, False, False, True, False, True]
    assert [one.measured and one.measured.median for one in judged] == [1.5, 5.0, 1.0, 33.0, 65.0, 1.1]
    assert measured.failures() == {"phones lost": 1}
    few = [one for one in judge(GOALS, [FleetTable(FLEET_TABLE, [RUN])]) if one.goal.area == "Fleet"]
    assert all(one.is_met is None for one in few)


def test_what_the_system_does_not_tell_is_a_dash() -> None:
    many = replace(RUN, phones=1000)
    untold = replace(many, memory_per_phone=None, memory_at_phones=None, others_load=None)
    rows = table(FleetTable("title", [many, untold, RUN])).splitlines()
    ends = [row.replace(" ", "").rpartition("|5.00")[2] for row in rows[2:]]
    assert ends == ["|65|33|0.00|", "|–|–|–|", "|–|–|0.00|"]


def test_the_page_takes_a_new_table_and_keeps_the_rest() -> None:
    page = f"before\n{large_fleets.BEGIN}\nold\n{large_fleets.END}\nafter\n"
    new = large_fleets.with_table(large_fleets.with_table(page, "| new |"), "| newer |")
    assert new == f"before\n{large_fleets.BEGIN}\n| newer |\n{large_fleets.END}\nafter\n"


def test_both_files_are_written_from_the_runs(tmp_path: Path) -> None:
    page = tmp_path / large_fleets.PAGE
    page.parent.mkdir()
    page.write_text(f"head\n{large_fleets.BEGIN}\n{large_fleets.END}\n")
    fleets = FleetTable("title", [RUN])
    large_fleets.write(fleets, tmp_path)
    assert table(fleets) in page.read_text()
    assert json.loads((tmp_path / large_fleets.DATA).read_text())["runs"] == [asdict(RUN)]


def test_the_docs_show_what_was_measured() -> None:
    told = json.loads((DOCS / large_fleets.DATA).read_text())
    fleets = FleetTable(told["title"], [FleetRun(**run) for run in told["runs"]])
    assert table(fleets) in (DOCS / large_fleets.PAGE).read_text()
    assert not fleets.failures()
