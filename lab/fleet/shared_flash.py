"""The flash of a fleet's phones: in memory, and what many hold is held once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Unpack

from phone_agent.flash import FlashChanges, FlashContents, MemoryFlash

MAX_SHARED: Final = 4096
"""Different contents that are looked for among those known; the phones of a cluster have the same few."""


class SharedBytes:
    """One object for equal bytes. Lists of ten thousand phones would be 150 MB; they are some files of a few KB."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def same(self, data: bytes) -> bytes:
        known = self._known.get(data)
        if known is None:
            if len(self._known) >= MAX_SHARED:
                return data
            known = self._known[data] = bytes(data)
        return known


class SharedFlash(MemoryFlash):
    """A `MemoryFlash` that shares its bytes with others by `shared`."""

    def __init__(self, contents: FlashContents, shared: SharedBytes) -> None:
        super().__init__(contents)
        self._shared = shared

    def store(self, **changes: Unpack[FlashChanges]) -> None:
        held: dict[str, Any] = {
            name: self._shared.same(value) if isinstance(value, bytes) else value for name, value in changes.items()
        }
        if "tvs_cache" in changes:
            same = self._shared.same
            held["tvs_cache"] = tuple(
                replace(entry, certificate=same(entry.certificate)) for entry in changes["tvs_cache"]
            )
        super().store(**held)
