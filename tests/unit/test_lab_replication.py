from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import lab.replication
from cucm.clock import MovableClock
from cucm.database import DatabaseRole, FullCopyNeeded, LinkSetting, NodeDatabase
from cucm.errors import DatabaseError, LabError, UsageError
from cucm.events import Event
from cucm.events.replication import (
    ChangesReplicated,
    NodeCopied,
    ReplicationBroken,
    ReplicationDelayed,
    ReplicationLagSet,
    ReplicationPaused,
    ReplicationResumed,
)
from cucm.render.plain import headline
from lab.replication import Replication, ReplicationState


@dataclass
class Cluster:
    directory: Path
    clock: MovableClock
    publisher: NodeDatabase
    subscribers: dict[str, NodeDatabase]
    events: list[Event] = field(default_factory=list)

    def replication(self) -> Replication:
        return Replication(self.publisher, self.subscribers, self.clock, self.events.append)

    def values(self, name: str = "a") -> tuple[str | None, ...]:
        return tuple(database.parameter(name) for database in self.subscribers.values())

    def kinds(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with (
        NodeDatabase(tmp_path / "pub.db").create() as publisher,
        NodeDatabase(tmp_path / "one.db", busy_timeout_s=0.05).create(DatabaseRole.SUBSCRIBER) as one,
        NodeDatabase(tmp_path / "two.db").create(DatabaseRole.SUBSCRIBER) as two,
    ):
        yield Cluster(tmp_path, MovableClock(1_500_000_000, frozen=True), publisher, {"one": one, "two": two})


@pytest.fixture
async def running(cluster: Cluster) -> AsyncIterator[Replication]:
    replication = cluster.replication()
    await replication.start()
    await replication.settle()
    yield replication
    await replication.stop()


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not is_true():
            await asyncio.sleep(0)


async def passes(replication: Replication, node: str, times: int = 3) -> None:
    """Let the link look that often, whatever it finds."""
    link = replication._link(node)
    for _ in range(times):
        link.wake.set()
        await until(lambda: not link.wake.is_set())
        async with link.turn:
            pass


# --- the ordinary case


async def test_new_subscribers_are_copied_and_follow(cluster: Cluster) -> None:
    cluster.publisher.set_parameter("a", "before")
    replication = cluster.replication()
    assert [status.state for status in replication.status()] == [ReplicationState.SETTING_UP] * 2
    await replication.start()
    await replication.start()
    await replication.settle()
    assert cluster.values() == ("before", "before")
    assert {event.node for event in cluster.events if isinstance(event, NodeCopied)} == {"one", "two"}
    cluster.publisher.set_parameter("a", "after")
    await replication.settle()
    assert cluster.values() == ("after", "after")
    assert [(s.node, s.state, s.behind, s.problem) for s in replication.status()] == [
        ("one", ReplicationState.GOOD, 0, None), ("two", ReplicationState.GOOD, 0, None)
    ]  # fmt: skip
    await replication.stop()
    await replication.stop()
    assert not cluster.kinds(ReplicationBroken)
    (event, _) = cluster.kinds(ChangesReplicated)
    assert isinstance(event, ChangesReplicated)
    assert (event.transactions, event.changes, event.late) == (1, 1, False)


async def test_a_cluster_of_one_node(cluster: Cluster) -> None:
    cluster.subscribers.clear()
    replication = cluster.replication()
    await replication.start()
    cluster.publisher.set_parameter("a", "1")
    await replication.settle()
    assert replication.status() == ()
    with pytest.raises(UsageError, match="no subscriber") as caught:
        replication.pause("one")
    assert caught.value.mend == "one of: the cluster has none"
    await replication.stop()


async def test_what_another_program_writes_is_found(cluster: Cluster, running: Replication) -> None:
    with closing(sqlite3.connect(cluster.publisher.path)) as connection, connection:
        connection.execute("insert into processconfig values ('k', 'a', 'by hand')")
    await running.settle()
    assert cluster.values() == ("by hand", "by hand")
    with closing(sqlite3.connect(cluster.publisher.path)) as connection, connection:
        connection.execute("update processconfig set paramvalue = 'again'")
    await until(lambda: cluster.values() == ("again", "again"))  # nobody settles


async def test_a_write_in_a_thread_wakes_the_links(cluster: Cluster, running: Replication) -> None:
    writer = threading.Thread(target=cluster.publisher.set_parameter, args=("a", "thread"))
    writer.start()
    await until(lambda: cluster.values() == ("thread", "thread"))
    writer.join()


async def test_a_long_backlog_arrives_in_lots(
    cluster: Cluster, running: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.pause("one")
    for number in range(600):
        cluster.publisher.set_parameter("a", str(number))
    assert {status.node: status.behind for status in running.status()}["one"] == 600
    running.resume("one")
    await running.settle()
    assert cluster.values() == ("599", "599")
    first = next(e for e in cluster.events if isinstance(e, ChangesReplicated) and e.node == "one")
    assert (first.transactions, first.late) == (500, True)


async def test_nothing_flows_unless_it_runs(cluster: Cluster, running: Replication) -> None:
    await running.stop()
    assert not running.is_running
    cluster.publisher.set_parameter("a", "1")
    await running.settle()
    assert cluster.values() == (None, None)
    assert [status.problem for status in running.status()] == ["the publisher does not run"] * 2
    with pytest.raises(LabError, match="does not run"):
        await running.repair("one")
    with pytest.raises(LabError, match=r"within 0\.05 s: one \(the publisher does not run\)"):
        await running.catch_up("one", 0.05)
    await running.start()
    await running.settle()
    assert cluster.values() == ("1", "1")


# --- disturbed links


async def test_a_paused_link_waits_and_then_gets_all(cluster: Cluster, running: Replication) -> None:
    running.pause("one")
    running.pause("one")
    cluster.publisher.set_parameter("a", "1")
    await running.settle()
    await passes(running, "one")
    assert cluster.values() == (None, "1")
    one, _ = running.status()
    assert (one.state, one.behind, one.paused, one.problem) == (ReplicationState.GOOD, 1, True, "paused")
    running.resume("one")
    running.resume("one")
    await running.catch_up("one")
    assert cluster.values() == ("1", "1")
    assert len(cluster.kinds(ReplicationPaused)) == len(cluster.kinds(ReplicationResumed)) == 1
    late = [event.late for event in cluster.kinds(ChangesReplicated) if isinstance(event, ChangesReplicated)]
    assert sorted(late) == [False, True]


async def test_a_delay_counts_by_the_labs_clock(cluster: Cluster, running: Replication) -> None:
    running.set_lag("one", 60)
    cluster.publisher.set_parameter("a", "1")
    cluster.clock.move(59)
    cluster.publisher.set_parameter("b", "1")
    await running.settle()
    await passes(running, "one")
    assert cluster.values("a") == (None, "1")
    cluster.clock.move(1)
    await until(lambda: cluster.values("a") == ("1", "1"))
    await passes(running, "one")
    assert cluster.values("b") == (None, "1")
    with pytest.raises(LabError, match="one"):
        await running.catch_up("one", 0.01)
    cluster.clock.move(59)
    await running.catch_up("one")
    assert cluster.values("b") == ("1", "1")
    event = cluster.kinds(ChangesReplicated)[-1]
    assert isinstance(event, ChangesReplicated)
    assert event.late


async def test_without_its_delay_all_that_waited_arrives(cluster: Cluster, running: Replication) -> None:
    running.set_lag("one", 3600)
    cluster.publisher.set_parameter("a", "1")
    running.set_lag("one", 0)
    await running.settle()
    assert cluster.values() == ("1", "1")


async def test_the_delay_of_another_programs_write_begins_when_it_is_found(
    cluster: Cluster, running: Replication
) -> None:
    running.set_lag("one", 60)
    with closing(sqlite3.connect(cluster.publisher.path)) as connection, connection:
        connection.execute("insert into processconfig values ('k', 'a', '1')")
    await passes(running, "one")
    assert cluster.values()[0] is None
    cluster.clock.move(60)
    await running.catch_up("one")
    assert cluster.values()[0] == "1"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e9])
