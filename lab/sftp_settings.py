"""What an SFTP client is told of its server. Without asyncssh: most labs never open a session."""

from __future__ import annotations

import posixpath
from dataclasses import field
from ipaddress import ip_address

from cucm.errors import UsageError
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class SftpSettings:
    """What an administrator enters under Bulk Certificate Management.

    `host_key` is the server's fingerprint (`SHA256:...`); None takes the one it shows first. Whether CUCM looks at the
    host key is UNKNOWN: [inferred] it does not, the lab does.
    """

    address: str
    user: str
    password: str = field(repr=False)
    directory: str = "/"
    port: int = 22
    host_key: str | None = None

    def __post_init__(self) -> None:
        """UsageError for what no server could be asked for."""
        try:
            ip_address(self.address)
        except ValueError:
            raise UsageError(f"{self.address[:64]!r} is no IP address", mend="give one: the lab asks no DNS") from None
        if not 0 < self.port < 65_536:
            raise UsageError(f"there is no port {self.port}", mend="use 1 to 65535; SFTP is 22")
        texts = {"user": self.user, "password": self.password, "directory": self.directory}
        for name, value in texts.items():
            if not value.isprintable() or not 0 < len(value) <= 255:
                raise UsageError(f"SFTP {name}: 1 to 255 printable characters", mend=f"give another {name}")

    @property
    def where(self) -> str:
        return f"sftp://{self.user}@{self.address}:{self.port}{posixpath.join('/', self.directory)}"


@dataclass(frozen=True, slots=True)
class SftpDeadlines:
    """Seconds; ours: CUCM's are UNKNOWN. `step` is for one file or one listing."""

    connect: float = 5.0
    step: float = 15.0
