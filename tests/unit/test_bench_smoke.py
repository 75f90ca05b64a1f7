"""The benchmark still runs and validates what it gets; its figures are nobody's business here."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.file_load import FileCase, FileClient
from bench.file_measurements import file_tables
from bench.goals import GOALS, Direction, Goal, judge
from bench.load import Bounds, LoadResult
from bench.machine import Placement, process_cpu_s
from bench.material import LARGE_FILE, SMALL_FILE, TLS_CASES, Material, make_material
from bench.measurements import Bench
from bench.migration import Migration, measure_migration
from bench.report import SCHEMA_VERSION, Findings, page, write
from bench.resets import Resets, measure_resets
from bench.rounds import OURS, Figures, Group, Plan, Sample, Table, ratios
from bench.servers import our_files, our_tvs
from bench.tls_load import TlsClient
from bench.tvs_measurements import BOTH_FLOOR, SERVER_FLOOR, SIGN_FLOOR, tvs_tables
from cucm.key_store import KeyStore

NOT_PINNED = Placement(None, None)
TINY = Plan(1, Bounds(20.0, 4, 2), Bounds(20.0, 6, 3), 0.0, 0.0, 1, 1, 1, 1, fleets=(), fleet_runs=1)
COMPILER = pytest.mark.needs("gcc")  # and OpenSSL's headers, which tests/interop/install-tools.sh brings with it


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("bench"), KeyStore())


@pytest.fixture(scope="module")
def file_groups(material: Material) -> list[Table]:
    return list(file_tables(Bench(material, NOT_PINNED, TINY, lambda _text: None)))


@pytest.fixture(scope="module")
def tvs_groups(material: Material) -> list[Table]:
    return list(tvs_tables(Bench(material, NOT_PINNED, TINY, lambda _text: None)))


def findings(tables: list[Table], migration: Migration) -> Findings:
    resets = [Resets("two-clusters", 2, 1, [1.5], [0.25, 0.35])]
    return Findings(
        "2026-01-01 00:00 UTC", 21.0, True, TINY, NOT_PINNED, {"cpus": 2}, {}, {}, tables, migration, resets
    )


@COMPILER
def test_every_file_table_is_measured_without_a_wrong_byte(file_groups: list[Table]) -> None:
    assert {goal.table for goal in GOALS if goal.area in {"TFTP", "HTTP"}} <= {table.title for table in file_groups}
    for table in file_groups:
        assert not any(sample.failures for sample in getattr(table, "samples", {}).get(OURS, ())), table.title
        if isinstance(table, Group):
            assert table.series(OURS, "done") == [6]
            assert all(rate and rate > 0 for rate in table.series(OURS, "per_s"))
        else:
            assert isinstance(table, Figures)
            assert not [what for what in table.trouble if what.startswith(OURS)]
            assert all(value is not None for value in table.series(OURS))


@COMPILER
def test_every_tvs_table_is_measured_without_a_wrong_byte(tvs_groups: list[Table]) -> None:
    assert {goal.table for goal in GOALS if goal.area == "TVS"} <= {table.title for table in tvs_groups}
    for table in tvs_groups:
        assert not table.failures(), table.title
        if isinstance(table, Group):
            assert table.series(OURS, "done") == [4]
            (sample,) = table.samples[OURS]
            assert sample.p50_ms <= sample.p99_ms
        else:
            assert all(value is not None for value in table.series(OURS, "value"))


@COMPILER
def test_tls_groups_stand_next_to_their_floor(tvs_groups: list[Table]) -> None:
    for group in tvs_groups[: len(TLS_CASES)]:
        assert isinstance(group, Group)
        assert set(group.floors) == {SIGN_FLOOR, SERVER_FLOOR, BOTH_FLOOR}
        assert all(cost > 0 for costs in group.floors.values() for cost in costs)
        assert 0 < group.floors[SERVER_FLOOR][0] < group.floors[BOTH_FLOOR][0]
        assert "Negotiated by all: TLSv1." in group.notes[0]


@COMPILER
def test_every_tvs_goal_is_judged_where_its_yardstick_is_there(tvs_groups: list[Table]) -> None:
    for one in judge(GOALS, tvs_groups):
        if one.goal.area == "TVS" and one.goal.against in (None, OURS):
            assert one.is_met is not None, one.goal.measure


def test_a_lab_goes_back_with_all_its_phones(tmp_path: Path) -> None:
    for found in measure_resets(tmp_path, resets=1):
        assert found.trouble is None
        assert (len(found.starts_s), len(found.resets_s)) == (1, 1)
        assert found.phones > 0


@COMPILER
def test_page_and_json_say_the_same(file_groups: list[Table], tmp_path: Path) -> None:
    found = findings(file_groups, Migration(trouble="not tried"))
    write(found, tmp_path / "page.md", tmp_path / "out" / "results.json")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["schema"] == SCHEMA_VERSION
    assert [table["title"] for table in written["tables"]] == [table.title for table in file_groups]
    assert len(written["goals"]) == len(GOALS)
    text = (tmp_path / "page.md").read_text()
    assert all(f"## {table.title}\n" in text for table in file_groups)
    assert "2026-01-01 00:00 UTC, which took 21 minutes" in text
    assert str(tmp_path) not in text


def test_migration_counts_its_cryptography(material: Material) -> None:
    migration = measure_migration(material, NOT_PINNED, 1, 0.0)
    assert migration.trouble is None
    # two registrations and one TVS query by TLS with client certificate
    assert [count for name, count in migration.operations.items() if "with client certificate" in name] == [3]
    assert migration.operations["signature"] >= 6  # two CTL, two ITL, two configurations
    assert migration.operations["verification"] >= 3
    assert 0 < migration.floors_s[0] < migration.migrations[0].wall_s
    assert "run migrate" in page(findings([], migration))


@COMPILER
def test_file_load_notices_wrong_bytes(material: Material, tmp_path: Path) -> None:
    changed = bytearray(material.files[LARGE_FILE])
    changed[40_000] ^= 1
    wrong = tmp_path / "wrong"
    wrong.write_bytes(changed)
    right = material.file_folder / LARGE_FILE
    client, bounds = FileClient.build(tmp_path), Bounds(20.0, 2, 1)
    with our_files(material, NOT_PINNED) as server:
        for block_bytes in (512, 1428, None):
            good = client.load(server, FileCase(LARGE_FILE, right, block_bytes), bounds)
            assert (good.done, good.failures.total()) == (2, 0)
            bad = client.load(server, FileCase(LARGE_FILE, wrong, block_bytes), bounds)
            assert (bad.done, dict(bad.failures)) == (0, {"wrong bytes": 2})
        missing = client.load(server, FileCase("none", right), bounds)
        assert (missing.done, dict(missing.failures)) == (0, {"error packet": 2})


@COMPILER
def test_file_load_notices_that_nobody_serves(tmp_path: Path) -> None:
    folder = tmp_path / "material"
    folder.mkdir()
    material = make_material(folder, KeyStore())
    client = FileClient.build(tmp_path)
    with our_files(material, NOT_PINNED) as server:
        gone = server
    case = FileCase(SMALL_FILE, material.file_folder / SMALL_FILE, None)
    result = client.load(gone, case, Bounds(20.0, 2, 2))
    assert (result.done, dict(result.failures)) == (0, {"network": 2})


@COMPILER
def test_tls_load_notices_another_certificate(tmp_path: Path) -> None:
    material = make_material(tmp_path, KeyStore())
    client = TlsClient.build(replace(material, wanted=material.server))
    case = TLS_CASES[0]
    with our_tvs(material, case, NOT_PINNED) as server:
        load = client.load(server, server.ports["tls"], case, Bounds(20.0, 2, 1))
    assert (load.result.done, load.result.failures.total()) == (0, 2)


def test_ratios_are_taken_per_round() -> None:
    spread = ratios([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert spread is not None
    assert (spread.median, spread.lowest, spread.highest) == (2.0, 1.0, 3.0)
    assert ratios([1.0, None], [1.0, 1.0]) is None


def test_cpu_of_a_process_that_is_gone_is_unknown() -> None:
    assert process_cpu_s(2**22 + os.getpid()) is None


def test_a_group_counts_failures_of_all_its_rounds() -> None:
    sample = Sample(1, 1.0, 1.0, None, 1.0, 1.0, 1.0, None, None, 0, 0, {"no answer": 2})
    group = Group("title", "file", {OURS: [sample, sample]})
    assert group.failures() == {"no answer": 4}


def test_goals_are_judged_by_the_median_of_the_ratios() -> None:
    def goal(direction: Direction, bound: float) -> Goal:
        return Goal("Area", "measure", "title", OURS, "value", "peer", direction, bound, why="because")

    table = Figures("title", "ms", {OURS: [2.0, 3.0, 9.0], "peer": [1.0, 2.0, 3.0]})
    met, missed, unknown = judge(
        [goal(Direction.AT_MOST, 2.0), goal(Direction.AT_LEAST, 2.5), replace(goal(Direction.AT_MOST, 1), table="no")],
        [table],
    )
    assert (met.is_met, met.verdict, met.missed_by) == (True, "met", None)
    assert (missed.is_met, missed.verdict) == (False, "**missed by 20%**")
    assert (unknown.is_met, unknown.verdict) == (None, "not measured")


def test_a_failure_of_any_round_misses_its_goal() -> None:
    sample = Sample(1, 1.0, 1.0, None, 1.0, 1.0, 1.0, None, None, 0, 0, {"timeout": 1})
    clean = replace(sample, failures={})
    goal = Goal("Area", "failed", "title", OURS, "failures", None, Direction.AT_MOST, 0)
    (judged,) = judge([goal], [Group("title", "file", {OURS: [clean, sample]})])
    assert (judged.is_met, judged.verdict) == (False, "**missed**")


def test_what_comes_after_the_time_lowers_the_rate_to_the_last() -> None:
    result = LoadResult(done=110, wall_s=10.0, in_time=100, window_s=1.0)
    result.failures["timeout"] = 5  # they lengthen the time, and are not done
    assert (result.per_s, result.to_last_per_s) == (100, 11)


def test_both_rates_are_shown_where_they_differ() -> None:
    steady = Sample(100, 100.0, 98.0, None, 1.0, 1.0, 1.0, None, None, 0, 0, {})
    lagging = replace(steady, to_last_per_s=7.0)
    alike = report.table(Group("title", "query", {OURS: [steady], "peer": [steady]}, {"library": [10.0]}))
    apart = report.table(Group("title", "query", {OURS: [steady], "peer": [lagging]}, {"library": [10.0]}))
    assert "to the last" not in alike
    assert "per s, to the last" in apart
    assert "14.00" in next(line for line in apart.splitlines() if line.startswith("| peer"))
