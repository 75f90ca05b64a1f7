"""What a cluster must remember beside its nodes' files.

Whether it is installed, how often pairs were made anew, and how TVS's cache was set. The generation is counted before a
pair is made, so that a kill in between never gives an old key a second life.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cucm.errors import UsageError
from cucm.roles import CertificateUnit
from cucm.whole_files import write_whole

MAX_STATE: Final = 1024 * 1024


class ClusterState:
    """One small JSON file. Raises UsageError for a file that is none, EnvironmentProblem if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data: dict[str, Any] = {"installed": False, "generations": {}}
        if path.exists():
            self._data |= self._read()

    def _read(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as file:
                data = json.loads(file.read(MAX_STATE))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(
                f"cannot be read as a lab's state: {error}", where=str(self._path), mend="delete the lab's folder"
            ) from error
        if not isinstance(data, dict) or not isinstance(data.get("generations"), dict):
            raise UsageError("is not a lab's state", where=str(self._path), mend="delete the lab's folder")
        return data

    @property
    def is_installed(self) -> bool:
        return bool(self._data["installed"])

    def mark_installed(self) -> None:
        self._change(installed=True)

    def generation(self, unit: CertificateUnit, node: str) -> int:
        """How often the pair has been made anew; 0 is the installer's."""
        return int(self._data["generations"].get(f"{node} {unit}", 0))

    def begin_generation(self, unit: CertificateUnit, node: str) -> int:
        """Count one more, before the pair is made."""
        number = self.generation(unit, node) + 1
        self._change(generations={**self._data["generations"], f"{node} {unit}": number})
        return number

    @property
    def tvs_cache(self) -> str | None:
        """How fresh TVS's certificate cache was set to be; None as long as nobody did."""
        kept = self._data.get("tvs_cache")
        return None if kept is None else str(kept)

    def set_tvs_cache(self, mode: str) -> None:
        self._change(tvs_cache=str(mode))

    def _change(self, **changes: Any) -> None:
        self._data |= changes
        write_whole(self._path, json.dumps(self._data, indent=1).encode())
