"""What becomes of a bench of half an hour when one of its sections breaks off."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as program
from bench.measurements import Bench
from bench.rounds import Figures, Table


def breaks_off(_bench: Bench) -> Iterator[Table]:
    yield Figures("Before it", "s")
    raise subprocess.TimeoutExpired("the load client", 40)


def goes_on(_bench: Bench) -> Iterator[Table]:
    yield Figures("Behind it", "s")


@pytest.mark.parametrize(("only", "exit_code"), [("first,second", 1), ("second", 0)])
def test_a_section_that_breaks_off_is_told_and_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: str, exit_code: int
) -> None:
    monkeypatch.setattr(program, "SECTIONS", {"first": breaks_off, "second": goes_on})
    monkeypatch.setattr(program, "NAMES", ("first", "second"))
    page, data = tmp_path / "page.md", tmp_path / "data.json"
    assert program.main(["--only", only, "--page", str(page), "--json", str(data)]) == exit_code
    text = page.read_text()
    assert "## Behind it" in text
    assert ("## Before it" in text) == bool(exit_code)
    assert ("the rest of section first: not compared, Command 'the load client' timed out" in text) == bool(exit_code)
    assert json.loads(data.read_text())["broken"] == ["first"] * exit_code
