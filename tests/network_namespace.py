"""Tests on a network of their own: two namespaces joined by a wire, without touching the machine's network.

`run_apart(function, directory)` runs an async function of a test module in a fresh process inside a namespace, where it
is root and holds one end of the wire (`WIRE`, HERE/24). It starts programs at the other end with `Neighbour`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from what_is_missing import lacking

NETWORK = "192.0.2.0/24"
HERE = "192.0.2.1"
THERE = "192.0.2.2"
WIRE = "wire"
"""Name of both ends."""
PATIENCE_S = 60
APART = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--kill-child", "--fork")

Scene = Callable[[Path], Awaitable[None]]


def run_apart(scene: Scene, directory: Path, *, patience_s: float = PATIENCE_S) -> None:
    """Run `scene(directory)` in a network of its own; what it raises fails the test with its traceback."""
    if subprocess.run([*APART, "true"], capture_output=True).returncode != 0:
        lacking("this machine lets nobody make network namespaces")
    tests = Path(__file__).parent
    scene_file = Path(sys.modules[scene.__module__].__file__ or "")
    imported_from = map(str, (tests.parent, tests, scene_file.parent))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(imported_from)}
    command = [*APART, sys.executable, "-W", "error", __file__, str(scene_file), scene.__name__, str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=patience_s)
    assert done.returncode == 0, done.stdout + done.stderr


def have_an_address() -> None:
    """This namespace's machine has an address that is no loopback address: HERE, which it alone can reach."""
    ip("link set lo up")
    ip(f"addr add {HERE}/32 dev lo")


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


class Neighbour:
    """A program at the other end of the wire, in a network namespace of its own; killed when the scene ends.

    `address`: what its end of the wire has, None for none at all. `output` collects what it prints.
    """

    def __init__(self, command: Sequence[str], directory: Path, *, address: str | None) -> None:
        given = f"ip addr add {address}/24 dev {WIRE}; " if address else ""
        until_up = f"until ip link show {WIRE} | grep -q 'state UP'; do sleep 0.05; done"
        script = f'read ready; ip link set lo up; {given}ip link set {WIRE} up; {until_up}; exec "$@"'
        self._output = directory / "neighbour.log"
        with self._output.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", script, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"KEA_PIDFILE_DIR": str(directory), "KEA_LOCKFILE_DIR": str(directory)},
                start_new_session=True,
            )

    async def __aenter__(self) -> Self:
        """Lay the wire; the program runs when this returns."""
        ip("link set lo up")
        await self._wait_for_namespace()
        ip(f"link add {WIRE} type veth peer name {WIRE} netns {self._process.pid}")
        ip(f"addr add {HERE}/24 dev {WIRE}")
        ip(f"link set {WIRE} up")
        assert self._process.stdin is not None
        self._process.stdin.write(b"ready\n")
        self._process.stdin.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.output)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def says(self, text: str) -> str:
        """Its output, as soon as `text` is in it. Raises TimeoutError, AssertionError when it has ended without."""
        async with asyncio.timeout(PATIENCE_S / 2):
            while text not in self.output:
                assert self._process.poll() is None or text in self.output, f"ended without {text!r}:\n{self.output}"
                await asyncio.sleep(0.02)  # another program's output: nothing to wait on
        return self.output

    async def _wait_for_namespace(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        async with asyncio.timeout(PATIENCE_S / 2):
            while Path(f"/proc/{self._process.pid}/ns/net").readlink() == own:
                await asyncio.sleep(0.01)


def main(scene_file: str, name: str, directory: str) -> None:
    """Inside the namespace."""
    spec = importlib.util.spec_from_file_location("scene", scene_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scene"] = module
    spec.loader.exec_module(module)
    asyncio.run(getattr(module, name)(Path(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
