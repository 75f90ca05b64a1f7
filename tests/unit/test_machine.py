from __future__ import annotations

import errno
import os
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cucm import program
from cucm.database import NodeDatabase
from cucm.errors import AddressBusy, EnvironmentProblem
from cucm.machine import NEEDED, descriptor_limit, machine_problem, raise_descriptor_limit, require_descriptors
from cucm.net.addresses import bind_tcp, bind_udp, hold_port
from cucm.net.listener import Listener
from cucm.net.reachability import bind_silent_tcp
from cucm.net.stream import Stream
from cucm.whole_files import write_private
from lab.checkpoints import Checkpoints
from lab.network_claim import NetworkClaim
from lab.temporary_folder import temporary_folder

Draw = Callable[[], str]


@pytest.fixture
def low_limit() -> Iterator[int]:
    """The soft limit is below the hard one; the hard one is given, and both are put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_is_raised_as_far_as_it_goes(low_limit: int) -> None:
    assert raise_descriptor_limit() == low_limit
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low_limit, low_limit)
    assert raise_descriptor_limit() == low_limit


def test_no_limit_is_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert min(descriptor_limit(), raise_descriptor_limit()) >= 10**9
    problem = machine_problem(OSError(errno.EMFILE, "Too many open files"), mend="name another folder")
    assert (problem.what, problem.mend) == (
        "Too many open files",
        "end other programs, or raise fs.nr_open with sysctl",
    )


def test_a_network_that_cannot_be_claimed_for_want_of_files_is_not_said_to_be_another_labs() -> None:
    with descriptors_left(0), pytest.raises(EnvironmentProblem, match="cannot be claimed: no more than") as caught:
        NetworkClaim.take(IPv4Network("127.253.8.0/24"))
    assert not isinstance(caught.value, AddressBusy)
    assert caught.value.where == "127.253.8.0/24"


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Exactly so many files and sockets can still be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 64, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for one in held[len(held) - count :]:
            os.close(one)
        del held[len(held) - count :]
        yield
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def is_told(problem: EnvironmentProblem, where: str | None) -> bool:
    assert problem.exit_code == 3
    assert problem.where == where
    return "files and sockets may be open" in problem.what and "ulimit -n" in (problem.mend or "")


@pytest.mark.parametrize("bind", [lambda *where: bind_tcp(*where, backlog=1), bind_udp, hold_port, bind_silent_tcp])
def test_no_socket_is_left_to_bind(loopback: Draw, bind: Callable[[str, int], object]) -> None:
    address = loopback()
    with descriptors_left(0), pytest.raises(EnvironmentProblem) as refused:
        bind(address, 4444)
    transport = "UDP" if bind is bind_udp else "TCP"
    assert is_told(refused.value, f"{address} {transport} port 4444")


@pytest.mark.parametrize("left", [0, 1])
async def test_a_listener_that_cannot_start_leaves_nothing(loopback: Draw, left: int) -> None:
    async def handler(_stream: Stream) -> None: ...

    listener = Listener(loopback(), 4444, handler)
    with descriptors_left(left):
        with pytest.raises(EnvironmentProblem) as refused:
            await listener.start()
        require_descriptors(left)
    assert is_told(refused.value, f"{listener.address} TCP port 4444")
    assert not listener.is_listening
    await listener.start()
    await listener.stop()


def test_a_loop_is_not_begun_without_what_it_needs() -> None:
    async def nothing() -> None: ...

    work = nothing()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with descriptors_left(NEEDED - 1):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(program, "raise_descriptor_limit", lambda: hard)
            with pytest.raises(EnvironmentProblem) as refused:
                program.run(work)
    assert is_told(refused.value, None)
    assert work.cr_frame is None  # closed, so that nobody is told that it was never awaited
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft


def test_a_database_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    with descriptors_left(0), pytest.raises(EnvironmentProblem) as refused:
        NodeDatabase(path).create()
    assert is_told(refused.value, str(path))
    assert not isinstance(refused.value, sqlite3.Error)


def test_what_cannot_be_written_is_not_put_down_to_the_disk(tmp_path: Path) -> None:
    kept = NodeDatabase(tmp_path / "node.db")
    kept.create()
    works: dict[Path, Callable[[], object]] = {
        tmp_path / "keys.json": lambda: write_private(tmp_path / "keys.json", b"{}"),
        tmp_path / "checkpoints" / "one": lambda: Checkpoints(tmp_path).make("one", [kept.path], {}),
    }
    for path, work in works.items():
        with descriptors_left(0), pytest.raises(EnvironmentProblem) as refused:
            work()
        assert is_told(refused.value, refused.value.where)
        assert str(path).startswith(str(refused.value.where))
        assert refused.value.what.startswith(
            ("cannot be written: no more", "the lab's state cannot be copied: no more")
        )


def test_a_temporary_folder_that_cannot_be_locked_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with descriptors_left(0), pytest.raises(EnvironmentProblem) as refused, temporary_folder("lab-"):
        pass
    assert is_told(refused.value, refused.value.where)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "mend"),
    [(errno.ENFILE, "fs.file-max"), (errno.ENOSPC, "make room on that disk"), (errno.EIO, None)],
)
def test_other_refusals(number: int, mend: str | None) -> None:
    problem = machine_problem(OSError(number, os.strerror(number), "/x/y"))
    assert problem.where == "/x/y"
    assert problem.exit_code == 3
    assert (problem.mend or "").find(mend) >= 0 if mend else problem.mend is None


def test_the_caller_knows_what_failed_and_what_helps() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    problem = machine_problem(full, "/x", failed="cannot be written", mend="make room, or go elsewhere")
    assert (problem.what, problem.mend) == ("cannot be written: No space left on device", "make room, or go elsewhere")
    few = machine_problem(OSError(errno.EMFILE, "Too many open files"), "/x", failed="cannot be written", mend="pay")
    assert few.what.startswith("cannot be written: no more than ")
    assert "ulimit -n" in (few.mend or "")
