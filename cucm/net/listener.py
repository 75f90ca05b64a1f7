"""A TCP or TLS server: accepts, bounds, tracks and orderly ends connections, each served by a coroutine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Final

from OpenSSL import SSL

from cucm.errors import LabError
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.tcp import TCP_ACCEPT
from cucm.faults.catalogue.tls import TLS_HANDSHAKE
from cucm.net.deadlines import Countdown
from cucm.net.door import Door
from cucm.net.reachability import Reachability
from cucm.net.stream import Address, Stream
from cucm.net.tcp_faults import SpoiltConnections
from cucm.net.tls import HANDSHAKE_TIMEOUT_S, TlsStream
from cucm.net.tls_faults import FalseCertificates, spoil_handshake
from cucm.records import dataclass

STOP_TIMEOUT_S: Final = 3.0
"""How long `stop` leaves handlers and peers to end by themselves."""

_log = logging.getLogger(__name__)

Handler = Callable[[Stream], Awaitable[None]]


class Attention(Enum):
    """What is to become of a connection that an attendant has looked at."""

    WAIT = auto()
    """For more to come, as long as a connection may be idle."""
    LATER = auto()
    """Leave it alone: whoever looked at it calls `Listener.attend` before the next turn of the loop, unless it has no
    `receiver` any more. It is not idle meanwhile.
    """
    END = auto()
    """Close it."""
    HANDLE = auto()
    """Let the handler go on from here."""


Attendant = Callable[[Stream], Attention]
"""Serves what has come without a coroutine, when a connection is ready and whenever something new has come."""


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
    `is_shared`: other processes may serve the port as well.
    Callbacks: `on_accept(stream)` a connection was let in; `on_first_bytes(stream)` its TLS handshake began;
    `on_refused(peer address, why)` one was turned away by the limits; `on_handshake_failed(stream, error)`: TlsError,
    TrustError (client certificate), TimeoutError, or OSError; `on_closed(stream)` an accepted connection is gone.

    With an `attendant`, the handler is called for those connections only that it gives over (Attention.HANDLE): a task,
    its frames and futures cost more than most requests. `on_idle(stream)`: nothing came for the idle time-out while it
    waited.

    `faults` says what goes wrong with TCP and TLS here; a service is not told of connections that never come through
    to it. `false_certificates` are for the faults that show another certificate: without them those hang up.
    """

    def __init__(
        self,
        address: str,
        port: int,
        handler: Handler,
        *,
        context: SSL.Context | None = None,
        is_shared: bool = False,
        limits: Limits | None = None,
        faults: FaultSource = NO_FAULTS,
        false_certificates: FalseCertificates | None = None,
        on_accept: Callable[[Stream], None] = _nothing,
        on_first_bytes: Callable[[Stream], None] = _nothing,
        on_refused: Callable[[Address, str], object] = _nothing,
        on_handshake_failed: Callable[[Stream, Exception], None] = _nothing,
        on_closed: Callable[[Stream], None] = _nothing,
        attendant: Attendant | None = None,
        on_idle: Callable[[Stream], None] = _nothing,
    ) -> None:
        self.address = address
        self.port = port
        self.limits = limits or Limits()
        self.socket_number = -1
        self._handler = handler
        self._context = context
        self._is_shared = is_shared
        self._faults = faults
        self._false_certificates = false_certificates
        self._spoilt = SpoiltConnections(faults, freeze=self._freeze, cut=self._cut)
        self._on_accept = on_accept
        self._on_first_bytes = on_first_bytes
        self._on_refused = on_refused
        self._on_handshake_failed = on_handshake_failed
        self._on_closed = on_closed
        self._attendant = attendant
        self._on_idle = on_idle
        self._handshakes: Countdown[TlsStream] = Countdown(self.limits.handshake_timeout_s, TlsStream.give_up)
        self._idle: Countdown[Stream] = Countdown(self.limits.idle_timeout_s, self._end_idle)
        self._door: Door | None = None
        self._reachability = Reachability.OPEN
        self._streams: set[Stream] = set()
        self._frozen: set[Stream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_address: dict[str, int] = {}
        self._stopping = False
        self._empty = asyncio.Event()
        self._ending = asyncio.Lock()

    @property
    def is_listening(self) -> bool:
        """From `start` until `stop` or `crash` is done, whatever the network does with packets for it."""
        return self._door is not None

    @property
    def reachability(self) -> Reachability:
        return self._reachability

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._streams)

    def set_context(self, context: SSL.Context) -> None:
        """Use another certificate or profile for connections accepted from now on."""
        self._context = context

    def set_reachability(self, how: Reachability) -> None:
        """What the network does from now on with packets for this port; kept over `stop` and `start`.

        UNREACHABLE freezes the connections that stand: neither side hears of the other, and the handlers meet their
        deadlines. They do not recover: whatever comes next resets them. Raises AddressBusy when another program
        took the port while it refused.
        """
        if how is self._reachability:
            return
        if self._door is not None:
            self._door.set(how)
        self._reachability = how
        self._reset_frozen()
        if how is Reachability.UNREACHABLE:
            for stream in self._streams:
                self._freeze(stream)

    async def start(self) -> None:
        """Bind and listen; port 0 becomes a free one. Raises AddressBusy, EnvironmentProblem."""
        self._door = Door(self.address, self.port, self._new_stream, self._reachability, is_shared=self._is_shared)
        self.port = self._door.port
        self.socket_number = self._door.socket_number
        self._stopping = False

    async def stop(self) -> None:
        """Stop listening, end all handlers and connections; nothing is left when it returns.

        Called again meanwhile, it waits for the same end. Cancelled, it cuts off at once what is still open.
        """
        async with self._ending:
            if self._door is None:
                return
            self._stopping = True
            try:
                await self._end_orderly(self._door)
            finally:
                for stream in self._streams:
                    stream.abort()
                self._reset_frozen()
            await self._until_nothing_is_left()
            self._door = None

    async def crash(self) -> None:
        """End as a process that is killed: every connection is reset, no handler says anything more to its peer.

        The callbacks are called all the same. A `stop` that is under way is cut short.
        """
        self._stopping = True
        for stream in self._streams:
            stream.reset()
        for task in self._tasks:
            task.cancel()
        async with self._ending:
            if self._door is None:
                return
            self._door.close()
            for stream in self._streams:
                stream.reset()
            self._reset_frozen()
            await self._until_nothing_is_left()
            self._door = None

    async def _end_orderly(self, door: Door) -> None:
        door.close()
        for _ in range(2):
            await asyncio.sleep(0)  # what has come in meanwhile begins: a task cancelled before has no `finally`
        for task in self._tasks:
            task.cancel()
        for stream in [stream for stream in self._streams if stream.receiver is not None]:
            stream.receiver = None
            self._end(stream)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)

    def _freeze(self, stream: Stream) -> None:
        stream.freeze()
        self._frozen.add(stream)

    def _cut(self, stream: Stream) -> None:
        self._frozen.discard(stream)
        stream.reset()

    def _reset_frozen(self) -> None:
        """Those that have ended for this side are still open for the peer: this is where it may learn of it."""
        for stream in self._frozen:
            stream.reset()
        self._frozen.clear()

    async def _until_nothing_is_left(self) -> None:
        while self._streams:
            self._empty.clear()
            await self._empty.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._handshakes.close()
        self._idle.close()

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
            countdown=self._handshakes,
        )

    # -- StreamOwner -------------------------------------------------------------------------------------------

    def opened(self, stream: Stream) -> bool:
        address = stream.peer_address[0]
        why = self._why_refuse(address)
        if why is not None:
            stream.abort()
            self._on_refused(stream.peer_address, why)
            return False
        self._streams.add(stream)
        self._per_address[address] = self._per_address.get(address, 0) + 1
        if self._reachability is Reachability.UNREACHABLE:
            self._freeze(stream)  # it was let in when the packets began to vanish
        elif self._faults.watches(TCP_ACCEPT) and not self._spoilt.admits(stream, self.port):
            return False
        self._on_accept(stream)
        return True

    def first_bytes(self, stream: Stream) -> bool:
        self._on_first_bytes(stream)
        if not self._faults.watches(TLS_HANDSHAKE):
            return True
        action = self._faults.fire(TLS_HANDSHAKE, port=self.port, peer=stream.peer_address[0])
        if action is None or not isinstance(stream, TlsStream):
            return True
        return spoil_handshake(stream, action, self._false_certificates)

    def ready(self, stream: Stream) -> None:
        if self._attendant is None or self._stopping:
            self._begin(self._serve(stream))
        else:
            self._attend(stream)

    def failed(self, stream: Stream, error: Exception) -> None:
        if stream in self._streams and stream not in self._spoilt.hidden:
            self._on_handshake_failed(stream, error)

    def lost(self, stream: Stream) -> None:
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        self._idle.stop(stream)
        address = stream.peer_address[0]
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]
        if not self._streams:
            self._empty.set()
        if stream in self._spoilt.hidden:
            self._spoilt.forget(stream)
        else:
            self._on_closed(stream)

    def _why_refuse(self, address: str) -> str | None:
        if self._stopping:
            return "the service is stopping"
        if len(self._streams) >= self.limits.connections:
            return f"{self.limits.connections} connections are open already"
        if self._per_address.get(address, 0) >= self.limits.connections_per_address:
            return f"{self.limits.connections_per_address} connections from this address are open already"
        return None

    # -- serving -----------------------------------------------------------------------------------------------

    def soon(self, call: Callable[[], None]) -> None:
        """When all that came together has been read, for whoever it came: cheaper than another turn of the loop.

        Never where it has stopped: there are no connections any more.
        """
        if self._door is not None:
            self._door.soon(call)

    def attend(self, stream: Stream, attendant: Attendant) -> None:
        """Let this attendant, instead of the listener's own, look at a connection that no handler has."""
        if stream not in self._streams:
            return
        try:
            what = attendant(stream)
        except Exception:
            _log.exception("attendant for %s failed", stream.peer_address[0])
            what = Attention.END
        if what is Attention.WAIT:
            stream.receiver = self._attend
            self._idle.start(stream)
            return
        self._idle.stop(stream)
        if what is Attention.LATER:
            stream.receiver = self._attend
            return
        stream.receiver = None
        if what is Attention.HANDLE:
            self._begin(self._serve(stream))
        else:
            self._end(stream)

    def _attend(self, stream: Stream) -> None:
        """Ready, or something new has come."""
        if self._attendant is not None:
            self.attend(stream, self._attendant)

    def _end_idle(self, stream: Stream) -> None:
        stream.receiver = None
        self._on_idle(stream)
        self._end(stream)

    def _end(self, stream: Stream) -> None:
        """Without a task where everything said is on its way already."""
        stream.end()
        if stream.unsent_bytes():
            self._begin(stream.close())

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
