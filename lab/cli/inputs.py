"""Bounded reading of the files a user names, `-` for standard input."""

from __future__ import annotations

import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, NamedTuple

from cucm.errors import LimitExceeded, UsageError

STANDARD_INPUT: Final = "-"
AUTO: Final = "auto"
"""A `--network` that nobody has."""
MAX_CERTIFICATE_FILE: Final = 64 * 1024


class Input(NamedTuple):
    """Bytes of a file, the name to call it by, and when it was last modified (Unix seconds; now for standard input)."""

    name: str
    data: bytes
    modified_at: float


class MissingFile(UsageError):
    pass


def read_input(name: str, *, limit: int) -> Input:
    """At most `limit` bytes of the file `name`.

    Raises `MissingFile`, `UsageError` (a directory, not readable) or `LimitExceeded` (longer than `limit`).
    """
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise UsageError("standard input is closed", mend="name a file, or pipe one in")
        return Input("standard input", _bounded(sys.stdin.buffer.read(limit + 1), "standard input", limit), time.time())
    path = Path(name)
    try:
        if path.is_dir():
            raise UsageError("this is a directory, not a file", where=name, mend="name a file in it")
        with path.open("rb") as file:
            return Input(name, _bounded(file.read(limit + 1), name, limit), path.stat().st_mtime)
    except FileNotFoundError:
        raise MissingFile(
            "there is no such file", where=name, mend="check the path; `-` reads standard input"
        ) from None
    except (OSError, ValueError) as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(f"the file cannot be read: {text}", where=name) from None


def read_certificate(name: str) -> bytes:
    """DER of the one certificate in a PEM or DER file. Raises `UsageError` when there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = read_input(name, limit=MAX_CERTIFICATE_FILE).data
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
        return load(data).public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion):
        raise UsageError("this holds no certificate", where=name, mend="give one certificate as PEM or DER") from None


def read_network(text: str) -> IPv4Network:
    """A `--network`: a /24 of 127.0.0.0/8. Raises UsageError for any other."""
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise UsageError(str(error), where="--network", mend="for example --network 127.0.12.0/24") from error
    if network.prefixlen != 24 or not network.is_loopback:
        raise UsageError(f"{text} is not a /24 of 127.0.0.0/8", where="--network", mend="for example 127.0.12.0/24")
    return network


def _bounded(data: bytes, name: str, limit: int) -> bytes:
    if len(data) > limit:
        raise LimitExceeded(f"this is longer than the {limit} bytes that are read here", where=name)
    return data
