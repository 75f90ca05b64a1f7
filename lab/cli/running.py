"""What the commands share that ask a running lab: `--directory`, the client, tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.api.client import ApiClient

DIRECTORY_VARIABLE = "CUCM_LAB_DIRECTORY"
DEFAULT_DIRECTORY = Path(os.environ.get(DIRECTORY_VARIABLE) or ".cucm-lab")
"""The lab of the current folder, unless the variable names another."""


def add_directory(parser: argparse.ArgumentParser, what: str = "the folder of the running lab") -> None:
    parser.add_argument(
        "--directory", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR", help=f"{what} (default %(default)s)"
    )


def client(arguments: argparse.Namespace) -> ApiClient:
    from lab.api.client import ApiClient

    return ApiClient(arguments.directory)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest cell, two spaces apart; cells are made safe for a terminal."""
    from cucm.render.text import printable

    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
