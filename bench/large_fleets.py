"""The table of docs/howto/large-fleets.md, and its runs as JSON (docs/fleet.json)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from bench.fleet_run import FleetTable
from bench.report import table
from cucm.whole_files import write_whole

BEGIN: Final = "<!-- measured by make bench: begin -->"
END: Final = "<!-- measured by make bench: end -->"
DATA: Final = "fleet.json"
PAGE: Final = Path("howto") / "large-fleets.md"
SCHEMA_VERSION: Final = 2


def write(fleets: FleetTable, docs: Path) -> None:
    """Both files. Raises ValueError where the page has lost its marks."""
    page = docs / PAGE
    told = {"schema": SCHEMA_VERSION, "processors": os.cpu_count(), **fleets.as_json()}
    write_whole(docs / DATA, json.dumps(told, indent=1).encode() + b"\n")
    write_whole(page, with_table(page.read_text(encoding="utf-8"), table(fleets)).encode())


def with_table(page: str, text: str) -> str:
    """The page with what stands between its marks replaced. Raises ValueError without marks."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"
