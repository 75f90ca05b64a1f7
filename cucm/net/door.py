"""The listening side of a TCP server: a port that lets connections in, refuses them, or is lost to the network.

Not asyncio's `Server`: that one can neither stop accepting nor begin again within one turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from cucm.net.addresses import bind_tcp, binding_problem
from cucm.net.connection_poller import ConnectionPoller
from cucm.net.reachability import Reachability, bind_silent_tcp, drop_packets, fill_accept_queue, take_packets
from cucm.net.transport import SocketTransport

LISTEN_BACKLOG: Final = 1024
"""A small one makes phones' kernels retry after 1, 3 and 7 seconds when many boot at once."""
ACCEPTS_PER_TURN: Final = 128
"""Connections let in before those that are open get their turn again."""
EXHAUSTED_PAUSE_S: Final = 1.0
"""How long nobody is let in after the system had no descriptor or memory left for a connection."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


class Door:
    """A bound port; `protocol()` makes the protocol of each connection let in.

    `is_shared`: other processes may serve the port as well. Port 0 becomes a free one. Raises AddressBusy,
    EnvironmentProblem, here and in `set`.
    """

    def __init__(
        self,
        address: str,
        port: int,
        protocol: Callable[[], asyncio.BufferedProtocol],
        how: Reachability,
        *,
        is_shared: bool = False,
    ) -> None:
        self.address = address
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._fillers: list[socket.socket] = []
        self._pause: asyncio.TimerHandle | None = None
        self._how = Reachability.OPEN
        self._is_shared = is_shared
        self._socket = bind_tcp(address, port, backlog=LISTEN_BACKLOG, is_shared=is_shared)
        self.port: int = self._socket.getsockname()[1]
        self._family = int(self._socket.family)
        try:
            self._poller = ConnectionPoller(self._loop)
        except OSError as error:
            self._socket.close()
            raise binding_problem(error, address, self.port, "TCP") from error
        self._accept_from_now_on()
        try:
            self.set(how)
        except BaseException:
            self.close()
            raise

    @property
    def socket_number(self) -> int:
        """The descriptor of the port's socket; -1 when it is closed."""
        return self._socket.fileno()

    def set(self, how: Reachability) -> None:
        """From now on the network treats those who connect like this."""
        if how is self._how:
            return
        if self._how is Reachability.REFUSE:
            self._socket.close()
            self._socket = bind_tcp(self.address, self.port, backlog=LISTEN_BACKLOG, is_shared=self._is_shared)
            self._accept_from_now_on()
        elif self._how is Reachability.UNREACHABLE:
            self._be_found()
        self._how = how
        if how is Reachability.REFUSE:
            self._accept_waiting()
            self._accept_no_more()
            self._socket.close()
            self._socket = bind_silent_tcp(self.address, self.port)
        elif how is Reachability.UNREACHABLE:
            self._be_lost()

    def close(self) -> None:
        """Free the port. Those who still wait are reset; those who were let in stay."""
        self._accept_no_more()
        self._close_fillers()
        self._socket.close()
        self._poller.release()

    def soon(self, call: Callable[[], None]) -> None:
        """When all that came together has been read, for whoever it came."""
        self._poller.soon(call)

    # -- accepting ---------------------------------------------------------------------------------------------

    def _accept_from_now_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._accept_waiting)

    def _accept_no_more(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)

    def _accept_waiting(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                # not `accept`: that makes two enums and asks the socket four questions for each connection
                descriptor, peer = self._socket._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            # the inner class alone: the outer one counts the files made of it, and there are none
            connection = socket.SocketType(self._family, socket.SOCK_STREAM, 0, descriptor)
            connection.setblocking(False)
            SocketTransport(connection, peer, self._poller, self._protocol()).start()

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno not in _EXHAUSTED:
            _log.debug("%s port %d: accept: %s", self.address, self.port, error)
            return
        _log.warning("%s port %d: nobody is let in for a while: %s", self.address, self.port, error)
        self._accept_no_more()
        self._pause = self._loop.call_later(EXHAUSTED_PAUSE_S, self._accept_from_now_on)

    # -- losing packets ----------------------------------------------------------------------------------------

    def _be_lost(self) -> None:
        self._accept_waiting()  # for TCP they stand: they fall silent like the others
        if drop_packets(self._socket):
            return
        self._accept_no_more()
        self._socket.listen(0)
        self._fillers = fill_accept_queue(self._socket)

    def _be_found(self) -> None:
        if not self._fillers:
            take_packets(self._socket)
            return
        own = {filler.getsockname() for filler in self._fillers}
        self._close_fillers()
        self._socket.listen(LISTEN_BACKLOG)
        with contextlib.suppress(BlockingIOError):
            while own:  # they are the first in the queue
                connection, peer = self._socket.accept()
                connection.close()
                own.discard(peer)
        self._accept_from_now_on()

    def _close_fillers(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers = []
