"""A TCP or TLS server: accepts, bounds, tracks and orderly ends connections, each served by a coroutine."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from cucm.errors import LabError
from cucm.net.addresses import bind_tcp
from cucm.net.stream import Address, Stream
from cucm.net.tls import HANDSHAKE_TIMEOUT_S, TlsStream

LISTEN_BACKLOG: Final = 1024
"""A small one makes phones' kernels retry after 1, 3 and 7 seconds when many boot at once."""
STOP_TIMEOUT_S: Final = 3.0
"""How long `stop` leaves handlers and peers to end by themselves."""

_log = logging.getLogger(__name__)

Handler = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """`request_timeout_s` is for the handler: from the first byte of a request until its answer is sent."""

    connections: int = 4096
    connections_per_address: int = 2048
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    idle_timeout_s: float = 60.0
    request_timeout_s: float = 10.0


def _nothing(*_arguments: object) -> None:
    pass


class Listener:
    """Serves `handler(stream)` for each connection; the stream is closed when the handler returns.

    A handler may let OSError, TimeoutError and LabError out: they end its connection and nothing else.
    Callbacks: `on_accept(stream)` a connection was let in; `on_first_bytes(stream)` its TLS handshake began;
    `on_refused(peer address, why)` one was turned away by the limits; `on_handshake_failed(stream, error)`: TlsError,
    TrustError (client certificate), TimeoutError, or OSError; `on_closed(stream)` an accepted connection is gone.
    """

    def __init__(
        self,
        address: str,
        port: int,
        handler: Handler,
        *,
        context: SSL.Context | None = None,
        limits: Limits | None = None,
        on_accept: Callable[[Stream], None] = _nothing,
        on_first_bytes: Callable[[Stream], None] = _nothing,
        on_refused: Callable[[Address, str], None] = _nothing,
        on_handshake_failed: Callable[[Stream, Exception], None] = _nothing,
        on_closed: Callable[[Stream], None] = _nothing,
    ) -> None:
        self.address = address
        self.port = port
        self.limits = limits or Limits()
        self.socket_number = -1
        self._handler = handler
        self._context = context
        self._on_accept = on_accept
        self._on_first_bytes = on_first_bytes
        self._on_refused = on_refused
        self._on_handshake_failed = on_handshake_failed
        self._on_closed = on_closed
        self._server: asyncio.Server | None = None
        self._streams: set[Stream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_address: Counter[str] = Counter()
        self._stopping = False
        self._empty = asyncio.Event()
        self._ending = asyncio.Lock()

    @property
    def is_listening(self) -> bool:
        """From `start` until `stop` is done."""
        return self._server is not None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._streams)

    def set_context(self, context: SSL.Context) -> None:
        """Use another certificate or profile for connections accepted from now on."""
        self._context = context

    async def start(self) -> None:
        """Bind and listen; port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem."""
        listening = bind_tcp(self.address, self.port, backlog=LISTEN_BACKLOG)
        self.port = listening.getsockname()[1]
        self.socket_number = listening.fileno()
        self._stopping = False
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._new_stream, sock=listening, backlog=LISTEN_BACKLOG, start_serving=False
        )
        try:
            await self._server.start_serving()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening, end all handlers and connections; nothing is left when it returns.

        Called again meanwhile, it waits for the same end. Cancelled, it cuts off at once what is still open.
        """
        async with self._ending:
            if self._server is None:
                return
            self._stopping = True
            try:
                await self._end_orderly(self._server)
            finally:
                self._server.close()
                for stream in self._streams:
                    stream.abort()
            await self._until_nothing_is_left()
            await self._server.wait_closed()
            self._server = None

    async def _end_orderly(self, server: asyncio.Server) -> None:
        await _let_accepted_in(server)
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)

    async def _until_nothing_is_left(self) -> None:
        while self._streams:
            self._empty.clear()
            await self._empty.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _new_stream(self) -> Stream:
        idle_timeout_s = self.limits.idle_timeout_s
        if self._context is None:
            return Stream(self, idle_timeout_s=idle_timeout_s)
        return TlsStream(
            self,
            self._context,
            server_side=True,
            idle_timeout_s=idle_timeout_s,
            handshake_timeout_s=self.limits.handshake_timeout_s,
        )

    # -- StreamOwner -------------------------------------------------------------------------------------------

    def opened(self, stream: Stream) -> None:
        address = stream.peer_address[0]
        why = self._why_refuse(address)
        if why is not None:
            stream.abort()
            self._on_refused(stream.peer_address, why)
            return
        self._streams.add(stream)
        self._per_address[address] += 1
        self._on_accept(stream)

    def first_bytes(self, stream: Stream) -> None:
        self._on_first_bytes(stream)

    def ready(self, stream: Stream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def failed(self, stream: Stream, error: Exception) -> None:
        if stream in self._streams:
            self._on_handshake_failed(stream, error)

    def lost(self, stream: Stream) -> None:
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        address = stream.peer_address[0]
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]
        if not self._streams:
            self._empty.set()
        self._on_closed(stream)

    def _why_refuse(self, address: str) -> str | None:
        if self._stopping:
            return "the service is stopping"
        if len(self._streams) >= self.limits.connections:
            return f"{self.limits.connections} connections are open already"
        if self._per_address[address] >= self.limits.connections_per_address:
            return f"{self.limits.connections_per_address} connections from this address are open already"
        return None

    async def _serve(self, stream: Stream) -> None:
        if stream not in self._streams:
            return  # cut between its handshake and now, and told as closed: nobody is there to be served
        try:
            await self._handler(stream)
        except (OSError, LabError) as trouble:  # TimeoutError is an OSError
            _log.debug("connection from %s ended: %s", stream.peer_address[0], trouble)
        except Exception:
            _log.exception("handler for %s failed", stream.peer_address[0])
        finally:
            await stream.close()


async def _let_accepted_in(server: asyncio.Server) -> None:
    """Stop accepting, and let asyncio finish what it has accepted: it would leak those sockets otherwise."""
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(2):
        await asyncio.sleep(0)
