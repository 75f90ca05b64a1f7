"""`cucm-lab validate FILE`: whether a story or a topology can be used as it is written."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.story_check import CheckedFile

EPILOG: Final = """\
Stories and topologies are told apart by their keys. Every name in a story is looked up in its topology, which a
relative path names beside the story.
exit codes: 0 nothing is wrong; 1 problems, one a line: FILE:LINE: PLACE: WHAT; HINT; 2 no such file"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("file", metavar="FILE", help="a story or topology of yours, a TOML file")


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from cucm.errors import EXIT_NO, EXIT_OK
    from lab.cli.frame import print_json
    from lab.story_check import check_file

    checked = check_file(Path(arguments.file))
    if arguments.json:
        print_json(_as_json(arguments.file, checked))
    else:
        print("\n".join(_lines(arguments.file, checked)))
    return EXIT_NO if checked.problems else EXIT_OK


def _lines(file: str, checked: CheckedFile) -> list[str]:
    if not checked.problems:
        return [f"{file}: a {checked.kind}, nothing is wrong"]
    lines = []
    for problem in checked.problems:
        where = file if problem.line is None else f"{file}:{problem.line}"
        hint = f"; {problem.hint}" if problem.hint else ""
        lines.append(f"{where}: {problem.place}: {problem.text}{hint}")
    return lines


def _as_json(file: str, checked: CheckedFile) -> dict[str, Any]:
    return {
        "file": file,
        "kind": checked.kind,
        "valid": not checked.problems,
        "problems": [
            {"line": one.line, "place": one.place, "what": one.text, "hint": one.hint or None}
            for one in checked.problems
        ],
    }
