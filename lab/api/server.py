"""Serves the management API of one lab: on a Unix socket in its folder, and over TCP on its own loopback address.

The socket (0600 in a folder 0700) is for the user who runs the lab. Answers are JSON objects with `schema`; errors are
problem documents (RFC 9457).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cucm.errors import EXIT_NO, EXIT_USAGE, EnvironmentProblem, LabError
from cucm.net.addresses import bind_tcp
from lab.api.bodies import body_of
from lab.api.cluster_resources import ClusterResources
from lab.api.event_resources import EventResources
from lab.api.feed import EventFeed
from lab.api.lab_resources import LabResources
from lab.api.logs import LabLogs
from lab.api.models import Nothing
from lab.api.openapi import openapi_of
from lab.api.operation_resources import Administrator, OperationResources
from lab.api.phone_resources import PhoneResources
from lab.api.problems import MEDIA_TYPE, Problem, problem_of
from lab.api.routes import PREFIX, Route, answer_of, in_pieces, words_of
from lab.api.security import Guard
from lab.api.socket import SOCKET_NAME, socket_address
from lab.api.streams import Streams
from lab.running_lab import RunningLab

DEFAULT_PORT: Final = 8480
API_HOST: Final = 1
"""The lab's own address in its network."""
MAX_BODY: Final = 1024 * 1024
MAX_CONNECTIONS: Final = 256
BACKLOG: Final = 128
FIRST_REQUEST_S: Final = 10.0
"""A connection that has made no request by then is closed."""
KEEP_ALIVE_S: Final = 30.0
"""From an answer to the end of the next request's head."""
MAX_LINE: Final = 8 * 1024
MAX_PATH_TOLD: Final = 200
MAX_TOLD: Final = 2000
"""Characters of a sentence in a problem document: names that were asked for stand in it."""
MAX_HEADERS: Final = 64
LINGER_S: Final = 2.0
"""How long the end of the lab waits for answers that are being given."""

Done = TypeVar("Done")
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log: Final = logging.getLogger(__name__)
_aiohttp_log: Final = logging.getLogger(f"{__name__}.aiohttp")


