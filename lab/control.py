"""The control interface of a running lab: HTTP and JSON on a Unix socket in the lab's folder, for other programs.

Only the user who runs the lab can reach it (socket 0600 in a folder 0700). Answers are JSON objects with `schema`;
errors are problem documents (RFC 9457). Operations are performed one after the other: there is one administrator.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from cucm.errors import EXIT_ENVIRONMENT, EXIT_NO, EXIT_USAGE, EnvironmentProblem, LabError, UsageError
from cucm.events import EventRecord
from cucm.render.plain import headline
from lab.control_problems import MEDIA_TYPE, Problem, problem_of
from lab.control_socket import SOCKET_NAME, socket_address
from lab.operation_words import operation_kinds, operation_of
from lab.runtime import Lab
from lab.status import status_of
from lab.truth import truths_of
from lab.views import certificates_of, database_of, node_of, trust_list_file
from phone_agent.screens import screens_of

SCHEMA: Final = 1
MAX_BODY: Final = 1024 * 1024
MAX_WAITING: Final = 64
"""Operations that may wait for the one being performed."""
MAX_TOLD: Final = 500
"""Timeline lines in the answer to an operation; the newest are kept."""
LINGER_S: Final = 2.0
"""How long the end of the lab waits for answers that are being given."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log: Final = logging.getLogger(__name__)


class ControlServer:
    """Serves `lab` on `directory/control.sock`. The caller holds the folder's lock: a socket that is there is stale."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._administrator = asyncio.Lock()
        self._waiting = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Returns when the socket takes connections. Raises EnvironmentProblem."""
        application = web.Application(client_max_size=MAX_BODY, middlewares=[_telling_problems])
        application.add_routes(self._routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=LINGER_S)
        await self._runner.setup()
        try:
            await web.SockSite(self._runner, self._bound()).start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Answers that are being given get LINGER_S to end."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            with suppress(OSError):
                (self._directory / SOCKET_NAME).unlink()

    def _bound(self) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            (self._directory / SOCKET_NAME).unlink(missing_ok=True)
            with socket_address(self._directory) as address:
                bound.bind(address)
            (self._directory / SOCKET_NAME).chmod(0o600)  # nobody can connect before `listen`
        except OSError as error:
            bound.close()
            raise EnvironmentProblem(
                f"the control socket cannot be made: {error.strerror or error}",
                where=str(self._directory / SOCKET_NAME),
                mend="give a --directory on a file system that holds sockets",
            ) from error
        bound.setblocking(False)
        return bound

    def _routes(self) -> list[web.RouteDef]:
        node = "/v1/clusters/{cluster}/nodes/{node}"
        return [
            web.get("/v1/status", self._status),
            web.get("/v1/operations", self._operations),
            web.post("/v1/operations", self._perform),
            web.post("/v1/sql", self._sql),
            web.get("/v1/truth/phones", self._truth),
            web.get("/v1/phones/{phone}/screens", self._screens),
            web.get("/v1/clusters/{cluster}/certificates", self._certificates),
            web.get(f"{node}/certificates", self._certificates),
            web.get(f"{node}/files/{{file}}", self._file),
        ]

    # --- resources

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(status_of(self._lab))

    async def _operations(self, _request: web.Request) -> web.Response:
        return _json({"operations": [kind.as_json() for kind in operation_kinds().values()]})

    async def _perform(self, request: web.Request) -> web.Response:
        operation = operation_of(await _body(request))
        text = operation.says(self._lab)
        if self._waiting >= MAX_WAITING:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_WAITING} operations are waiting already",
                mend="wait until they are done",
                exit_code=EXIT_ENVIRONMENT,
            )
        self._waiting += 1
        try:
            async with self._administrator:
                began = self._last_sequence()
                await self._lab.perform(operation)
        finally:
            self._waiting -= 1
        told = [line for record in self._lab.events.since(began) if (line := _told(record))]
        return _json({"do": operation.model_dump(mode="json")["do"], "says": text, "timeline": told[-MAX_TOLD:]})

    async def _sql(self, request: web.Request) -> web.Response:
        body = await _body(request)
        cluster, node, sql = (_word(body, name) for name in ("cluster", "node", "sql"))
        write = body.get("write", False)
        if cluster is None or sql is None or not isinstance(write, bool):
            raise UsageError("a query needs `cluster` and `sql`", mend='{"cluster": "source", "sql": "select ..."}')
        database = database_of(self._lab, cluster, node)
        if write:
            # on the event loop, as every other write of the lab: replication is woken from here
            return _json({"changed": database.execute(sql)})
        result = await asyncio.to_thread(database.query, sql)
        return _json({"columns": list(result.columns), "rows": [[_plain(cell) for cell in row] for row in result.rows]})

    async def _truth(self, request: web.Request) -> web.Response:
        wanted = request.query.get("phone")
        if wanted is not None:
            self._named(lambda: self._lab.phone(wanted))
        truths = truths_of(self._lab)
        chosen = {name: truth for name, truth in truths.items() if wanted in (None, name)}
        return _json({"phones": {name: truth.as_json() for name, truth in chosen.items()}})

    async def _screens(self, request: web.Request) -> web.Response:
        phone = self._named(lambda: self._lab.phone(request.match_info["phone"]))
        screens = screens_of(phone)
        return _json({**screens.as_json(), "lines": screens.lines()})

    async def _certificates(self, request: web.Request) -> web.Response:
        places = request.match_info
        node = self._named(lambda: node_of(self._lab, places["cluster"], places.get("node")))
        cluster = self._lab.cluster(places["cluster"])
        shown = certificates_of(node.database, node.name, request.query.get("unit"))
        return _json({"cluster": cluster.name, "node": node.name, "version": cluster.version, "certificates": shown})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        places = request.match_info
        node = self._named(lambda: node_of(self._lab, places["cluster"], places["node"]))
        data, modified_at = trust_list_file(node, places["file"])
        response = web.Response(body=data, content_type="application/octet-stream")
        response.last_modified = datetime.fromtimestamp(int(modified_at), UTC)
        return response

    def _named(self, find: Callable[[], Any]) -> Any:
        """What the path names; there it is 404 that the lab has no such thing."""
        try:
            return find()
        except UsageError as error:
            raise Problem.not_found(error.what, where=error.where, mend=error.mend) from None

    def _last_sequence(self) -> int:
        return self._lab.events.last_sequence


