"""A node's CallManager as far as phones register with it: SIP on TLS 5061 and TCP 5060 (facts 7.7).

Over TLS a phone is who its certificate says: it must be issued by a CA the node trusts, or the handshake fails (facts
11 F7), and its CN must name the device that registers. The database's security mode decides which transport a device
has to use. Mode 2 (authenticated, NULL-SHA on a real cluster) is served by the same encrypted TLS as mode 3.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from cryptography import x509
from OpenSSL import SSL

from cucm.errors import TrustError
from cucm.events import Emit, ignore
from cucm.events.cluster import RegistrationEnd, RegistrationRefusal, RegistrationRefused
from cucm.faults import NO_FAULTS, FaultSource
from cucm.net.listener import Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.tls import ClientCertificatePolicy, Stream, TlsProfile, VerifyPeer, server_context
from cucm.net.tls_faults import FalseCertificates
from cucm.signalling import SECURE_SIP_PORT, SIP_PORT
from cucm.wire.sip import is_device_name
from lab.admission import Admission, DeviceDatabase, device_in
from lab.registrar import DeviceState, DeviceStatus, RegisteredDevice, Registrar, Station, Transport
from lab.station_connection import EXPIRES_S, CallManagerParts, ServiceEnding, StationConnection

__all__ = [
    "EXPIRES_S",
    "CallProcessing",
    "DeviceDatabase",
    "DeviceState",
    "DeviceStatus",
    "RegisteredDevice",
    "Transport",
]

EXPIRY_CHECK_S: Final = 0.25
"""How often, in real seconds, the lab's clock is looked at; ours."""
EXPIRY_GRACE_S: Final = 2.0
"""Real seconds between the end of a registration's time and its end; ours. A story may move the lab's clock by days,
and the phones, which live by the same clock, are to have a chance to refresh."""


def _nobody_cares(_device: str) -> None:
    pass


