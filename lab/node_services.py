"""What a node runs as a service, whatever it is: begun, ended, killed, and cut off by the network."""

from __future__ import annotations

from typing import Protocol

from cucm.net.reachability import Reachability
from cucm.records import dataclass
from tftp_server.node_files import NodeFileStore
from tftp_server.server import FileServer


class RunningService(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None:
        """In order: connections are ended, then the port is closed."""

    async def crash(self) -> None:
        """The process dies: connections are reset, nothing is said or tidied up."""

    def set_reachability(self, how: Reachability) -> None: ...


@dataclass(frozen=True, slots=True)
class FileService:
    """The file server with the store it serves from, which ends with it."""

    server: FileServer
    store: NodeFileStore

    async def start(self) -> None:
        try:
            await self.server.start()
        except BaseException:
            self.store.close()
            raise

    async def stop(self) -> None:
        try:
            await self.server.stop()
        finally:
            self.store.close()

    async def crash(self) -> None:
        try:
            await self.server.crash()
        finally:
            self.store.close()

    def set_reachability(self, how: Reachability) -> None:
        self.server.set_reachability(how)


class ChangeNotification:
    """Certificate change notification: it has no port in the lab; the cluster looks at whether it runs."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def crash(self) -> None:
        pass

    def set_reachability(self, how: Reachability) -> None:
        pass
