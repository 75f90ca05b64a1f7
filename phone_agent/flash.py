"""What a phone keeps while the power is off: trust lists, configuration, certificates, TVS answers.

A flash is a directory: `objects/<sha-256>` holds contents, `manifest.json` says which of them are in force. A store
writes new objects first and then replaces the manifest in one rename, so that a kill at any instant leaves the old or
the new state. What no manifest names is removed at the next store or load.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, Unpack

from cucm.errors import FlashError
from phone_agent.flash_contents import (
    DeviceIdentity,
    FlashChanges,
    FlashContents,
    TvsCacheEntry,
    changed,
    decode_manifest,
    encode_manifest,
    objects_of,
    without_lists,
)
from phone_agent.flash_export import MAX_OBJECT, export_contents

__all__ = [
    "DeviceIdentity",
    "Flash",
    "FlashChanges",
    "FlashContents",
    "MemoryFlash",
    "PhoneFlash",
    "TvsCacheEntry",
    "export_contents",
]

MAX_MANIFEST: Final = 1024 * 1024
MEND: Final = "erase the phone's flash directory: the phone then starts without lists, like a new one"


class PhoneFlash(Protocol):
    """What the phone needs of its flash."""

    @property
    def contents(self) -> FlashContents: ...

    def store(self, **changes: Unpack[FlashChanges]) -> None:
        """Replace these fields, all of them or (killed, or FlashError) none."""

    def erase_security_settings(self) -> None:
        """Forget both lists and what hangs on them; configuration and certificates stay.

        `Erasing CTL and ITL files` (facts 7.5). Whether a real phone drops its LSC as well is UNKNOWN.
        """

    def export(self, directory: Path) -> None:
        """Write lists, configuration and a `status.json` for people to look at; no private keys."""


class MemoryFlash:
    """A flash without a directory, for fleets and tests."""

    def __init__(self, contents: FlashContents | None = None) -> None:
        self._contents = contents or FlashContents()

    @property
    def contents(self) -> FlashContents:
        return self._contents

    def store(self, **changes: Unpack[FlashChanges]) -> None:
        self._contents = changed(self._contents, changes)

    def erase_security_settings(self) -> None:
        self._contents = without_lists(self._contents)

    def export(self, directory: Path) -> None:
        export_contents(self._contents, directory)


class Flash:
    """A flash in a directory of its own, made if it is not there. Raises FlashError for one that cannot be read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._objects = directory / "objects"
        self._manifest = directory / "manifest.json"
        try:
            for path in (directory, self._objects):
                path.mkdir(mode=0o700, parents=path == directory, exist_ok=True)
            with self._locked():
                self._contents = self._load()
                self._remove_orphans(objects_of(self._contents))
        except OSError as error:
            raise self._problem(f"the flash cannot be read: {error.strerror}") from error

    @property
    def contents(self) -> FlashContents:
        return self._contents

    def store(self, **changes: Unpack[FlashChanges]) -> None:
        self._commit(changed(self._contents, changes))

    def erase_security_settings(self) -> None:
        self._commit(without_lists(self._contents))

    def export(self, directory: Path) -> None:
        export_contents(self._contents, directory)

    # -- writing -----------------------------------------------------------------------------------------------

    def _commit(self, contents: FlashContents) -> None:
        manifest = encode_manifest(contents)
        objects = objects_of(contents)
        if len(manifest) > MAX_MANIFEST or any(len(content) > MAX_OBJECT for content in objects.values()):
            raise self._problem(f"contents of more than {MAX_OBJECT} bytes do not fit into the flash", "store less")
        try:
            with self._locked():
                self._write_objects(objects)
                _write_durably(self._manifest, manifest)
                _sync_directory(self._directory)
                self._contents = contents
                self._remove_orphans(objects)
        except OSError as error:
            raise self._problem(
                f"the flash cannot be written: {error.strerror}", "free the disk, or its rights"
            ) from error

    def _write_objects(self, objects: dict[str, bytes]) -> None:
        for digest, content in objects.items():
            if not (self._objects / digest).exists():
                _write_durably(self._objects / digest, content)
        _sync_directory(self._objects)

    def _remove_orphans(self, objects: dict[str, bytes]) -> None:
        with suppress(OSError):  # the state is safe already; what stays is removed another time
            _temporary(self._manifest).unlink(missing_ok=True)
            for path in self._objects.iterdir():
                if path.name not in objects:
                    path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time: another's orphans may be objects whose manifest is just being written."""
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # -- reading -----------------------------------------------------------------------------------------------

    def _load(self) -> FlashContents:
        try:
            text = _read_bounded(self._manifest, MAX_MANIFEST)
            return decode_manifest(text, self._read_object)
        except FileNotFoundError:  # of the manifest: a missing object is a FlashError
            return FlashContents()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._problem(f"the flash's manifest is damaged: {error}") from error

    def _read_object(self, digest: str) -> bytes:
        if len(digest) != 64 or not digest.isalnum():
            raise ValueError(f"{digest[:80]!r} names no object")
        try:
            content = _read_bounded(self._objects / digest, MAX_OBJECT)
        except FileNotFoundError:
            raise self._problem(f"object {digest} is missing") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise self._problem(f"object {digest} is damaged")
        return content

    def _problem(self, what: str, mend: str = MEND) -> FlashError:
        return FlashError(what, where=str(self._directory), mend=mend)


# -- files that are whole or not there --------------------------------------------------------------------------------


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _write_durably(path: Path, content: bytes) -> None:
    """Under its own name only when every byte is on the disk; mode 0600, for some contents are private keys."""
    temporary = _temporary(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_directory(directory: Path) -> None:
    """Make the renames in it survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path.name} is larger than {limit} bytes")
    return content
