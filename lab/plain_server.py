"""A call server of another make in the lab's network: it signs nothing and knows no trust lists (facts 11 F22).

CME or Asterisk stand behind it: configuration files in plain XML over TFTP and HTTP, SIP over TCP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Final

from cucm.database import Device
from cucm.events import EventLog
from cucm.faults import NO_FAULTS, FaultSource
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.net.addresses import PortMap
from cucm.signalling import DeviceSecurityMode
from lab.call_processing import CallProcessing
from lab.served_files import ServedFiles
from tftp_server.configuration import CallManagerGroup, DeviceSettings, ServerAddress, device_configuration
from tftp_server.content_faults import FaultyStore
from tftp_server.file_store import MappingStore
from tftp_server.server import FileServer

GROUP: Final = "plain"


class PlainServer:
    """Serves `SEP<mac>.cnf.xml` for each device name given, and registers those devices over TCP 5060."""

    def __init__(
        self,
        name: str,
        address: str,
        devices: Iterable[str],
        identity: Identity,
        *,
        ports: PortMap,
        served: ServedFiles,
        events: EventLog,
        now: Callable[[], float],
        keys: KeyStore | None = None,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        """To faults it is a cluster of one node, both of its name; `keys` has the key of who forges its files then."""
        self.name = name
        self.address = address
        self._devices = {
            device: Device(device, "", "", DeviceSecurityMode.NON_SECURE, GROUP, GROUP) for device in devices
        }
        files = {f"{device}.cnf.xml": self._configuration(device) for device in self._devices}
        here = faults.at(cluster=name, node=name)
        emit = events.emitter(f"tftp:{name}")
        faulty = FaultyStore(MappingStore(files), here, keys or KeyStore(), emit=emit)
        self._files = FileServer(address, served.recording(name, faulty), tftp_port=ports.tftp, emit=emit, faults=here)
        self.call_processing = CallProcessing(
            name,
            address,
            self,
            (identity.certificate_der, identity.private_key_der),
            client_cas=tuple,
            now=now,
            emit=events.emitter(f"callmanager:{name}"),
            faults=here,
        )

    @property
    def file_server(self) -> FileServer:
        return self._files

    def device(self, name: str) -> Device | None:
        return self._devices.get(name)

    async def start(self) -> None:
        """Raises AddressBusy, EnvironmentProblem; then nothing of it runs."""
        try:
            await self._files.start()
            await self.call_processing.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self._files.stop)
            parts.push_async_callback(self.call_processing.stop)

    async def crash(self) -> None:
        """Connections are reset, nothing is said."""
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self._files.crash)
            parts.push_async_callback(self.call_processing.crash)

    def _configuration(self, device: str) -> bytes:
        here = (ServerAddress(self.name, self.address),)
        return device_configuration(
            DeviceSettings(
                description=device,
                device_pool=GROUP,
                group=CallManagerGroup(GROUP, callmanagers=here, tvs=()),
                capf=(),
                security_mode=DeviceSecurityMode.NON_SECURE,
            )
        )
