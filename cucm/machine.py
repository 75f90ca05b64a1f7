"""What this machine allows: how many files and sockets a process may have open, and its refusals in words."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from typing import Final

from cucm.errors import EnvironmentProblem

NEEDED: Final = 24
"""Files and sockets that an event loop and the smallest program on it need; libuv aborts the process without."""

TOO_MANY_OPEN: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Refusals that are about this process or machine, and not about the file or socket that was wanted."""


def descriptor_limit() -> int:
    """How many files and sockets this process may have open now; a very large number where there is no limit."""
    return _as_number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def raise_descriptor_limit() -> int:
    """Let this process have as many open files as it may: a connection or transfer is one. Returns the limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS refuses "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return _as_number(hard)
    return _as_number(soft)


def _as_number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def require_descriptors(needed: int = NEEDED) -> None:
    """Raises EnvironmentProblem unless so many more files can be opened, whatever this process has inherited."""
    opened: list[int] = []
    try:
        while len(opened) < needed:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        problem = machine_problem(error)
        problem.where = None  # the file tried is nobody's concern
        raise problem from error
    finally:
        for one in opened:
            os.close(one)


def machine_problem(
    error: OSError, where: str | None = None, *, failed: str = "", mend: str | None = None
) -> EnvironmentProblem:
    """The system's refusal as what, where and, for the common ones, how to mend it.

    `failed` says what could not be done, `mend` what helps unless the reason is that too many files are open.
    """
    where = where or (None if error.filename is None else os.fsdecode(error.filename))
    what = error.strerror or str(error) or type(error).__name__
    match error.errno:
        case errno.EMFILE:
            most, mend = descriptor_limit(), "end other programs, or raise fs.nr_open with sysctl"
            if most < sys.maxsize:
                what = f"no more than {most} files and sockets may be open in this process"
                mend = f"raise the limit, as root where its hard form is in the way: ulimit -n {max(4096, 2 * most)}"
        case errno.ENFILE:
            what = "all files and sockets that this machine allows are open"
            mend = "end other programs, or raise fs.file-max with sysctl"
        case errno.ENOSPC | errno.EDQUOT:
            mend = mend or "make room on that disk"
    return EnvironmentProblem(f"{failed}: {what}" if failed else what, where=where, mend=mend)
