"""A client of asyncio's own that only listens."""

from __future__ import annotations

import asyncio
from typing import Any


async def all_of(address: str, port: int, **options: Any) -> bytes:
    """What a client is sent that says nothing. ConnectionError, as early as when it connects."""
    reader, writer = await asyncio.open_connection(address, port, **options)
    try:
        return await reader.read()
    finally:
        writer.close()
