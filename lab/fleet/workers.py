"""A crew of several processes on this machine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, Self

from cucm.errors import EnvironmentProblem
from lab.fleet.batch import LOST, Holding, PhoneFinding, PhoneState, Surroundings
from lab.fleet.crew import Work, shares
from lab.fleet.progress import Progress
from lab.fleet.result import Stage, merge_stages
from lab.fleet.wire import (
    Begin,
    Broke,
    Done,
    GiveUp,
    MoveClock,
    Perform,
    Progressed,
    TellAccounts,
    TellMemory,
    receive,
    send,
)

GIVE_UP_S: Final = 10.0
"""How long a worker gets to say that it has given up before it is killed: it may hang, or be stopped."""
ANSWER_S: Final = 30.0
"""How long a worker may take for everything but what phones do."""
END_S: Final = 30.0
"""How long a worker gets to end by itself before it is killed."""


class WorkerLost(EnvironmentProblem):
    """A worker process ended by itself; its phones are gone with it."""


class CrewOfWorkers:
    """Phones in `workers` processes; each has its share of the concurrency, which must be at least one for each."""

    parts = False
    reruns = 0

    def __init__(self) -> None:
        self._workers: list[_WorkerProcess] = []
        self._empty_bytes = 0

    @classmethod
    async def start(cls, around: Surroundings, states: Iterable[PhoneState], workers: int, progress: Progress) -> Self:
        """Raises EnvironmentProblem when no process can be started."""
        crew = cls()
        begins: list[Begin] = []
        try:
            for number, share in enumerate(shares(tuple(states), workers)):
                crew._workers.append(await _WorkerProcess.start(number, progress))
                crew._workers[-1].share = tuple(state.name for state in share)
                begins.append(Begin(around, share))
            crew._empty_bytes = await crew._private_bytes()
            await crew._all(*begins)
        except BaseException:
            await crew.end()
            raise
        return crew

    async def perform(self, work: Work) -> Stage:
        parts = self._parts_of(work.concurrency)
        tasks = (Perform(work.verb, work.title, work.models, part) for part in parts)
        try:
            return merge_stages(await self._all(*tasks))
        except BaseException:  # also when one is lost: the others' phones stand still while they are counted
            await asyncio.shield(self._all_give_up())
            raise

    async def findings(self) -> dict[str, tuple[PhoneFinding, Holding]]:
        """Also when workers are lost: of what they had nothing is known."""
        found: dict[str, tuple[PhoneFinding, Holding]] = {}
        gone = PhoneFinding(LOST, detail="the process in which it lived was lost"), Holding(None, None, None)
        for worker in self._workers:
            try:
                found |= await worker.ask(TellAccounts())
            except WorkerLost:
                found |= dict.fromkeys(worker.share, gone)
        return found

    async def move_clock(self, seconds: float) -> None:
        await self._all(*(MoveClock(seconds) for _ in self._workers))

    async def memory(self) -> int:
        return await self._private_bytes() - self._empty_bytes

    async def _private_bytes(self) -> int:
        return sum(await self._all(*(TellMemory() for _ in self._workers)))

    async def end(self) -> None:
        await asyncio.gather(*(worker.end() for worker in self._workers))

    def _parts_of(self, concurrency: int) -> list[int]:
        whole, rest = divmod(concurrency, len(self._workers))
        return [whole + (number < rest) for number in range(len(self._workers))]

    async def _all(self, *messages: object) -> list[Any]:
        return list(
            await asyncio.gather(*(worker.ask(one) for worker, one in zip(self._workers, messages, strict=True)))
        )

    async def _all_give_up(self) -> None:
        await asyncio.gather(*(worker.give_up() for worker in self._workers if not worker.is_lost))


class _WorkerProcess:
    """One process and the socket to it. One question at a time."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        ends: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        progress: Progress,
    ) -> None:
        self.share: tuple[str, ...] = ()
        self.is_lost = False
        self._number = number
        self._process = process
        self._reader, self._writer = ends
        self._progress = progress
        self._answer: asyncio.Future[Any] | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, number: int, progress: Progress) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-m", "lab.fleet.worker", str(theirs.fileno()))
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # a terminal's Ctrl-C is for the engine, which says what to do
                )
            except OSError as error:
                ours.close()
                raise EnvironmentProblem(
                    f"no process for phones can be started: {error.strerror}", mend="ask for fewer --workers"
                ) from error
        return cls(number, process, await asyncio.open_connection(sock=ours), progress)

    async def ask(self, message: object) -> Any:
        """Raises WorkerLost; RuntimeError for a fault of our own in the worker."""
        await self._wait(ANSWER_S)  # nobody may be waiting for the last answer any more
        if self.is_lost:
            raise self._lost()
        answer = self._answer = asyncio.get_running_loop().create_future()
        send(self._writer, message)
        with suppress(ConnectionError):  # whoever reads hears of it, and says so in the answer
            await self._writer.drain()
        if not isinstance(message, Perform):
            await self._wait(ANSWER_S)
        return await asyncio.shield(answer)

    async def give_up(self) -> None:
        """Returns when the worker has ended what it was doing."""
        if self._answer is not None and not self._answer.done():
            send(self._writer, GiveUp())
            await self._wait(GIVE_UP_S)

    async def _wait(self, seconds: float) -> None:
        """For an answer that has not come; a worker that gives none in this time is killed."""
        answer = self._answer
        if answer is None or answer.done():
            return
        await asyncio.wait([answer], timeout=seconds)
        if not answer.done():
            self._process.kill()
            await asyncio.wait([answer])

    async def end(self) -> None:
        self._reading.cancel()
        self._writer.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _read(self) -> None:
        try:
            while True:
                self._take(await receive(self._reader))
        except EOFError:
            self.is_lost = True
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(self._lost())

    def _take(self, message: object) -> None:
        match message:
            case Progressed():
                self._progress.add(message.done, message.states, message.reasons)
            case Done(value=value):
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(value)
            case Broke(why=why):
                if self._answer is not None and not self._answer.done():
                    self._answer.set_exception(RuntimeError(f"worker {self._number}: {why}"))

    def _lost(self) -> WorkerLost:
        return WorkerLost(
            f"worker process {self._number} with {len(self.share)} phones was lost",
            mend="see whether the machine had memory left: dmesg; then run again",
        )