async def test_delays_that_are_none(running: Replication, seconds: float) -> None:
    with pytest.raises(UsageError, match="a delay of"):
        running.set_lag("one", seconds)


async def test_a_broken_link_needs_a_repair(cluster: Cluster, running: Replication) -> None:
    running.break_link("one", "fibre cut")
    cluster.publisher.set_parameter("a", "1")
    await running.settle()
    running.resume("one")
    await passes(running, "one")
    assert cluster.values() == (None, "1")
    one, _ = running.status()
    assert (one.state, one.problem, one.behind) == (ReplicationState.BAD, "fibre cut", 1)
    with pytest.raises(LabError, match="fibre cut"):
        await running.catch_up("one", 0.01)
    await running.repair("one")
    assert cluster.values()[0] == "1"
    one, _ = running.status()
    assert (one.state, one.problem, one.behind) == (ReplicationState.GOOD, None, 0)
    cluster.publisher.set_parameter("a", "2")
    await running.settle()
    assert cluster.values() == ("2", "2")


async def test_a_repair_ends_a_pause_and_keeps_a_delay(cluster: Cluster, running: Replication) -> None:
    running.set_lag("one", 60)
    running.pause("one")
    cluster.publisher.set_parameter("a", "1")
    await running.repair("one")
    assert cluster.subscribers["one"].link == LinkSetting(60.0, False, None)
    assert cluster.values()[0] == "1"


