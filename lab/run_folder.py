"""What a run leaves for people and tools: events, logs, flash and served files, in a folder of its own.

The folder appears whole: it is written beside its place and moved there at the end. Only an empty folder or one that an
earlier run made is replaced.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final, Self

from cucm.errors import UsageError
from lab.log_book import LogBook
from lab.runtime import Lab

MARKER: Final = "cucm-lab-run.json"
LOG_KINDS: Final = ("phone-", "tvs-", "tftp-", "callmanager-")
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RunFolder:
    """Collects into a hidden neighbour of `target`; `finish` puts it in place, leaving without that removes it.

    Raises UsageError if `target` holds anything that is not an earlier run's.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._require_replaceable()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            self._work.chmod(0o755)
        except OSError as error:
            raise UsageError(
                f"cannot be written: {error.strerror}", where=str(target.parent), mend="name another --out"
            ) from error

    def _require_replaceable(self) -> None:
        if not self._target.exists():
            return
        if not self._target.is_dir():
            raise UsageError("is not a folder", where=str(self._target), mend="name another --out")
        if any(self._target.iterdir()) and not (self._target / MARKER).is_file():
            raise UsageError(
                "holds files that no run of the lab made; they are left alone",
                where=str(self._target),
                mend="name an empty or new folder with --out",
            )

    def keep_flash(self, lab: Lab, moment: str) -> None:
        """Export every phone's flash (lists, configuration, status; no keys) as it is now."""
        for name, phone in lab.phones.items():
            phone.flash.export(self._work / "flash" / name / moment)

    def finish(self, lab: Lab, book: LogBook, result: dict[str, Any]) -> Path:
        """Write the rest and put the folder in its place. Returns where it is."""
        with (self._work / "events.jsonl").open("w", encoding="utf-8") as file:
            for record in lab.events:
                file.write(json.dumps(record.as_json(), ensure_ascii=False) + "\n")
        for log in book.names:
            if log.startswith(LOG_KINDS):
                (self._work / f"{log}.log").write_text("".join(f"{line}\n" for line in book.lines(log)), "utf-8")
        for node, name, data in lab.served:
            self._keep_served(node, name, data)
        (self._work / MARKER).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if self._target.exists():
            shutil.rmtree(self._target)
        self._work.rename(self._target)
        return self._target

    def _keep_served(self, node: str, name: str, data: bytes) -> None:
        # names came over the wire; the store served them, but a path is made of plain ones only
        if _SAFE_NAME.fullmatch(name):
            folder = self._work / "served" / node
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing half-written stays; after `finish` there is nothing to remove."""
        shutil.rmtree(self._work, ignore_errors=True)
