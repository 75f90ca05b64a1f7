"""Fixtures, marker, options and reports. Nothing is started, and little imported, unless a test asks for it."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pytest_cucmlab.lab import CucmLab
    from pytest_cucmlab.process import LabProcess

MAX_LABS: Final = 4
"""Labs of one session that run at the same time; the one used longest ago ends for a further one."""
TAIL_EVENTS: Final = 30
DEFAULT_TOPOLOGY: Final = "two-clusters"
MARKER: Final = "cucm_lab(topology=None, **options): the lab of this test: topology, phones='off', seed=N, ..."
KEPT: Final = "cucm_lab_kept"
"""What a worker of xdist calls the folders it has kept."""
OPTIONS: Final = ("phones", "seed", "events", "network")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cucm-lab", "emulated CUCM clusters and phones")
    group.addoption("--cucm-lab-keep", action="store_true", help="keep the labs' folders, and say where they are")
    group.addoption(
        "--cucm-lab-timeout", type=float, default=None, metavar="S", help="how long waits last (default 30)"
    )
    parser.addini("cucm_lab_timeout", "seconds that wait_for and wait_for_event last", default="30")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


_LAB: Final = pytest.StashKey["CucmLab"]()


class LabPool:
    """The labs of this session, by what they are."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._labs: OrderedDict[tuple[str, ...], LabProcess] = OrderedDict()
        self.kept: list[Path] = []

    def get(self, topology: str, options: Mapping[str, object]) -> LabProcess:
        """A running lab; one that has died is replaced. Raises LabError."""
        words = [word for name, value in sorted(options.items()) for word in (f"--{name}", str(value))]
        key = (topology, *words)
        known = self._labs.get(key)
        if known is not None and not known.is_running:
            self._labs.pop(key).stop()
            known = None
        if known is None:
            if len(self._labs) >= MAX_LABS:
                self._labs.popitem(last=False)[1].stop()
            known = self._labs[key] = self._new(topology, words)
        self._labs.move_to_end(key)
        return known

    def close(self) -> None:
        for lab in self._labs.values():
            lab.stop()
        self._labs.clear()

    def _new(self, topology: str, words: list[str]) -> LabProcess:
        from pytest_cucmlab.process import LabProcess

        folder = Path(tempfile.mkdtemp(prefix="cucm-lab-"))
        if self._keep:
            self.kept.append(folder)
        return LabProcess(folder, topology, words, keep=self._keep)


@pytest.fixture(scope="session")
def cucm_lab_pool(request: pytest.FixtureRequest) -> Iterator[LabPool]:
    """All labs of the session; they end with it."""
    pool = LabPool(keep=bool(request.config.getoption("--cucm-lab-keep")))
    yield pool
    pool.close()
    kept = [str(folder) for folder in pool.kept]
    if hasattr(request.config, "workeroutput"):  # a worker of xdist has no terminal
        request.config.workeroutput[KEPT] = kept
    _tell_kept(request.config, kept)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of xdist has ended."""
    _tell_kept(node.config, getattr(node, "workeroutput", {}).get(KEPT, ()))


def _tell_kept(config: pytest.Config, folders: Iterable[str]) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        for folder in folders:
            reporter.write_line(f"cucm-lab: kept {folder}")


@pytest.fixture
def cucm_lab_topology() -> str:
    """Override it in a module or conftest: a packaged topology, or the path of a TOML file."""
    return DEFAULT_TOPOLOGY


@pytest.fixture
def cucm_lab_options() -> dict[str, object]:
    """Override it: words of `cucm-lab up`, `{"phones": "off", "seed": 7}`."""
    return {}


@pytest.fixture
def cucm_lab(
    request: pytest.FixtureRequest,
    cucm_lab_pool: LabPool,
    cucm_lab_topology: str,
    cucm_lab_options: dict[str, object],
) -> Iterator[CucmLab]:
    """A running lab as it began. Afterwards faults end, those that should have hit did, and the lab met no bug."""
    from pytest_cucmlab.client import LabError
    from pytest_cucmlab.lab import CucmLab

    topology, options = _wishes(request, cucm_lab_topology, cucm_lab_options)
    try:
        process = cucm_lab_pool.get(topology, options)
        logged = process.log_length
        lab = CucmLab(process.url, str(process.directory), timeout_s=_timeout(request.config))
        request.node.stash[_LAB] = lab
        lab.begin()
    except LabError as error:
        pytest.fail(f"cucm_lab: {error}", pytrace=False)
    yield lab
    _check(lab, process, logged)


def _wishes(
    request: pytest.FixtureRequest, topology: str, options: Mapping[str, object]
) -> tuple[str, dict[str, object]]:
    """The marker comes before the fixtures."""
    marker = request.node.get_closest_marker("cucm_lab")
    named = dict(marker.kwargs) if marker is not None else {}
    if marker is not None and marker.args:
        named.setdefault("topology", marker.args[0])
    topology = str(named.pop("topology", None) or topology)
    wanted = {**options, **named}
    unknown = sorted(set(wanted) - set(OPTIONS))
    if unknown:
        pytest.fail(f"cucm_lab: there is no option {unknown[0]!r}; there are {', '.join(OPTIONS)}", pytrace=False)
    path = Path(topology)
    if topology.endswith(".toml") or "/" in topology:
        topology = str(path if path.is_absolute() else request.config.invocation_params.dir / path)
    return topology, wanted


def _timeout(config: pytest.Config) -> float:
    given = config.getoption("--cucm-lab-timeout")
    return float(given if given is not None else config.getini("cucm_lab_timeout"))


def _check(lab: CucmLab, process: LabProcess, logged: int) -> None:
    from pytest_cucmlab.client import LabError
    from pytest_cucmlab.lab import missed_of

    if not process.is_running:
        pytest.fail(f"the lab's process has ended:\n{process.log(logged)[-3000:]}", pytrace=False)
    try:
        lab.api.delete("faults")
        troubles = missed_of(lab)
    except LabError as error:
        troubles = [str(error)]
    said = process.log(logged)
    if "Traceback (most recent call last)" in said:
        troubles.append(f"the lab met a bug of its own:\n{said[-3000:]}")
    if troubles:
        pytest.fail("\n".join(troubles), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows the last events of its lab, and where its files are."""
    report = yield
    lab = item.stash.get(_LAB, None)  # not by the fixture's name: a project may have one of its own
    if report.failed and lab is not None:
        report.sections.append(("cucm_lab", _told(lab)))
    return report


def _told(lab: CucmLab) -> str:
    from pytest_cucmlab.client import LabError
    from pytest_cucmlab.matching import describe

    try:
        events = lab.events()[-TAIL_EVENTS:]
    except LabError as error:
        return str(error)
    title = "last events:" if events else "nothing has happened in it yet"
    lines = [f"files: {lab.directory} (kept with --cucm-lab-keep)", f"API: {lab.url}", title]
    return "\n".join(lines + [f"  {describe(event)}" for event in events])
