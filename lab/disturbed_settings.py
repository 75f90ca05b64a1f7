"""What faults in force have laid over the lab's own settings, and what those were: the latter also in a file.

How a link is disturbed stands in its subscriber's database, so it would outlive the fault when the lab's process is
killed. The file `disturbed.json` says what was there before; it is written first, and gone when no fault is left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cucm.errors import UsageError
from cucm.identity import Identity
from cucm.net.reachability import Reachability
from cucm.records import dataclass
from cucm.whole_files import write_whole
from lab.fault_layers import Layers

DISTURBED_NAME: Final = "disturbed.json"
_MAX_FILE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LinksBefore:
    """Delays in seconds and whether a link was paused, by subscriber, as no fault had them."""

    lags: dict[str, float]
    pauses: dict[str, bool]


class DisturbedSettings:
    """Of one lab; `path` is the file in its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reachability: Layers[Reachability] = Layers()
        self.certificates: Layers[Identity | None] = Layers()
        self.lags: Layers[float] = Layers()
        self.pauses: Layers[bool] = Layers()

    def keep(self) -> None:
        """Say in the file how links were: before one is disturbed, after it is whole. Raises EnvironmentProblem."""
        lags = {node: setting for (node,), setting in self.lags.bases.items()}
        pauses = {node: setting for (node,), setting in self.pauses.bases.items()}
        if lags or pauses:
            write_whole(self._path, json.dumps({"lags": lags, "pauses": pauses}).encode())
        else:
            self.undone()

    def undone(self) -> None:
        """Nothing that stands in a file is disturbed any more."""
        self._path.unlink(missing_ok=True)

    def left_over(self) -> LinksBefore:
        """What a lab that was killed had disturbed. Raises UsageError for a file that does not tell."""
        try:
            with self._path.open("rb") as file:
                value: Any = json.loads(file.read(_MAX_FILE))
            return LinksBefore(
                {str(node): float(lag) for node, lag in value["lags"].items()},
                {str(node): bool(paused) for node, paused in value["pauses"].items()},
            )
        except FileNotFoundError:
            return LinksBefore({}, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"does not tell how links were before a fault: {error}",
                where=str(self._path),
                mend="delete it: links then stay as they are; `cucm-lab op repair-replication` mends one",
            ) from error