def _is_our_trouble(record: logging.LogRecord) -> bool:
    """What a stranger sends is no trouble of ours: aiohttp tells of it with a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_aiohttp_log.addFilter(_is_our_trouble)


class ApiServer:
    """Serves `running`. The caller holds its folder's lock: a socket that is there is stale.

    `expose`: further addresses of this machine. What comes to one that is no loopback address needs the token in the
    folder's file `token`; unless the lab is in a network of its own, which nobody else can reach: `private_name` is
    what it is called there.
    """

    def __init__(
        self,
        running: RunningLab,
        *,
        port: int = DEFAULT_PORT,
        expose: Sequence[str] = (),
        private_name: str = "",
    ) -> None:
        self._running = running
        self._directory = running.lab.options.directory
        self._addresses = tuple(dict.fromkeys((running.lab.address(API_HOST), *expose)))
        self._port = port
        self._guard = Guard(self._addresses, self._directory, private_name=private_name)
        self.streams = Streams()
        self._silent: set[asyncio.BaseProtocol] = set()
        """Connections that have made no request yet."""
        self.application: web.Application | None = None
        """What is served, while it is."""
        self._runner: web.AppRunner | None = None
        self._changes: set[asyncio.Future[Any]] = set()
        self._parts: AsyncExitStack | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Of every address over TCP, the lab's own first."""
        hosts = (f"[{one}]" if ":" in one else one for one in self._addresses)
        return tuple(f"http://{host}:{self._port}" for host in hosts)

    @property
    def connections(self) -> int:
        """How many are open."""
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    async def start(self) -> None:
        """Returns when every socket takes connections. Raises AddressBusy, EnvironmentProblem; then none does."""
        async with AsyncExitStack() as parts:
            feed = EventFeed(self._running.lab.events, self._running.run_id)
            parts.callback(feed.close)
            logs = LabLogs(self._running.lab)
            parts.callback(logs.close)
            self.application = self._application(self.routes(feed, logs))
            runner = web.AppRunner(
                self.application,
                access_log=None,
                logger=_aiohttp_log,
                shutdown_timeout=LINGER_S,
                handler_cancellation=True,
                keepalive_timeout=KEEP_ALIVE_S,
                lingering_time=LINGER_S,
                max_line_size=MAX_LINE,
                max_field_size=MAX_LINE,
                max_headers=MAX_HEADERS,
            )
            self._runner = runner
            parts.push_async_callback(self._end_changes)
            parts.push_async_callback(runner.cleanup)
            await runner.setup()
            parts.callback(self.streams.close)
            await self._listen(runner, parts)
            self._parts = parts.pop_all()

    async def stop(self) -> None:
        """Streams end; answers that are being given get LINGER_S."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.aclose()

    # --- sockets

    async def _listen(self, runner: web.AppRunner, parts: AsyncExitStack) -> None:
        self._guard.open()
        parts.callback(self._guard.close)
        bound = [self._unix_socket()]
        parts.callback(self._forget_socket)
        try:
            bound += (bind_tcp(address, self._port, backlog=BACKLOG) for address in _to_bind(self._addresses))
            for one in bound:
                server = await _serve(one, partial(self._connection, runner))
                parts.callback(server.close)
        except BaseException:
            for one in bound:
                one.close()
            raise

    def _connection(self, runner: web.AppRunner) -> asyncio.BaseProtocol:
        """aiohttp's, within limits: it has none for connections, nor for one that says nothing."""
        server = runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return _TurnedAway()
        connection = server()
        self._silent.add(connection)
        asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._close_if_silent, connection)
        return connection

    def _close_if_silent(self, connection: web.RequestHandler) -> None:
        if connection in self._silent:
            self._silent.discard(connection)
            if connection.transport is not None:
                connection.transport.abort()

    def _unix_socket(self) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self._directory / SOCKET_NAME
        try:
            path.unlink(missing_ok=True)
            with socket_address(self._directory) as address:
                bound.bind(address)
            path.chmod(0o600)  # nobody can connect before `listen`
        except OSError as error:
            bound.close()
            raise EnvironmentProblem(
                f"the control socket cannot be made: {error.strerror or error}",
                where=str(path),
                mend="give a --directory on a file system that holds sockets",
            ) from error
        bound.setblocking(False)
        return bound

    def _forget_socket(self) -> None:
        with suppress(OSError):
            (self._directory / SOCKET_NAME).unlink()

    # --- requests

    def routes(self, feed: EventFeed, logs: LabLogs) -> list[Route]:
        """All of the API."""
        administrator = Administrator(self._running)
        routes = [
            *LabResources(self._running, feed, self.urls).routes(),
            *ClusterResources(self._running).routes(),
            *PhoneResources(self._running, administrator).routes(),
            *OperationResources(self._running, administrator).routes(),
            *EventResources(self._running, feed, logs, self.streams).routes(),
        ]

        async def describe(_request: web.Request) -> web.Response:
            return web.json_response(openapi_of(routes))

        described = Route("GET", "/openapi.json", "This description (OpenAPI 3.1)", describe, during_restore=True)
        routes.append(described)
        return routes

    def description(self) -> dict[str, Any]:
        """As it is served, also by a server that has not been started."""
        lab = self._running.lab
        return openapi_of(self.routes(EventFeed(lab.events, self._running.run_id), LabLogs(lab)))

    def _application(self, routes: Sequence[Route]) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY, middlewares=[self._guarded])
        for route in routes:
            application.router.add_route(route.method, route.full_path, self._handler(route), name=None)
        return application

    def _handler(self, route: Route) -> Handle:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not route.during_restore:
                await self._running.until_whole()
            words_of(request, route.query)
            if route.method == "POST" and route.body is None:
                await body_of(request, Nothing)
            answer = await (self._to_its_end(route.handle(request)) if route.changes else route.handle(request))
            response = answer if isinstance(answer, web.StreamResponse) else answer_of(answer, route.status)
            return await in_pieces(request, response) if isinstance(response, web.Response) else response

        return handle

    async def _to_its_end(self, work: Awaitable[Done]) -> Done:
        """What was begun is not left half done when the one who asked goes away."""
        task = asyncio.ensure_future(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _end_changes(self) -> None:
        for _ in range(2):
            if self._changes:
                await asyncio.wait(self._changes, timeout=LINGER_S)
            for task in self._changes:
                task.cancel()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Every error as a problem document."""
        self._silent.discard(request.protocol)
        try:
            self._guard.check(request)
            return await handler(request)
        except web.HTTPException as error:
            return _http_problem(request, error)
        except LabError as error:
            error.where = error.where or request.path[:MAX_PATH_TOLD]
            return _problem(error)
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            what = f"internal error: {type(error).__name__}: {error}"
            mend = "this is a bug of ours: please report it with what `cucm-lab up` printed"
            return _problem(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, what, mend=mend, exit_code=EXIT_NO))


async def _serve(bound: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.AbstractServer:
    loop = asyncio.get_running_loop()
    if bound.family != socket.AF_UNIX:
        return await loop.create_server(protocol, sock=bound, backlog=BACKLOG)
    # from 3.13 on asyncio's own loop would look at the socket's path, which may be one through /proc that is gone
    is_curious = sys.version_info >= (3, 13) and isinstance(loop, asyncio.BaseEventLoop)
    own: dict[str, Any] = {"cleanup_socket": False} if is_curious else {}
    return await loop.create_unix_server(protocol, sock=bound, backlog=BACKLOG, **own)


def _retrieved(task: asyncio.Future[Any]) -> None:
    """Nobody may have waited for it: then its failure is nobody's."""
    if not task.cancelled():
        task.exception()


def _to_bind(addresses: Sequence[str]) -> Sequence[str]:
    """One that stands for all the machine's leaves none for the others."""
    everything = [one for one in addresses if ip_address(one).is_unspecified]
    return everything[-1:] or addresses


class _TurnedAway(asyncio.Protocol):
    """There are too many connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _http_problem(request: web.Request, error: web.HTTPException) -> web.Response:
    status = HTTPStatus(error.status)
    code = EXIT_USAGE if status < HTTPStatus.INTERNAL_SERVER_ERROR else EXIT_NO
    allowed = error.headers.get("Allow")
    what, mend = _http_words(status, request, allowed)
    problem = Problem(status, what, where=request.path[:MAX_PATH_TOLD], mend=mend, exit_code=code)
    return _problem(problem, {"Allow": allowed} if allowed else None)


def _problem(error: LabError, headers: dict[str, str] | None = None) -> web.Response:
    document = problem_of(error)
    for name in ("detail", "where", "mend"):
        text = document[name]
        document[name] = f"{text[:MAX_TOLD]}..." if text and len(text) > MAX_TOLD else text
    if document["status"] == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": 'Bearer realm="cucm-lab"'}
    return web.json_response(document, status=document["status"], content_type=MEDIA_TYPE, headers=headers)


def _http_words(status: HTTPStatus, request: web.Request, allowed: str | None) -> tuple[str, str | None]:
    """What is wrong, and how to mend it."""
    match status:
        case HTTPStatus.NOT_FOUND:
            return "there is no such resource", f"GET {PREFIX}/openapi.json lists all there are"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return f"{request.method} is not for this resource", f"its methods are {allowed}"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return f"the body is longer than {MAX_BODY} bytes", "send a shorter one"
        case _:
            return status.phrase, None
