"""Keys that are made while the event loop goes on: one RSA key takes longer than a whole migration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import wait

from cucm.key_store import KeyKind, KeySource, KeyStore, PrivateKey


async def keys_made(source: KeySource, wanted: Iterable[tuple[str, KeyKind]]) -> KeySource:
    """Where the keys of these labels and kinds are at hand: whoever asks there next waits for nothing.

    What goes wrong is told by the source's `key`, now or then.
    """
    if isinstance(source, KeyStore):
        coming = source.prepare(wanted)
        if coming:
            await asyncio.to_thread(wait, coming)
        return source
    made = {one: await asyncio.to_thread(source.key, *one) for one in wanted}
    return _AtHand(made, source)


class _AtHand:
    def __init__(self, made: Mapping[tuple[str, KeyKind], PrivateKey], otherwise: KeySource) -> None:
        self._made = made
        self._otherwise = otherwise

    def key(self, label: str, kind: KeyKind = 2048) -> PrivateKey:
        return self._made.get((label, kind)) or self._otherwise.key(label, kind)
