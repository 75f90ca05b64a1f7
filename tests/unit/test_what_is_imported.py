"""What a start costs is what it imports: a guard without a clock. Each case is a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lab_on_sockets import network_of

from lab.cli.frame import SUBCOMMANDS

SLOW = {"aiohttp", "asyncssh", "sqlalchemy", "tftpy", "tree_sitter", "jmespath", "dask", "distributed", "plotly"}
"""None of these is needed to start a lab or a service."""
SERVICES = {"OpenSSL", "asyncio", "cryptography", "pydantic", "uvloop"} | SLOW
"""None of these is needed to print a help text."""


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `code`."""
    listing = "\nimport sys; print('\\n'.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + listing], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_a_bare_interpreter_is_bare():
    assert not loaded_by("pass") & SERVICES


HELP = [
    *("--help", "--version", "tvs query --help", "fault set --help", "show ctl --help", "certificates list --help"),
    *(f"{one.name} --help" for one in SUBCOMMANDS),
]


@pytest.mark.parametrize("words", HELP)
def test_help_imports_no_service(words):
    code = f"""
import contextlib, io
from lab.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main({words.split()!r})
"""
    assert not loaded_by(code) & SERVICES


@pytest.mark.parametrize("service", ["tvs_server", "tftp_server", "phone_agent"])
def test_a_service_imports_nothing_slow_that_it_does_not_use(service):
    code = f"""
import contextlib, io, runpy, sys
sys.argv = [{service!r}, '--help']
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    runpy.run_module({service!r}, run_name='__main__')
"""
    assert not loaded_by(code) & SLOW


def test_a_lab_imports_nothing_slow_that_it_does_not_use(tmp_path, loopback):
    code = f"""
import asyncio
from ipaddress import IPv4Network
from pathlib import Path
from lab.runtime import Lab, LabOptions
from lab.topology import load_topology
async def begin():
    options = LabOptions(Path({str(tmp_path / "lab")!r}), IPv4Network('{network_of(loopback)}'))
    async with Lab(load_topology('two-clusters'), options):
        pass
asyncio.run(begin())
"""
    assert not loaded_by(code) & SLOW


def test_the_collector_waits_for_the_imports_and_no_longer():
    code = """
import gc
from lab.cli import frame
from cucm.program import USUAL_THRESHOLD, run
async def paces():
    return gc.get_threshold()[0], gc.isenabled()
seen = []
frame._main = lambda words: seen.append(gc.get_threshold()[0]) or seen.append(run(paces())) or 0
frame.main([])
assert seen == [frame.OBJECTS_OF_A_START, (USUAL_THRESHOLD, True)], seen
assert gc.get_threshold()[0] == USUAL_THRESHOLD
"""
    assert "gc" in loaded_by(code)
