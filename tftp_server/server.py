"""CUCM's TFTP service as one thing: TFTP and HTTP on one address, over one store."""

from __future__ import annotations

from dataclasses import field
from typing import Final

from cucm.events import Emit, ignore
from cucm.events.files import FileServerStarted, FileServerStopped
from cucm.faults import NO_FAULTS, FaultSource
from cucm.net.listener import Limits
from cucm.net.reachability import Reachability
from cucm.records import dataclass
from tftp_server.file_store import FileStore
from tftp_server.http import DEFAULT_HTTP_LIMITS, HttpServer
from tftp_server.udp import TftpLimits, TftpServer

TFTP_PORT: Final = 69
HTTP_PORT: Final = 6970
"""facts 8. The HTTPS ports 6971 and 6972 are not served."""


@dataclass(frozen=True, slots=True)
class FileServerLimits:
    tftp: TftpLimits = field(default_factory=TftpLimits)
    http: Limits = DEFAULT_HTTP_LIMITS


class FileServer:
    """Serves `store` on `address`; port 0 takes a free one. A store may be shared by several servers.

    `faults` says what goes wrong with requests, packets, connections and answers; those of files are the store's part
    (`FaultyStore`).
    """

    def __init__(
        self,
        address: str,
        store: FileStore,
        *,
        tftp_port: int = TFTP_PORT,
        http_port: int = HTTP_PORT,
        emit: Emit = ignore,
        limits: FileServerLimits | None = None,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        limits = limits or FileServerLimits()
        faults = faults.at(service="TFTP")
        self.address = address
        self.store = store
        self._emit = emit
        self._tftp = TftpServer(address, tftp_port, store, emit=emit, limits=limits.tftp, faults=faults)
        self._http = HttpServer(address, http_port, store, emit=emit, limits=limits.http, faults=faults)
        self._running = False

    @property
    def tftp_port(self) -> int:
        return self._tftp.port

    @property
    def http_port(self) -> int:
        return self._http.port

    @property
    def receive_buffer_bytes(self) -> int:
        """What the kernel granted the TFTP port, in the kernel's count."""
        return self._tftp.receive_buffer_bytes

    @property
    def transfers(self) -> int:
        """TFTP transfers and HTTP connections under way."""
        return self._tftp.transfers + self._http.connections

    async def start(self) -> None:
        """Both ports are bound when this returns; neither is when it raises AddressBusy or EnvironmentProblem."""
        self._tell_by(self._emit)
        self._tftp.start()
        try:
            await self._http.start()
        except BaseException:
            self._tftp.stop()
            raise
        self._running = True
        self._emit(FileServerStarted(self.address, self.tftp_port, self.http_port, self.receive_buffer_bytes))

    async def stop(self) -> None:
        """End all transfers and free both ports. May be called twice."""
        self._tftp.stop()
        await self._http.stop()
        if self._running:
            self._running = False
            self._emit(FileServerStopped(self.address))

    async def crash(self) -> None:
        """The process is killed: connections are reset, transfers fall silent, nothing is told, both ports are free."""
        self._tell_by(ignore)  # a process that is gone writes no trace
        self._running = False
        self._tftp.crash()
        await self._http.crash()

    def set_reachability(self, how: Reachability) -> None:
        """What the network does with packets for both ports; kept over `stop` and `start`. Raises AddressBusy."""
        self._tftp.set_reachability(how)
        self._http.set_reachability(how)

    def _tell_by(self, emit: Emit) -> None:
        self._tftp.emit = self._http.emit = emit
