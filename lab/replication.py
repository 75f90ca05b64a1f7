"""Replication of a cluster's database: from the publisher's file into each subscriber's, one link per subscriber.

A write in this process wakes the links, writes of other programs are found by looking. How a link was disturbed on
purpose stands in the subscriber's file, so that it is still so when the lab's folder is opened again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from typing import Final

from cucm.clock import Clock
from cucm.database import (
    MAX_CHANGES,
    DatabaseRole,
    FullCopyNeeded,
    LinkSetting,
    NodeDatabase,
    ReplicationPosition,
    Transaction,
)
from cucm.errors import DatabaseError, LabError, UsageError
from cucm.events import Emit, Event
from cucm.events.replication import (
    ChangesReplicated,
    NodeCopied,
    ReplicationBroken,
    ReplicationDelayed,
    ReplicationLagSet,
    ReplicationPaused,
    ReplicationResumed,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.cluster import REPLICATION_CHANGE
from cucm.records import dataclass

POLL_S: Final = 0.2
"""How often links look for writes of other programs, and at the lab's clock."""
FORGET_EVERY: Final = 2_000
"""Changes that every subscriber has are let go of when there are so many."""
MAX_KEPT: Final = MAX_CHANGES
"""Changes kept for a subscriber that takes none; beyond, its link breaks."""
MAX_LAG_S: Final = 31_536_000.0
_MAX_SEEN: Final = 10_000


class ReplicationState(IntEnum):
    """The numbers of `utils dbreplication runtimestate` [recall]; 1 (number of replicates) does not occur here."""

    SETTING_UP = 0
    GOOD = 2
    BAD = 3
    SETUP_FAILED = 4


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """`behind`: transactions of the publisher that the node lacks. `problem`: why none arrive, if so."""

    node: str
    state: ReplicationState
    behind: int
    lag_s: float
    paused: bool
    problem: str | None


