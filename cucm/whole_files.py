"""Files that are there whole or not at all, also after a kill."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from cucm.machine import machine_problem

_UNFINISHED: Final = ".new-"


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the file: the old one or the new one is there at any instant. Raises EnvironmentProblem."""
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED, suffix=path.suffix)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        mend = "make room and let the lab write there"
        raise machine_problem(error, str(path), failed="cannot be written", mend=mend) from error


def is_unfinished(name: str) -> bool:
    """Whether a file of this name is one that `write_whole` has not brought to its place."""
    return name.startswith(_UNFINISHED)


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left half-written in the folder. EnvironmentProblem if that cannot be done."""
    try:
        for path in folder.glob(f"{_UNFINISHED}*"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise machine_problem(error, str(folder), failed="cannot be tidied", mend="let the lab write there") from error


def write_private(path: Path, data: bytes) -> None:
    """As `write_whole`, for keys and passwords: mode 0600."""
    write_whole(path, data, mode=0o600)
