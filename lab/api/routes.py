"""What a resource of the API is: one table serves requests, describes them (OpenAPI) and is what tests compare with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel

from cucm.errors import UsageError
from cucm.records import dataclass
from lab.api.problems import Problem

SCHEMA: Final = 1
PREFIX: Final = "/v1"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
OCTETS: Final = "application/octet-stream"
PIECE: Final = 256 * 1024
PIECE_S: Final = 30.0

Handler = Callable[[web.Request], Awaitable[Mapping[str, Any] | web.StreamResponse]]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one resource. `path` without `/v1`, its parts in braces are texts.

    `handle` returns the answer's JSON object (without `schema`) or a response of its own. `body` and `answer` are
    models of the JSON; `query` says what each parameter is. `during_restore`: also while parts of the lab are away.
    `is_question`: it changes nothing, although it is no GET.
    """

    method: str
    path: str
    summary: str
    handle: Handler
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    media: str = JSON
    status: HTTPStatus = HTTPStatus.OK
    during_restore: bool = False
    is_question: bool = False

    @property
    def changes(self) -> bool:
        """Whether it does something: that is done to its end, also when the one who asked goes away."""
        return self.method != "GET" and not self.is_question

    @property
    def full_path(self) -> str:
        return PREFIX + self.path


def answer_of(value: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """JSON with its schema version."""
    return web.json_response({"schema": SCHEMA, **value}, status=status)


async def in_pieces(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """Give a long answer bit by bit: a reader that takes nothing of it for PIECE_S is cut off, and costs no memory."""
    data = whole.body
    if not isinstance(data, bytes) or len(data) <= PIECE:
        return whole
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    response.content_length = len(data)
    await response.prepare(request)
    try:
        for start in range(0, len(data), PIECE):
            async with asyncio.timeout(PIECE_S):
                await response.write(data[start : start + PIECE])
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


def named(find: Callable[[], Found]) -> Found:
    """What the path names; there it is 404 that the lab has no such thing."""
    try:
        return find()
    except UsageError as error:
        raise Problem.not_found(error.what, where=error.where, mend=error.mend) from None


def whole_number(request: web.Request, name: str, default: int, most: int) -> int:
    """A query parameter from 0 to `most`. Raises UsageError."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
        raise UsageError(f"{text[:40]!r} is no number for `{name}`", mend=f"give 0 to {most}")
    return int(text)


def words_of(request: web.Request, allowed: Mapping[str, str]) -> None:
    """Raises UsageError for a query parameter that the resource does not have: a filter misspelt would be none."""
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        known = ", ".join(allowed) or "none"
        raise UsageError(f"there is no query parameter {unknown[0][:40]!r} here", mend=f"there are: {known}")
