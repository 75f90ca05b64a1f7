"""SIP over one connection, as a client: requests and their answers, and a word for what the other side asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cucm.errors import LabError
from cucm.net.tls import Stream
from cucm.wire.sip import SipReceiver, response_to, transaction_of
from cucm.wire.sip_message import Request, Response

METHODS: Final = "OPTIONS"
"""What a phone of this lab answers; a CallManager's NOTIFY, INVITE and the like are not emulated."""

MAX_UNSENT_BYTES: Final = 64 * 1024
"""Of answers that the CallManager does not take; ours."""

OnEnd = Callable[[Exception | None], None]
"""Called once when the other side ends the connection; None: in good order."""


def _nothing(_error: Exception | None) -> None:
    pass


class SipConnection:
    """Hears what comes as long as the stream lives. `close` or `abort` it; neither calls `on_end`.

    Nothing waits for it meanwhile: a task that reads would cost every registered phone 2 KiB.
    """

    __slots__ = ("_error", "_has_ended", "_receiver", "_stream", "_waiting", "on_end")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._receiver = SipReceiver()
        self._waiting: dict[tuple[str, str], asyncio.Future[Response | None]] = {}
        self._has_ended = False
        self._error: Exception | None = None
        self.on_end: OnEnd = _nothing
        stream.receiver = stream.when_lost = self._hear
        if stream.received or stream.has_ended:
            self._hear(stream)

    @property
    def local_address(self) -> tuple[str, int]:
        return self._stream.local_address

    async def tell(self, request: Request) -> None:
        """Send a request whose answer nobody waits for. Raises TimeoutError, ConnectionError."""
        self._stream.write(bytes(request))
        await self._stream.drain()

    async def ask(self, request: Request) -> Response | None:
        """The final answer, None when the other side ends the connection instead.

        Raises WireError for what is no SIP, TlsError and OSError for a connection that breaks.
        """
        if self._has_ended:
            self._raise_trouble()
            return None
        key = transaction_of(request)
        answer: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            await self.tell(request)
            return await answer
        except ConnectionError:
            self._raise_trouble()  # says more than that nothing can be written
            raise
        finally:
            answer.cancel()
            self._waiting.pop(key, None)

    def rest(self) -> None:
        """Nothing is expected for long: the stream gives back what it can."""
        self._stream.rest()

    async def close(self) -> None:
        """Hang up in good order; also when cancelled."""
        self._stop_hearing()
        await self._stream.close()

    async def abort(self) -> None:
        """Cut the connection: the other side meets a reset."""
        self._stop_hearing()
        self._stream.reset()

    def _stop_hearing(self) -> None:
        """Also lets go of whoever listens, who holds this: without a circle memory is free at once."""
        self._stream.receiver = self._stream.when_lost = None
        self.on_end = _nothing

    def _raise_trouble(self) -> None:
        if self._error is not None:
            raise self._error

    def _hear(self, stream: Stream) -> None:
        """What came, as far as it is whole; then the end, if it has come."""
        try:
            self._receiver.receive_data(stream.take())
            while not self._has_ended and (message := self._receiver.next_message()) is not None:
                self._take(message)
        except LabError as error:
            self._end(error)
        if stream.has_ended:
            self._end(stream.error)

    def _end(self, error: Exception | None) -> None:
        if self._has_ended:
            return
        self._has_ended, self._error = True, error
        self._stream.receiver = self._stream.when_lost = None
        for answer in self._waiting.values():
            _settle(answer, error)
        self.on_end(error)

    def _take(self, message: Request | Response) -> None:
        """What is provisional, late or no answer to us is passed over."""
        if isinstance(message, Request):
            self._answer(message)
        elif message.code >= 200:
            answer = self._waiting.get(transaction_of(message))
            if answer is None and message.code == 400 and transaction_of(message) == ("", ""):
                # what could not be read is answered without repeating anything of it
                answer = next(iter(self._waiting.values()), None)
            if answer is not None and not answer.done():
                answer.set_result(message)

    def _answer(self, request: Request) -> None:
        """A peer that asks and takes no answers is cut off: the answers would pile up."""
        if request.method == "ACK":
            return
        if self._stream.unsent_bytes() > MAX_UNSENT_BYTES:
            self._stream.abort()
            return
        is_known = request.method == METHODS
        response = response_to(request, 200 if is_known else 405, "OK" if is_known else "Method Not Allowed")
        response.headers.set("Allow", METHODS)
        self._stream.write(bytes(response))


def _settle(answer: asyncio.Future[Response | None], error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
