"""`python -m bench`: measure, print tables, write docs/benchmarks.md and its JSON, and the table of
docs/howto/large-fleets.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import large_fleets, machine, report
from bench.file_measurements import file_tables
from bench.fleet import fleet_tables
from bench.fleet_run import FleetTable
from bench.material import make_material
from bench.measurements import Bench
from bench.migration import Migration, measure_migration
from bench.report import Findings
from bench.resets import measure_resets
from bench.rounds import FULL, QUICK, Plan, Table
from bench.servers import Unavailable
from bench.start import start_tables
from bench.tvs_measurements import tvs_tables
from cucm.errors import LabError
from cucm.key_store import KeyStore
from cucm.machine import raise_descriptor_limit

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
EXIT_FAILURES: Final = 1
SECTIONS: Final[dict[str, Callable[[Bench], Iterator[Table]]]] = {
    "tvs": tvs_tables,
    "files": file_tables,
    "start": start_tables,
    "fleet": fleet_tables,
}
MIGRATION: Final = "migration"
RESETS: Final = "resets"
NAMES: Final = (*SECTIONS, MIGRATION, RESETS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if an operation of ours failed or was answered wrongly, or a section or the story broke off."""
    options = _parser().parse_args(arguments)
    only = options.only.split(",") if options.only else list(NAMES)
    if unknown := set(only) - set(NAMES):
        print(f"bench: no section {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    aside = ROOT / "out" if options.quick or options.only else DOCS
    try:
        findings = measure(QUICK if options.quick else FULL, only, quick=options.quick, rounds=options.rounds)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    page, data = options.page or aside / "benchmarks.md", options.json or aside / "benchmarks.json"
    report.write(findings, page, data)
    if page.parent == DOCS:  # no look, and not put elsewhere
        for fleets in (one for one in findings.tables if isinstance(one, FleetTable) and one.runs):
            large_fleets.write(fleets, DOCS)
    print(f"\nGoals\n\n{report.goals_table(findings.judgements())}\n\nwritten: {page}, {data}")
    trouble = findings.failures() or findings.migration.trouble or any(one.trouble for one in findings.resets)
    return EXIT_FAILURES if findings.broken or (trouble and not options.only) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in five minutes; writes to out/ only")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(NAMES)}; writes to out/ only")
    parser.add_argument("--rounds", type=int, help="instead of 7, or of 2 with --quick")
    parser.add_argument("--page", type=Path, help="where the page goes (default: docs/benchmarks.md)")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: docs/benchmarks.json)")
    return parser


def measure(plan: Plan, only: Sequence[str], *, quick: bool, rounds: int | None = None) -> Findings:
    """These sections, with the tables printed as they come."""
    plan = plan if rounds is None else replace(plan, rounds=max(1, rounds), migrations=max(1, rounds))
    placement, begins_s = machine.choose_placement(), time.monotonic()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="cucm-bench-") as folder:
        material = make_material(Path(folder), KeyStore())
        bench = Bench(material, placement, plan, lambda text: print(f"... {text}", file=sys.stderr))
        tables = []
        for table in _tables(bench, only):
            tables.append(table)
            print(f"\n{table.title}\n\n{report.table(table)}", flush=True)
        migration = Migration(trouble="not asked for")
        if MIGRATION in only:
            migration = measure_migration(material, placement, plan.migrations, plan.floor_s)
            print(f"\nOne phone's migration\n\n{report.migration_table(migration)}", flush=True)
        resets = measure_resets(material.folder) if RESETS in only else []
        if resets:
            print(f"\nA lab that stays\n\n{report.resets_table(resets)}", flush=True)
    return Findings(
        machine.run_moment(),
        (time.monotonic() - begins_s) / 60,
        quick,
        plan,
        placement,
        machine.describe(),
        bench.versions,
        bench.missing,
        tables,
        migration,
        resets,
        bench.broken,
    )


def _tables(bench: Bench, only: Sequence[str]) -> Iterator[Table]:
    """Of these sections; one that breaks off takes no other with it."""
    for name, section in SECTIONS.items():
        if name in only:
            try:
                yield from section(bench)
            except (Unavailable, LabError, OSError, subprocess.SubprocessError) as reason:
                bench.breaks(name, reason)


if __name__ == "__main__":
    sys.exit(main())
