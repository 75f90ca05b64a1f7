"""A two-node cluster of any release and security mode whose TFTP services really serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from pathlib import Path

from cluster_on_disk import INSTALLED, NOW, PUBLISHER, SUBSCRIBER, ClusterOnDisk

from cucm.certificates import security_token
from cucm.clock import MovableClock
from cucm.versions import PROFILES, VersionProfile
from tftp_server.node_files import NodeFileStore, write_ctl
from tftp_server.server import FileServer
from tftp_server.trust_list_builder import KeyFolder, build_ctl, build_token_ctl

DEADLINE_S = 20.0


class Mode(Enum):
    """What an administrator has made of the cluster before phones ask for its lists."""

    NON_SECURE = "non-secure"
    TOKENLESS = "mixed, tokenless"
    TOKENS = "mixed, with tokens"
    PUT_BACK = "tokenless, put back to non-secure"
    TOKENS_PUT_BACK = "with tokens, put back to non-secure"
    ROLLBACK = "mixed, preparing a rollback"

    def exists_in(self, profile: VersionProfile) -> bool:
        if self in (Mode.TOKENS, Mode.TOKENS_PUT_BACK):
            return profile.supports_tokens
        return self is Mode.NON_SECURE or profile.ctl_signer is not None

    @property
    def has_tokens(self) -> bool:
        return self in (Mode.TOKENS, Mode.TOKENS_PUT_BACK)

    @property
    def is_mixed(self) -> bool:
        return self in (Mode.TOKENLESS, Mode.TOKENS, Mode.ROLLBACK)


LAYOUTS = [(profile.version, mode) for profile in PROFILES for mode in Mode if mode.exists_in(profile)]
"""Every release with every mode it has."""


class ServedCluster:
    def __init__(self, directory: Path, version: str, mode: Mode) -> None:
        self.mode = mode
        self.cluster = ClusterOnDisk(directory, version, mixed=mode.is_mixed, nodes=(PUBLISHER, SUBSCRIBER))
        self.tokens = [security_token(self.cluster.keys, number, seed=3, not_before=INSTALLED) for number in (1, 2)]
        self.stores: dict[str, NodeFileStore] = {}
        self.servers: dict[str, FileServer] = {}
        if mode is Mode.ROLLBACK:
            self.cluster.database.set_parameter("Prepare Cluster for Rollback to pre 8.0", "True")
        if mode is not Mode.NON_SECURE:
            data = self.ctl()
            for node in self.cluster.nodes:
                write_ctl(self.cluster.node_directory(node), data)

    def keys_of(self, node: str) -> KeyFolder:
        return KeyFolder(self.cluster.node_directory(node) / "security")

    def ctl(self) -> bytes:
        cluster = self.cluster
        if self.mode.has_tokens:
            return build_token_ctl(cluster.database, cluster.profile, self.tokens, self.tokens[1], NOW)
        return build_ctl(cluster.database, self.keys_of(PUBLISHER), cluster.profile, NOW)

    async def start(self, node: str, address: str) -> None:
        directory = self.cluster.node_directory(node)
        self.stores[node] = NodeFileStore(directory, node, self.cluster.profile, MovableClock(NOW, frozen=True))
        self.servers[node] = FileServer(address, self.stores[node], tftp_port=0, http_port=0)
        await self.servers[node].start()

    def url(self, node: str) -> str:
        return f"http://{self.servers[node].address}:{self.servers[node].http_port}"

    async def get(self, node: str, name: str) -> bytes | None:
        """The file as it came over the wire; None for 404."""
        server = self.servers[node]
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(server.address, server.http_port)
            writer.write(f"GET /{name} HTTP/1.1\r\nHost:{server.address}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            writer.close()
            await writer.wait_closed()
        return body if head.startswith(b"HTTP/1.1 200") else None

    async def stop(self) -> None:
        for server in self.servers.values():
            await server.stop()
        for store in self.stores.values():
            store.close()
        self.cluster.database.close()


@asynccontextmanager
async def serving(
    directory: Path, loopback: Callable[[], str], version: str, mode: Mode
) -> AsyncIterator[ServedCluster]:
    async with AsyncExitStack() as stack:
        served = ServedCluster(directory, version, mode)
        stack.push_async_callback(served.stop)
        for node in served.cluster.nodes:
            await served.start(node, loopback())
        yield served
