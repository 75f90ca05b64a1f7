"""`cucm-lab inspect`: the whole state of a running lab as JSON, or what a JMESPath expression finds in it."""

from __future__ import annotations

import argparse
import json
from typing import Final

EPILOG: Final = """\
examples:
  cucm-lab inspect phones.SEPB000B4BA0AEE.registered
  cucm-lab inspect 'clusters.*.nodes.*[].services.TVS.state'
Without an expression the whole document: what `cucm-lab wait` looks at. Always JSON; --json wraps it with `schema`.
exit codes: 0 told; 2 the expression is wrong; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("expression", nargs="?", metavar="JMESPATH", help="what to look for")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from lab.cli.frame import print_json
    from lab.cli.running import client

    found = client(arguments).get("inspect", query=arguments.expression)["lab"]
    if arguments.json:
        print_json({"lab": found})
    else:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return EXIT_OK
