"""What an administrator does to the lab, and the faults that somebody sets."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from cucm.errors import UsageError
from cucm.events import EventRecord
from cucm.faults.catalogue import POINTS
from cucm.faults.rules import FaultTable
from cucm.render.plain import headline
from lab.api import models
from lab.api.bodies import json_of
from lab.api.problems import Problem
from lab.api.routes import Route, named
from lab.operation_words import operation_kinds, operation_of
from lab.running_lab import RunningLab

MAX_WAITING: Final = 64
"""Operations that may wait for the one being performed."""
MAX_TOLD: Final = 500
"""Timeline lines in the answer to an operation; the newest are kept."""


class Administrator:
    """Performs operations, one after the other."""

    def __init__(self, running: RunningLab) -> None:
        self._running = running
        self._waiting = 0

    async def perform(self, value: object) -> dict[str, Any]:
        """What was done and what came of it. Raises LabError: refused; UsageError; Problem: too many wait."""
        lab = self._running.lab
        operation = operation_of(value)
        text = operation.says(lab)
        if self._waiting >= MAX_WAITING:
            raise Problem.busy(f"{MAX_WAITING} operations are waiting already", mend="wait until they are done")
        self._waiting += 1
        try:
            began = await self._running.perform(operation)
        finally:
            self._waiting -= 1
        told = [line for record in lab.events.since(began) if (line := _told(record))]
        kept = told[-MAX_TOLD:]
        return {"do": operation.do, "says": text, "timeline": kept, "left_out": len(told) - len(kept)}


class OperationResources:
    def __init__(self, running: RunningLab, administrator: Administrator) -> None:
        self._running = running
        self._administrator = administrator

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/operations", "All operations and their fields", self._operations, models.Operations),
            Route(
                "POST",
                "/operations",
                "Perform one, as a story's step: {`do`: name, field: value ...}; answers when it is done",
                self._perform,
                models.Performed,
                models.Operation,
            ),
            Route("GET", "/fault-points", "What can be broken", self._points, models.FaultPoints),
            Route("GET", "/faults", "Faults in force", self._faults, models.Faults),
            Route("POST", "/faults", "Set one", self._set, models.OneFault, FaultTable, status=HTTPStatus.CREATED),
            Route("DELETE", "/faults", "End all of them, the newest first", self._end_all, models.Faults),
            Route("GET", "/faults/{fault}", "One fault and what it has hit", self._fault, models.OneFault),
            Route("DELETE", "/faults/{fault}", "End it", self._end, models.OneFault),
        ]

    async def _operations(self, _request: web.Request) -> Mapping[str, Any]:
        return {"operations": [kind.as_json() for kind in operation_kinds().values()]}

    async def _perform(self, request: web.Request) -> Mapping[str, Any]:
        return await self._administrator.perform(await json_of(request))

    # --- faults

    async def _points(self, _request: web.Request) -> Mapping[str, Any]:
        return {"points": [point.as_json() for point in POINTS.values()]}

    async def _faults(self, _request: web.Request) -> Mapping[str, Any]:
        return {"faults": [status.as_json() for status in self._running.lab.faults]}

    async def _fault(self, request: web.Request) -> Mapping[str, Any]:
        fault = request.match_info["fault"]
        return {"fault": named(lambda: self._running.lab.faults.status(fault)).as_json()}

    async def _set(self, request: web.Request) -> Mapping[str, Any]:
        fault = await self._running.set_fault(await json_of(request))
        return {"fault": self._running.lab.faults.status(fault.id).as_json()}

    async def _end(self, request: web.Request) -> Mapping[str, Any]:
        fault = request.match_info["fault"]
        try:
            return {"fault": (await self._running.end_fault(fault)).as_json()}
        except UsageError as error:
            raise Problem.not_found(error.what, where=error.where, mend=error.mend) from None

    async def _end_all(self, _request: web.Request) -> Mapping[str, Any]:
        return {"faults": [status.as_json() for status in await self._running.end_faults()]}


def _told(record: EventRecord) -> dict[str, Any] | None:
    text = headline(record.event)
    return {"time": round(record.time, 6), "source": record.source, "text": text} if text else None
