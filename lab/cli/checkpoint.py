"""`cucm-lab checkpoint`: keep the state of a running lab, to go back to it later."""

from __future__ import annotations

import argparse
from typing import Any, Final

EPILOG: Final = """\
Without NAME the checkpoints there are. `cucm-lab restore NAME` goes back to one.
exit codes: 0 done; 2 the name is wrong or taken; 3 no lab is running, or its disk is full"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="letters, digits, `.`, `_`, `-`")
    parser.add_argument("--delete", action="store_true", help="forget it instead")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK, UsageError
    from lab.api.client import OPERATION_TIMEOUT_S
    from lab.cli.frame import print_json
    from lab.cli.running import client

    lab = client(arguments)
    if arguments.name is None:
        if arguments.delete:
            raise UsageError("no checkpoint is named", mend="`cucm-lab checkpoint` lists them")
        return _list(lab.get("checkpoints")["checkpoints"], as_json=arguments.json)
    if arguments.delete:
        lab.delete("checkpoints", arguments.name)
        done = {"deleted": arguments.name}
    else:
        answer = lab.post("checkpoints", body={"name": arguments.name}, timeout_s=OPERATION_TIMEOUT_S)
        done = {"checkpoint": answer["checkpoint"]["name"]}
    if arguments.json:
        print_json(done)
    else:
        print(f"{arguments.name} is {'forgotten' if arguments.delete else 'kept'}")
    return EXIT_OK


def _list(kept: list[dict[str, Any]], *, as_json: bool) -> int:
    from datetime import UTC, datetime

    from cucm.errors import EXIT_OK
    from lab.cli.frame import print_json

    if as_json:
        print_json({"checkpoints": kept})
    for one in () if as_json else kept:
        print(f"{datetime.fromtimestamp(one['made_at'], UTC):%Y-%m-%d %H:%M:%S}  {one['name']}")
    return EXIT_OK
