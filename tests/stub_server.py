"""A server of asyncio's own for one test, which leaves no connection behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TURNS = 5
"""Of the loop, until whoever was let in has his handler: on asyncio's loop three."""


@asynccontextmanager
async def stub_server(handle: Handler, address: str, port: int = 0) -> AsyncIterator[int]:
    """Yields its port. At the end all connections have been handled and are closed, also one that was let in just now;
    what a handler raised is raised, unless it is only that the client hung up.

    `asyncio.start_server` forgets them when the test is over: then the collector tells of an unclosed socket, which is
    another test's failure. The clients have hung up by then, or the handlers end by themselves.
    """
    handling: set[asyncio.Future[None]] = set()

    async def handle_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.ensure_future(handle_to_the_end(reader, writer)))

    server = await asyncio.start_server(begin, address, port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if handling:
            await asyncio.wait(handling)
        await server.wait_closed()
        for one in handling:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                one.result()
