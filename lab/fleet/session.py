"""One `cucm-lab fleet` from the words to the reports: signals, display, files."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import Any, Final

from cucm.errors import EnvironmentProblem, LabError, UsageError
from cucm.program import run as run_on_event_loop
from cucm.render.text import printable
from cucm.whole_files import write_whole
from lab.cli.frame import print_json
from lab.fleet.display import Display, columns, display_for
from lab.fleet.engine import Fleet
from lab.fleet.exposure import Exposure
from lab.fleet.own_figures import figures_of, read_run
from lab.fleet.plan import FleetPlan, make_plan
from lab.fleet.progress import Progress
from lab.fleet.queueing import Machines
from lab.fleet.report import report_lines
from lab.fleet.request import FleetRequest
from lab.fleet.result import FleetResult
from lab.fleet.simulation import Simulation
from lab.fleet.workers import WorkerLost
from lab.network_claim import NetworkClaim

JSON_NAME: Final = "fleet.json"
PAGE_NAME: Final = "fleet.html"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_TOLD: Final = 100_000
"""Of more phones than this, JSON says how many ended where, not each by its name."""


class FleetSession:
    """`signal` is the number of the signal that ended the run early, None if it came to its end.

    `network` is that of the servers, None for a free one; with an `exposure` it is the one named there. With
    `machines`, the fleet is simulated on them, as fast as in the run that `figures` tells of.
    """

    def __init__(
        self,
        request: FleetRequest,
        network: IPv4Network | None,
        out: Path | None,
        *,
        as_json: bool,
        machines: Machines | None = None,
        figures: Path | None = None,
        exposure: Exposure | None = None,
    ) -> None:
        self.signal: int | None = None
        self._interrupt: Callable[[], object] = _nothing
        self._request = request
        self._network = network if exposure is None else exposure.servers
        self._exposure = exposure
        self._out = out
        self._as_json = as_json
        self._machines = machines
        self._figures = figures
        self._progress = Progress()

    def run(self) -> FleetResult:
        """Raises LabError when nothing could be started, or a report not be written."""
        plan = make_plan(self._request)
        with self._hearing_signals():
            try:
                result = self._play(plan)
            except WorkerLost:
                if self.signal is None:
                    raise
                raise KeyboardInterrupt from None  # a worker that was just being forked heard the terminal's signal too
            told = result.as_json(phones=self._request.phones <= MAX_TOLD)
            problem = self._keep(result, told)
        if self._as_json:
            print_json(told)
        else:
            width = columns(sys.stdout) if sys.stdout.isatty() else None
            print("\n".join(printable(line) for line in report_lines(result, width)))
        if problem is not None:  # a full disk does not take the report from the screen
            raise problem
        return result

    def _play(self, plan: FleetPlan) -> FleetResult:
        with ExitStack() as ending:
            if self._out is not None:
                _make_folder(self._out)
            network = ending.enter_context(self._claim()).network
            fleet = self._fleet(plan, network)
            if self._exposure is not None:
                print(self._exposure.warning, file=sys.stderr)
            display = ending.enter_context(display_for(self._progress, sys.stderr))
            return run_on_event_loop(self._watched(fleet, display))

    def _fleet(self, plan: FleetPlan, network: IPv4Network) -> Fleet | Simulation:
        if self._machines is None:
            return Fleet(self._request, plan, network, self._progress, self._exposure)
        machines = self._machines
        if self._figures is not None:
            machines = replace(machines, costs=figures_of(read_run(self._figures), network))
        return Simulation(self._request, plan, network, self._progress, machines)

    def _claim(self) -> NetworkClaim:
        if self._network is not None:
            return NetworkClaim.take(self._network)
        return NetworkClaim.draw(Path.cwd() / f"fleet {id(self)}")

    async def _watched(self, fleet: Fleet | Simulation, display: Display) -> FleetResult:
        watching = asyncio.create_task(display.watch())
        loop = asyncio.get_running_loop()
        self._interrupt = lambda: loop.call_soon_threadsafe(fleet.interrupt)
        if self.signal is not None:  # before there was anything to interrupt
            fleet.interrupt()
        try:
            return await fleet.play()
        finally:
            self._interrupt = _nothing
            watching.cancel()
            await asyncio.wait([watching])

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """Until the files are written, so that none is there by half; who ignores a signal (nohup) goes on to."""

        def hear(number: int, _frame: FrameType | None) -> None:
            self.signal = self.signal or number
            self._interrupt()

        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, hear) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep(self, result: FleetResult, told: dict[str, Any]) -> LabError | None:
        """What went wrong, if the files could not be written."""
        if self._out is None:
            return None
        from lab.fleet.page import page

        try:
            write_whole(self._out / JSON_NAME, json.dumps(told, indent=1).encode() + b"\n")
        except EnvironmentProblem as problem:
            return problem
        try:
            write_whole(self._out / PAGE_NAME, page(result).encode())
        except EnvironmentProblem as problem:  # everything else is told without it
            print(f"{PAGE_NAME} is not written: {problem.what}; mend: {problem.mend}", file=sys.stderr)
        return None


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot be made: {error.strerror}", where=str(path), mend="name another --out") from error
    try:
        with TemporaryFile(dir=path):  # not to be found out after a long run
            pass
    except OSError as error:
        raise UsageError(
            f"cannot be written to: {error.strerror}", where=str(path), mend="name another --out"
        ) from error


def _nothing() -> None:
    pass