async def test_a_cancellation_that_comes_with_a_wake_up_is_not_lost(cluster: Cluster, running: Replication) -> None:
    cluster.publisher.set_parameter("a", "1")
    await running.settle()
    for name in cluster.subscribers:
        await passes(running, name)
    for name in cluster.subscribers:
        running._link(name).wake.set()
    running._moved()
    await asyncio.sleep(0)  # whoever waits has been woken, and has not run yet
    tasks = [task for task in running._tasks if task.cancel()]
    await asyncio.wait(tasks, timeout=20)
    assert [task.cancelled() for task in tasks] == [True] * 3
    running._tasks = []


async def test_nodes_that_are_down_get_nothing(cluster: Cluster, running: Replication) -> None:
    running.set_connected("one", False)
    cluster.publisher.set_parameter("a", "1")
    await running.settle()
    await passes(running, "one")
    assert cluster.values() == (None, "1")
    assert running.status()[0].problem == "one does not run"
    with pytest.raises(LabError, match="one does not run"):
        await running.repair("one")
    running.set_connected("one", True)
    await running.settle()
    assert cluster.values() == ("1", "1")


async def test_settling_ends_when_the_late_link_is_disturbed(cluster: Cluster, running: Replication) -> None:
    """A disturbed link is not waited for, also if it becomes one while somebody waits."""
    async with running._link("one").turn:  # held up for a reason nobody knows of
        cluster.publisher.set_parameter("a", "1")
        with pytest.raises(LabError, match=r"one \(late\)") as caught:
            await running.settle(0.05)
        assert caught.value.mend
        settled = asyncio.create_task(running.settle())
        await asyncio.sleep(0)
        running.pause("one")
        await settled


@pytest.mark.parametrize("call", ["pause", "resume", "break_link"])
async def test_unknown_nodes(running: Replication, call: str) -> None:
    with pytest.raises(UsageError, match="no subscriber") as caught:
        getattr(running, call)("three")
    assert caught.value.mend == "one of: one, two"
    for other in (running.repair("three"), running.catch_up("three")):
        with pytest.raises(UsageError):
            await other
    with pytest.raises(UsageError):
        running.set_lag("three", 1)
    with pytest.raises(UsageError):
        running.set_connected("three", True)


