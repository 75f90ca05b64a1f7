"""The SFTP server's host key: made once (mode 0600), kept, named by its fingerprint. Without asyncssh, which is slow
to import and needed only when a client comes.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from cucm.errors import EnvironmentProblem, UsageError
from cucm.records import dataclass
from cucm.whole_files import write_private

MAX_HOST_KEY: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class HostKey:
    """`private` is the key's file in OpenSSH's form; `fingerprint` as `ssh-keygen -l` prints it: `SHA256:...`."""

    fingerprint: str
    private: bytes = field(repr=False)


def load_or_make(path: Path) -> HostKey:
    """The key in the file, or a new Ed25519 key in it. EnvironmentProblem, UsageError for a file without a key."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_HOST_KEY)
        path.chmod(0o600)
        return HostKey(_fingerprint(data), data)
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot be read: {error.strerror}", where=str(path), mend="delete it") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"holds no host key: {error}", where=str(path), mend="delete it: a new one is made, clients will notice"
        ) from error


def _make(path: Path) -> HostKey:
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, data)
    return HostKey(_fingerprint(data), data)


def _fingerprint(private: bytes) -> str:
    public = load_ssh_private_key(private, password=None).public_key()
    blob = base64.b64decode(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
