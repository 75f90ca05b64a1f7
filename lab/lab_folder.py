"""The folder of a lab that stays: who runs it, what it was begun with, and how far its clock was moved.

The lab itself writes `lab.json` (topology, network, seed) and resumes from there; here it is read before, so that
nobody has to say again what lab it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from cucm.clock import MovableClock
from cucm.errors import EnvironmentProblem, UsageError
from cucm.events import DEFAULT_RETENTION
from cucm.records import dataclass
from cucm.whole_files import write_whole
from lab.checkpoints import finish_restore
from lab.runtime import LabOptions
from lab.topology import DEFAULT_NETWORK, Topology, load_topology

DESCRIPTION_NAME: Final = "lab.json"
"""What `lab.runtime` writes when a lab begins."""
CLOCK_NAME: Final = "clock.json"
MAX_DESCRIPTION: Final = 4 * 1024 * 1024
DEFAULT_TOPOLOGY: Final = "two-clusters"
LOCK_NAME: Final = "up.lock"
LOG_NAME: Final = "up.log"
"""What `up` says where it has no terminal; whoever starts it may have made this file."""
TEMPORARY_NAME: Final = "temporary"
"""Marks a folder that is deleted when its lab ends."""


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

    def options(self, directory: Path, events: int = DEFAULT_RETENTION) -> LabOptions:
        return LabOptions(directory, self.network, self.seed, events)


LAST_DATE: Final = 221_845_392_000.0
"""9000-01-01: what ends after the year 9999 cannot be written into a certificate."""


class KeptClock(MovableClock):
    """A clock that remembers in a file how far it was moved, so that a resumed lab goes on at its own date.

    Jumps are not kept: a lab that was killed goes on without them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jumped_s = 0.0
        super().__init__(time.time() + self._kept_offset())

    @property
    def moved_s(self) -> float:
        """How far this clock is ahead of the machine's."""
        return self._offset_s

    def move(self, seconds: float) -> None:
        """Raises UsageError when the date would be none, EnvironmentProblem when it cannot be written."""
        self._write(seconds, self._jumped_s)
        super().move(seconds)

    def jump(self, seconds: float) -> None:
        """As `move`, until the process ends."""
        self._write(seconds, self._jumped_s + seconds)
        self._jumped_s += seconds
        super().move(seconds)

    def read_again(self) -> None:
        """Go by the file, after somebody else has written or removed it. Raises UsageError."""
        self._jumped_s = 0.0
        self._offset_s = self._kept_offset()

    def _write(self, seconds: float, jumped_s: float) -> None:
        if not 0 <= self.now() + seconds <= LAST_DATE:
            raise UsageError(f"{seconds:g} s from the lab's date is no date", mend="stay between 1970 and 9000")
        kept = {"offset_s": self.moved_s + seconds - jumped_s}
        write_whole(self._path, json.dumps(kept).encode())

    def _kept_offset(self) -> float:
        try:
            return float(json.loads(self._path.read_bytes())["offset_s"])
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"does not tell the lab's date: {error}",
                where=str(self._path),
                mend="delete it: the lab then has today",
            ) from error


class FolderLock:
    """Says who runs the lab of a folder: one process at a time; the system frees it when that process dies."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises EnvironmentProblem if another process has it."""
        path = self._directory / LOCK_NAME
        while self._descriptor is None:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.release()
                raise EnvironmentProblem(
                    "a lab is running in this folder already",
                    where=str(self._directory),
                    mend="ask it with `cucm-lab status`, or give another --directory",
                ) from None
            if not _is_still(path, self._descriptor):
                self.release()  # its holder has just removed it

    def is_taken(self) -> bool:
        """Whether a process has it; for who waits for the end of a lab. Nothing is made or left there."""
        try:
            descriptor = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class LabFolder:
    """Held by one process while its lab runs. Use as a context manager; entering raises UsageError,
    EnvironmentProblem (another process holds it).

    A `temporary` one must be new, and is deleted at the end; so is what a new lab left that never was ready (`keep`).
    """

    def __init__(self, directory: Path, *, temporary: bool = False) -> None:
        self.directory = directory
        self._temporary = temporary
        self._is_kept = True
        self._was_there = True
        self._lock = FolderLock(directory)

    def __enter__(self) -> Self:
        try:
            self._was_there = self.directory.is_dir()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_ours()
            self._lock.take()
        except OSError as error:
            raise UsageError(
                f"cannot be the folder of a lab: {error.strerror}", where=str(self.directory), mend="name another one"
            ) from error
        try:
            finish_restore(self.directory)
            self._is_kept = self.is_resumed
            self._mark_temporary()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary or not self._is_kept:
            self._remove()
        self._lock.release()

    def keep(self) -> None:
        """The lab has been ready: from now on only a temporary folder is deleted."""
        self._is_kept = True

    def _mark_temporary(self) -> None:
        """It is still temporary when it is resumed after a kill."""
        marker = self.directory / TEMPORARY_NAME
        if self._temporary and self.is_resumed and not marker.exists():
            mend = "leave --temporary out, or name a new --directory"
            raise UsageError("holds a lab that would be deleted", where=str(self.directory), mend=mend)
        if self._temporary:
            marker.touch(mode=0o600)
        self._temporary = marker.exists()

    def _remove(self) -> None:
        """All in it, the lock last; the folder too, unless it was there before and is not temporary."""
        for path in self.directory.iterdir():
            if path.name == LOCK_NAME:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        (self.directory / LOCK_NAME).unlink(missing_ok=True)
        if self._temporary or not self._was_there:
            with suppress(OSError):
                self.directory.rmdir()

    def clock(self) -> KeptClock:
        """The lab's clock. Raises UsageError for a file that does not tell how far it was moved."""
        return KeptClock(self.directory / CLOCK_NAME)

    @property
    def is_resumed(self) -> bool:
        """Whether a lab was begun here before."""
        return (self.directory / DESCRIPTION_NAME).is_file()

    def describe(self, wishes: Wishes) -> Description:
        """What the lab of this folder is; if none was begun here, what is wished for, or the default.

        Raises UsageError when it was begun with something else than is wished for now.
        """
        if not self.is_resumed:
            topology = load_topology(wishes.topology or DEFAULT_TOPOLOGY)
            return Description(topology, wishes.network or DEFAULT_NETWORK, wishes.seed or 0)
        kept = self._kept()
        self._require_same(kept, wishes)
        return kept

    def _require_ours(self) -> None:
        """An empty folder or one of a lab, closed to others: keys and databases are in it."""
        ours = (LOCK_NAME, TEMPORARY_NAME, LOG_NAME)
        foreign = sorted(path.name for path in self.directory.iterdir() if path.name not in ours)
        if foreign and not self.is_resumed:
            raise UsageError(
                f"holds files that no lab made ({foreign[0]})",
                where=str(self.directory),
                mend="name an empty or new --directory",
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
        differing = []
        if wishes.topology is not None and load_topology(wishes.topology) != kept.topology:
            differing.append("topology")
        if wishes.network is not None and wishes.network != kept.network:
            differing.append("--network")
        if wishes.seed is not None and wishes.seed != kept.seed:
            differing.append("--seed")
        if differing:
            raise UsageError(
                f"was begun with another {' and another '.join(differing)}",
                where=str(self.directory),
                mend="leave that out to resume the lab, or name another --directory",
            )
