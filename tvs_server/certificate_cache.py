"""The certificates TVS answers from: the database first, then the node's own CTL file (facts 2.7, 5.5).

Key is the serial number and issuer ("Unique MAP ID"). Names are compared as `cucm.names.name_key` does, so that a
list made by another generator, with commas between the parts, is served too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.database import NodeDatabase
from cucm.errors import LabError, UsageError
from cucm.events import Emit, ignore
from cucm.events.tvs import CacheName, CacheStep, TvsCacheLoaded, TvsCacheNotLoaded
from cucm.identity import describe
from cucm.names import name_key
from cucm.wire.trust_list import decode_trust_list
from tvs_server.policy import CacheEntry, Finding, map_id

BUSY_TIMEOUT_S: Final = 0.2
"""How long a locked database may hold up the service. A writer locks no reader out (WAL); only other tools do."""
MAX_CTL_FILE: Final = 4 * 1024 * 1024
"""Bytes of the largest local CTL file that is read."""
MAX_ROLE: Final = 0xFF
"""A response has one byte per role, a CTL record two for its FUNCTION."""
MAX_PEM_FILE: Final = 1024 * 1024
MAX_PEM_FILES: Final = 4096
PEM_SUFFIXES: Final = frozenset({".pem", ".crt", ".cer"})


class FreshnessMode(StrEnum):
    """When a change of the database reaches TVS. Cisco's texts disagree (facts 5.5), so both exist."""

    CHANGE_NOTIFICATION = "change-notification"
    """At once, as the security guide says."""
    STALE_UNTIL_RESTART = "stale-until-restart"
    """With the next start of the service, as the technote's "restart TVS on all nodes" suggests."""


class CertificateSource(Protocol):
    """Where entries come from. `version` is compared with `!=`; another one means that `entries` may differ."""

    def version(self) -> object:
        """Cheap: asked before every answer. Raises LabError, OSError."""
        ...

    def entries(self) -> Iterable[CacheEntry]:
        """Raises LabError, OSError."""
        ...

    def close(self) -> None:
        """Let go of what `version` and `entries` opened; they may be called again."""
        ...


class DatabaseSource:
    """A node's database file: every certificate in it, with the roles its stores give it (facts 5.3)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = str(path)
        self._file: tuple[int, int] | None = None
        self._database: NodeDatabase | None = None

    def version(self) -> object:
        try:
            status = os.stat(self._name)  # noqa: PTH116 (half the price of Path.stat, before every answer)
            file = status.st_dev, status.st_ino
        except FileNotFoundError:
            file = None
        if file != self._file:
            self.close()  # what is open is another file, which has lost its name
            self._file = file
        database = self._database or self._opened()
        return file, database.data_version()

    def entries(self) -> Iterable[CacheEntry]:
        return [entry_of(row.der, row.roles, row.ttl_s) for row in self._opened().certificates()]

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _opened(self) -> NodeDatabase:
        if self._database is None:
            self._database = NodeDatabase(self._path, busy_timeout_s=BUSY_TIMEOUT_S).open()
        return self._database


class PemFolderSource:
    """A folder of PEM files (.pem, .crt, .cer; several certificates in one file are fine), all with the same roles.

    Raises UsageError for a file that holds no certificate.
    """

    def __init__(self, folder: Path, roles: Sequence[int]) -> None:
        self._folder = folder
        self._roles = tuple(roles)

    def version(self) -> object:
        return tuple((path.name, _stamp(path)) for path in self._files())

    def entries(self) -> Iterable[CacheEntry]:
        return [entry_of(der, self._roles) for path in self._files() for der in _certificates_in(path)]

    def close(self) -> None:
        pass

    def _files(self) -> list[Path]:
        paths = sorted(path for path in self._folder.iterdir() if path.suffix.lower() in PEM_SUFFIXES)
        if len(paths) > MAX_PEM_FILES:
            raise UsageError(f"more than {MAX_PEM_FILES} certificates", where=str(self._folder), mend="use a database")
        return paths


class CtlFileSource:
    """The records of a local CTLFile.tlv. One certificate in two records has both functions [inferred].

    A file that is not there holds no records. Records without a certificate cannot be served and are left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> object:
        return _stamp(self._path)

    def entries(self) -> Iterable[CacheEntry]:
        if not self._path.exists():
            return []
        entries: dict[str, CacheEntry] = {}
        for record in decode_trust_list(_read(self._path, MAX_CTL_FILE)).records:
            certificate, issuer, serial = record.certificate, record.issuer, record.serial
            if certificate is None or issuer is None or serial is None:
                continue
            known = entries.get(map_id(serial, issuer))
            roles = {record.function, *(known.roles if known else ())}
            tellable = tuple(sorted(role for role in roles if role <= MAX_ROLE))
            entry = CacheEntry(certificate, issuer, serial, tellable)
            entries[entry.key] = entry
        return entries.values()

    def close(self) -> None:
        pass


