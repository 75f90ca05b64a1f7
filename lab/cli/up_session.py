"""The life of `cucm-lab up`: start, say ready, wait for a signal or a shutdown, end; the folder is all that stays."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from cucm.errors import UsageError
from cucm.records import dataclass
from lab.api.server import ApiServer
from lab.api.socket import SOCKET_NAME
from lab.lab_folder import Description, LabFolder
from lab.ready_file import ReadyFile, remove_pid, write_pid
from lab.running_lab import RunningLab
from lab.runtime import Lab
from lab.start_progress import start_progress
from lab.status import status_of

STDIN: Final = 0
READ_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """`events` are kept; `phones`: whether they boot; the API has `api_port`, also on the `exposed` addresses.

    `tells_progress`: on stderr while it starts.
    """

    events: int
    phones: bool
    api_port: int
    exposed: tuple[str, ...]
    ready_file: ReadyFile | None
    until_stdin_ends: bool = False
    tells_progress: bool = False


class Printer(Protocol):
    def ready(self, about: Mapping[str, Any], status: dict[str, Any]) -> None: ...

    def ending(self, why: str) -> None: ...


async def serve(folder: LabFolder, description: Description, settings: Settings, printer: Printer) -> bool:
    """Returns at the lab's end, whether it was ready: a signal during the start ends that too.

    Raises LabError, also a failed restore's.
    """
    received = _told_to_end(listens_to_stdin=settings.until_stdin_ends)
    clock = folder.clock()
    lab = Lab(description.topology, description.options(folder.directory, settings.events), clock=clock)
    running = RunningLab(lab, clock)
    async with AsyncExitStack() as parts:
        starting = asyncio.create_task(_start(running, folder.directory, settings, printer, parts))
        await asyncio.wait((starting, received), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
            printer.ending(received.result())
            return False
        starting.result()
        folder.keep()
        printer.ending(await _end_of(running, received))
    if running.failure is not None:
        raise running.failure
    return True


async def _start(
    running: RunningLab, directory: Path, settings: Settings, printer: Printer, parts: AsyncExitStack
) -> None:
    """What is begun is ended by `parts`, in reverse."""
    write_pid(directory)
    parts.callback(remove_pid, directory)
    with start_progress(running.lab, is_wanted=settings.tells_progress):
        await running.start(phones=settings.phones)
    parts.push_async_callback(running.stop)
    api = ApiServer(running, port=settings.api_port, expose=settings.exposed)
    await api.start()
    parts.push_async_callback(api.stop)
    about = _about(directory, api.urls[0])
    if settings.ready_file is not None:
        parts.callback(settings.ready_file.remove)
        settings.ready_file.write(running.run_id, about)
    printer.ready(about, status_of(running.lab))


def _about(directory: Path, api: str) -> dict[str, Any]:
    """Where the lab is spoken to."""
    folder = directory.absolute()
    return {"directory": str(folder), "api": api, "control": str(folder / SOCKET_NAME)}


async def _end_of(running: RunningLab, received: asyncio.Future[str]) -> str:
    """Waits for it; why in a word."""
    asked = asyncio.create_task(running.ended.wait())
    await asyncio.wait((asked, received), return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        return "failed" if running.failure else "shutdown"
    asked.cancel()
    running.shutdown(received.result())
    return received.result()


def _told_to_end(*, listens_to_stdin: bool) -> asyncio.Future[str]:
    """Becomes the name of the first SIGINT, SIGTERM or SIGHUP that arrives, or tells of the end of standard input."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()

    def receive(why: str) -> None:
        if not received.done():
            received.set_result(why)

    # a caller that ignores one of them (nohup) has its reasons
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, receive, number.name)
    if listens_to_stdin:
        _watch_stdin(receive)
    return received


def _watch_stdin(tell: Callable[[str], None]) -> None:
    """Whoever started the lab holds the other end: when that process is gone, however, the lab ends too."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(STDIN, READ_BYTES):
            loop.remove_reader(STDIN)
            tell("end of standard input")

    try:
        loop.add_reader(STDIN, look)
    except OSError as error:
        raise UsageError(
            "standard input is no pipe", where="--until-stdin-ends", mend="start the lab from a program that holds one"
        ) from error
