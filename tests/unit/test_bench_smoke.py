"""The benchmark still runs and validates what it gets; its figures are nobody's business here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.file_load import TftpFile, load_http, load_tftp
from bench.load import Bounds
from bench.machine import Placement, process_cpu_s
from bench.material import LARGE_FILE, SMALL_FILE, TLS_CASES, Material, make_material
from bench.measurements import BOTH_FLOOR, SERVER_FLOOR, SIGN_FLOOR, Bench
from bench.migration import Migration, measure_migration
from bench.report import SCHEMA_VERSION, Findings, page, write
from bench.resets import Resets, measure_resets
from bench.rounds import OURS, Group, Plan, Sample, ratios
from bench.servers import our_files, our_tvs
from bench.tls_load import load_context, load_tls, tvs_exchange
from cucm.key_store import KeyStore

NOT_PINNED = Placement(None, None)
TINY = Plan(1, Bounds(20.0, 4, 2), Bounds(20.0, 6, 3), 0.0, 0.0, 1)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("bench"), KeyStore())


@pytest.fixture(scope="module")
def groups(material: Material) -> list[Group]:
    return list(Bench(material, NOT_PINNED, TINY, lambda _text: None).groups())


def findings(groups: list[Group], migration: Migration) -> Findings:
    resets = [Resets("two-clusters", 2, 1, [1.5], [0.25, 0.35])]
    return Findings("2026-01-01 00:00 UTC", True, TINY, NOT_PINNED, {"cpus": 2}, {}, {}, groups, migration, resets)


def test_every_group_is_measured_without_a_wrong_byte(groups: list[Group]) -> None:
    assert [group.title.split(",")[0] for group in groups] == ["TVS"] * len(TLS_CASES) + ["TFTP"] * 3 + ["HTTP 6970"]
    for group in groups:
        assert not group.failures(), group.title
        for samples in group.samples.values():
            assert [sample.done for sample in samples] == [4 if group.title.startswith("TVS") else 6]
            assert samples[0].per_s > 0
            assert samples[0].p50_ms <= samples[0].p99_ms


def test_tls_groups_stand_next_to_their_floor(groups: list[Group]) -> None:
    for group in groups[: len(TLS_CASES)]:
        assert set(group.floors) == {SIGN_FLOOR, SERVER_FLOOR, BOTH_FLOOR}
        assert all(cost > 0 for costs in group.floors.values() for cost in costs)
        assert 0 < group.floors[SERVER_FLOOR][0] < group.floors[BOTH_FLOOR][0]
        assert "Negotiated: TLSv1." in group.notes[0]


def test_a_lab_goes_back_with_all_its_phones(tmp_path: Path) -> None:
    for found in measure_resets(tmp_path, resets=1):
        assert found.trouble is None
        assert (len(found.starts_s), len(found.resets_s)) == (1, 1)
        assert found.phones > 0


def test_page_and_json_say_the_same(groups: list[Group], tmp_path: Path) -> None:
    found = findings(groups, Migration(trouble="not tried"))
    write(found, tmp_path / "page.md", tmp_path / "out" / "results.json")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["schema"] == SCHEMA_VERSION
    assert [group["title"] for group in written["groups"]] == [group.title for group in groups]
    text = (tmp_path / "page.md").read_text()
    assert all(f"## {group.title}\n" in text for group in groups)
    assert "2026-01-01" in text
    assert str(tmp_path) not in text


def test_migration_counts_its_cryptography(material: Material, groups: list[Group]) -> None:
    migration = measure_migration(material, NOT_PINNED, 1, 0.0)
    assert migration.trouble is None
    # two registrations and one TVS query by TLS with client certificate
    assert [count for name, count in migration.operations.items() if "with client certificate" in name] == [3]
    assert migration.operations["signature"] >= 6  # two CTL, two ITL, two configurations
    assert migration.operations["verification"] >= 3
    assert 0 < migration.floors_s[0] < migration.migrations[0].wall_s
    assert "run migrate" in page(findings(groups, migration))


def test_load_clients_notice_wrong_bytes(material: Material) -> None:
    changed = bytearray(material.files[LARGE_FILE])
    changed[40_000] ^= 1
    bounds = Bounds(20.0, 2, 1)
    with our_files(material, NOT_PINNED) as server:
        file = TftpFile.of(LARGE_FILE, bytes(changed), 1428)
        tftp = load_tftp(server.address, server.ports["tftp"], file, bounds)
        http = load_http(server.address, server.ports["http"], LARGE_FILE, bytes(changed), bounds)
        missing = load_tftp(server.address, server.ports["tftp"], TftpFile.of("none", b"", 512), bounds)
    assert (tftp.done, dict(tftp.failures)) == (0, {"wrong bytes": 2})
    assert (http.done, dict(http.failures)) == (0, {"wrong answer": 2})
    assert (missing.done, dict(missing.failures)) == (0, {"error packet": 2})


def test_tls_load_notices_another_certificate(material: Material) -> None:
    other = Material(material.folder, material.server, material.capf, material.phone, material.capf, {})
    case = TLS_CASES[0]
    with our_tvs(material, case, NOT_PINNED) as server:
        load = load_tls(
            server.address, server.ports["tls"], load_context(material, case), tvs_exchange(other), Bounds(20.0, 2, 1)
        )
    assert (load.result.done, dict(load.result.failures)) == (0, {"wrong answer": 2})


def test_tftp_file_of_whole_blocks_ends_with_an_empty_one() -> None:
    file = TftpFile.of(SMALL_FILE, b"x" * 1024, 512)
    assert [len(block) - 4 for block in file.blocks[1:]] == [512, 512, 0]
    assert file.first == 1
    assert TftpFile.of(SMALL_FILE, b"", 1428).first == 0


def test_ratios_are_taken_per_round() -> None:
    spread = ratios([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert spread is not None
    assert (spread.median, spread.lowest, spread.highest) == (2.0, 1.0, 3.0)
    assert ratios([1.0, None], [1.0, 1.0]) is None


def test_cpu_of_a_process_that_is_gone_is_unknown() -> None:
    assert process_cpu_s(2**22 + os.getpid()) is None


def test_a_group_counts_failures_of_all_its_rounds() -> None:
    sample = Sample(1, 1.0, None, 1.0, 1.0, 1.0, None, None, 0, 0, {"no answer": 2})
    group = Group("title", "file", {OURS: [sample, sample]})
    assert group.failures() == {"no answer": 4}
