"""Who tells a phone its TFTP servers: DHCP's option 150, or somebody who has typed them in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class AddressClient(Protocol):
    """What a phone needs of DHCP. It can be asked again after `close`: a phone that boots again asks again."""

    async def tftp_servers(self) -> tuple[str, ...] | None:
        """The servers in order, empty if there is no such option; None when nobody answers."""

    async def close(self, *, release: bool) -> None:
        """The phone goes off: nothing is renewed any more; with `release` the server is told."""


class FixedTftpServers:
    """The manual TFTP setting of a phone: `servers` are what they are, and may be set anew."""

    def __init__(self, servers: Iterable[str] | None) -> None:
        self.servers = None if servers is None else tuple(servers)

    async def tftp_servers(self) -> tuple[str, ...] | None:
        return self.servers

    async def close(self, *, release: bool) -> None:
        pass
