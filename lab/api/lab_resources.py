"""The lab as a whole: what it is, its date, its kept states, waiting for something to be true, its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web

from cucm.errors import EXIT_NO, EnvironmentProblem, UsageError
from lab.api import models
from lab.api.bodies import body_of
from lab.api.feed import EventFeed
from lab.api.inspection import Documents, clock_of, compiled, inspect, is_true, value_of
from lab.api.inspection_models import Inspection
from lab.api.problems import Problem
from lab.api.routes import PREFIX, Route
from lab.running_lab import RunningLab
from lab.status import endpoints_of, status_of

MAX_WAITS: Final = 64
LOOK_AGAIN_S: Final = 0.05
"""A condition is looked at so often at most, however much happens."""
AT_LEAST_EVERY_S: Final = 0.5
"""What is no event, the date say, is noticed after this time."""
TOGETHER_S: Final = 0.01
"""Before the first look: those who ask at the same time look at the same document."""
LINKS: Final = ("status", "inspect", "clusters", "phones", "operations", "faults", "events", "logs", "openapi.json")
QUERY: Final = {"query": "JMESPath on the document"}


class LabResources:
    """`api_urls`: where this API is bound."""

    def __init__(self, running: RunningLab, feed: EventFeed, api_urls: tuple[str, ...]) -> None:
        self._running = running
        self._feed = feed
        self._api_urls = api_urls
        self._waits = 0
        self._documents = Documents(running, feed)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "", "What this is", self._overview, models.Overview, during_restore=True),
            Route("GET", "/status", "What runs where", self._status, models.Status),
            Route("GET", "/endpoints", "Every address and port", self._endpoints, models.Endpoints),
            Route("GET", "/topology", "What the lab was begun with", self._topology, models.Topology),
            Route("GET", "/inspect", "The whole lab as one object", self._inspect, Inspection, query=QUERY),
            Route("GET", "/clock", "The lab's date", self._clock, models.Clock),
            Route("POST", "/clock", "Move the lab's date", self._move_clock, models.Clock, models.MoveClock),
            Route("GET", "/checkpoints", "States that are kept", self._checkpoints, models.Checkpoints),
            Route(
                "POST",
                "/checkpoints",
                "Keep the state of clusters and phones",
                self._keep,
                models.CheckpointKept,
                models.KeepCheckpoint,
                status=HTTPStatus.CREATED,
            ),
            Route("DELETE", "/checkpoints/{name}", "Forget a kept state", self._forget, models.CheckpointDeleted),
            Route("POST", "/checkpoints/{name}/restore", "Go back to it", self._restore, models.Restored),
            Route("POST", "/reset", "Go back to how the lab began; all faults end", self._reset, models.Restored),
            Route("POST", "/wait", "Answer when it is true", self._wait, models.Waited, models.Wait, is_question=True),
            Route("POST", "/shutdown", "End the lab", self._shutdown, models.Ending, status=HTTPStatus.ACCEPTED),
        ]

    async def _overview(self, _request: web.Request) -> Mapping[str, Any]:
        return {
            "name": "cucm-migration-lab",
            "release": version("cucm-migration-lab"),
            "run": self._running.run_id,
            "ready": self._running.is_ready,
            "event": self._feed.id_of(self._feed.position),
            "links": {name: f"{PREFIX}/{name}" for name in LINKS},
        }

    async def _status(self, _request: web.Request) -> Mapping[str, Any]:
        return status_of(self._running.lab)

    async def _endpoints(self, _request: web.Request) -> Mapping[str, Any]:
        apis = [{"url": url, "service": "API"} for url in self._api_urls]
        return {"endpoints": [*apis, *endpoints_of(status_of(self._running.lab))]}

    async def _topology(self, _request: web.Request) -> Mapping[str, Any]:
        return {"topology": self._running.lab.topology.model_dump(mode="json", by_alias=True)}

    async def _inspect(self, request: web.Request) -> Mapping[str, Any]:
        document = inspect(self._running, self._feed)
        expression = request.query.get("query")
        return {"lab": document if expression is None else value_of(compiled(expression), document)}

    # --- date and kept states

    async def _clock(self, _request: web.Request) -> Mapping[str, Any]:
        return clock_of(self._running)

    async def _move_clock(self, request: web.Request) -> Mapping[str, Any]:
        body = await body_of(request, models.MoveClock)
        _require_date(self._running.clock.now() + body.move_s)
        await self._running.move_clock(body.move_s)
        return clock_of(self._running)

    async def _checkpoints(self, _request: web.Request) -> Mapping[str, Any]:
        kept = self._running.checkpoints()
        return {"checkpoints": [{"name": one.name, "made_at": one.made_at} for one in kept]}

    async def _keep(self, request: web.Request) -> Mapping[str, Any]:
        kept = await self._running.checkpoint((await body_of(request, models.KeepCheckpoint)).name)
        return {"checkpoint": {"name": kept.name, "made_at": kept.made_at}}

    async def _forget(self, request: web.Request) -> Mapping[str, Any]:
        name = self._named(request)
        await self._running.delete_checkpoint(name)
        return {"deleted": name}

    async def _restore(self, request: web.Request) -> Mapping[str, Any]:
        name = self._named(request)
        return {"restored": name, "different": list(await self._running.restore(name))}

    async def _reset(self, _request: web.Request) -> Mapping[str, Any]:
        return {"restored": "start", "different": list(await self._running.reset())}

    def _named(self, request: web.Request) -> str:
        name = request.match_info["name"]
        known = [one.name for one in self._running.checkpoints()]
        if name not in known:
            raise Problem.not_found(f"no checkpoint {name[:80]!r} is kept", mend=f"there are: {', '.join(known)}")
        return name

    # --- waiting, the end

    async def _wait(self, request: web.Request) -> Mapping[str, Any]:
        body = await body_of(request, models.Wait)
        if self._waits >= MAX_WAITS:
            raise Problem.busy(f"{MAX_WAITS} wait already", mend="wait for fewer things at once")
        self._waits += 1
        try:
            return await self._until_true(body)
        finally:
            self._waits -= 1

    async def _until_true(self, body: models.Wait) -> Mapping[str, Any]:
        expression = compiled(body.condition)
        began = time.monotonic()
        ends = began + body.timeout_s
        await asyncio.sleep(TOGETHER_S)
        while True:
            await self._running.until_whole()
            position = self._feed.position
            value = value_of(expression, self._documents.since(began))
            now = time.monotonic()
            if is_true(value):
                return {"value": value, "waited_s": round(now - began, 3)}
            if self._running.ended.is_set():
                raise EnvironmentProblem("the lab ends", where=body.condition, mend="start it again: cucm-lab up")
            if now >= ends:
                raise Problem(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"not true within {body.timeout_s:g} s; last it was {_shown(value)}",
                    where=body.condition,
                    mend="look at `cucm-lab inspect` and `cucm-lab events`",
                    exit_code=EXIT_NO,
                    kind="not-true",
                    more={"value": value},
                )
            await self._something(position, ends - now)

    async def _something(self, position: int, left_s: float) -> None:
        """Returns when it is time to look again."""
        await asyncio.sleep(min(LOOK_AGAIN_S, left_s))
        try:
            async with asyncio.timeout(max(0.0, min(AT_LEAST_EVERY_S, left_s) - LOOK_AGAIN_S)):
                await self._feed.news(position)
        except TimeoutError:
            return

    async def _shutdown(self, _request: web.Request) -> Mapping[str, Any]:
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._running.shutdown, "asked to by its API")
        return {"ending": True}


def _require_date(moment: float) -> None:
    try:
        datetime.fromtimestamp(moment)
    except (ValueError, OverflowError, OSError):
        raise UsageError("there is no such date", where="move_s", mend="move by less") from None


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)[:200]
