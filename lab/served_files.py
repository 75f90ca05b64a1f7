"""What every file server of a lab has handed out: for the record, and to tell later whose file a phone holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from cucm.errors import DecodeError
from cucm.wire.signed_file import decode_signed_file, is_signed_file
from tftp_server.file_store import FileStore

MAX_KEPT: Final = 4096
"""Different contents kept at most; a lab serves a few per node and phone."""


class ServedFiles:
    """Contents by node and name, newest version, and the node of every content ever served."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], bytes] = {}
        self._nodes: dict[bytes, str] = {}

    def note(self, node: str, name: str, data: bytes) -> None:
        if len(self._newest) < MAX_KEPT or (node, name) in self._newest:
            self._newest[node, name] = data
        if len(self._nodes) < MAX_KEPT:
            self._nodes.setdefault(_digest(data), node)
            self._nodes.setdefault(_digest(_content(data)), node)

    def node_of(self, data: bytes) -> str | None:
        """The node that served this content, signed or as a signed file's content; None if none did."""
        return self._nodes.get(_digest(data))

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        return ((node, name, data) for (node, name), data in sorted(self._newest.items()))

    def recording(self, node: str, store: FileStore) -> FileStore:
        return _RecordingStore(node, store, self)


class _RecordingStore:
    def __init__(self, node: str, store: FileStore, served: ServedFiles) -> None:
        self._node = node
        self._store = store
        self._served = served

    def read(self, name: str) -> bytes:
        data = self._store.read(name)
        self._served.note(self._node, name, data)
        return data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _content(data: bytes) -> bytes:
    try:
        return decode_signed_file(data).content if is_signed_file(data) else data
    except DecodeError:
        return data
