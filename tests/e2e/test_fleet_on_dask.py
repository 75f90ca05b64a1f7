from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

DASK = (sys.executable, "-m", "dask")
HERE = Path(__file__).parent
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}


@contextmanager
def process(*words: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([str(word) for word in words], text=True, **options) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def dask_scheduler(folder: Path, **settings: str) -> Iterator[str]:
    words = ("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with process(*DASK, *words, cwd=folder, env=os.environ | settings, **pipes) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "Scheduler at:" in line:
                address = line.split()[-1]
                break
        else:
            pytest.fail("the scheduler has ended")
        with process("cat", stdin=running.stderr, stdout=subprocess.DEVNULL):  # so that it can go on writing its log
            yield address


@contextmanager
def dask_cluster(folder: Path, **settings: str) -> Iterator[str]:
    """Address of a scheduler with two workers, which are processes of their own and are not started again."""
    with ExitStack() as ending:
        address = ending.enter_context(dask_scheduler(folder, **settings))
        for number in range(2):
            words = ("worker", address, "--host", "127.0.0.1", "--nthreads", 1, "--no-nanny", "--no-dashboard")
            where = ("--local-directory", folder / str(number))
            ending.enter_context(process(*DASK, *words, *where, cwd=folder, **QUIET))
        yield address


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@contextmanager
def observer(cluster: str, step: int, manner: str = "look") -> Iterator[Iterator[str]]:
    """What `dask_cluster.py` tells, from when both workers are there."""
    command = (sys.executable, HERE / "dask_cluster.py", cluster, step, manner)
    with process(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        lines = (line.strip() for line in running.stdout)
        assert next(lines) == "ready"
        yield lines


@contextmanager
def fleet(cluster: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "lab.cli", "fleet", "--scheduler", cluster, "--json", *words)
    with process(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        yield running


def told(running: subprocess.Popen[str], exit_code: int) -> dict[str, Any]:
    out, trouble = running.communicate()
    assert running.returncode == exit_code, trouble
    value: dict[str, Any] = json.loads(out)
    return value


def test_a_worker_is_killed_in_the_middle_and_nobody_is_lost_or_counted_twice(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path) as cluster,
        observer(cluster, 2, "hold") as lines,
        fleet(cluster, "--phones", 80) as running,
    ):
        os.kill(int(next(lines)), signal.SIGKILL)
        result = told(running, 0)
    assert result["reruns"] >= 1
    assert (result["arrived"], result["stranded"], result["where"]) == (80, 0, {"destination": 80})
    assert len(result["phones"]) == 80
    assert [stage["phones"] for stage in result["stages"]] == [80, 80]
    assert [sum(count for _, count in stage["per_second"]) for stage in result["stages"]] == [80, 80]
    assert result["stages"][1]["latencies"]["tvs"]["count"] == 80


def test_phones_of_a_batch_that_is_given_up_are_lost_and_all_others_are_not(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster,
        observer(cluster, 2, "hold") as lines,
        fleet(cluster, "--phones", 80) as running,
    ):
        os.kill(int(next(lines)), signal.SIGKILL)
        result = told(running, 1)
    lost = [end for end in result["phones"].values() if end["state"] == "lost"]
    assert 0 < len(lost) < 80
    assert {end["registered"] for end in lost} == {"nowhere"}
    assert result["arrived"] == 80 - len(lost)
    assert result["reasons"] == {"the workers that ran it were lost, one after the other": len(lost)}


def test_a_failure_story_strands_them_there_too(cluster: str) -> None:
    with fleet(cluster, "--phones", 12, "--story", "tvs-down") as running:
        result = told(running, 1)
    assert (result["where"], result["reasons"]) == ({"source": 12}, {"tvs-unreachable": 12})


def test_an_interrupted_fleet_leaves_the_workers_idle(cluster: str) -> None:
    with observer(cluster, step=1) as lines, fleet(cluster, "--phones", 400) as running:
        assert next(lines).isdigit()
        running.send_signal(signal.SIGINT)
        result = told(running, 128 + signal.SIGINT)
        assert next(lines) == "idle"
    assert result["interrupted"]
    assert result["arrived"] < 400


def test_a_scheduler_without_workers_is_told(tmp_path: Path) -> None:
    with dask_scheduler(tmp_path) as address, fleet(address, "--phones", 2) as running:
        _, trouble = running.communicate()
    assert (running.returncode, "the scheduler has no workers" in trouble) == (3, True), trouble


@pytest.mark.parametrize(
    ("address", "exit_code", "what"),
    [("tcp://127.0.0.1:1", 3, "no Dask scheduler answers there"), ("nonsense://x", 2, "nonsense")],
)
def test_no_scheduler(address: str, exit_code: int, what: str) -> None:
    with fleet(address, "--phones", 2) as running:
        _, trouble = running.communicate()
    assert running.returncode == exit_code, trouble
    assert what in trouble
    assert "Traceback" not in trouble