# --- across the end of the lab


async def test_disturbances_outlive_the_lab(cluster: Cluster, running: Replication) -> None:
    running.set_lag("one", 60)
    running.pause("one")
    running.break_link("two", "why")
    cluster.publisher.set_parameter("a", "1")
    await running.stop()
    for database in cluster.subscribers.values():
        database.close()
        database.open()
    again = cluster.replication()
    await again.start()
    await again.settle()
    one, two = again.status()
    assert (one.lag_s, one.paused, one.behind) == (60.0, True, 1)
    assert (two.state, two.problem) == (ReplicationState.BAD, "why")
    again.resume("one")
    await passes(again, "one")
    assert cluster.values() == (None, None)  # the wait begins anew
    cluster.clock.move(60)
    await again.catch_up("one")
    assert cluster.values() == ("1", None)
    await again.stop()


async def test_what_was_written_while_it_did_not_run_arrives(cluster: Cluster, running: Replication) -> None:
    await running.stop()
    cluster.publisher.set_parameter("a", "1")
    cluster.events.clear()
    again = cluster.replication()
    await again.start()
    await again.settle()
    assert cluster.values() == ("1", "1")
    assert not cluster.kinds(NodeCopied)  # change by change, not all anew
    await again.stop()


async def test_a_publisher_made_anew_is_another_one(cluster: Cluster, running: Replication) -> None:
    cluster.publisher.set_parameter("a", "1")
    await running.stop()
    with NodeDatabase(cluster.directory / "new.db").create() as new:
        for number in range(9):
            new.set_parameter("a", f"new {number}")
        again = Replication(new, cluster.subscribers, cluster.clock, cluster.events.append)
        await again.start()
        await until(lambda: len(cluster.kinds(ReplicationBroken)) == 2)
        assert [status.state for status in again.status()] == [ReplicationState.BAD] * 2
        await again.repair("one")
        assert cluster.values()[0] == "new 8"
        await again.stop()


def test_files_of_the_wrong_role(cluster: Cluster) -> None:
    one = cluster.subscribers["one"]
    with pytest.raises(UsageError, match="is a subscriber's database"):
        Replication(one, {}, cluster.clock, cluster.events.append)
    with pytest.raises(UsageError, match="is the publisher's database"):
        Replication(cluster.publisher, {"x": cluster.publisher}, cluster.clock, cluster.events.append)


# --- trouble


async def test_a_locked_file_is_told_once_and_tried_again(cluster: Cluster, running: Replication) -> None:
    with closing(sqlite3.connect(cluster.subscribers["one"].path, isolation_level=None)) as other:
        other.execute("begin immediate")
        cluster.publisher.set_parameter("a", "1")
        await until(lambda: cluster.kinds(ReplicationDelayed))
        await until(lambda: cluster.values()[1] == "1")
        await passes(running, "one")
        with pytest.raises(LabError, match="locked"):
            await running.settle(0.05)
        assert "locked" in str(running.status()[0].problem)
        assert len(cluster.kinds(ReplicationDelayed)) == 1
        other.execute("rollback")
    await running.settle()
    assert cluster.values() == ("1", "1")
    assert running.status()[0].problem is None


