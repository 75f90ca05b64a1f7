"""`cucm-lab wait --for EXPRESSION`: come back when something is true of a running lab."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lab.api.problems import Problem

EPILOG: Final = """\
The expression is JMESPath on what `cucm-lab inspect` prints; waited is until its value is neither false nor empty.
With --json a no has the last `value` too.
examples:
  cucm-lab wait --for "phones.SEPB000B4BA0AEE.registered == 'destination'" --timeout 60
  cucm-lab wait --for "length(values(phones)[?registered=='destination']) == \\`40\\`"
  cucm-lab wait --for 'events."tvs.response_sent"'
exit codes: 0 it is true; 1 it did not become true in time; 2 the expression is wrong; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("--for", dest="expression", required=True, metavar="JMESPATH", help="what should be true")
    parser.add_argument("--timeout", type=_seconds, default=30.0, metavar="S", help="seconds (default 30, at most 600)")
    add_directory(parser)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 600")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from lab.api.client import READ_TIMEOUT_S
    from lab.api.problems import Problem
    from lab.cli.frame import print_json
    from lab.cli.running import client

    body = {"for": arguments.expression, "timeout_s": arguments.timeout}
    try:
        answer = client(arguments).post("wait", body=body, timeout_s=arguments.timeout + READ_TIMEOUT_S)
    except Problem as problem:
        if not arguments.json or "value" not in problem.more:
            raise
        return _never_true(problem)
    if arguments.json:
        print_json({"true": True, "value": answer["value"], "waited_s": answer["waited_s"]})
    else:
        print(json.dumps(answer["value"], ensure_ascii=False))
    return EXIT_OK


def _never_true(problem: Problem) -> int:
    """It ran and the answer is no: that has the same form as a yes."""
    from cucm.errors import EXIT_NO
    from lab.cli.frame import print_json

    print_json({"true": False, "value": problem.more["value"], "what": problem.what, "mend": problem.mend})
    return EXIT_NO