def _told(record: EventRecord) -> dict[str, Any] | None:
    text = headline(record.event)
    return {"time": round(record.time, 6), "source": record.source, "text": text} if text else None


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is no JSON: {error}", mend="send one JSON object") from error
    if not isinstance(value, dict):
        raise UsageError("the body is no JSON object", mend='send one, for example {"do": "boot-phone", ...}')
    return value


def _word(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"`{name}` is no text", mend="send it as a JSON string")
    return value


def _plain(cell: object) -> object:
    """A cell of SQLite's as JSON: a blob as lower-case hex."""
    return cell.hex() if isinstance(cell, bytes) else cell


def _json(value: dict[str, Any]) -> web.Response:
    return web.json_response({"schema": SCHEMA, **value})


@web.middleware
async def _telling_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as a problem document."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        problem = Problem(status, _http_detail(status, request), where=request.path, exit_code=_exit_code(status))
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _problem(problem, headers)
    except LabError as error:
        return _problem(error)
    except Exception as error:
        _log.exception("%s %s", request.method, request.path)
        what = f"internal error: {type(error).__name__}: {error}"
        mend = "this is a bug of ours: please report it with what `cucm-lab up` printed"
        return _problem(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, what, mend=mend, exit_code=EXIT_NO))


def _problem(error: LabError, headers: dict[str, str] | None = None) -> web.Response:
    document = problem_of(error)
    return web.json_response(document, status=document["status"], content_type=MEDIA_TYPE, headers=headers)


def _http_detail(status: HTTPStatus, request: web.Request) -> str:
    match status:
        case HTTPStatus.NOT_FOUND:
            return "there is no such resource"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return f"{request.method} is not for this resource"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return f"the body is longer than {MAX_BODY} bytes"
        case _:
            return status.phrase


def _exit_code(status: HTTPStatus) -> int:
    return EXIT_USAGE if status < HTTPStatus.INTERNAL_SERVER_ERROR else EXIT_NO
