"""`cucm-lab verify`: would a phone that holds these lists accept this file?"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lab.cli.phone_verdict import Phone

_ROLE: Final = re.compile(r"[0-9]{1,3}")
EPILOG: Final = """\
FILE is a CTL or ITL (.tlv), or a configuration or other file, signed (.sgn) or not. The lists are those in the phone's
flash: its CTL, its ITL, or both. The verdict is that of the lab's own phone (phone_agent). Where it depends on TVS,
the question is printed, and --tvs-answer says how TVS would answer it.
exit codes: 0 accepted; 1 refused; 2 wrong words, or a list that is none"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("file", metavar="FILE", help="the file the phone has downloaded; - for standard input")
    parser.add_argument("--against", nargs="+", required=True, metavar="LIST", help="the CTL and ITL the phone holds")
    parser.add_argument(
        "--tvs-answer", metavar="CERTIFICATE", help="suppose TVS answers with this certificate (PEM or DER)"
    )
    parser.add_argument("--roles", metavar="N,N", help="and with these roles, for example 0,3 (SAST, TFTP)")


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_NO, EXIT_OK
    from lab.cli.frame import print_json
    from lab.cli.inputs import read_input
    from lab.cli.phone_verdict import MAX_FILE, as_json, judge, verdict_lines

    phone = _phone(arguments)
    source = read_input(arguments.file, limit=MAX_FILE)
    verdict = judge(source.name, source.data, phone)
    if arguments.json:
        print_json(as_json(verdict))
    else:
        print("\n".join(verdict_lines(verdict)))
    return EXIT_OK if verdict.accepted else EXIT_NO


def _phone(arguments: argparse.Namespace) -> Phone:
    from cucm.errors import UsageError
    from lab.cli.inputs import read_certificate
    from lab.cli.phone_verdict import phone_with

    if bool(arguments.tvs_answer) != (arguments.roles is not None):
        raise UsageError(
            "--tvs-answer and --roles need each other", mend="give both: --tvs-answer CERT.pem --roles 0,3"
        )
    answer = read_certificate(arguments.tvs_answer) if arguments.tvs_answer else None
    return phone_with(arguments.against, answer, parse_roles(arguments.roles or ""))


def parse_roles(text: str) -> tuple[int, ...]:
    """`0,3` -> (0, 3); an empty text has none. Raises UsageError."""
    from cucm.errors import UsageError

    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(_ROLE.fullmatch(word) and int(word) < 256 for word in words):
        raise UsageError(f"{text!r} is not a list of roles", mend="numbers from 0 to 255: 0 is SAST, 3 TFTP, 21 TVS")
    return tuple(map(int, words))
