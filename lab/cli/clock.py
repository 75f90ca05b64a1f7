"""`cucm-lab clock`: the date of a running lab, and moving it."""

from __future__ import annotations

import argparse
import re
from typing import Final

from cucm.errors import EXIT_OK, UsageError

SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "y": 365.0 * 86_400.0}
_FORM: Final = re.compile(r"([+-]?)(\d{1,9}(?:\.\d{1,6})?)([smhdy])", re.ASCII)
EPILOG: Final = """\
examples:
  cucm-lab clock              # what date it is
  cucm-lab clock +30d         # thirty days pass: s, m, h, d, y
  cucm-lab clock -- -1h       # an hour back
exit codes: 0 done; 2 wrong words; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("move", nargs="?", metavar="BY", help="how far, like +30d")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.render.text import duration
    from lab.cli.frame import print_json
    from lab.cli.running import client

    lab = client(arguments)
    if arguments.move is None:
        clock = lab.get("clock")
    else:
        clock = lab.post("clock", body={"move_s": seconds_of(arguments.move)})
    if arguments.json:
        print_json({name: value for name, value in clock.items() if name != "schema"})
    else:
        print(f"{clock['date']}  (moved by {duration(clock['moved_s'])})")
    return EXIT_OK


def seconds_of(text: str) -> float:
    """`+30d` -> 2592000. Raises UsageError."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no time to move by", mend="write a number with s, m, h, d or y: +30d")
    sign, number, unit = found.groups()
    return float(number) * SECONDS[unit] * (-1 if sign == "-" else 1)
