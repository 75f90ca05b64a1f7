"""`up --detach`: the lab goes on in a session of its own, while the caller waits only until it is ready.

The parent prints what the child prints until then and returns its exit code; a signal for the parent is the child's
end. From `ready` on the child has no terminal and no pipe: what it says goes to a log file.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cucm.errors import EXIT_OK, EnvironmentProblem
from cucm.quiet_start import EXIT_INTERRUPTED

MAX_LOG: Final = 4 * 1024 * 1024
"""Bytes of the log file from which on it is begun anew."""
_CHUNK: Final = 65_536
_OUT_OF_THE_WAY: Final = 16


@dataclass
class Background:
    """The child's side. `channel` is the pipe on which the parent waits."""

    channel: int

    def ready(self, log: Path) -> None:
        """Let the parent go; from now on output goes to `log`. Raises EnvironmentProblem, also when it has gone."""
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            mode = os.O_TRUNC if log.exists() and log.stat().st_size > MAX_LOG else os.O_APPEND
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | mode, 0o600)
            os.write(self.channel, b"ready")
        except OSError as error:
            what = "the one who began this lab has gone" if isinstance(error, BrokenPipeError) else error.strerror
            raise EnvironmentProblem(f"cannot go on in the background: {what}", where=str(log)) from error
        for stream in (1, 2):
            os.dup2(file, stream)
        os.close(file)
        os.close(self.channel)


def go_into_background() -> Background | int:
    """Returns twice: in the child its side, in the parent the exit code, when the child is ready or has ended.

    Only for a process without threads and an event loop.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pipes = [os.pipe() for _ in range(3)]
    child = os.fork()
    ends = [writing if child == 0 else reading for reading, writing in pipes]
    if child == 0:
        return _in_child(ends)
    for _, writing in pipes:
        os.close(writing)
    return _in_parent(child, ends)


def _in_child(ends: list[int]) -> Background:
    os.setsid()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, _OUT_OF_THE_WAY) for end in (os.open(os.devnull, os.O_RDONLY), *ends)]
    for target, source in enumerate(ends[:3]):
        os.dup2(source, target)
    channel = os.dup2(ends[3], 3, inheritable=False)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))  # nobody is kept waiting for the end of a pipe we inherited
    return Background(channel)


def _in_parent(child: int, ends: list[int]) -> int:
    received: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        received.append(number)
        os.kill(child, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        is_ready = _copy_until_the_end(ends)
    except OSError:  # a full disk behind stdout: who asked cannot read where the lab is, so there is to be none
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    if is_ready and not received:
        return EXIT_OK
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if received:
        return EXIT_INTERRUPTED
    return code if code >= 0 else 128 - code


def _copy_until_the_end(ends: list[int]) -> bool:
    """The child's output to ours; whether it has become ready."""
    targets = {ends[0]: sys.stdout.fileno(), ends[1]: sys.stderr.fileno()}
    is_ready = False
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                elif key.fd in targets:
                    _write_all(targets[key.fd], data)
                else:
                    is_ready = True
    return is_ready


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
