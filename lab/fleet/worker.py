"""`python -m lab.fleet.worker FD`: a process in which only phones live. Started by `lab.fleet.workers`, never by hand.

It ends when the engine's end of the socket closes, however that comes about.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import traceback
from collections import Counter
from typing import Any, Final

from cucm.machine import raise_descriptor_limit
from cucm.program import run
from lab.fleet.footprint import fewer_collections, private_bytes
from lab.fleet.progress import Progress
from lab.fleet.residents import Residents
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

TELL_EVERY_S: Final = 0.25


class Worker:
    """Does what it is told, one thing after the other; only `GiveUp` comes in between."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._residents: Residents | None = None
        self._progress = Progress()
        self._performing: asyncio.Task[Any] | None = None

    async def serve(self) -> None:
        """Until the engine has gone."""
        try:
            while True:
                message = await receive(self._reader)
                if isinstance(message, GiveUp):
                    await self._give_up()
                else:
                    self._performing = asyncio.create_task(self._answer(message))
        except EOFError:
            await self._give_up()
        finally:
            if self._residents is not None:
                await self._residents.end()

    async def _answer(self, message: object) -> None:
        try:
            value = await self._do(message)
        except Exception as error:
            traceback.print_exc()
            send(self._writer, Broke(f"{type(error).__name__}: {error}"))
            return
        send(self._writer, Done(value))

    async def _do(self, message: object) -> object:
        if isinstance(message, TellMemory):
            return private_bytes()
        if isinstance(message, Begin):
            self._residents = Residents(message.around, message.states, on_done=self._progress.phone_done)
            fewer_collections()
            return None
        if self._residents is None:
            raise RuntimeError("no phones yet")
        match message:
            case Perform():
                return await self._perform(self._residents, message)
            case TellAccounts():
                return self._residents.accounts()
            case MoveClock(seconds=seconds):
                self._residents.clock.move(seconds)
                return None
        raise RuntimeError(f"what is {message}?")

    async def _perform(self, residents: Residents, work: Perform) -> object:
        telling = asyncio.create_task(self._tell())
        try:
            names = residents.names_after(work.models)
            return await residents.perform(work.verb, work.title, names, work.concurrency)
        finally:
            telling.cancel()
            self._say_progress()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            self._say_progress()

    def _say_progress(self) -> None:
        told, self._progress.done = self._progress.done, 0
        if told:
            send(self._writer, Progressed(told, Counter(self._progress.states), Counter(self._progress.reasons)))
        self._progress.states.clear()
        self._progress.reasons.clear()

    async def _give_up(self) -> None:
        task = self._performing
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():  # here, for it may not even have begun: word that comes right behind its order
                send(self._writer, Done())


async def _main(descriptor: int) -> None:
    # the engine hears of what is sent to all of a service's processes, and says what to do
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise_descriptor_limit()
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    await Worker(reader, writer).serve()
    writer.close()


if __name__ == "__main__":
    run(_main(int(sys.argv[1])))
