"""What the faults of `tcp.accept` look like on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cucm.faults import FaultSource
from cucm.faults.catalogue.tcp import TCP_ACCEPT, Blackhole, Refuse, Reset, Slow, Stall
from cucm.net.between import HOLD_S, Deaf, PacedTransport, ResetAfter
from cucm.net.stream import Stream


class SpoiltConnections:
    """Decides what becomes of a listener's new connections, and keeps those that its service never learns of.

    `freeze` lets the packets of a stream vanish, `cut` resets it, also if it is frozen.
    """

    def __init__(self, faults: FaultSource, *, freeze: Callable[[Stream], None], cut: Callable[[Stream], None]) -> None:
        self._faults = faults
        self._freeze = freeze
        self._cut = cut
        self.hidden: dict[Stream, asyncio.TimerHandle | None] = {}
        """Those of which the service knows nothing."""

    def admits(self, stream: Stream, port: int) -> bool:
        """Whether the service is to serve this new connection, which may be spoilt nevertheless."""
        match self._faults.fire(TCP_ACCEPT, port=port, peer=stream.peer_address[0]):
            case Refuse():
                self.hidden[stream] = None
                stream.reset()
            case Stall():
                self._hold(stream)
                stream.transport.set_protocol(Deaf(stream))
            case Blackhole():
                self._hold(stream)
                self._freeze(stream)
            case Reset(after_bytes=count):
                stream.transport.set_protocol(ResetAfter(stream, count))
            case Slow() as slow:
                _pace(stream, slow)
        return stream not in self.hidden

    def forget(self, stream: Stream) -> None:
        """It is gone for this side."""
        timer = self.hidden.pop(stream, None)
        if timer is not None:
            timer.cancel()

    def _hold(self, stream: Stream) -> None:
        self.hidden[stream] = asyncio.get_running_loop().call_later(HOLD_S, self._cut, stream)


def _pace(stream: Stream, slow: Slow) -> None:
    """A peer that takes little is no peer that takes nothing: the stream's own deadlines give way."""
    stream.send_through(PacedTransport(stream.transport, stream, slow.bytes_per_s, slow.delay_s))
    stream.close_timeout_s = HOLD_S
    if stream.idle_timeout_s is not None:
        stream.idle_timeout_s = max(stream.idle_timeout_s, HOLD_S)
