"""Private keys that are made once and kept, outside of git: making one RSA key costs more than a whole migration.

A key belongs to a label, not to a run: asked again, in this or another process, the store answers the same key.
These are lab toys; nothing of value may ever depend on them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import platformdirs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from cucm.errors import UsageError
from cucm.machine import machine_problem

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
KeyKind = int | str
"""RSA bits (1024 to 4096) or the name of a curve (`secp256r1`, `secp384r1`, `secp521r1`)."""

CACHE_VARIABLE: Final = "CUCM_LAB_CACHE"
RSA_BITS: Final = (1024, 2048, 3072, 4096)
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    curve.name: curve for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
}
MAX_LOADED: Final = 1024
"""Keys kept in memory by one store; those asked for longest ago are read again."""
_RSA_EXPONENT: Final = 65537
_MAGIC: Final = b"cucm-lab toy key 1\n"
"""A cached key is this line, the SHA-256 of the rest, and the rest: PKCS#8 DER. The hash stands in for OpenSSL's
validation at load, which costs as much as 50 signatures (limits: 43-54 ms against 0.0005x)."""
_DIGEST_BYTES: Final = 32
_MAX_FILE: Final = 16 * 1024
_OUR_SUFFIXES: Final = (".key", ".lock")


def default_directory() -> Path:
    """`$CUCM_LAB_CACHE`, or `cucm-migration-lab/keys` in the user's cache directory."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("cucm-migration-lab") / "keys"


def private_key_der(key: PrivateKey) -> bytes:
    """PKCS#8 DER, not encrypted."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(der: bytes, *, ours: bool = False) -> PrivateKey:
    """The RSA or EC key in unencrypted DER (UsageError if it is none).

    `ours=True` skips OpenSSL's validation: only for keys that the lab itself made and kept from others' hands.
    """
    try:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=ours)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError("not an unencrypted private key in DER") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise UsageError("a private key of this kind is of no use here", mend="use RSA or an elliptic curve")
    return key


class KeySource(Protocol):
    """Where whoever issues a certificate gets its key."""

    def key(self, label: str, kind: KeyKind = 2048) -> PrivateKey: ...


class NewKeys:
    """A key that nobody had before or gets again, in no file: whatever the label, nothing piles up in the cache."""

    def key(self, label: str, kind: KeyKind = 2048) -> PrivateKey:  # noqa: ARG002 (as of a store)
        """Raises UsageError for a kind that does not exist."""
        _require_kind(kind)
        return _generate(kind)


class KeyStore:
    """Keys by label. Files have mode 0600 in a directory of mode 0700; several processes may share one store.

    A directory that holds other things too keeps its mode.

    `generated` counts the keys this object had to make, for "a second start generates none".
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()
        self.generated = 0
        self._loaded: dict[tuple[str, KeyKind], PrivateKey] = {}
        self._coming: dict[tuple[str, KeyKind], Future[PrivateKey]] = {}
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"KeyStore({str(self.directory)!r})"

    def key(self, label: str, kind: KeyKind = 2048) -> PrivateKey:
        """The key of that label and kind, made on first use.

        UsageError for a kind that does not exist, EnvironmentProblem if the directory cannot be used.
        """
        _require_kind(kind)
        coming = self._coming.pop((label, kind), None)
        known = self._loaded.pop((label, kind), None) or (coming and coming.result())
        known = known or self._from_directory(label, kind)
        self._loaded[label, kind] = known  # the one asked for last is the last
        if len(self._loaded) > MAX_LOADED:
            del self._loaded[next(iter(self._loaded))]
        return known

    def prepare(self, wanted: Iterable[tuple[str, KeyKind]]) -> list[Future[PrivateKey]]:
        """Begin to make those of these keys that are not there, one on each core; `key` waits for the one it wants.

        Returns those that are still to come, for who would rather wait elsewhere. What goes wrong is told by `key`.
        """
        wanted = tuple(wanted)
        missing = [one for one in dict.fromkeys(wanted) if one not in self._loaded and not self._path(*one).exists()]
        missing = [one for one in missing if one not in self._coming]
        if missing:  # OpenSSL makes keys without holding the interpreter, so threads halve the time on two cores
            makers = ThreadPoolExecutor(_usable_cores(), "cucm-lab-keys")
            self._coming |= {one: makers.submit(self._from_directory, *one) for one in missing}
            makers.shutdown(wait=False)
        return [self._coming[one] for one in wanted if one in self._coming]

    def _path(self, label: str, kind: KeyKind) -> Path:
        return self.directory / _file_name(label, kind)

    def _from_directory(self, label: str, kind: KeyKind) -> PrivateKey:
        path = self._path(label, kind)
        try:
            return _read(path, kind) or self._make(path, kind)
        except OSError as error:
            mend = f"set {CACHE_VARIABLE} to a directory that you may write"
            raise machine_problem(
                error, str(self.directory), failed="the key cache cannot be used", mend=mend
            ) from error

    def _make(self, path: Path, kind: KeyKind) -> PrivateKey:
        """One maker at a time per key: whoever waited takes what the other made."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if all(entry.suffix in _OUR_SUFFIXES for entry in self.directory.iterdir()):
            self.directory.chmod(0o700)  # a place for other things too (/tmp, someone's home) is not ours to close
        with _locked(path.with_suffix(".lock")):
            key = _read(path, kind)
            if key is None:
                key = _generate(kind)
                with self._counting:
                    self.generated += 1
                _write(path, key)
            return key


def _usable_cores() -> int:
    """Those this process may use; where the system does not tell (macOS), all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_kind(kind: KeyKind) -> None:
    if kind not in (*RSA_BITS, *CURVES):
        known = ", ".join(map(str, (*RSA_BITS, *CURVES)))
        raise UsageError(f"no such kind of key: {kind!r}", mend=f"use one of {known}")


def _file_name(label: str, kind: KeyKind) -> str:
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", label)[:40].lstrip(".")
    return f"{readable}-{hashlib.sha256(label.encode()).hexdigest()[:16]}-{kind}.key"


def _generate(kind: KeyKind) -> PrivateKey:
    if isinstance(kind, int):
        return rsa.generate_private_key(_RSA_EXPONENT, kind)
    return ec.generate_private_key(_CURVES[kind])


def _kind_of(key: PrivateKey) -> KeyKind:
    return key.key_size if isinstance(key, rsa.RSAPrivateKey) else key.curve.name


def _read(path: Path, kind: KeyKind) -> PrivateKey | None:
    """The key in the file, or None if there is none or the file is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE)
            if os.fstat(file.fileno()).st_mode & 0o077:
                os.fchmod(file.fileno(), 0o600)
    except FileNotFoundError:
        return None
    digest, der = data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if not data.startswith(_MAGIC) or hashlib.sha256(der).digest() != digest:
        return None
    try:
        key = load_private_key(der, ours=True)
    except UsageError:
        return None
    return key if _kind_of(key) == kind else None


def _write(path: Path, key: PrivateKey) -> None:
    """Whole or not at all: written beside the place (mkstemp: mode 0600), forced to disk, then moved into it."""
    der = private_key_der(key)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-", suffix=".key")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MAGIC + hashlib.sha256(der).digest() + der)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file lock; the system frees it should the process die."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
