"""Real servers of a scripted cluster (`phone_script.Cluster`): files, TVS and a CallManager that takes every phone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from phone_script import NOW, Cluster

from cucm.certificates import Identity
from cucm.net.listener import Listener
from cucm.net.stream import Stream
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, server_context
from cucm.signalling import SECURE_SIP_PORT, SIP_PORT
from cucm.wire.sip import SipReceiver, response_to
from tftp_server.file_store import MappingStore
from tftp_server.server import FileServer
from tvs_server.certificate_cache import CertificateCache, entry_of
from tvs_server.policy import CacheEntry
from tvs_server.server import TvsServer


@dataclass
class Vouched:
    """A certificate source for TVS: identities with their roles."""

    certificates: dict[Identity, tuple[int, ...]] = field(default_factory=dict)

    def version(self) -> object:
        return len(self.certificates)

    def entries(self) -> Iterable[CacheEntry]:
        return [entry_of(identity.certificate_der, roles) for identity, roles in self.certificates.items()]

    def close(self) -> None:
        pass


@dataclass
class Servers:
    """What runs: `files` and `vouched` may change while serving; `phones` are the registered phones' connections."""

    files: dict[str, bytes]
    vouched: Vouched
    phones: list[Stream] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def take_phone(self, stream: Stream) -> None:
        """Answers every request with 200; `phones` are those that have sent a REGISTER, `endings` how they went."""
        try:
            await self._talk(stream)
        except Exception as error:
            self.endings.append(type(error).__name__)
            raise
        else:
            self.endings.append("closed")
        finally:
            self.ended.set()

    async def _talk(self, stream: Stream) -> None:
        receiver = SipReceiver()
        while data := await stream.read():
            receiver.receive_data(data)
            while (request := receiver.next_message()) is not None:
                stream.write(bytes(response_to(request, 200, "OK")))
                if request.method == "REGISTER" and stream not in self.phones:
                    self.phones.append(stream)


@asynccontextmanager
async def running(
    cluster: Cluster, *, profile: TlsProfile = TlsProfile.MODERN, tvs: bool = True, vouched: Vouched | None = None
) -> AsyncIterator[Servers]:
    """The cluster's services on its (loopback) address and the standard ports."""
    files = {name: content for name, content in cluster.files().items() if isinstance(content, bytes)}
    servers = Servers(files, vouched or Vouched())
    call_manager = cluster.call_manager
    context = server_context(
        call_manager.certificate_der,
        call_manager.private_key_der,
        profile=profile,
        policy=ClientCertificatePolicy.REQUIRED,
    )
    services: list[FileServer | TvsServer | Listener] = [
        FileServer(cluster.address, MappingStore(servers.files)),
        Listener(cluster.address, SIP_PORT, servers.take_phone),
        Listener(cluster.address, SECURE_SIP_PORT, servers.take_phone, context=context),
    ]
    if tvs:
        services.append(_tvs(cluster, servers.vouched, profile))
    async with AsyncExitStack() as stack:
        for service in services:
            await service.start()
            stack.push_async_callback(service.stop)
        yield servers


def _tvs(cluster: Cluster, vouched: Vouched, profile: TlsProfile) -> TvsServer:
    return TvsServer(
        cluster.address,
        certificate_der=cluster.tvs.certificate_der,
        private_key_der=cluster.tvs.private_key_der,
        cache=CertificateCache(vouched),
        policy=ClientCertificatePolicy.REQUIRED,
        client_cas=(cluster.capf.certificate_der,),
        profile=profile,
        now=lambda: NOW,
    )
