from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.operations import SetOption150, UploadCertificate
from lab.scenario import Story
from lab.story_check import FileKind, check_file, problems_of, references_in
from lab.topology import load_topology, packaged

TOPOLOGY = load_topology("two-clusters")
PHONE = "SEPB000B4BA0AEE"


def story(*steps: dict[str, Any], expect: dict[str, Any] | None = None, evidence: tuple[str, ...] = ()) -> Story:
    act = {"title": "t", "steps": steps, "expect": expect or {}, "repairs": bool(evidence)}
    failure = {"cause": "c", "repair": "r", "evidence": [{"log": log, "line": "x"} for log in evidence]}
    table = {"schema": 1, "title": "t", "teaches": "t", "topology": "two-clusters", "acts": [act]}
    return Story.model_validate(table | ({"failure": failure} if evidence else {}))


def told(found: Story) -> list[str]:
    return [str(problem) for problem in problems_of(found, TOPOLOGY)]


BOOT = {"do": "boot-phone", "phone": PHONE}


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (
            {"do": "boot-phone", "phone": "SEPB0B4BA0AEE"},
            f"phone: there is no phone 'SEPB0B4BA0AEE'; did you mean {PHONE}?",
        ),
        ({"do": "boot-phone", "phones": "al"}, "phones: there is no phone or group of phones 'al'; did you mean all?"),
        ({"do": "boot-phone"}, ": which phones?; name either one `phone` or some `phones`"),
        ({"do": "boot-phone", "phone": PHONE, "phones": "all"}, ": which phones?; name either one"),
        ({"do": "set-option-150", "cluster": "sauce"}, "cluster: there is no cluster 'sauce'; did you mean source?"),
        (
            {"do": "set-option-150", "cluster": "source", "nodes": ["ucm105pub", "ucm11pub"]},
            "nodes[2]: there is no node of source 'ucm11pub'; did you mean ucm105pub?",
        ),
        ({"do": "set-option-150", "server": "asterisk"}, "server: there is no plain call server 'asterisk'"),
        (
            {"do": "set-option-150", "cluster": "source", "pool": "lobby"},
            "pool: there is no DHCP pool 'lobby'; there are:",
        ),
        (
            {
                "do": "upload-certificate",
                "certificate": "TVS",
                "from": "sauce",
                "to": "source",
                "stores": ["TVS-trust"],
            },
            "from: there is no cluster 'sauce'; did you mean source?",
        ),
    ],
)
def test_a_name_that_the_topology_does_not_know(step: dict[str, Any], problem: str) -> None:
    (only,) = told(story(BOOT, step))
    assert only.startswith("acts[1].steps[2]")
    assert problem in only


def test_expectations_and_evidence() -> None:
    wrong = story(
        BOOT,
        expect={PHONE: {"registered": "surce", "ctl": "none"}, "SEP1": {}, "all": {"registered": "nowhere"}},
        evidence=(f"phone-{PHONE}", "tvs-ucm105pup", "tftp-ucm11pub"),
    )
    assert told(wrong) == [
        f"acts[1].expect.{PHONE}.registered: there is no cluster 'surce'; did you mean source?",
        f"acts[1].expect.SEP1: there is no phone or group of phones 'SEP1'; there are: all, Default, {PHONE}",
        "failure.evidence[2].log: there is no log 'tvs-ucm105pup'; did you mean tvs-ucm105pub?",
    ]


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        ("tvs-ucm105pup", "did you mean tvs-ucm105pub?"),
        ("callmanager-ucm11", "did you mean callmanager-ucm11pub?"),
        ("cluster-sorce", "did you mean cluster-source?"),
        ("dhcp-ucm11pub", "there are: dhcp-lab"),
        ("sftp-server", "there are: sftp-lab"),
        ("capf-ucm105pup", "did you mean capf-ucm105pub?"),
        ("lab-stories", "did you mean lab-story?"),
        ("console", f"there are: phone-{PHONE}, tvs-ucm105pub, "),
        ("tvs", "there are: tvs-ucm105pub, tvs-ucm11pub"),
    ],
)
def test_evidence_in_a_log_that_nobody_writes(log: str, hint: str) -> None:
    (only,) = told(story(BOOT, evidence=(log,)))
    assert only.startswith(f"failure.evidence[1].log: there is no log {log!r}; ")
    assert hint in only


def test_evidence_may_stand_in_any_log_of_a_run() -> None:
    logs = (f"phone-{PHONE}", "tvs-ucm11pub", "callmanager-ucm105pub", "cluster-source", "dhcp-lab", "lab-faults")
    assert told(story(BOOT, evidence=logs)) == []


def test_references_are_found_within_options_and_lists() -> None:
    step = SetOption150.model_validate({"do": "set-option-150", "cluster": "source", "nodes": ["a", "b"]})
    assert list(references_in(step)) == [
        ("cluster", "source", ("cluster",)),
        ("node", "a", ("nodes", 0)),
        ("node", "b", ("nodes", 1)),
    ]
    table = {"do": "upload-certificate", "certificate": "TVS", "from": "x", "to": "y", "stores": ["TVS-trust"]}
    upload = UploadCertificate.model_validate(table)
    assert list(references_in(upload)) == [("cluster", "x", ("from",)), ("cluster", "y", ("to",))]


@pytest.mark.parametrize("folder", ["scenarios", "topologies"])
def test_packaged_files_are_right(folder: str) -> None:
    kind = {"scenarios": FileKind.STORY, "topologies": FileKind.TOPOLOGY}[folder]
    checked = {name: check_file(path) for name, path in packaged(folder).items()}
    assert checked
    assert {name: one.problems for name, one in checked.items() if one.problems} == {}
    assert {one.kind for one in checked.values()} == {kind}


def checked(
    folder: Path, *changes: tuple[str, str], name: str = "migrate", kind: str = "scenarios"
) -> list[tuple[int | None, str]]:
    text = packaged(kind)[name].read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return [(problem.line, problem.place) for problem in check_file(path).problems]


def test_problems_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    found = checked(tmp_path, ('registered = "source"', 'registered = "x"'), (f'phone = "{PHONE}"', 'phone = "SEP1"'))
    assert found == [(9, "acts[1].steps[1].phone"), (10, f"acts[1].expect.{PHONE}.registered")]


def test_a_topology_is_found_beside_its_story(tmp_path: Path) -> None:
    change = ('topology = "two-clusters"', 'topology = "./lab.toml"')
    assert [place for _, place in checked(tmp_path, change)] == ["topology"]  # it is not there yet
    seed = packaged("topologies")["two-clusters"].read_text(encoding="utf-8")
    (tmp_path / "lab.toml").write_text(seed.replace("host = 32", "host = 0"), encoding="utf-8")
    assert [place for _, place in checked(tmp_path, change)] == ["topology"]
    (tmp_path / "lab.toml").write_text(seed, encoding="utf-8")
    assert checked(tmp_path, change) == []


def test_an_unknown_topology(tmp_path: Path) -> None:
    assert [place for _, place in checked(tmp_path, ('"two-clusters"', '"tow-clusters"'))] == ["topology"]


def test_what_is_wrong_with_a_topology_and_with_no_toml(tmp_path: Path) -> None:
    found = checked(tmp_path, ("host = 32", "host = 0"), name="two-clusters", kind="topologies")
    assert found == [(12, "clusters.source.nodes[1].host")]
    (tmp_path / "no.toml").write_text("a = [")
    broken = check_file(tmp_path / "no.toml")
    assert broken.kind is None
    assert len(broken.problems) == 1
