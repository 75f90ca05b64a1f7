"""`cucm-lab phone`: boot, reset or erase phones of a running lab."""

from __future__ import annotations

import argparse
from typing import Final

ACTIONS: Final = {
    "boot": "boot-phone",
    "reset": "reset-phone",
    "power-off": "power-off-phone",
    "erase": "erase-security-settings",
}
EPILOG: Final = """\
examples:
  cucm-lab phone reset SEPB000B4BA0AEE
  cucm-lab phone boot all
`erase` is the security menu's: the phone forgets CTL and ITL. `cucm-lab truth phones` tells what became of them.
exit codes: 0 done, whatever the phone made of it; 1 it cannot be done; 2 there is no such phone; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("action", choices=tuple(ACTIONS), help="what to do")
    parser.add_argument("phones", metavar="PHONES", help="a device name (SEP...), a group of phones, or `all`")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from lab.cli.op import tell
    from lab.cli.running import client

    operation = {"do": ACTIONS[arguments.action], "phones": arguments.phones}
    return tell(client(arguments).perform(operation), as_json=arguments.json)
