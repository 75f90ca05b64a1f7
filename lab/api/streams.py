"""Server-sent events: what happens in the lab, and the lines of its logs, as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from aiohttp import web

from lab.api.feed import EventFeed, Filter
from lab.api.logs import LabLog
from lab.api.problems import Problem
from lab.api.routes import EVENT_STREAM

MAX_STREAMS: Final = 64
HEARTBEAT_S: Final = 15.0
"""A comment line so often when nothing happens: intermediaries and readers see that the stream lives."""
WRITE_TIMEOUT_S: Final = 30.0
"""A reader that takes nothing for so long is cut; it may come again with `Last-Event-ID`."""

Snapshot = Callable[[], Awaitable[dict[str, Any]]]


class Streams:
    """All streams of one server: their number is bounded, and they end with it."""

    def __init__(self) -> None:
        self._open = 0
        self.closing = asyncio.Event()

    def __len__(self) -> int:
        """How many are open."""
        return self._open

    def close(self) -> None:
        """Every stream ends in order."""
        self.closing.set()

    @asynccontextmanager
    async def open(self, request: web.Request) -> AsyncIterator[Stream]:
        """A stream to this reader; a reader that goes away ends it without a word. Raises Problem: too many."""
        if self._open >= MAX_STREAMS:
            raise Problem.busy(f"{MAX_STREAMS} streams are open already", mend="end one that is read no more")
        self._open += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
            await response.prepare(request)
            try:
                yield Stream(response, self)
            except OSError:  # TimeoutError is one: what is written and not read goes at once
                if request.transport is not None:
                    request.transport.abort()
        finally:
            self._open -= 1


class Stream:
    """One reader's."""

    def __init__(self, response: web.StreamResponse, streams: Streams) -> None:
        self.response = response
        self._streams = streams
        self._said_at = time.monotonic()

    async def say(self, data: str, *, kind: str = "", event_id: str = "") -> None:
        """Raises OSError, TimeoutError when the reader is gone or takes nothing."""
        lines = [f"id: {event_id}"] if event_id else []
        lines += [f"event: {kind}"] if kind else []
        lines += [f"data: {line}" for line in data.split("\n")]
        await self._write("\n".join(lines) + "\n\n")

    async def keep_place(self, event_id: str) -> None:
        """Now and then say how far the reader is, though nothing passed his filter."""
        if time.monotonic() - self._said_at >= HEARTBEAT_S:
            await self._heartbeat(event_id)

    async def wait(self, news: Callable[[], Awaitable[object]], event_id: str = "") -> bool:
        """Wait for `news()`, with heartbeats that say the id; False when the server ends."""
        pending = [asyncio.ensure_future(news()), asyncio.ensure_future(self._streams.closing.wait())]
        try:
            while True:
                done, _ = await asyncio.wait(pending, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if pending[1] in done:
                    return False
                if done:
                    return True
                await self._heartbeat(event_id)
        finally:
            for one in pending:
                one.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _heartbeat(self, event_id: str) -> None:
        """A comment; an id without data is taken note of, and no event."""
        await self._write(": still here\n" + (f"id: {event_id}\n\n" if event_id else "\n"))

    async def _write(self, text: str) -> None:
        self._said_at = time.monotonic()
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await self.response.write(text.encode())


async def tell_events(
    stream: Stream, feed: EventFeed, only: Filter, position: int | None, snapshot: Snapshot, *, is_lost: bool = False
) -> None:
    """From `position` on; from now on, with a snapshot first, where it is None.

    `is_lost`: the reader has an id of which nothing is known, one of an earlier run: it is told of the gap.
    """
    if position is None:
        position = await _begin_anew(stream, feed, snapshot, "of another run" if is_lost else "")
    while True:
        piece = feed.after(position, only)
        if piece.gap:
            position = await _begin_anew(stream, feed, snapshot, "kept no more")
            continue
        for record in piece.records:
            await stream.say(json.dumps(record.as_json()), kind=record.event.kind, event_id=feed.id_of(record.sequence))
        position = piece.position
        await stream.keep_place(feed.id_of(position))
        if not await stream.wait(partial(feed.news, position), feed.id_of(position)) and feed.position == position:
            return


async def _begin_anew(stream: Stream, feed: EventFeed, snapshot: Snapshot, gap: str) -> int:
    """A snapshot, behind word of a gap if there is one; the position that it shows."""
    if gap:
        await stream.say(json.dumps({"why": f"the events behind that id are {gap}"}), kind="gap")
    document = await snapshot()
    position = feed.position
    await stream.say(json.dumps(document), kind="snapshot", event_id=feed.id_of(position))
    return position


async def tell_lines(stream: Stream, feed: EventFeed, log: LabLog, position: int) -> None:
    """Lines of a log behind `position`, as they come."""
    while True:
        seen = feed.position
        lines, position = log.after(position)
        for line in lines:
            await stream.say(line)
        if not await stream.wait(partial(feed.news, seen)) and feed.position == seen:
            return