class Replication:
    """Replicates while started. The publisher's own file takes its writes whether or not this runs."""

    def __init__(
        self,
        publisher: NodeDatabase,
        subscribers: Mapping[str, NodeDatabase],
        clock: Clock,
        emit: Emit,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        if publisher.role is not DatabaseRole.PUBLISHER:
            raise UsageError("is a subscriber's database", where=str(publisher.path), mend="name the publisher's")
        self._publisher = publisher
        self._clock = clock
        self._emit = emit
        self._faults = faults
        self._links = {name: _Link(name, publisher, database, clock) for name, database in subscribers.items()}
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_running = False
        self._forgotten = 0
        self._is_publisher_up = True

    # --- running

    async def start(self) -> None:
        """From now on changes flow; a new subscriber is copied first. Nothing happens if it runs already."""
        if self._is_running:
            return
        self._is_running = True
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = self._publisher.on_commit(self._written)
        self._tasks = [self._loop.create_task(self._run(link)) for link in self._links.values()]
        self._tasks.append(self._loop.create_task(self._forget()))

    async def stop(self) -> None:
        """Ends when transactions and copies under way are in their files; the rest comes after the next start."""
        if self._is_running:
            self._is_running = False
            if self._unsubscribe is not None:
                self._unsubscribe()
            self._wake()
            self._moved()
            await asyncio.gather(*self._tasks)
            self._tasks = []
        await self.steps_ended()

    @property
    def is_running(self) -> bool:
        return self._is_running

    # --- what an administrator or a fault does to a link; UsageError for an unknown node

    def set_lag(self, node: str, seconds: float) -> None:
        """Every change arrives so much later, by the lab's clock. What waits when the lab ends waits anew then."""
        if not 0 <= seconds <= MAX_LAG_S:
            raise UsageError(f"a delay of {seconds} seconds", mend=f"use 0 to {MAX_LAG_S:.0f}")
        link = self._link(node)
        self._change(link, replace(link.setting, lag_s=float(seconds)), ReplicationLagSet(node, float(seconds)))

    def pause(self, node: str) -> None:
        """Changes wait for `resume`."""
        link = self._link(node)
        if not link.setting.paused:
            self._change(link, replace(link.setting, paused=True), ReplicationPaused(node))

    def resume(self, node: str) -> None:
        """Changes flow again, all that waited first."""
        link = self._link(node)
        if link.setting.paused:
            link.was_held = True
            self._change(link, replace(link.setting, paused=False), ReplicationResumed(node))

    def break_link(self, node: str, why: str = "") -> None:
        """Nothing arrives until `repair`."""
        link = self._link(node)
        reason = why or "broken"
        self._change(link, replace(link.setting, broken=reason), ReplicationBroken(node, reason))

    def set_connected(self, node: str, is_connected: bool, *, is_publisher_up: bool = True) -> None:
        """While the node or the publisher is down, changes wait. Not remembered in its file."""
        self._is_publisher_up = is_publisher_up
        link = self._link(node)
        link.was_held = link.was_held or not link.is_connected
        link.is_connected = is_connected
        link.wake.set()
        self._moved()

    async def repair(self, node: str) -> None:
        """`utils dbreplication reset`: the node is copied anew, its link is whole and not paused; the delay stays.

        A copy that was begun is made to its end, also when the one who asked is cancelled, who goes when it is done.
        LabError if this does not run or the node is down, DatabaseError if a file cannot be read or written.
        """
        link = self._link(node)
        self._require_open(link)
        async with link.turn:
            self._require_open(link)  # still
            copying = asyncio.create_task(asyncio.to_thread(link.copy))
            cancelled: asyncio.CancelledError | None = None
            while not copying.done():
                try:
                    await asyncio.wait([copying])
                except asyncio.CancelledError as error:
                    cancelled = error
            arrived = copying.result()
            self._change(link, replace(link.setting, paused=False, broken=None), arrived.event, arrived.position)
        if cancelled is not None:
            raise cancelled

    def _require_open(self, link: _Link) -> None:
        if not self._is_running or not link.is_connected:
            raise LabError(f"{link.name} cannot be copied: {self._why_down(link)}", mend="start it first")

    # --- waiting

    async def settle(self, timeout_s: float = 10) -> None:
        """Until every link that nobody disturbed has what the publisher has now; at once if this does not run.

        Disturbed: with a delay, paused, broken, node down. LabError when `timeout_s` is over.
        """
        target = self._publisher.position
        await self._until(lambda: all(link.has(target) for link in self._undisturbed()), timeout_s, self._undisturbed)

    async def catch_up(self, node: str, timeout_s: float = 30) -> None:
        """Until the node has what the publisher has now, however long its delay. LabError when `timeout_s` is over."""
        link, target = self._link(node), self._publisher.position
        await self._until(lambda: link.has(target), timeout_s, lambda: [link])

    async def steps_ended(self) -> None:
        """Until every step that was under way has ended: those that follow see the faults of this moment."""
        for link in self._links.values():
            async with link.turn:
                pass

    def status(self) -> tuple[LinkStatus, ...]:
        """Of every subscriber, in their order."""
        return tuple(self._status(link) for link in self._links.values())

    # --- inside

    def _link(self, node: str) -> _Link:
        try:
            return self._links[node]
        except KeyError:
            known = ", ".join(self._links) or "the cluster has none"
            raise UsageError(f"{node!r} is no subscriber", mend=f"one of: {known}") from None

    def _change(
        self, link: _Link, setting: LinkSetting, event: Event, position: ReplicationPosition | None = None
    ) -> None:
        link.database.set_link(setting)
        link.setting = setting
        if position is not None:
            link.position, link.problem = position, None
        self._emit(event)
        link.wake.set()
        self._moved()

    def _undisturbed(self) -> list[_Link]:
        return [link for link in self._links.values() if self._is_running and link.is_undisturbed]

    async def _until(self, is_done: Callable[[], bool], timeout_s: float, concerned: Callable[[], list[_Link]]) -> None:
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                while not is_done():
                    await self._next_move()
        except TimeoutError:
            late = "; ".join(f"{link.name} ({self._trouble(link) or 'late'})" for link in concerned())
            raise LabError(
                f"replication has not caught up within {timeout_s:g} s: {late}",
                mend="see: utils dbreplication runtimestate",
            ) from None

    async def _next_move(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(turn)
        try:
            await turn
        finally:
            self._waiting.discard(turn)

    def _moved(self) -> None:
        """Something that `_until` waits for may have come true."""
        for turn in tuple(self._waiting):
            if not turn.done():
                turn.set_result(None)

    def _wake(self) -> None:
        for link in self._links.values():
            link.wake.set()

    def _written(self) -> None:
        """In the writer's thread: from now on counts the delay."""
        with suppress(DatabaseError):
            sequence, moment = self._publisher.last_sequence(), self._clock.now()
            for link in self._links.values():
                link.note(sequence, moment)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    async def _run(self, link: _Link) -> None:
        while self._is_running:
            async with link.turn:
                await self._step(link)
            self._moved()
            if link.is_level_with_due or link.problem:
                with suppress(TimeoutError):  # not `wait_for`: it loses a cancellation that comes with the wake-up
                    async with asyncio.timeout(POLL_S):
                        await link.wake.wait()
            link.wake.clear()

    async def _step(self, link: _Link) -> None:
        try:
            if self._faults.watches(REPLICATION_CHANGE):
                arrived = link.advance(self._losing)  # here, not in a thread: faults tell of what they hit
            else:
                arrived = await asyncio.to_thread(link.advance)
        except FullCopyNeeded as trouble:
            self._break(link, str(trouble))
        except DatabaseError as trouble:
            self._delay(link, str(trouble))
        else:
            link.problem = None
            if arrived is not None:
                link.position = arrived.position
                self._emit(arrived.event)

    def _losing(self, node: str, transaction: Transaction) -> Transaction:
        """The transaction without what a fault takes away."""
        lost = frozenset(
            change.sequence
            for change in transaction.changes
            if self._faults.fire(REPLICATION_CHANGE, node=node, table=change.table, key=change.key) is not None
        )
        return replace(transaction, lost=lost)

    def _break(self, link: _Link, reason: str) -> None:
        try:
            self.break_link(link.name, reason)
        except DatabaseError as trouble:  # it is found out again the next time
            self._delay(link, str(trouble))

    def _delay(self, link: _Link, reason: str) -> None:
        if link.problem != reason:
            link.problem = reason
            self._emit(ReplicationDelayed(link.name, reason))

    async def _forget(self) -> None:
        """Keep the publisher's file small: nobody needs the changes that all have."""
        while self._is_running:
            with suppress(DatabaseError):
                last = self._publisher.last_sequence()
                needed = [link.position.sequence for link in self._links.values() if link.setting.broken is None]
                upto = max(min(needed, default=last), last - MAX_KEPT)
                if upto - self._forgotten >= FORGET_EVERY:
                    await asyncio.to_thread(self._publisher.forget_changes, upto)
                    self._forgotten = upto
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._next_move()

    def _status(self, link: _Link) -> LinkStatus:
        problem = self._trouble(link)
        state = ReplicationState.GOOD
        if link.setting.broken is not None:
            state = ReplicationState.BAD
        elif not link.position.history:
            state = ReplicationState.SETUP_FAILED if link.problem else ReplicationState.SETTING_UP
        behind = self._publisher.count_transactions_since(link.position.sequence)
        return LinkStatus(link.name, state, behind, link.setting.lag_s, link.setting.paused, problem)

    def _trouble(self, link: _Link) -> str | None:
        if link.setting.broken is not None:
            return link.setting.broken
        if not self._is_running or not link.is_connected:
            return self._why_down(link)
        return link.problem or ("paused" if link.setting.paused else None)

    def _why_down(self, link: _Link) -> str:
        return (
            f"{link.name} does not run" if self._is_running and self._is_publisher_up else "the publisher does not run"
        )


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What a step brought into a subscriber's file, how far that file is now, and what is told of it."""

    position: ReplicationPosition
    event: Event


class _Link:
    """One subscriber: how far it is, what was done to its link, and when the publisher's changes were made.

    `position` moves on the loop, with `problem` and the event: whoever waits for it finds the three agreeing.
    """

    def __init__(self, name: str, publisher: NodeDatabase, database: NodeDatabase, clock: Clock) -> None:
        if database.role is not DatabaseRole.SUBSCRIBER:
            raise UsageError("is the publisher's database", where=str(database.path), mend="name a subscriber's")
        self.name = name
        self.database = database
        self.setting = database.link
        self.position = database.position
        self.is_connected = True
        self.was_held = False
        self.problem: str | None = None
        self.wake = asyncio.Event()
        self.turn = asyncio.Lock()
        self.is_level_with_due = False
        self._publisher = publisher
        self._clock = clock
        self._seen: deque[tuple[int, float]] = deque()

    @property
    def is_undisturbed(self) -> bool:
        return self.is_connected and self.setting == LinkSetting()

    @property
    def _is_open(self) -> bool:
        return self.is_connected and not self.setting.paused and self.setting.broken is None

    def has(self, target: ReplicationPosition) -> bool:
        return self.position.history == target.history and self.position.sequence >= target.sequence

    def note(self, sequence: int, moment: float) -> None:
        """The publisher was at `sequence` at `moment`."""
        if len(self._seen) >= _MAX_SEEN:
            self._seen.pop()
        self._seen.append((sequence, moment))

    def copy(self) -> _Arrived:
        """Take over everything. Runs in a thread. DatabaseError."""
        snapshot = self._publisher.snapshot()
        self.database.install_snapshot(snapshot)
        return _Arrived(snapshot.position, NodeCopied(self.name, len(snapshot.rows), snapshot.position.sequence))

    def advance(self, losing: Callable[[str, Transaction], Transaction] | None = None) -> _Arrived | None:
        """Take over what is due, a bounded lot at once. Runs in a thread. DatabaseError; FullCopyNeeded.

        `losing` takes changes away that never arrive.
        """
        self.is_level_with_due = True
        setting = self.setting
        if not self._is_open:
            return None
        if not self.position.history:
            return self.copy()
        there = self._publisher.position
        if self.position.history != there.history or self.position.sequence > there.sequence:
            raise FullCopyNeeded("is no copy of this publisher's database", where=self.name)
        due = self._due(there.sequence)
        if due <= self.position.sequence:
            return None
        found = self._publisher.changes_since(self.position.sequence)
        transactions = [transaction for transaction in found if transaction.last <= due]
        # read first, asked then: what is written after a pause, or with a delay, cannot slip through
        if setting is not self.setting or not self._is_open or not transactions:
            return None
        arriving = [losing(self.name, one) for one in transactions] if losing else transactions
        self.database.apply_changes(arriving, there.history)
        position = replace(self.position, sequence=transactions[-1].last)
        self.is_level_with_due = position.sequence >= due
        late, self.was_held = self.was_held or setting.lag_s > 0, False
        changes = sum(len(transaction.changes) for transaction in transactions)
        return _Arrived(position, ChangesReplicated(self.name, len(transactions), changes, position.sequence, late))

    def _due(self, last: int) -> int:
        """The last change that is old enough."""
        now = self._clock.now()
        while self._seen and self._seen[0][0] <= self.position.sequence:
            self._seen.popleft()
        if not self.setting.lag_s:
            return last
        if last > self.position.sequence and (not self._seen or self._seen[-1][0] < last):
            self.note(last, now)
        due = [sequence for sequence, moment in tuple(self._seen) if moment + self.setting.lag_s <= now]
        return max(due, default=0)
