"""What happens in the lab: events by page and as a stream, and logs as an engineer finds them on the machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from lab.api import models
from lab.api.feed import DEFAULT_PAGE, MOST_AT_ONCE, EventFeed, Filter
from lab.api.inspection import inspect
from lab.api.logs import FORMS, LabLogs
from lab.api.routes import EVENT_STREAM, Route, named, whole_number
from lab.api.streams import Streams, tell_events, tell_lines
from lab.running_lab import RunningLab

FILTER: Final = {"kind": "pattern with * and ?: phone.*", "source": "pattern with * and ?: tvs:*"}
PAGE: Final = FILTER | {"after": "id of the event to go on behind; none: the oldest kept", "limit": "1 to 1000"}
STREAM: Final = FILTER | {"after": "as the header Last-Event-ID; none: a snapshot, then what comes"}
LOG: Final = {"as": f"one of {', '.join(FORMS)}; none: the machine's own", "tail": "so many of the last lines"}
FOLLOW: Final = {"as": LOG["as"], "after": "`next` of the log; none: only what comes"}
MOST_POSITION: Final = (1 << 63) - 1
MOST_LINES: Final = 100_000
DEFAULT_TAIL: Final = 1000


class EventResources:
    def __init__(self, running: RunningLab, feed: EventFeed, logs: LabLogs, streams: Streams) -> None:
        self._running = running
        self._feed = feed
        self._logs = logs
        self._streams = streams

    def routes(self) -> list[Route]:
        whenever: dict[str, Any] = {"during_restore": True}
        stream: dict[str, Any] = {"media": EVENT_STREAM, **whenever}
        lines = "Lines of the log of a phone, a node's service or another part"
        form = FOLLOW
        return [
            Route(
                "GET",
                "/events",
                "Events that are kept, page by page",
                self._page,
                models.Events,
                query=PAGE,
                **whenever,
            ),
            Route("GET", "/events/stream", "Events as they come (SSE)", self._stream, query=STREAM, **stream),
            Route("GET", "/logs", "Names of logs", self._names, models.Logs, **whenever),
            Route("GET", "/logs/{log}", lines, self._log, models.Log, query=LOG, **whenever),
            Route("GET", "/logs/{log}/stream", f"{lines}, as they come (SSE)", self._follow, query=form, **stream),
        ]

    async def _page(self, request: web.Request) -> Mapping[str, Any]:
        limit = max(1, whole_number(request, "limit", DEFAULT_PAGE, MOST_AT_ONCE))
        after = request.query.get("after")
        known = self._feed.position_of(after) if after is not None else 0
        piece = self._feed.after(known or 0, _filter(request), limit)
        return {
            "run": self._feed.run,
            "events": [record.as_json() for record in piece.records],
            "next": self._feed.id_of(piece.position),
            "gap": after is not None and (piece.gap or known is None),
        }

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        only = _filter(request)
        after = request.headers.get("Last-Event-ID") or request.query.get("after")
        position = self._feed.position_of(after) if after else None
        async with self._streams.open(request) as stream:
            await tell_events(
                stream, self._feed, only, position, self._snapshot, is_lost=bool(after) and position is None
            )
        return stream.response

    async def _snapshot(self) -> dict[str, Any]:
        await self._running.until_whole()
        return inspect(self._running, self._feed)

    async def _names(self, _request: web.Request) -> Mapping[str, Any]:
        return {"logs": list(self._logs.names)}

    async def _log(self, request: web.Request) -> Mapping[str, Any]:
        log = named(lambda: self._logs.log(request.match_info["log"], request.query.get("as")))
        tail = whole_number(request, "tail", DEFAULT_TAIL, MOST_LINES)
        lines, position = log.after(0)
        return {"log": log.name, "as": log.form, "lines": lines[-tail:] if tail else [], "next": position}

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        log = named(lambda: self._logs.log(request.match_info["log"], request.query.get("as")))
        position = whole_number(request, "after", log.position(), MOST_POSITION)
        async with self._streams.open(request) as stream:
            await tell_lines(stream, self._feed, log, position)
        return stream.response


def _filter(request: web.Request) -> Filter:
    return Filter(request.query.get("kind"), request.query.get("source"))
