"""One connection of a TVS server: its number, its stream and the messages in it."""

from __future__ import annotations

from typing import Final

from cucm.errors import DecodeError, EncodeError, LimitExceeded, TlsError
from cucm.events.tvs import TvsRefusalReason
from cucm.net.listener import Limits
from cucm.net.stream import Stream
from cucm.wire.tvs import (
    HEADER_BYTES,
    NEED_DATA,
    ConnectionClosed,
    NeedData,
    TvsConnection,
    TvsMessage,
    decode_message,
)

MAX_REQUESTS: Final = 64
"""UNKNOWN (facts 2.9): whether the real TVS serves more than one request per connection. We do, up to this many."""


class Client:
    """One connection: its number, its stream and the messages in it."""

    __slots__ = ("_connection", "_event", "answered", "in_request", "is_greeted", "place", "stream")

    def __init__(self, number: int, stream: Stream) -> None:
        self.place = (number, *stream.peer_address)
        self.stream = stream
        self.answered = 0
        self.in_request = False
        self.is_greeted = False
        self._connection: TvsConnection | None = None
        self._event: TvsMessage | NeedData | ConnectionClosed = NEED_DATA

    def has_whole_request(self) -> bool:
        """Whether what has come is exactly one message, by its header."""
        data = self.stream.received
        return len(data) >= HEADER_BYTES and HEADER_BYTES + (data[8] << 8 | data[9]) == len(data)

    def take_request(self) -> tuple[TvsMessage, bytes]:
        """The one that `has_whole_request` found, and its bytes. Raises WireError."""
        if self.answered >= MAX_REQUESTS:
            raise LimitExceeded(f"more than {MAX_REQUESTS} messages on one connection")
        data = self.stream.take()
        return decode_message(data), data

    async def await_request(self) -> None:
        """Wait, as long as a connection may be idle, until a request begins or the client closes."""
        if self._connection is None:  # the first that is not answered at once
            self._connection = TvsConnection(max_messages=MAX_REQUESTS - self.answered)
        self._event = self._connection.next_event()
        if isinstance(self._event, NeedData):
            await self._receive(self._connection)
        self.in_request = True

    async def complete_request(self) -> TvsMessage | None:
        """The request that has begun; None when the client has closed instead."""
        while isinstance(self._event, NeedData) and self._connection is not None:
            await self._receive(self._connection)
        return self._event if isinstance(self._event, TvsMessage) else None

    async def _receive(self, connection: TvsConnection) -> None:
        data = await self.stream.read()
        if data:
            connection.receive_data(data)
        else:
            connection.receive_eof()
        self._event = connection.next_event()

    def refusal(self, error: Exception, limits: Limits) -> tuple[TvsRefusalReason, str]:
        """Why `error` ends this connection."""
        match error:
            case LimitExceeded() | EncodeError():
                return TvsRefusalReason.TOO_MUCH, str(error)
            case TimeoutError() if self.in_request:
                return TvsRefusalReason.REQUEST_TIMEOUT, str(error) or f"not done in {limits.request_timeout_s:g} s"
            case TimeoutError():
                return TvsRefusalReason.IDLE_TIMEOUT, f"no request for {limits.idle_timeout_s:g} s"
            case TlsError():
                return TvsRefusalReason.TLS, str(error)
            case DecodeError(path="header.type"):
                return TvsRefusalReason.UNEXPECTED_MESSAGE, str(error)
            case _:
                return TvsRefusalReason.MALFORMED, str(error)
