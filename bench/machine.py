"""The machine: which CPUs the two sides of a measurement run on, what processes used, and what else was going on."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from cucm.clock import SystemClock

_PROC: Final = Path("/proc")
_PACKAGES: Final = ("cryptography", "pyOpenSSL", "uvloop")
_USER_FIELD: Final = 11
"""utime in /proc/PID/stat, counted after the command's closing bracket; stime, cutime and cstime follow."""


def ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float | None:
    """CPU seconds of a process, its ended children and its living ones; None where that cannot be read."""
    own = _own_cpu_s(pid)
    if own is None:
        return None
    return own + sum(process_cpu_s(child) or 0.0 for child in _children(pid))


def _own_cpu_s(pid: int) -> float | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return sum(int(value) for value in fields[_USER_FIELD : _USER_FIELD + 4]) / ticks_per_s()


def _children(pid: int) -> list[int]:
    try:
        text = (_PROC / str(pid) / "task" / str(pid) / "children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def private_memory_bytes(pid: int) -> int | None:
    """Memory that belongs to this process alone; None where that cannot be read."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def machine_cpu_s() -> float | None:
    """Busy CPU seconds of the whole machine since it started; None where that cannot be read."""
    try:
        words = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupt, soft_interrupt, steal = (int(word) for word in words)
    return (user + nice + system + interrupt + soft_interrupt + steal) / ticks_per_s()


@dataclass(frozen=True, slots=True)
class Placement:
    """CPU numbers for server and load; None where there is but one CPU, or pinning is not possible."""

    server: int | None
    load: int | None

    @property
    def is_pinned(self) -> bool:
        return self.server is not None


def choose_placement() -> Placement:
    if not hasattr(os, "sched_getaffinity"):
        return Placement(None, None)
    allowed = sorted(os.sched_getaffinity(0))
    return Placement(allowed[0], allowed[1]) if len(allowed) > 1 else Placement(None, None)


def pin(pid: int, cpu: int | None) -> None:
    """Keep a process (0: this one) and what it starts later on one CPU; None leaves it alone."""
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {cpu})


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Run the body on one CPU."""
    if cpu is None or not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, str | int]:
    """What a reader needs to judge the figures; no host name, no paths."""
    found: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count() or 1,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl of pyOpenSSL": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace"),
        "openssl of the system's Python": ssl.OPENSSL_VERSION,
    }
    return found | {name: _package(name) for name in _PACKAGES}


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = (_PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def version_of(program: str, *arguments: str) -> str:
    """The first line of what a program says of its version, shortened."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].split("  ")[0][:60] if lines else "version unknown"


def run_moment() -> str:
    """Date and time of the run by the clock, UTC."""
    return datetime.fromtimestamp(int(SystemClock().now()), UTC).strftime("%Y-%m-%d %H:%M UTC")
