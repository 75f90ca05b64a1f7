"""The `cucm-lab` command. Importing it costs next to nothing: a command's module is read when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from cucm import quiet_start

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code; never raises."""
    quiet_start.begin()
    from lab.cli import frame

    quiet_start.end()
    exit_code = frame.main(argv)
    if argv is None:
        quiet_start.begin()  # an impatient second Ctrl-C while the interpreter ends
    return exit_code
