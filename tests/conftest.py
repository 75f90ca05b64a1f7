from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from own_block import drawn
from what_is_missing import lacking

# one key cache for the whole test run and all xdist workers: RSA keys are slow to make, and no test needs a fresh one
os.environ.setdefault("CUCM_LAB_CACHE", str(Path(__file__).parent.parent / ".pytest_cache" / "cucm-lab-keys"))

# servers of the system lie where a user's PATH may not look
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

# no property is about time: 200 ms for an example is less than what another process may take from it, and the health
# check is a clock as well, of how long the first ten examples take to be drawn
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    # `nohup make test &`: what is ignored stays so in the processes that tests start, and nothing could be shown of it
    # there; a handler is gone with exec. So they die of a real hang-up, nohup or not, and their tests fail; who runs
    # tests does not, and xdist's controller, which runs none, goes on to ignore what it was told to ignore.
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        return
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda _number, _frame: None}
    for number, handler in handlers.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for tool in mark.args:
            if shutil.which(tool) is None:
                lacking(f"needs the program {tool!r}, which is not installed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    # pytest disarms its own watchdog once a test has failed, so a test that timed out and whose tasks then refuse to
    # end would hang the run for ever in its teardown; this ends the worker, and xdist names the test.
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)


def pytest_runtest_logfinish() -> None:
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def loopback() -> Callable[[], str]:
    """Draws addresses from a /24 of this process's own: `loopback()` -> "127.x.y.1", then ".2", ..."""
    network, hosts = drawn(), count(1)
    return lambda: str(network[next(hosts)])
