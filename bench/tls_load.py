"""TLS load: a new connection with a full handshake and one exchange each, so many at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from bench.load import Bounds, LoadResult
from bench.material import Material, TlsCase
from bench.serve import loop_factory
from cucm.errors import LabError
from cucm.net.stream import Stream
from cucm.net.tls import client_context, open_stream
from cucm.wire.tvs import STATUS_OK, NeedData, QueryCertificateResponse, TvsConnection

EXCHANGE_S: Final = 30.0
_HTTP_REQUEST: Final = b"GET / HTTP/1.0\r\nX-Fill: " + b"x" * 122 + b"\r\n\r\n"
"""As long as a TVS query."""

Exchange = Callable[[Stream, int], Awaitable[str | None]]
"""Asks on an open stream, with a session number; None when the answer is right, otherwise what is wrong with it."""


@dataclass(slots=True)
class TlsLoad:
    """The load's outcome, with what was negotiated: both servers of a comparison must agree on it."""

    result: LoadResult
    negotiated: str = ""


def load_context(material: Material, case: TlsCase) -> SSL.Context:
    if not case.client_certificate:
        return client_context(profile=case.profile)
    phone = material.phone
    return client_context(
        profile=case.profile, certificate_der=phone.certificate_der, private_key_der=phone.private_key_der
    )


def tvs_exchange(material: Material) -> Exchange:
    """One QUERY_CERT; the answer must carry the session, success, and the wanted certificate byte for byte."""
    wanted = material.wanted.certificate_der

    async def exchange(stream: Stream, number: int) -> str | None:
        stream.write(material.query(number))
        connection = TvsConnection(max_messages=1)
        while isinstance(answer := connection.next_event(), NeedData):
            data = await stream.read()
            if not data:
                return "hung up without an answer"
            connection.receive_data(data)
        if not isinstance(answer, QueryCertificateResponse) or answer.session_id != number:
            return "answer to something else"
        return None if answer.status == STATUS_OK and answer.certificate == wanted else "wrong answer"

    return exchange


def http_exchange(body_bytes: int) -> Exchange:
    """One request of nginx; the body must be as long as agreed."""

    async def exchange(stream: Stream, _number: int) -> str | None:
        stream.write(_HTTP_REQUEST)
        received = b""
        while data := await stream.read():
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        return None if head.startswith(b"HTTP/1.1 200 ") and body == b"x" * body_bytes else "wrong answer"

    return exchange


def load_tls(address: str, port: int, context: SSL.Context, exchange: Exchange, bounds: Bounds) -> TlsLoad:
    """Run the load in this process."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_load(address, port, context, exchange, bounds))


async def _load(address: str, port: int, context: SSL.Context, exchange: Exchange, bounds: Bounds) -> TlsLoad:
    load = TlsLoad(LoadResult())
    begins = time.perf_counter()
    numbers = iter(range(1, bounds.operations + 1))

    async def client() -> None:
        for number in numbers:
            if time.perf_counter() - begins > bounds.seconds:
                return
            await _once(load, address, port, context, exchange, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(bounds.concurrency):
            group.create_task(client())
    load.result.wall_s = time.perf_counter() - begins
    return load


async def _once(load: TlsLoad, address: str, port: int, context: SSL.Context, exchange: Exchange, number: int) -> None:
    begins = time.perf_counter()
    try:
        async with asyncio.timeout(EXCHANGE_S), await open_stream(address, port, context=context) as stream:
            wrong = await exchange(stream, number)
            load.negotiated = f"{stream.tls_version} {stream.cipher}"
    except (OSError, LabError) as error:
        wrong = type(error).__name__
    if wrong is None:
        load.result.done += 1
        load.result.latencies_s.append(time.perf_counter() - begins)
    else:
        load.result.failures[wrong] += 1
