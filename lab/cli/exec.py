"""`cucm-lab exec -- COMMAND`: run a command in a network of its own, where the lab has its real addresses and ports."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

EPILOG: Final = """\
The lab is at the addresses of Cisco technote 213407 (192.168.11.0/24) with the standard ports: 22, 67, 69, 80, 443,
2445, 5060, 5061, 6970, 8443. /etc/hosts names its machines, no route leads out, proxies and CA bundles are unset.
Needs no root, but a Linux that lets users make namespaces (`cucm-lab doctor` says). CUCM_LAB_DIRECTORY is set, so that
`cucm-lab status` and the like work in the command; CUCM_LAB_API is the URL of the lab's API.
examples:
  cucm-lab exec -- openssl s_client -connect ucm105pub:2445
  cucm-lab exec --topology campus -- sh -c 'cucm-lab wait --for "phones" && my-migration-tool --source 192.168.11.32'
exit codes: the command's own; 127 it was not found; 128 + N signal N ended it; 2 wrong words; 3 no namespaces here"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.frame import RUNS_A_COMMAND

    parser.epilog = EPILOG
    parser.usage = "cucm-lab exec [--topology T] [--directory DIR] [--phones on|off] -- COMMAND ..."
    parser.add_argument("--topology", default="", metavar="T", help="a packaged topology or a TOML file")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="keep the lab here (default: a temporary folder)")
    parser.add_argument("--phones", choices=("on", "off"), default="on", help="whether the phones boot (default on)")
    parser.set_defaults(**{RUNS_A_COMMAND: True})
    parser.add_argument("command_words", nargs="+", metavar="COMMAND", help="what to run, behind `--`")


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import UsageError
    from lab.namespace import run_session
    from lab.temporary_folder import temporary_folder
    from lab.topology import is_path, load_topology

    topology = arguments.topology
    if topology:
        load_topology(topology)  # its errors are told here, with their lines
        topology = str(Path(topology).absolute()) if is_path(topology) else topology
    if arguments.json:
        raise UsageError("`exec` prints what the command prints", mend="leave out --json, or give it to the command")
    words = arguments.command_words
    phones = arguments.phones == "on"
    if arguments.directory is not None:
        return run_session(topology, str(arguments.directory.absolute()), words, phones=phones)
    with temporary_folder("cucm-lab-") as folder:
        return run_session(topology, str(folder / "lab"), words, phones=phones)
