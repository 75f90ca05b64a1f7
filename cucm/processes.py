"""One port served by several processes: each has a socket of its own on it (SO_REUSEPORT), and the kernel deals out.

For the programs that run alone. They are forked before there is a loop or a thread, serve independently of each other,
and end with the process that started them, however that ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from tempfile import TemporaryFile
from typing import Final

from cucm.errors import EXIT_OK, EnvironmentProblem
from cucm.net.addresses import bind_tcp, hold_port
from cucm.records import dataclass

MAX_PROCESSES: Final = 64


@dataclass(frozen=True, slots=True)
class Share:
    """What one of the processes is given: its number from 1, the port, what closes when it is to end, and a file that
    is locked by the one that writes to the stdout they share.
    """

    number: int
    port: int
    lifeline: int
    floor: int


def serve_in_processes(count: int, address: str, port: int, serve: Callable[[Share], int]) -> int:
    """Run `serve` in `count` processes until SIGINT or SIGTERM; returns the worst of their exit codes.

    One that ends by itself ends the others. Port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem.
    """
    if sys.platform != "linux":
        what = "several processes on one port need Linux: elsewhere the kernel gives one of them everything"
        raise EnvironmentProblem(what, mend="use --processes 1")
    with closing(_hold(address, port)) as holder, TemporaryFile() as floor:
        reading, writing = os.pipe()
        port = holder.getsockname()[1]
        shares = [Share(number, port, reading, floor.fileno()) for number in range(1, min(count, MAX_PROCESSES) + 1)]
        children = {_start(share, writing, serve) for share in shares}
        os.close(reading)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _hang_up(writing))
        return _until_all_have_ended(children, writing)


def _hold(address: str, port: int) -> socket.socket:
    """The port, for as long as the socket is open; first tried alone, because sharers would not notice a stranger."""
    with closing(bind_tcp(address, port, backlog=0)) as alone:
        port = alone.getsockname()[1]
    return hold_port(address, port)


def _start(share: Share, writing: int, serve: Callable[[Share], int]) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.close(writing)
        code = serve(share)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # what the parent has on its stack is none of the child's


def _until_all_have_ended(children: set[int], writing: int) -> int:
    worst = EXIT_OK
    while children:
        child, status = os.wait()
        if child not in children:
            continue
        children.discard(child)
        worst = max(worst, abs(os.waitstatus_to_exitcode(status)))
        _hang_up(writing)
    return worst


def _hang_up(writing: int) -> None:
    """Closes the lifeline: every process sees the end of it and stops orderly. Once more does no harm."""
    with suppress(OSError):
        os.close(writing)
