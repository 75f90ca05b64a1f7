"""`cucm-lab reset` and `cucm-lab restore NAME`: take a running lab back."""

from __future__ import annotations

import argparse
from typing import Any, Final

EPILOG: Final = """\
Back to how the lab was when it became ready: clusters, phones, clock. Every fault ends. Events go on.
exit codes: 0 done; 1 something could not be brought back as it was; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from lab.api.client import OPERATION_TIMEOUT_S
    from lab.cli.running import client

    return tell(client(arguments).post("reset", body={}, timeout_s=OPERATION_TIMEOUT_S), as_json=arguments.json)


def tell(answer: dict[str, Any], *, as_json: bool) -> int:
    """The answer to a restore; the exit code it stands for."""
    from cucm.errors import EXIT_NO, EXIT_OK
    from lab.cli.frame import print_json

    if as_json:
        print_json({"restored": answer["restored"], "different": answer["different"]})
    else:
        print(f"as it was at {answer['restored']}")
        for what in answer["different"]:
            print(f"  but not {what}")
    return EXIT_NO if answer["different"] else EXIT_OK
