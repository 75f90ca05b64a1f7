"""What the engine and its worker processes say to each other: pickles over a pair of sockets that only those two have.

The socket is inherited, never bound: nobody else can speak to a worker, so what comes is trusted as the program's own.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from lab.fleet.batch import PhoneState, Surroundings

_LENGTH: Final = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Begin:
    """These phones are yours."""

    around: Surroundings
    states: tuple[PhoneState, ...]


@dataclass(frozen=True, slots=True)
class Perform:
    verb: str
    title: str
    models: frozenset[str]
    concurrency: int


@dataclass(frozen=True, slots=True)
class TellAccounts:
    pass


@dataclass(frozen=True, slots=True)
class TellMemory:
    pass


@dataclass(frozen=True, slots=True)
class MoveClock:
    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """What is performed now ends at once; the phones in the middle of it lose their power."""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to any of these but the last, in their order."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Broke:
    """The worker's own fault: it ends."""

    why: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """Phones that have done what is performed, since the last word about it."""

    done: int
    states: Counter[str]
    reasons: Counter[str]


def send(writer: asyncio.StreamWriter, message: object) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(data)))
    writer.write(data)


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message. Raises EOFError when the other end has gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        data = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error
    return pickle.loads(data)  # noqa: S301 (see above)
