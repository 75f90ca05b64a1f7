from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from cucm.errors import UsageError
from lab.scenario import Story
from lab.toml_files import Problem, TomlProblems, nearest, read_toml
from lab.topology import Table, packaged

STORY = packaged("scenarios")["migrate"].read_text(encoding="utf-8")


class Paint(Table):
    do: Literal["paint"]
    colour: Literal["red", "green"] = "red"
    layers: Annotated[int, Field(ge=1)] = 1


class Cut(Table):
    do: Literal["cut"]
    source: Annotated[str, Field(alias="from")]


class Work(Table):
    level: Literal[1, 2]
    steps: tuple[Annotated[Paint | Cut, Field(discriminator="do")], ...] = ()
    rooms: dict[Annotated[str, Field(pattern="^[a-z]+$")], Paint | None] = Field(default_factory=dict)


def problems(folder: Path, text: str, model: type[Table] = Work) -> list[str]:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TomlProblems) as refused:
        read_toml(path, model)
    assert refused.value.where == str(path)
    assert refused.value.exit_code == 2
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps = []", "level: is missing; it must be there"),
        ("level = 3", "level (line 1): there is no 3; use 1 or 2"),
        ("level = 1\n[[steps]]\ndo = 'pant'", "steps[1].do (line 3): there is no 'pant'; did you mean paint?"),
        ("level = 1\n[[steps]]\ndo = 'xyz'", "steps[1].do (line 3): there is no 'xyz'; there are: paint, cut"),
        ("level = 1\n[[steps]]\n", "steps[1].do (line 2): is missing; it says what kind of table this is"),
        (
            "level = 1\n[[steps]]\ndo = 'cut'\n",
            "steps[1].from (line 2): is missing; it must be there",
        ),
        (
            "level = 1\n[[steps]]\ndo = 'paint'\ncolour = 'gren'",
            "steps[1].colour (line 4): there is no 'gren'; did you mean green?",
        ),
        (
            "level = 1\n[[steps]]\ndo = 'paint'\ncolor = 'red'",
            "steps[1].color (line 4): is no word that is known here; did you mean colour?",
        ),
        (
            "level = 1\n[[steps]]\ndo = 'cut'\nfrom = 'a'\nfrm = 'a'",
            "steps[1].frm (line 5): is no word that is known here; did you mean from?",
        ),
        (
            "level = 1\n[rooms.hall]\ndo = 'paint'\nlayer = 2",
            "rooms.hall.layer (line 4): is no word that is known here; did you mean layers?",
        ),
        (
            "level = 1\n[rooms]\nHALL = {do = 'paint'}",
            "rooms.HALL (line 3): 'HALL' is not written as it should be; it must match ^[a-z]+$",
        ),
        ("level = 1\nsteps = 7", "steps (line 2): is no list; write it in brackets: [..., ...]"),
        (
            "level = 1\nrooms = [1]",
            "rooms (line 2): is no table; write it as a [section] or { name = value }",
        ),
    ],
)
def test_what_is_wrong_where_and_what_was_meant(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, text) == [told]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"boot-phone", phone', '"boot-fone", phone', "acts[1].steps[1].do (line 9): there is no 'boot-fone'; did you"),
        (
            'registered = "source"',
            'regstered = "source"',
            "acts[1].expect.SEPB000B4BA0AEE.regstered (line 10): is",
        ),
        (
            'certificate = "CallManager"',
            'certificate = "CalManager"',
            "there is no 'CalManager'; did you mean CallMana",
        ),
        ('topology = "two-clusters"', "[failure]", "failure.cause (line "),
    ],
)
def test_of_a_story(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in STORY
    assert any(told in one for one in problems(tmp_path, STORY.replace(old, new, 1), Story))


def test_what_a_whole_file_lacks_is_told_without_a_place(tmp_path: Path) -> None:
    repaired = STORY.replace('title = "The phone', 'repairs = true\ntitle = "The phone')
    assert problems(tmp_path, repaired, Story) == ["an act repairs, but the story has no [failure]"]


@pytest.mark.parametrize(
    ("content", "line"), [("a = 1\nb = [", 2), ("a = 1\na = 2\n", 2), ("a = " + "[" * 100_000, None)]
)
def test_broken_syntax_keeps_the_line_of_the_parser(tmp_path: Path, content: str, line: int | None) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(content)
    with pytest.raises(TomlProblems, match="is not TOML: ") as refused:
        read_toml(path, Work)
    if line is not None and refused.value.problems[0].line is not None:
        assert refused.value.problems[0].line == line
    assert refused.value.problems[0].place == "the whole file"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read") as missing:
        read_toml(tmp_path / "none.toml", Work)
    assert not isinstance(missing.value, TomlProblems)
    (tmp_path / "big.toml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(UsageError, match="is larger than"):
        read_toml(tmp_path / "big.toml", Work)


def test_the_first_four_are_told_and_all_are_kept() -> None:
    many = [Problem(("a", number), "wrong") for number in range(6)]
    error = TomlProblems(many, where="f", mend="m")
    assert str(error) == "f: a[1]: wrong; a[2]: wrong; a[3]: wrong; a[4]: wrong; and 2 more"
    assert len(error.problems) == 6


def test_hints() -> None:
    assert nearest("surce", ["source", "destination"]) == "did you mean source?"
    assert nearest("x", ["source"]) == "there are: source"
    assert nearest("x", [f"name{number}" for number in range(20)]).endswith("name11, ...")
    assert nearest("x", []) == ""
