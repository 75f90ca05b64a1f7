"""The folder of a lab that stays: who runs it, and what it was begun with, so that it can be resumed.

`lab.json` holds topology, network and seed; the lab's own files lie beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import ValidationError

from cucm.errors import EnvironmentProblem, UsageError
from cucm.whole_files import write_whole
from lab.runtime import LabOptions
from lab.topology import DEFAULT_NETWORK, Topology, load_topology

DESCRIPTION_NAME: Final = "lab.json"
MAX_DESCRIPTION: Final = 4 * 1024 * 1024
DEFAULT_TOPOLOGY: Final = "two-clusters"
SCHEMA: Final = 1
LOCK_NAME: Final = "up.lock"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for; None where nothing was said."""

    topology: str | None = None
    network: IPv4Network | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a lab is begun with; it is the same whenever it is resumed."""

    topology: Topology
    network: IPv4Network
    seed: int

    def options(self, directory: Path) -> LabOptions:
        return LabOptions(directory, self.network, self.seed)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "topology": self.topology.model_dump(mode="json", by_alias=True),
            "network": str(self.network),
            "seed": self.seed,
        }


class FolderLock:
    """Says who runs the lab of a folder: one process at a time; the system frees it when that process dies."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises EnvironmentProblem if another process has it."""
        self._descriptor = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise EnvironmentProblem(
                "a lab is running in this folder already",
                where=str(self._directory),
                mend="ask it with `cucm-lab status`, or give another --directory",
            ) from None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class LabFolder:
    """Held by one process while its lab runs. Use as a context manager; entering raises UsageError,
    EnvironmentProblem (another process holds it).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = FolderLock(directory)

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_ours()
        except OSError as error:
            raise UsageError(
                f"cannot be the folder of a lab: {error.strerror}", where=str(self.directory), mend="name another one"
            ) from error
        self._lock.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def is_resumed(self) -> bool:
        """Whether a lab was begun here before."""
        return (self.directory / DESCRIPTION_NAME).is_file()

    def describe(self, wishes: Wishes) -> Description:
        """What the lab of this folder is, begun now if it is new.

        Raises UsageError when it was begun with something else than is wished for now.
        """
        if not self.is_resumed:
            topology = load_topology(wishes.topology or DEFAULT_TOPOLOGY)
            description = Description(topology, wishes.network or DEFAULT_NETWORK, wishes.seed or 0)
            write_whole(self.directory / DESCRIPTION_NAME, json.dumps(description.as_json(), indent=1).encode())
            return description
        kept = self._kept()
        self._require_same(kept, wishes)
        return kept

    def _require_ours(self) -> None:
        """An empty folder or one of a lab, closed to others: keys and databases are in it."""
        if not self.is_resumed and any(self.directory.iterdir()):
            raise UsageError(
                "holds files that no lab made", where=str(self.directory), mend="name an empty or new --directory"
            )
        self.directory.chmod(0o700)

    def _kept(self) -> Description:
        path = self.directory / DESCRIPTION_NAME
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(MAX_DESCRIPTION))
            return Description(
                Topology.model_validate(data["topology"]), IPv4Network(data["network"]), int(data["seed"])
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
            raise UsageError(
                f"does not tell what lab this is: {error}", where=str(path), mend="delete the folder and begin anew"
            ) from error

    def _require_same(self, kept: Description, wishes: Wishes) -> None:
        differing = [
            name
            for name, wished, is_so in (
                ("topology", wishes.topology, lambda: load_topology(str(wishes.topology)) == kept.topology),
                ("--network", wishes.network, lambda: wishes.network == kept.network),
                ("--seed", wishes.seed, lambda: wishes.seed == kept.seed),
            )
            if wished is not None and not is_so()
        ]
        if differing:
            raise UsageError(
                f"was begun with another {' and another '.join(differing)}",
                where=str(self.directory),
                mend="leave that out to resume the lab, or name another --directory",
            )
