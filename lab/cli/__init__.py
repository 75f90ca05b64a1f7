"""The `cucm-lab` command. Importing it costs next to nothing: a command's module is read when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from cucm import quiet_start

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code; never raises."""
    quiet_start.begin()
    try:
        from lab.cli import frame

        quiet_start.end()
        exit_code = frame.main(argv)
    except KeyboardInterrupt:  # in one of the instants in which the command does not listen: before its work, or behind
        exit_code = quiet_start.EXIT_INTERRUPTED
    if argv is None:
        quiet_start.begin()  # an impatient second Ctrl-C while the interpreter ends
    return exit_code
