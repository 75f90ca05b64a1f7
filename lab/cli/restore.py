"""`cucm-lab restore NAME`: take a running lab back to a kept state."""

from __future__ import annotations

import argparse
from typing import Final

EPILOG: Final = """\
Clusters, phones and clock are as they were when `cucm-lab checkpoint NAME` kept them. Every fault ends. Events go on.
exit codes: 0 done; 1 something could not be brought back as it was; 2 there is no such checkpoint; 3 no lab runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("name", metavar="NAME", help="of a checkpoint; `start` is how the lab began")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from lab.api.client import OPERATION_TIMEOUT_S
    from lab.cli.reset import tell
    from lab.cli.running import client

    lab = client(arguments)
    answer = lab.post("checkpoints", arguments.name, "restore", body={}, timeout_s=OPERATION_TIMEOUT_S)
    return tell(answer, as_json=arguments.json)