async def test_what_is_in_a_file_but_was_not_told_of_is_waited_for(
    cluster: Cluster, running: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, advance = threading.Event(), lab.replication._Link.advance

    def advanced_but_not_ended(*words: Any) -> object:
        arrived = advance(*words)
        assert may_end.wait(20)
        return arrived

    async with running._link("one").turn, running._link("two").turn:  # no step is under way
        monkeypatch.setattr(lab.replication._Link, "advance", advanced_but_not_ended)
    try:
        cluster.publisher.set_parameter("a", "1")
        await until(lambda: cluster.values() == ("1", "1"))
        with pytest.raises(LabError, match="one \\(late\\); two \\(late\\)"):
            await running.settle(0.05)
        assert not cluster.kinds(ChangesReplicated)
    finally:
        may_end.set()
    await running.settle()
    assert len(cluster.kinds(ChangesReplicated)) == 2


class HeldCopies:
    """Copies of a whole database wait in their thread until `may_end`, and then fail if `trouble` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.trouble: Exception | None = None
        self._install = NodeDatabase.install_snapshot
        monkeypatch.setattr(NodeDatabase, "install_snapshot", lambda *words: self._held(*words))

    def _held(self, database: NodeDatabase, snapshot: Any) -> None:
        self.begun.set()
        assert self.may_end.wait(20)
        if self.trouble is not None:
            raise self.trouble
        self._install(database, snapshot)


@pytest.fixture
def held_copies(running: Replication, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldCopies]:
    held = HeldCopies(monkeypatch)
    yield held
    held.may_end.set()


async def test_a_copy_ends_before_its_asker_and_replication_do_however_often_he_is_cancelled(
    cluster: Cluster, running: Replication, held_copies: HeldCopies
) -> None:
    """Or a thread would write to the file of a lab that has gone back to a checkpoint meanwhile."""
    running.break_link("one", "fibre cut")
    cluster.publisher.set_parameter("a", "1")
    copies = len(cluster.kinds(NodeCopied))
    asker = asyncio.create_task(running.repair("one"))
    await until(held_copies.begun.is_set)
    stopping = [asyncio.create_task(running.stop()) for _ in range(2)]
    for _ in range(3):
        asker.cancel()
        await asyncio.wait([asker, *stopping], timeout=0.02)
    assert not any(task.done() for task in (asker, *stopping))
    held_copies.may_end.set()
    await asyncio.gather(*stopping)
    await asyncio.wait([asker])
    assert asker.cancelled()
    assert len(cluster.kinds(NodeCopied)) == copies + 1
    assert cluster.values()[0] == "1"
    await running.start()
    await running.settle()
    one, _ = running.status()
    assert (one.state, one.behind, one.problem) == (ReplicationState.GOOD, 0, None)


async def test_a_copy_that_fails_is_told_to_its_asker_and_changes_nothing(
    cluster: Cluster, running: Replication, held_copies: HeldCopies
) -> None:
    running.break_link("one", "fibre cut")
    held_copies.trouble = DatabaseError("is full", where="one.db")
    held_copies.may_end.set()
    with pytest.raises(DatabaseError, match="is full"):
        await running.repair("one")
    assert running.status()[0].state is ReplicationState.BAD
    held_copies.trouble = None
    await running.repair("one")
    assert running.status()[0].state is ReplicationState.GOOD


@pytest.mark.parametrize("end", ["asker", "node", "replication"])
async def test_a_repair_that_cannot_begin_any_more_copies_nothing(
    cluster: Cluster, running: Replication, held_copies: HeldCopies, end: str
) -> None:
    async with running._link("one").turn:
        asker = asyncio.create_task(running.repair("one"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(running.stop()) if end == "replication" else None
        if end == "node":
            running.set_connected("one", False)
        elif end == "asker":
            asker.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([asker])
    if stopping is not None:
        await stopping
    else:
        await running.steps_ended()
    assert not held_copies.begun.is_set()
    if end == "asker":
        assert asker.cancelled()
    else:
        with pytest.raises(LabError, match=r"one cannot be copied: (one|the publisher) does not run"):
            await asker


async def test_a_first_copy_that_fails_is_a_failed_setup(cluster: Cluster) -> None:
    replication = cluster.replication()
    with closing(sqlite3.connect(cluster.subscribers["one"].path, isolation_level=None)) as other:
        other.execute("begin immediate")
        await replication.start()
        await until(lambda: cluster.kinds(ReplicationDelayed))
        assert replication.status()[0].state is ReplicationState.SETUP_FAILED
        other.execute("rollback")
    await replication.settle()
    assert replication.status()[0].state is ReplicationState.GOOD
    await replication.stop()


async def test_changes_that_cannot_be_applied_break_the_link(cluster: Cluster, running: Replication) -> None:
    with closing(sqlite3.connect(cluster.publisher.path)) as connection, connection:
        connection.execute(
            "insert into replicationchange (transactionnumber, tablename, pkid, operation) values (1, 'x', 'k', 'D')"
        )
    await until(lambda: len(cluster.kinds(ReplicationBroken)) == 2)
    await running.settle()
    assert "no replicated table" in str(running.status()[0].problem)
    await running.repair("one")
    assert running.status()[0].state is ReplicationState.GOOD


async def test_a_break_that_cannot_be_written_down_is_found_again(
    cluster: Cluster, running: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cluster.subscribers["one"]
    refused: list[None] = []
    original = NodeDatabase.set_link

    def fails_once(self: NodeDatabase, setting: LinkSetting) -> None:
        if self is one and setting.broken and not refused:
            refused.append(None)
            raise DatabaseError("disk full")
        original(self, setting)

    monkeypatch.setattr(NodeDatabase, "set_link", fails_once)
    running.pause("one")
    cluster.publisher.set_parameter("a", "1")
    cluster.publisher.forget_changes(1)
    running.resume("one")
    await until(lambda: running.status()[0].state is ReplicationState.BAD)
    assert refused
    assert "kept no longer" in str(running.status()[0].problem)
    assert [event for event in cluster.kinds(ReplicationDelayed) if "disk full" in str(event)]
    assert "kept no longer" in str(one.link.broken)


async def test_changes_that_all_have_are_forgotten(
    cluster: Cluster, running: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.replication, "FORGET_EVERY", 5)
    monkeypatch.setattr(lab.replication, "MAX_KEPT", 20)

    def kept() -> object:
        return cluster.publisher.query("select count(*) from replicationchange").rows[0][0]

    running.pause("one")
    for number in range(10):
        cluster.publisher.set_parameter("a", str(number))
    await running.settle()
    assert kept() == 10  # the paused one needs them
    running.resume("one")
    await running.settle()
    await until(lambda: kept() == 0)
    running.pause("one")
    for number in range(40):
        cluster.publisher.set_parameter("a", str(number))
        await running.settle()
    await until(lambda: kept() < 30)
    running.resume("one")
    await until(lambda: running.status()[0].state is ReplicationState.BAD)
    assert "kept no longer" in str(running.status()[0].problem)
    with pytest.raises(FullCopyNeeded):
        cluster.publisher.changes_since(10)
    await running.repair("one")
    assert cluster.values()[0] == "39"


async def test_many_unseen_moments_are_merged(
    cluster: Cluster, running: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.replication, "_MAX_SEEN", 3)
    running.set_lag("one", 60)
    for number in range(10):
        cluster.publisher.set_parameter("a", str(number))
        cluster.clock.move(1)
    cluster.clock.move(59)
    await running.catch_up("one")
    assert cluster.values()[0] == "9"


# --- in plain words


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ChangesReplicated("n", 1, 5, 9, late=False), None),
        (ChangesReplicated("n", 1, 5, 9, late=True), "n has 1 change of the publisher now, late"),
        (ChangesReplicated("n", 3, 5, 9, late=True), "n has 3 changes of the publisher now, late"),
        (NodeCopied("n", 46, 9), "n has a full copy of the publisher's database"),
        (ReplicationLagSet("n", 60.0), "changes reach n 60 s late"),
        (ReplicationLagSet("n", 0.0), "changes reach n at once"),
        (ReplicationPaused("n"), "replication to n waits"),
        (ReplicationResumed("n"), "replication to n goes on"),
        (ReplicationBroken("n", "why"), "replication to n is BROKEN: why"),
        (ReplicationDelayed("n", "why"), "replication to n cannot go on just now: why"),
    ],
)
def test_plain_words(event: Event, text: str | None) -> None:
    assert headline(event) == text
