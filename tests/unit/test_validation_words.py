"""No sentence of pydantic's reaches somebody who writes a story or a topology."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cucm.validation_words import words_of
from lab.story_check import check_file
from lab.topology import packaged

TOPOLOGY = packaged("topologies")["two-clusters"].read_text(encoding="utf-8")
PYDANTIC = re.compile(r"Input should|String should|Field required|inputs are|should have|valid (tuple|dict)")


@pytest.mark.parametrize(
    ("old", "new", "text", "hint"),
    [
        ("host = 100", 'host = "x"', "is no whole number", "write digits, without quotes"),
        ("host = 100", "host = 1.5", "is no whole number", "write digits, without quotes"),
        ("host = 100", "host = 999", "999 is too much", "the most is 254"),
        ('"B000B4BA0AEE"', '"b0:00"', "'b0:00' is not written as it should be", "12 hexadecimal digits in capitals"),
        ('"B000B4BA0AEE"', "7", "is no text", "in quotes"),
        ('country = "AU"', 'country = "Australia"', "is not written as it should be", "two capital letters"),
        ('lsc_from = "source"', "lsc_from = true", "is no text", "in quotes"),
        ('provisioned_in = ["source", "destination"]', "provisioned_in = 1", "is no list", "in brackets"),
        ("schema = 1", "schema = 2", "there is no 2", "use 1"),
    ],
)
def test_common_mistakes(tmp_path: Path, old: str, new: str, text: str, hint: str) -> None:
    assert old in TOPOLOGY
    path = tmp_path / "mine.toml"
    path.write_text(TOPOLOGY.replace(old, new, 1), encoding="utf-8")
    (problem,) = check_file(path).problems
    assert text in problem.text
    assert hint in problem.hint
    assert problem.line
    assert not PYDANTIC.search(str(problem))


def test_what_nobody_thought_of_has_a_hint_all_the_same() -> None:
    text, hint = words_of({"type": "uuid_parsing", "msg": "Input is odd", "input": "x"})
    assert text == "cannot be used: Input is odd"
    assert hint
    long, _ = words_of({"type": "less_than_equal", "msg": "", "input": "x" * 500, "ctx": {"le": 1}})
    assert len(long) < 100
