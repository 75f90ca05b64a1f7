"""`python -m bench`: measure, print tables, write docs/benchmarks.md and the JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import machine, report
from bench.material import make_material
from bench.measurements import Bench
from bench.migration import measure_migration
from bench.report import Findings
from bench.resets import measure_resets
from bench.rounds import FULL, QUICK, Plan
from cucm.errors import LabError
from cucm.key_store import KeyStore
from cucm.net.descriptors import raise_descriptor_limit

ROOT: Final = Path(__file__).parents[1]
EXIT_FAILURES: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if any operation failed or was answered wrongly, or the story could not be run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in half a minute; writes to out/ only")
    parser.add_argument("--rounds", type=int, help="instead of 7, or of 2 with --quick")
    parser.add_argument("--page", type=Path, help="where the page goes (default: docs/benchmarks.md, quick: out/)")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: out/benchmarks.json)")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    try:
        findings = measure(plan, quick=options.quick, rounds=options.rounds)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    page = options.page or (ROOT / "out" / "benchmarks.md" if options.quick else ROOT / "docs" / "benchmarks.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    report.write(findings, page, options.json or ROOT / "out" / "benchmarks.json")
    trouble = findings.failures() or findings.migration.trouble or any(one.trouble for one in findings.resets)
    return EXIT_FAILURES if trouble else 0


def measure(plan: Plan, *, quick: bool, rounds: int | None = None) -> Findings:
    """Everything, with the tables printed as they come."""
    plan = plan if rounds is None else _with_rounds(plan, rounds)
    placement = machine.choose_placement()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="cucm-bench-") as folder:
        material = make_material(Path(folder), KeyStore())
        bench = Bench(material, placement, plan, lambda text: print(f"... {text}", file=sys.stderr))
        groups = []
        for group in bench.groups():
            groups.append(group)
            print(f"\n{group.title} (per {group.operation})\n\n{report.table(group)}", flush=True)
        migration = measure_migration(material, placement, plan.migrations, plan.floor_s)
        print(f"\nOne phone's migration\n\n{report.migration_table(migration)}", flush=True)
        resets = measure_resets(material.folder)
        print(f"\nA lab that stays\n\n{report.resets_table(resets)}", flush=True)
    described = machine.describe()
    moment = machine.run_moment()
    return Findings(moment, quick, plan, placement, described, bench.versions, bench.missing, groups, migration, resets)


def _with_rounds(plan: Plan, rounds: int) -> Plan:
    count = max(1, rounds)
    return Plan(count, plan.run, plan.file_run, plan.warm_up_s, plan.floor_s, count)


if __name__ == "__main__":
    sys.exit(main())