class CallProcessing:
    """Registers the phones of one node.

    `identity` is the CallManager certificate and its key (DER); `client_cas` gives the DER certificates of those who
    may have issued a phone's certificate, read at `start`: as on a real node, a new one needs a restart [recall].
    `registered` maps device names to what is known of their registration; it is what counts as registered. `devices`
    is what is known of every device heard of. `on_registered` hears of every device that registers anew, so that its
    registration at another node of the cluster can be ended there (`release`).
    """

    def __init__(
        self,
        node_name: str,
        address: str,
        database: DeviceDatabase,
        identity: tuple[bytes, bytes],
        *,
        client_cas: Callable[[], Sequence[bytes]],
        profile: TlsProfile = TlsProfile.MODERN,
        sip_port: int = SIP_PORT,
        secure_sip_port: int = SECURE_SIP_PORT,
        limits: Limits | None = None,
        now: Callable[[], float] = time.time,
        on_registered: Callable[[str], object] = _nobody_cares,
        expiry_grace_s: float = EXPIRY_GRACE_S,
        emit: Emit = ignore,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        self.node_name = node_name
        self._address = address
        self._identity = identity
        self._client_cas = client_cas
        self._profile = profile
        self._now = now
        self._emit = emit
        self._faults = faults.at(service="CallManager")
        self._expiry_grace_s = expiry_grace_s
        self._expiring: asyncio.Task[None] | None = None
        self._check: VerifyPeer | None = None
        self._registrar = Registrar(node_name, now, emit, on_registered)
        self._ending = ServiceEnding()
        self._parts = CallManagerParts(
            Admission(database, now, identity[1]), self._registrar, limits or Limits(), emit, self._ending, faults
        )
        self._listeners: dict[Transport, Listener] = {
            "tcp": self._listener(sip_port, "tcp"),
            "tls": self._listener(secure_sip_port, "tls"),
        }

    @property
    def sip_port(self) -> int:
        return self._listeners["tcp"].port

    @property
    def secure_sip_port(self) -> int:
        return self._listeners["tls"].port

    @property
    def certificate(self) -> bytes:
        """DER of what it shows to phones."""
        return self._identity[0]

    @property
    def admission(self) -> Admission:
        """Whom it lets register."""
        return self._parts.admission

    def require_client(self, certificate: bytes) -> None:
        """What a handshake says to this client certificate (DER): nothing, or TrustError."""
        if self._check is not None:
            self._check(certificate)

    @property
    def registered(self) -> Mapping[str, RegisteredDevice]:
        return MappingProxyType(self._registrar.registered)

    @property
    def devices(self) -> Mapping[str, DeviceStatus]:
        return MappingProxyType(self._registrar.devices)

    async def start(self) -> None:
        """Listen on both ports. Raises AddressBusy, EnvironmentProblem; then neither is open."""
        self._ending.reason = None
        self._listeners["tls"].set_context(self._context())
        try:
            for listener in self._listeners.values():
                await listener.start()
        except BaseException:
            await self.stop()
            raise
        self._expiring = asyncio.create_task(self._expire_registrations())

    async def stop(self) -> None:
        """Stop listening and end all connections: every registered phone notices."""
        self._ending.reason = RegistrationEnd.SERVICE_STOPPED
        await self._stop_expiring()
        for listener in self._listeners.values():
            await listener.stop()

    async def crash(self) -> None:
        """The process dies: every connection is reset, and nobody says anything."""
        self._ending.reason = RegistrationEnd.SERVICE_CRASHED
        await self._stop_expiring()
        for listener in self._listeners.values():
            await listener.crash()

    def set_reachability(self, how: Reachability) -> None:
        for listener in self._listeners.values():
            listener.set_reachability(how)

    def release(self, device: str) -> bool:
        """The device has registered with another node of the cluster: here it is no longer; whether it was.

        Its connection is closed if no other device uses it [inferred].
        """
        return self._registrar.end(device, RegistrationEnd.REGISTERED_ELSEWHERE)

    # -- expiry ------------------------------------------------------------------------------------------------

    async def _expire_registrations(self) -> None:
        """End what is not refreshed, by the lab's clock, which may stand still or be moved."""
        overdue_since: dict[str, float] = {}
        while True:
            await asyncio.sleep(min(EXPIRY_CHECK_S, self._expiry_grace_s))
            moment = time.monotonic()
            overdue_since = {name: overdue_since.get(name, moment) for name in self._registrar.overdue()}
            for name, since in overdue_since.items():
                if moment - since >= self._expiry_grace_s:
                    self._registrar.end(name, RegistrationEnd.EXPIRED)

    async def _stop_expiring(self) -> None:
        task, self._expiring = self._expiring, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # -- connections -------------------------------------------------------------------------------------------

    def _context(self) -> SSL.Context:
        certificate, key = self._identity
        # a node that trusts no CA lets no phone in: no CA at all would mean "not checked"
        authorities = tuple(self._client_cas()) or (certificate,)
        context = server_context(
            certificate,
            key,
            profile=self._profile,
            policy=ClientCertificatePolicy.REQUIRED,
            client_cas=authorities,
            now=self._now,
        )
        self._check = _naming(context.get_app_data())
        context.set_app_data(self._check)
        return context

    def _listener(self, port: int, transport: Transport) -> Listener:
        def serve(stream: Stream) -> Awaitable[None]:
            return StationConnection(self._parts, stream, transport).serve()

        return Listener(
            self._address,
            port,
            serve,
            limits=self._parts.limits,
            faults=self._faults,
            false_certificates=FalseCertificates(*self._identity, now=self._now),
            on_refused=lambda peer, why: self._tell_refused(transport, peer, RegistrationRefusal.LIMIT, why),
            on_handshake_failed=lambda stream, error: self._handshake_failed(stream, error),
        )

    def _handshake_failed(self, stream: Stream, error: Exception) -> None:
        reason = RegistrationRefusal.HANDSHAKE
        name = None
        if isinstance(error, TrustError):
            reason = RegistrationRefusal.CLIENT_CERTIFICATE
            name = error.device if isinstance(error, _CertificateNotTrusted) else None
        if name is not None:
            self._registrar.refused(name, _unserved(stream), reason, None)
        self._tell_refused("tls", stream.peer_address, reason, str(error), name)

    def _tell_refused(
        self,
        transport: Transport,
        peer: tuple[str, int],
        reason: RegistrationRefusal,
        detail: str,
        name: str | None = None,
    ) -> None:
        self._emit(RegistrationRefused(transport, *peer, name, reason, None, detail))


class _CertificateNotTrusted(TrustError):
    """With the device that the refused certificate names: nothing is proven, but an administrator wants to know."""

    def __init__(self, refusal: TrustError, device: str | None) -> None:
        super().__init__(refusal.reason, refusal.what, where=refusal.where, mend=refusal.mend)
        self.device = device


def _naming(verify: VerifyPeer) -> VerifyPeer:
    def check(der: bytes) -> None:
        try:
            verify(der)
        except TrustError as refusal:
            raise _CertificateNotTrusted(refusal, _claimed_device(der)) from refusal

    return check


def _claimed_device(der: bytes) -> str | None:
    """None for a certificate that cannot be read, and for what is no phone's name."""
    try:
        name = device_in(der)
    except (ValueError, TypeError, x509.InvalidVersion):  # whatever `cryptography` finds in what OpenSSL let pass
        return None
    return name if name is not None and name.startswith("SEP") and len(name) <= 15 and is_device_name(name) else None


def _unserved(stream: Stream) -> Station:
    return Station("tls", stream.peer_address, "", "", stream.abort)
