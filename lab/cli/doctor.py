"""`cucm-lab doctor`: what this machine can do for the lab, and how to mend what it cannot."""

from __future__ import annotations

import argparse

EPILOG = """\
Each line is ok, warn (the lab runs, something is missing) or fail (the lab cannot run here).
exit codes: 0 the lab can run; 3 it cannot"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_ENVIRONMENT, EXIT_OK
    from lab.cli.examinations import Verdict, examine
    from lab.cli.frame import print_json

    findings = examine()
    able = all(finding.verdict is not Verdict.FAIL for finding in findings)
    if arguments.json:
        print_json({"able": able, "findings": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            print(f"{finding.verdict:<5} {finding.subject}: {finding.result}")
            for line in finding.mend.splitlines():
                print(f"      mend: {line}")
        print("\nThe lab can run here." if able else "\nThe lab cannot run here: see the lines marked fail.")
    return EXIT_OK if able else EXIT_ENVIRONMENT
