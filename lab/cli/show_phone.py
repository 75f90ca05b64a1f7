"""`cucm-lab show phone`: what a person reads on a phone, of a running lab's phone or of an exported flash."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cucm.errors import EXIT_OK


def show_phone(arguments: argparse.Namespace) -> int:
    """A folder of that name wins over a phone. Raises UsageError, FlashError, EnvironmentProblem (no lab runs)."""
    from cucm.render.text import printable
    from lab.cli.frame import print_json

    folder = Path(arguments.what)
    screens = _of_folder(folder) if folder.is_dir() else _of_phone(arguments)
    lines = screens.pop("lines")
    if arguments.json:
        print_json({"phone": arguments.what, **screens})
    else:
        print("\n".join(printable(line) for line in lines))
    return EXIT_OK


def _of_folder(folder: Path) -> dict[str, Any]:
    from phone_agent.screens import screens_of_folder

    screens = screens_of_folder(folder)
    return {**screens.as_json(), "lines": screens.lines()}


def _of_phone(arguments: argparse.Namespace) -> dict[str, Any]:
    from lab.cli.running import client

    answer = client(arguments).get("phones", arguments.what, "screens")
    return {name: value for name, value in answer.items() if name != "schema"}
