"""Faults of files as a whole: a store between a file server and its files."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from typing import Final

from cucm.errors import LabError
from cucm.events import Emit, ignore
from cucm.events.files import FileAltered, FileNotAltered
from cucm.faults import Action, FaultSource
from cucm.faults.catalogue.files import FILE_CONTENT, Stale, WrongSigner
from cucm.key_store import KeyStore
from cucm.wire.trust_list import CTL_FILE_NAME, ITL_FILE_NAME
from tftp_server.altered_files import NotAlterable, altered, signed_by
from tftp_server.file_store import FileStore

MAX_HISTORIES: Final = 4096
"""Files of which an earlier version is kept."""
MAX_VERSION_BYTES: Final = 2 * 1024 * 1024
"""What a phone downloads (facts 3.5)."""
MAX_HISTORY_BYTES: Final = 64 * 1024 * 1024
IMPOSTOR_KEY: Final = "impostor that signs files"
_NOTHING: Final = (b"", b"")
_DEVICE: Final = re.compile(r"(?P<list>CTL|ITL)?(?P<device>(?i:SEP[0-9a-f]{12}))\.")
_LISTS: Final = {"CTL": CTL_FILE_NAME, "ITL": ITL_FILE_NAME}


class ServedVersions:
    """The present and the earlier content of each file that was served; it outlives the service, as phones do.

    Its memory is bounded: large files are not kept, and the files that were first seen are forgotten first.
    """

    def __init__(self) -> None:
        self._versions: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    def note(self, name: str, data: bytes) -> None:
        """`data` is the content now. A CTL or ITL is one file under all its names."""
        name = _file_of(name)
        present, _ = known = self._versions.get(name, _NOTHING)
        if present is data or present == data or len(data) > MAX_VERSION_BYTES:
            return
        self._versions[name] = new = data, present
        self._bytes += _size(new) - _size(known)
        while len(self._versions) > MAX_HISTORIES or self._bytes > MAX_HISTORY_BYTES:
            _, forgotten = self._versions.popitem(last=False)
            self._bytes -= _size(forgotten)

    def earlier(self, name: str) -> bytes | None:
        """What was served before the present version; None where nobody was served another."""
        return self._versions.get(_file_of(name), _NOTHING)[1] or None


class FaultyStore:
    """`store` with the faults that hit its files. `keys` has the key of whoever signs in the right one's place."""

    def __init__(
        self,
        store: FileStore,
        faults: FaultSource,
        keys: KeyStore,
        *,
        versions: ServedVersions | None = None,
        emit: Emit = ignore,
    ) -> None:
        self._store = store
        self._faults = faults
        self._keys = keys
        self._versions = versions or ServedVersions()
        self._emit = emit

    def read(self, name: str) -> bytes:
        data = self._store.read(name)
        self._versions.note(name, data)
        if not self._faults.watches(FILE_CONTENT):
            return data
        action = self._faults.fire(FILE_CONTENT, file=name, **_phone_of(name))
        return data if action is None else self._altered(name, data, action)

    def _altered(self, name: str, data: bytes, action: Action) -> bytes:
        try:
            now = self._after(action, name, data)
        except (NotAlterable, LabError) as reason:
            self._emit(FileNotAltered(name, action.name, str(reason)))
            return data
        self._emit(FileAltered(name, action.name, _digest(data), _digest(now), len(now)))
        return now

    def _after(self, action: Action, name: str, data: bytes) -> bytes:
        match action:
            case Stale():
                earlier = self._versions.earlier(name)
                if earlier is None:
                    raise NotAlterable("no other version of it was served before")
                return earlier
            case WrongSigner():
                return signed_by(data, self._keys.key(IMPOSTOR_KEY))
        return altered(data, action)


def _file_of(name: str) -> str:
    """What a node has under this name: `CTLSEP<mac>.tlv` is the node's CTL."""
    match = _DEVICE.match(name)
    return _LISTS[match["list"]] if match and match["list"] else name


def _phone_of(name: str) -> dict[str, str]:
    match = _DEVICE.match(name)
    return {"phone": match["device"].upper()} if match else {}


def _size(versions: tuple[bytes, bytes]) -> int:
    return sum(map(len, versions))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
