"""What every file server of a lab has handed out: for the record, and to tell later whose file a phone holds."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cucm.errors import DecodeError, EnvironmentProblem
from cucm.whole_files import write_whole
from cucm.wire.signed_file import decode_signed_file, is_signed_file
from tftp_server.file_store import FileStore

FILE_NAME: Final = "served.log"
MAX_CONTENTS: Final = 4096
"""Files of which the newest content is kept; a lab serves a few per node and phone."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Of all those contents together."""
MAX_DIGESTS: Final = 32_768
"""Contents whose node is known; beyond, those served longest ago are forgotten."""
_MAX_LINE: Final = 64 + 1 + 256

_log: Final = logging.getLogger(__name__)


class ServedFiles:
    """Contents by node and name, newest version, and the node of every content served.

    With a `path`, who served what is known to a later lab, too: a line `digest node` for each new content. A kill
    loses nothing, a disk that is full costs no more than this knowledge.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._newest: dict[tuple[str, str], bytes] = {}
        self._bytes = 0
        self._nodes: dict[str, str] = {}
        self._path = path
        self._lines = 0
        if path is not None:
            self._read(path)

    def note(self, node: str, name: str, data: bytes) -> None:
        if self._newest.get((node, name)) is data:  # the very object: nothing to hash again
            return
        self._keep(node, name, data)
        content = _content(data)
        for one in (data, content) if content is not data else (data,):
            self._know(_digest(one), node)

    def node_of(self, data: bytes) -> str | None:
        """The node that served this content, signed or as a signed file's content; None if none did."""
        return self._nodes.get(_digest(data))

    def node_of_digest(self, digest: str) -> str | None:
        """As `node_of`, by the SHA-256 in hex."""
        return self._nodes.get(digest)

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        return ((node, name, data) for (node, name), data in sorted(self._newest.items()))

    def recording(self, node: str, store: FileStore) -> FileStore:
        return _RecordingStore(node, store, self)

    # --- inside

    def _keep(self, node: str, name: str, data: bytes) -> None:
        self._bytes += len(data) - len(self._newest.pop((node, name), b""))
        self._newest[node, name] = data
        while len(self._newest) > MAX_CONTENTS or (self._bytes > MAX_BYTES and len(self._newest) > 1):
            self._bytes -= len(self._newest.pop(next(iter(self._newest))))

    def _know(self, digest: str, node: str) -> None:
        """The first that served it stays the one who did."""
        known = self._nodes.pop(digest, None)
        self._nodes[digest] = known or node  # the newest at the end
        if len(self._nodes) > MAX_DIGESTS:
            del self._nodes[next(iter(self._nodes))]
        if known is None and self._path is not None:
            self._append(self._path, f"{digest} {node}\n")

    def _append(self, path: Path, line: str) -> None:
        try:
            if self._lines >= 2 * MAX_DIGESTS:
                self._rewrite(path)
                return
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
            self._lines += 1
        except (OSError, EnvironmentProblem) as error:
            _log.warning("%s: what was served is not kept: %s", path, error)
            self._path = None

    def _rewrite(self, path: Path) -> None:
        write_whole(path, "".join(f"{digest} {node}\n" for digest, node in self._nodes.items()).encode(), mode=0o600)
        self._lines = len(self._nodes)

    def _read(self, path: Path) -> None:
        """What it says; half a line at the end is a kill's."""
        try:
            with path.open("rb") as file:
                text = file.read(2 * MAX_DIGESTS * _MAX_LINE).decode("ascii", "replace")
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s: cannot be read: %s", path, error)
            return
        for line in text.split("\n")[:-1]:
            digest, _, node = line.partition(" ")
            if len(digest) == 64 and node:
                self._nodes[digest] = node
        for digest in list(self._nodes)[:-MAX_DIGESTS]:
            del self._nodes[digest]
        self._lines = text.count("\n")
        if text and not text.endswith("\n"):
            self._append(path, "\n")


class _RecordingStore:
    def __init__(self, node: str, store: FileStore, served: ServedFiles) -> None:
        self._node = node
        self._store = store
        self._served = served

    def read(self, name: str) -> bytes:
        data = self._store.read(name)
        self._served.note(self._node, name, data)
        return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _content(data: bytes) -> bytes:
    try:
        return decode_signed_file(data).content if is_signed_file(data) else data
    except DecodeError:
        return data
