"""A crew on Dask: batches of phones as tasks, on as many machines as the scheduler has workers.

A phone's state is kept here between two steps of a story and travels with its batch, so a batch whose worker is lost is
simply run again, from where it began, by another: Dask does that by itself. Phones are in the lab only while their
batch runs. A result is taken once for each batch, by device name: nobody is counted twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from typing import Any, Final, Self

from distributed import Client, KilledWorker, wait

from cucm.errors import EnvironmentProblem, LabError, UsageError
from lab.fleet.batch import LOST, Batch, BatchResult, Holding, PhoneFinding, PhoneState, Surroundings
from lab.fleet.crew import Work
from lab.fleet.dask_tasks import (
    DISTRIBUTION,
    WorkerDescription,
    call_off,
    describe_worker,
    machine_identity,
    perform_batch,
)
from lab.fleet.exposure import Exposure
from lab.fleet.progress import Progress
from lab.fleet.result import Stage, merge_stages
from phone_agent.flash import FlashContents

_Counts = Counter[str]
_Future = Any
"""`distributed.Future`, which is typed by halves."""
_NONE: Final = _Counts()
_NOTHING: Final = Holding(None, None, None)

CONNECT_S: Final = 10.0
FIRST_WORKER_S: Final = 30.0
"""How long workers that have just been started may take to appear."""
WORKERLESS_S: Final = 60.0
"""How long a fleet waits for workers when the scheduler has none left."""
LOOK_EVERY_S: Final = 1.0
LARGEST_BATCH: Final = 100
"""Phones. A lost worker costs at most so many migrations for each of its threads; tasks stay small on the wire."""
BATCHES_PER_THREAD: Final = 4
"""At least so many where there are phones enough: the fast workers take over from the slow."""


class CrewOnDask:
    """`reruns` counts batches that were begun again because their worker was lost."""

    parts = True

    def __init__(
        self,
        client: Client,
        around: Surroundings,
        states: Iterable[PhoneState],
        progress: Progress,
        exposure: Exposure | None = None,
    ) -> None:
        self.reruns = 0
        self._exposure = exposure
        self._client = client
        self._around = around
        self._progress = progress
        self._fleet = f"cucm-fleet-{uuid.uuid4().hex}"
        self._states = {state.name: state for state in states}
        self._accounts: dict[str, tuple[PhoneFinding, Holding]] = {}
        self._same = _Same()
        self._steps = 0
        self._batches_made = 0
        self._open: set[int] = set()
        """Batches of this step of which no result has come yet."""
        self._began: set[int] = set()
        self._done: Counter[int] = Counter()
        self._per_second: Counter[int] = Counter()
        self._began_s = 0.0
        self._futures: dict[_Future, Batch] = {}

    @classmethod
    async def start(
        cls,
        scheduler: str,
        around: Surroundings,
        states: Iterable[PhoneState],
        progress: Progress,
        exposure: Exposure | None = None,
    ) -> Self:
        """Raises EnvironmentProblem: nobody answers there, no workers, or workers that cannot run these phones."""
        client = await _connect(scheduler)
        try:
            crew = cls(client, around, states, progress, exposure)
            await crew._require_workers(scheduler)
            client.subscribe_topic(crew._fleet, crew._hear)
        except BaseException:
            await client.close()
            raise
        return crew

    async def perform(self, work: Work) -> Stage:
        """Raises LabError when no workers are left, or no scheduler."""
        self._steps += 1
        self._forget_last_step()
        threads = await self._threads()
        batches = self._batches(work, threads)
        at_once = work.concurrency if work.concurrency < threads else len(batches)  # a batch boots one phone at least
        stages: dict[int, Stage] = {}
        try:
            await self._gather(batches, at_once, stages)
        except BaseException:
            await asyncio.shield(self._call_off())
            raise
        finally:
            self._futures = {}
        stage = merge_stages(stages.values())
        stage.title, stage.wall_s, stage.per_second = work.title, time.monotonic() - self._began_s, self._per_second
        return stage

    async def findings(self) -> dict[str, tuple[PhoneFinding, Holding]]:
        unheard = PhoneFinding(LOST, detail="no batch with it came to its end"), _NOTHING
        return {name: self._accounts.get(name, unheard) for name in self._states}

    async def move_clock(self, seconds: float) -> None:
        self._around = replace(self._around, clock_offset_s=self._around.clock_offset_s + seconds)

    async def memory(self) -> int:
        """Nothing: phones live in tasks, and only for a while."""
        return 0

    async def end(self) -> None:
        if self._futures:
            await self._call_off()
        await self._client.close()

    # --- inside

    def _forget_last_step(self) -> None:
        self._open.clear()
        self._done.clear()
        self._per_second = Counter()
        self._began_s = time.monotonic()

    def _batches(self, work: Work, threads: int) -> list[Batch]:
        states = [state for state in self._states.values() if state.phone.model in work.models]
        count = max(1, min(len(states), max(threads * BATCHES_PER_THREAD, -(-len(states) // LARGEST_BATCH))))
        concurrency = max(1, work.concurrency // max(1, threads))
        first = self._batches_made
        self._batches_made += count
        self._open.update(range(first, first + count))
        return [
            Batch(first + number, work.verb, work.title, self._around, tuple(states[number::count]), concurrency)
            for number in range(count)
        ]

    def _submit(self, batch: Batch) -> _Future:
        future = self._client.submit(
            perform_batch,
            self._fleet,
            batch,
            exposed=self._exposure is not None,
            key=f"{self._fleet}-{self._steps}-{batch.number}",
            pure=False,
        )
        self._futures[future] = batch
        return future

    async def _gather(self, batches: Sequence[Batch], at_once: int, stages: dict[int, Stage]) -> None:
        """Results of all batches, of which no more than `at_once` are known to the scheduler."""
        rest = iter(batches)
        waiting = {self._submit(batch) for batch in islice(rest, at_once)}
        workerless_s = 0.0
        while waiting:
            try:
                ended = await wait(list(waiting), timeout=LOOK_EVERY_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                workerless_s = 0.0 if await self._threads() else workerless_s + LOOK_EVERY_S
                if workerless_s >= WORKERLESS_S:
                    raise LabError(
                        f"the scheduler has had no workers for {WORKERLESS_S:g} s", mend="start workers, then run again"
                    ) from None
                continue
            for future in ended.done:
                waiting.discard(future)
                result = await _result_of(future)
                if result is None:
                    self._give_up(self._futures[future])
                else:
                    self._take(result, stages)
                future.release()
            waiting.update(self._submit(batch) for batch in islice(rest, at_once - len(waiting)))

    def _take(self, result: BatchResult, stages: dict[int, Stage]) -> None:
        if result.number in stages:
            return
        stages[result.number] = result.stage
        self._open.discard(result.number)
        self._accounts |= result.accounts
        for name, state in result.states.items():
            self._states[name] = self._same.state(state)
        findings = [finding for finding, _ in result.accounts.values()]
        states = Counter(finding.state for finding in findings)
        reasons = Counter(reason for finding in findings for reason in finding.reasons[:1])
        self._advance(result.number, len(findings), states, reasons)

    def _give_up(self, batch: Batch) -> None:
        """Its workers were lost, one after the other: what became of its phones nobody knows."""
        self._open.discard(batch.number)
        lost = PhoneFinding(LOST, detail="the workers that ran it were lost, one after the other")
        for state in batch.states:
            self._accounts[state.name] = lost, _NOTHING
        self._advance(batch.number, len(batch.states), Counter({lost.state: len(batch.states)}))

    def _hear(self, message: tuple[float, Any]) -> None:
        """What a batch tells on the fleet's topic: that it began, or how many of its phones are done. It may be heard
        later than the batch's result, which says more.
        """
        _moment, told = message
        number = told["batch"]
        if told.get("began"):
            self.reruns += number in self._began
            self._began.add(number)
        if number in self._open:
            self._advance(number, told.get("done", 0))

    def _advance(self, number: int, done: int, states: _Counts = _NONE, reasons: _Counts = _NONE) -> None:
        """`done` phones of the batch are; fewer than before when it was begun again."""
        more = done - self._done[number]
        self._done[number] = done
        self._per_second[int(time.monotonic() - self._began_s)] += more
        self._progress.add(more, states, reasons)

    async def _threads(self) -> int:
        threads: dict[str, int] = await self._client.nthreads()
        return sum(threads.values())

    async def _require_workers(self, scheduler: str) -> None:
        try:
            async with asyncio.timeout(FIRST_WORKER_S):
                await self._client.wait_for_workers(1)  # type: ignore[func-returns-value, misc]
                found: dict[str, WorkerDescription] = await self._client.run(describe_worker)
        except TimeoutError:
            raise EnvironmentProblem(
                "the scheduler has no workers",
                where=scheduler,
                mend=f"start some: dask worker {scheduler} --nthreads 1",
            ) from None
        except ImportError as error:
            raise EnvironmentProblem(
                f"a worker cannot import what it should run: {error}",
                where=scheduler,
                mend=f"install {DISTRIBUTION}[fleet] {version(DISTRIBUTION)} where the workers are; start them anew",
            ) from error
        for worker, description in found.items():
            _require_same_version(worker, description)
            if self._exposure is None:
                _require_same_machine(worker, description)
        if self._exposure is not None:
            self._exposure.check_parts({worker: description.phones for worker, description in found.items()})

    async def _call_off(self) -> None:
        """What workers do for this fleet ends, what they have not begun is forgotten."""
        await self._client.cancel(list(self._futures), force=True)
        await self._client.run(call_off, self._fleet, on_error="ignore")


def _require_same_version(worker: str, description: WorkerDescription) -> None:
    ours = version(DISTRIBUTION)
    if description.version != ours:
        raise EnvironmentProblem(
            f"it has version {description.version} of {DISTRIBUTION}, this is {ours}",
            where=worker,
            mend="install the same version on both sides",
        )


def _require_same_machine(worker: str, description: WorkerDescription) -> None:
    if description.machine != machine_identity():
        raise EnvironmentProblem(
            "it is on another machine or in another network, and the lab's servers listen on this one's loopback",
            where=worker,
            mend="start the workers beside the lab, or see --expose and docs/howto/fleets-on-dask.md",
        )


async def _connect(scheduler: str) -> Client:
    try:
        client: Client = await Client(scheduler, asynchronous=True, timeout=CONNECT_S, name="cucm-lab-fleet")
    except (OSError, TimeoutError) as error:
        raise EnvironmentProblem(
            "no Dask scheduler answers there", where=scheduler, mend="start one: dask scheduler --host 127.0.0.1"
        ) from error
    except ValueError as error:
        raise UsageError(str(error), where="--scheduler", mend="for example tcp://127.0.0.1:8786") from error
    return client


async def _result_of(future: _Future) -> BatchResult | None:
    """None when Dask has given it up because too many workers died of it, or while they had it."""
    try:
        result: BatchResult = await future
    except KilledWorker:
        return None
    except asyncio.CancelledError as error:
        if future.status == "cancelled":
            raise LabError("the scheduler was lost", mend="start it and its workers, then run again") from error
        raise
    return result


class _Same:
    """Equal bytes that came in different results become one object: most phones hold the same lists."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def state(self, state: PhoneState) -> PhoneState:
        return replace(state, contents=self._contents(state.contents))

    def _contents(self, contents: FlashContents) -> FlashContents:
        return replace(contents, ctl=self._one(contents.ctl), itl=self._one(contents.itl))

    def _one(self, data: bytes | None) -> bytes | None:
        return None if data is None else self._known.setdefault(data, data)
