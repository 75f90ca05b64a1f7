from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lab.topology import packaged

Run = Callable[..., CompletedProcess[str]]
STORY = packaged("scenarios")["migrate"].read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "folder"), [("story", "scenarios"), ("topology", "topologies")])
def test_what_comes_with_the_lab_is_right(cucm_lab: Run, kind: str, folder: str) -> None:
    path = next(iter(packaged(folder).values()))
    done = cucm_lab("validate", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: a {kind}, nothing is wrong\n", "")


def test_each_problem_is_a_line_an_editor_can_jump_to(cucm_lab: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(STORY.replace('registered = "source"', 'registered = "sauce"'), encoding="utf-8")
    done = cucm_lab("validate", path)
    place = "acts[1].expect.SEPB000B4BA0AEE.registered"
    assert done.stdout == f"{path}:10: {place}: there is no cluster 'sauce'; did you mean source?\n"
    assert done.returncode == 1
    as_json = cucm_lab("validate", path, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout) == {
        "schema": 1,
        "file": str(path),
        "kind": "story",
        "valid": False,
        "problems": [
            {"line": 10, "place": place, "what": "there is no cluster 'sauce'", "hint": "did you mean source?"}
        ],
    }


def test_broken_toml_is_a_problem_and_no_file_is_a_mistake(cucm_lab: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("a = 1\nb = \n")
    done = cucm_lab("validate", path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{path}:2: the whole file: is not TOML: ")
    missing = cucm_lab("validate", tmp_path / "none.toml")
    assert missing.returncode == 2
    assert "No such file" in missing.stderr
    assert str(tmp_path / "none.toml") in missing.stderr


@pytest.mark.parametrize(("content", "what"), [("", "is empty"), ("a = 1\n", "is neither a story nor a topology")])
def test_what_is_neither_is_taken_for_neither(cucm_lab: Run, tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    done = cucm_lab("validate", path)
    assert done.returncode == 1
    assert f"{what}; a story has [[acts]], a topology has [clusters.NAME]" in done.stdout
    assert json.loads(cucm_lab("validate", path, "--json").stdout)["kind"] is None


def test_a_topology_is_no_story_and_a_story_no_topology(cucm_lab: Run, tmp_path: Path) -> None:
    run = cucm_lab("run", "two-clusters")
    assert run.returncode == 2
    assert "'two-clusters' is a topology, no scenario" in run.stderr
    assert "`cucm-lab up two-clusters`" in run.stderr
    up = cucm_lab("up", "migrate", "--directory", tmp_path / "lab")
    assert up.returncode == 2
    assert "'migrate' is a scenario, no topology" in up.stderr
