"""A lab that stays and is used by others: one administrator at a time, kept states and the way back, its end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from cucm.errors import LabError, UsageError
from cucm.events.running import ClockMoved, LabCheckpointed, LabEnded, LabReady, LabRestored, LabRestoring
from cucm.faults import Fault
from cucm.faults.board import FaultStatus
from cucm.faults.rules import FaultTable
from lab.checkpoints import START, Checkpoint, Checkpoints, require_name
from lab.lab_folder import KeptClock
from lab.operations import Operation
from lab.runtime import PHONES_AT_ONCE, Lab
from lab.standing import bring_back, database_files, standing_of
from phone_agent.driver import Phone

SOURCE: Final = "lab:running"
Result = TypeVar("Result")

_log: Final = logging.getLogger(__name__)


class RunningLab:
    """`lab` with its folder, which nobody else uses, and the clock that is kept there.

    `run_id` is another one for each process; `is_ready` from the end of `start` on; `ended` is set when the lab is to
    end: by `shutdown`, or because its state could not be brought back (`failure` says why). Whoever called `start`
    then calls `stop`. The `Lab` object and its event log stay the same over a restore; its clusters and phones do not.
    """

    def __init__(self, lab: Lab, clock: KeptClock) -> None:
        self.lab = lab
        self.clock = clock
        self.run_id = secrets.token_hex(8)
        self.is_ready = False
        self.ended = asyncio.Event()
        self.failure: LabError | None = None
        self._checkpoints = Checkpoints(lab.options.directory)
        self._administrator = asyncio.Lock()
        self._faults = asyncio.Lock()
        self._operation: asyncio.Task[None] | None = None
        self._restores = 0
        """How many were asked for."""
        self._whole = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- life

    async def start(self, *, phones: bool = True) -> None:
        """Start the lab, boot its phones, and keep this as the checkpoint `start`.

        A phone that is not registered after its first boot is no failure. Raises what `Lab.start` raises.
        """
        async with self._administrator:
            await self.lab.start()
            try:
                if phones:
                    await self._boot_phones()
                await self._to_its_end(self._keep(START))
            except BaseException:
                await self.stop()
                raise
        self._whole.set()
        self.is_ready = True
        self.lab.events.emit(SOURCE, LabReady(self.run_id))

    async def stop(self) -> None:
        """End everything; a restore that is under way ends first. What faults have changed in the folder is undone."""
        self.is_ready = False
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self.end_faults()
        except LabError as error:
            _log.warning("a fault cannot be undone: %s", error)
        finally:
            await self.lab.stop()

    def shutdown(self, why: str = "asked to") -> None:
        """Ask for the end: `ended` is set. Once more does no harm."""
        if not self.ended.is_set():
            self.lab.events.emit(SOURCE, LabEnded(why))
            self.ended.set()

    async def until_whole(self) -> None:
        """Returns when no restore is under way: until then parts of the lab are closed or not yet built."""
        await self._whole.wait()

    # --- what the administrator does, one thing after the other

    async def perform(self, operation: Operation) -> int:
        """As `Lab.perform`; sequence of the last event before it. LabError also when a restore comes before its end."""
        asked_at = self._restores
        async with self._administrator:
            if self._restores != asked_at:
                raise _undone()
            began = self.lab.events.last_sequence
            self._operation = asyncio.create_task(self.lab.perform(operation))
            try:
                await self._operation
            except asyncio.CancelledError:
                asking = asyncio.current_task()
                if asking is not None and asking.cancelling():
                    raise
                raise _undone() from None
            finally:
                self._operation = None
            return began

    async def set_fault(self, value: Mapping[str, Any] | FaultTable) -> Fault:
        """As `Lab.set_fault`, at once, also while an operation is under way; not in the middle of a restore."""
        async with self._faults:
            return await self.lab.set_fault(value)

    async def end_fault(self, fault_id: str) -> FaultStatus:
        """As `Lab.end_fault`."""
        async with self._faults:
            return await self.lab.end_fault(fault_id)

    async def end_faults(self) -> list[FaultStatus]:
        """As `Lab.end_faults`."""
        async with self._faults:
            return await self.lab.end_faults()

    async def checkpoint(self, name: str) -> Checkpoint:
        """Keep the lab's state: files, clock, which phones are on, which services run and are reached.

        Raises UsageError (name wrong or taken, a fault that is a state is in force), LimitExceeded,
        EnvironmentProblem (disk).
        """
        if require_name(name) == START:
            raise UsageError(f"the checkpoint {START!r} is the lab's own", mend="give another name")
        return await self._to_its_end(self._checkpoint(name))

    async def restore(self, name: str) -> tuple[str, ...]:
        """Bring the lab back to a checkpoint; all faults end. What could not be brought back as it was, by name.

        An operation under way is cut short, those that wait for it are not begun: what they would do is to be undone.

        Raises UsageError if there is none, EnvironmentProblem when it cannot be copied: then nothing has changed.
        Any other failure ends the lab, whose folder is whole, and is raised.
        """
        self._checkpoints.standing(name)
        self._restores += 1
        if self._operation is not None:
            self._operation.cancel()
        return await self._to_its_end(self._restore(name))

    async def reset(self) -> tuple[str, ...]:
        """As `restore`, to how the lab was when it became ready."""
        return await self.restore(START)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Oldest first, `start` among them."""
        return tuple(self._checkpoints)

    async def delete_checkpoint(self, name: str) -> None:
        """Raises UsageError if there is none, and for `start`."""
        await self._to_its_end(self._delete_checkpoint(name))

    async def move_clock(self, seconds: float) -> float:
        """Move the lab's date, either way; what it is then, in Unix seconds. Raises UsageError, EnvironmentProblem."""
        async with self._administrator:
            self.clock.move(seconds)
            now = self.clock.now()
            self.lab.events.emit(SOURCE, ClockMoved(seconds, now))
            return now

    # --- inside

    async def _to_its_end(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What was begun is not left half done when the one who asked goes away."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_retrieved)
            raise

    async def _boot_phones(self) -> None:
        turn = asyncio.Semaphore(PHONES_AT_ONCE)

        async def boot(phone: Phone) -> None:
            async with turn:
                with suppress(LabError):  # told by its events
                    await phone.boot()

        async with asyncio.TaskGroup() as boots:
            for phone in self.lab.phones.values():
                boots.create_task(boot(phone))

    async def _checkpoint(self, name: str) -> Checkpoint:
        async with self._administrator, self._faults:
            for status in self.lab.faults:
                if status.fault.point.is_state:
                    raise UsageError(
                        f"the fault {status.fault.id!r} disturbs the lab",
                        where=name,
                        mend="end it, then keep the state",
                    )
            await self._keep(name)
            self.lab.events.emit(SOURCE, LabCheckpointed(name))
            return next(one for one in self._checkpoints if one.name == name)

    async def _delete_checkpoint(self, name: str) -> None:
        async with self._administrator:
            await asyncio.to_thread(self._checkpoints.delete, name)

    async def _keep(self, name: str) -> None:
        await asyncio.to_thread(self._checkpoints.make, name, database_files(self.lab), standing_of(self.lab))

    async def _restore(self, name: str) -> tuple[str, ...]:
        async with self._administrator, self._faults:
            standing = self._checkpoints.standing(name)
            await asyncio.to_thread(self._checkpoints.stage, name)
            self._whole.clear()
            self.lab.events.emit(SOURCE, LabRestoring(name))
            try:
                self.lab.forget_faults()
                await self.lab.stop(at_once=True)
                await asyncio.to_thread(self._checkpoints.swap)
                self.clock.read_again()
                await self.lab.start()
                different = await bring_back(self.lab, standing)
            except BaseException as error:
                self._fail(name, error)
                raise
            finally:
                self._whole.set()
            self.lab.events.emit(SOURCE, LabRestored(name, different))
            return different

    def _fail(self, name: str, error: BaseException) -> None:
        """Half a lab is none."""
        if isinstance(error, LabError):
            self.failure = error
        else:
            self.failure = LabError(f"the checkpoint {name!r} cannot be restored: {type(error).__name__}: {error}")
        self.shutdown(f"the checkpoint {name!r} could not be restored: {self.failure.what}")


def _undone() -> LabError:
    return LabError("the lab went back to a checkpoint meanwhile", mend="do it again")


def _retrieved(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.warning("nobody waited for: %s", task.exception())
