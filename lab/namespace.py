"""A network of its own for a lab and one command: namespaces of the kernel, no root, no route out.

`cucm-lab exec` runs in two processes: this module's side outside, and `lab.namespace_session` inside, which is the
first process of a PID namespace: whatever the command leaves behind ends with it. A pipe joins them: when the outer
one goes, however, the inner one ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cucm.errors import EnvironmentProblem
from cucm.records import dataclass

LAB_NAME: Final = "cucm-lab"
"""What the lab's own address is called there."""
DEFAULT_NETWORK: Final = "192.168.11.0/24"
"""The seed's."""
PROGRAMS: Final = {"unshare": "util-linux", "ip": "iproute2", "mount": "mount"}
"""What is needed, and the Debian package that has it."""
TRIAL_TIMEOUT_S: Final = 20.0
CLEARED: Final = re.compile(
    r"(.*_)?proxy|(.*_)?ca_?(bundle|certs?(_file)?|certificates?|file|info|path)"
    r"|(.*_)?ssl_cert_(file|dir)|.*_ssl_roots_.*|(pip|deno)_cert",
    re.IGNORECASE,
)
"""Variables that would lead a command out of the lab, or let it trust by other certificates: curl, OpenSSL, requests,
Node, git, pip, npm, Nix, gRPC, Google's and Amazon's tools. A tool's own certificate and key are none of them."""
_NEW: Final = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
MEND: Final = (
    "let unprivileged users make namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces > 0; in a container add the "
    "capability SYS_ADMIN, or run it without its seccomp profile"
)


@dataclass(frozen=True, slots=True)
class Session:
    """What the inner process is told: a JSON object on its command line. The command's variables are its own."""

    topology: str
    directory: str
    command: tuple[str, ...]
    lifeline: int
    phones: bool = True

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Session:
        value: dict[str, Any] = json.loads(text)
        return cls(**{**value, "command": tuple(value["command"])})


def namespace_command() -> list[str]:
    """The words that run a program in namespaces of its own, tried out. Raises EnvironmentProblem: what is missing."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=_search_path()) is None:
            raise EnvironmentProblem(
                f"the program {program!r} is missing", mend=f"install the package {package} (its name in Debian)"
            )
    ways = [("--user", "--map-root-user"), *([()] if os.geteuid() == 0 else [])]
    why = ""
    for way in ways:
        command = ["unshare", *way, *_NEW]
        why = _why_refused(command)
        if not why:
            return command
    raise EnvironmentProblem(f"this system lets nobody make a network of its own: {why}", mend=MEND)


def _why_refused(command: Sequence[str]) -> str:
    """Empty if it works: namespaces, and a pair of network interfaces in them."""
    trial = [*command, "sh", "-c", "ip link set lo up && ip link add lab0 type veth peer name eth0"]
    environment = {"PATH": _search_path()}
    try:
        done = subprocess.run(  # noqa: S603 (our own words)
            trial, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[:200] or f"exit code {done.returncode}"


def run_session(topology: str, directory: str, command: Sequence[str], *, phones: bool = True) -> int:
    """Run `command` beside a lab in a network of their own; its exit code, 128 + n when signal n ended it.

    Raises EnvironmentProblem.
    """
    before = namespace_command()
    reading, writing = os.pipe()
    try:
        given = Session(topology, directory, tuple(command), reading, phones)
        # -E: the user's PYTHON... variables are for the command, not for us
        inner = [*before, sys.executable, "-E", "-P", "-m", "lab.namespace_session", given.as_json()]
        with subprocess.Popen(inner, pass_fds=(reading,), env=command_environment()) as process:  # noqa: S603
            os.close(reading)
            reading = -1
            code = _wait(process, writing)
        return code if code >= 0 else 128 - code
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                _close(descriptor)


def _wait(process: subprocess.Popen[bytes], lifeline: int) -> int:
    """Ctrl-C is the command's affair, it gets it too; who ends this process ends the session."""

    def end(number: int, _frame: object) -> None:
        received.append(number)
        _close(lifeline)

    received: list[int] = []
    kept = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    kept[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def command_environment() -> dict[str, str]:
    """This process's variables without those in CLEARED; administrators' programs and `cucm-lab` are on the path."""
    kept = {name: value for name, value in os.environ.items() if not CLEARED.fullmatch(name)}
    return kept | {"PATH": os.pathsep.join((_search_path(), str(Path(sys.executable).parent)))}


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH") or os.defpath, "/usr/sbin", "/sbin"))


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # closed already
        return
