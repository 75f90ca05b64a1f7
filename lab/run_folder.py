"""What a run leaves for people and tools: events, logs, flash and served files, in a folder of its own.

The folder appears whole: it is written beside its place and moved there at the end. Only an empty folder or one that
holds nothing but an earlier run is replaced, and that one is moved aside first, so that a kill loses neither.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from cucm.errors import UsageError
from lab.log_book import LOG_SERVICES, LogBook
from lab.runtime import Lab

MARKER: Final = "cucm-lab-run.json"
LOG_KINDS: Final = tuple(f"{service}-" for service in LOG_SERVICES)
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FOLDERS_AND_FILES: Final = frozenset({MARKER, "events.jsonl", "flash", "served"})


class RunFolder:
    """Collects into a hidden neighbour of `target`; `finish` puts it in place, leaving without that removes it.

    A symbolic link stays, what it points to is replaced. Raises UsageError if `target` holds anything that is not an
    earlier run's, or cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self._name = str(target)
        self._made: list[Path] = []
        self._finished = False
        try:
            self._target = _resolved(target)
            self._require_replaceable()
            self._make_parents()
            self._beside = Path(tempfile.mkdtemp(prefix=f".{self._target.name}-", dir=self._target.parent))
            self._work = self._beside / "new"
            self._work.mkdir()
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            self._remove_parents()
            raise self._cannot_be_written(error) from error

    def _require_replaceable(self) -> None:
        if not self._target.exists():
            return
        if not self._target.is_dir():
            raise UsageError("is not a folder", where=self._name, mend="name another --out")
        if Path.cwd().is_relative_to(self._target):
            raise UsageError(
                "is the current folder or one above it, which cannot be replaced",
                where=self._name,
                mend="name a folder inside it with --out",
            )
        foreign = sorted(path.name for path in self._target.iterdir() if not _is_a_runs(path.name))
        is_run = (self._target / MARKER).is_file() or not any(self._target.iterdir())
        if foreign or not is_run:
            example = f" ({foreign[0]})" if foreign else ""
            raise UsageError(
                f"holds files that no run of the lab made{example}; they are left alone",
                where=self._name,
                mend="name an empty or new folder with --out",
            )

    def _make_parents(self) -> None:
        parent = self._target.parent
        self._made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        parent.mkdir(parents=True, exist_ok=True)

    def _remove_parents(self) -> None:
        """Those made for this folder alone; one in which something else has appeared stays."""
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def _cannot_be_written(self, error: Exception) -> UsageError:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return UsageError(f"cannot be written: {why}", where=self._name, mend="name another --out")

    def keep_flash(self, lab: Lab, moment: str) -> None:
        """Export every phone's flash (lists, configuration, status; no keys) as it is now."""
        for name, phone in lab.phones.items():
            phone.flash.export(self._work / "flash" / name / moment)

    def finish(self, lab: Lab, book: LogBook, result: dict[str, Any]) -> None:
        """Write the rest and put the folder in its place. Raises UsageError if somebody put files there meanwhile."""
        with (self._work / "events.jsonl").open("w", encoding="utf-8") as file:
            for record in lab.events:
                file.write(json.dumps(record.as_json(), ensure_ascii=False) + "\n")
        for log in book.names:
            (self._work / f"{log}.log").write_text("".join(f"{line}\n" for line in book.lines(log)), "utf-8")
        for node, name, data in lab.served:
            self._keep_served(node, name, data)
        (self._work / MARKER).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self._put_in_place()

    def _put_in_place(self) -> None:
        self._require_replaceable()
        old = self._beside / "old"
        try:
            if self._target.exists():
                self._target.rename(old)
            self._work.rename(self._target)
        except OSError as error:
            if old.exists():
                old.rename(self._target)
            raise self._cannot_be_written(error) from error
        self._finished = True

    def _keep_served(self, node: str, name: str, data: bytes) -> None:
        # names came over the wire; the store served them, but a path is made of plain ones only
        if _SAFE_NAME.fullmatch(name):
            folder = self._work / "served" / node
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing half-written stays; after `finish` what is removed is the earlier run."""
        shutil.rmtree(self._beside, ignore_errors=True)
        if not self._finished:
            self._remove_parents()


def _resolved(path: Path) -> Path:
    """Raises OSError, RuntimeError for a loop of links."""
    found = path.resolve()
    if found.is_symlink():  # what Python 3.13 makes of a loop
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return found


def _is_a_runs(name: str) -> bool:
    return name in _FOLDERS_AND_FILES or (name.startswith(LOG_KINDS) and name.endswith(".log"))