_Key = tuple[bytes, tuple[tuple[str, str], ...]]


class CertificateCache:
    """Both caches in their order: `database` (a node's database file, or another source), then its CTL file.

    `load` fills them, `close` lets go of their sources; a `TvsServer` does both. `look_up` is a `policy.Lookup`.
    """

    def __init__(
        self,
        database: Path | CertificateSource,
        *,
        ctl_file: Path | None = None,
        mode: FreshnessMode = FreshnessMode.CHANGE_NOTIFICATION,
        emit: Emit = ignore,
    ) -> None:
        source = DatabaseSource(database) if isinstance(database, Path) else database
        watched = mode is FreshnessMode.CHANGE_NOTIFICATION
        self._caches = [_Cache(CacheName.DATABASE, source, watched=watched, emit=emit)]
        if ctl_file is not None:
            # the real service watches this file whatever the database does (facts 2.7)
            self._caches.append(_Cache(CacheName.LOCAL_CTL, CtlFileSource(ctl_file), watched=True, emit=emit))

    def load(self) -> None:
        """Read the sources, as a start of the service does; one that cannot be read is an event and left empty."""
        for cache in self._caches:
            cache.load(changed=False)

    def close(self) -> None:
        for cache in self._caches:
            cache.source.close()

    def count(self, name: CacheName) -> int:
        """Entries in one of the caches."""
        return sum(len(cache.entries) for cache in self._caches if cache.name is name)

    def look_up(self, serial: bytes, issuer: str) -> Finding:
        """Ask the caches in turn, after refreshing those whose source has changed."""
        self.look_anew()
        return self.find(serial, issuer)

    def look_anew(self) -> None:
        """Whatever has changed in the sources until now is seen by the next `find` and those behind it."""
        for cache in self._caches:
            cache.is_fresh = False

    def find(self, serial: bytes, issuer: str) -> Finding:
        """As `look_up`, by what the sources hold since `look_anew`: they are asked once for all that is found then."""
        key = _key(serial, issuer)
        steps: tuple[CacheStep, ...] = ()
        for cache in self._caches:
            if not cache.is_fresh:
                cache.refresh()
            entry = cache.entries.get(key)
            if entry is not None:
                return Finding(map_id(serial, issuer), entry, (*steps, _step(cache.name, entry.roles)))
            steps = (*steps, _step(cache.name, None))
        return Finding(map_id(serial, issuer), None, steps)


@lru_cache(maxsize=1024)
def _step(cache: CacheName, roles: tuple[int, ...] | None) -> CacheStep:
    """`roles` None: not found there."""
    return CacheStep(cache, roles is not None, roles or ())


class _Cache:
    def __init__(self, name: CacheName, source: CertificateSource, *, watched: bool, emit: Emit) -> None:
        self.name = name
        self.source = source
        self.entries: dict[_Key, CacheEntry] = {}
        self.is_fresh = False
        self._watched = watched
        self._emit = emit
        self._version: object = None

    def refresh(self) -> None:
        self.is_fresh = True
        if not self._watched:
            return
        try:
            version = self.source.version()
        except (LabError, OSError) as trouble:
            version = str(trouble)  # a trouble that stays is one change, not one before every answer
        if version != self._version:
            self.load(changed=True)

    def load(self, *, changed: bool) -> None:
        # the version first: a change while the entries are read is then found the next time
        self._version = _version_of(self.source)
        try:
            entries = list(self.source.entries())
        except (LabError, OSError) as trouble:
            self._emit(TvsCacheNotLoaded(self.name, str(trouble)))
            return
        self.entries = {_key(entry.serial, entry.issuer): entry for entry in entries}
        self._emit(TvsCacheLoaded(self.name, tuple(entry.key for entry in entries), changed))


def _version_of(source: CertificateSource) -> object:
    try:
        return source.version()
    except (LabError, OSError) as trouble:
        return str(trouble)  # a trouble that stays is one change, not one before every answer


def entry_of(der: bytes, roles: Sequence[int], ttl_s: int | None = None) -> CacheEntry:
    """Roles come out ascending, as the trace prints them. Raises DecodeError for what is no certificate."""
    seen = describe(der)
    return CacheEntry(der, seen.issuer, seen.serial, tuple(sorted(int(role) for role in roles)), ttl_s)


def _key(serial: bytes, issuer: str) -> _Key:
    return serial.lstrip(b"\0"), name_key(issuer)


def _certificates_in(path: Path) -> list[bytes]:
    try:
        certificates = x509.load_pem_x509_certificates(_read(path, MAX_PEM_FILE))
    except ValueError as error:
        raise UsageError(
            "holds no certificate in PEM", where=str(path), mend="convert it: openssl x509 -inform DER -outform PEM"
        ) from error
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"larger than {limit} bytes", where=str(path), mend="give the file that was meant")
    return data
