"""The `cucm-lab` command. Importing it costs next to nothing: a command's module is read when it is asked for."""

from lab.cli.frame import main

__all__ = ["main"]
