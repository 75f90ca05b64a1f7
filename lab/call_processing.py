"""A node's CallManager as far as phones register with it: SIP on TLS 5061 and TCP 5060 (facts 7.7).

Over TLS a phone is who its certificate says: it must be issued by a CA the node trusts, or the handshake fails (facts
11 F7), and its CN must name the device that registers. The database's security mode decides which transport a device
has to use. Mode 2 (authenticated, NULL-SHA on a real cluster) is served by the same encrypted TLS as mode 3.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from sipmessage import Request, Response

from cucm.database import Device
from cucm.errors import DecodeError, LabError, TrustError, WireError
from cucm.events import Emit, ignore
from cucm.events.cluster import (
    RegistrationAccepted,
    RegistrationEnd,
    RegistrationEnded,
    RegistrationRefusal,
    RegistrationRefused,
)
from cucm.net.listener import Limits, Listener
from cucm.net.tls import ClientCertificatePolicy, Stream, TlsProfile, server_context
from cucm.signalling import SECURE_SIP_PORT, SIP_PORT
from cucm.wire.sip import SipReceiver, device_name_of

EXPIRES_S: Final = 120
"""What is granted at most [recall: the station keepalive interval]. A registration here ends with its connection;
that it would also expire belongs to the SIP dialogue, which is not emulated."""
NON_SECURE: Final = 1
"""`deviceSecurityMode` (facts 7.7); 2 authenticated and 3 encrypted demand TLS."""

Transport = Literal["tls", "tcp"]


class DeviceDatabase(Protocol):
    def device(self, name: str) -> Device | None:
        """The device of this name, None if it is not provisioned."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredDevice:
    """`peer` is the phone's address and port, `since` Unix seconds."""

    transport: Transport
    peer: tuple[str, int]
    since: float


@dataclass(frozen=True, slots=True)
class _Refusal:
    """`status` is None where nothing is answered."""

    status: int | None
    phrase: str
    reason: RegistrationRefusal
    detail: str


class CallProcessing:
    """Registers the phones of one node.

    `identity` is the CallManager certificate and its key (DER); `client_cas` gives the DER certificates of those who
    may have issued a phone's certificate, read at `start`: as on a real node, a new one needs a restart [recall].
    `registered` maps device names to what is known of their registration; it is what counts as registered.
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
        emit: Emit = ignore,
    ) -> None:
        self.node_name = node_name
        self.registered: dict[str, RegisteredDevice] = {}
        self._address = address
        self.database = database
        self._identity = identity
        self._client_cas = client_cas
        self._profile = profile
        self.limits = limits or Limits()
        self.now = now
        self.emit = emit
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

    async def start(self) -> None:
        """Listen on both ports. Raises AddressBusy, EnvironmentProblem; then neither is open."""
        self._listeners["tls"].set_context(self._context())
        try:
            for listener in self._listeners.values():
                await listener.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening and end all connections: every registered phone notices."""
        for listener in self._listeners.values():
            await listener.stop()

    def _context(self) -> SSL.Context:
        certificate, key = self._identity
        # a node that trusts no CA lets no phone in: no CA at all would mean "not checked"
        authorities = tuple(self._client_cas()) or (certificate,)
        return server_context(
            certificate,
            key,
            profile=self._profile,
            policy=ClientCertificatePolicy.REQUIRED,
            client_cas=authorities,
            now=self.now,
        )

    def _listener(self, port: int, transport: Transport) -> Listener:
        async def serve(stream: Stream) -> None:
            await _Connection(self, stream, transport).serve()

        def refuse(peer: tuple[str, int], reason: RegistrationRefusal, detail: str) -> None:
            self.emit(RegistrationRefused(transport, *peer, None, reason, None, detail))

        return Listener(
            self._address,
            port,
            serve,
            limits=self.limits,
            on_refused=lambda peer, why: refuse(peer, RegistrationRefusal.LIMIT, why),
            on_handshake_failed=lambda stream, error: refuse(stream.peer_address, _handshake_reason(error), str(error)),
        )


class _Connection:
    """One phone's connection: its requests, and the registrations that end with it."""

    def __init__(self, owner: CallProcessing, stream: Stream, transport: Transport) -> None:
        self._owner = owner
        self._stream = stream
        self._transport: Transport = transport
        self._receiver = SipReceiver()
        self._mine: dict[str, RegisteredDevice] = {}

    async def serve(self) -> None:
        """Until the phone hangs up, errs, or (as long as it is not registered) is silent too long."""
        end = RegistrationEnd.CONNECTION_BROKEN
        try:
            await self._serve_requests()
            end = RegistrationEnd.CONNECTION_CLOSED
        except TimeoutError as error:
            if not self._mine:
                detail = str(error) or "no request in time"
                self._tell_refused(None, _Refusal(None, "", RegistrationRefusal.TIMEOUT, detail))
        except asyncio.CancelledError:
            end = RegistrationEnd.SERVICE_STOPPED
            raise
        finally:
            for name in tuple(self._mine):
                self._unregister(name, end)

    async def _serve_requests(self) -> None:
        is_open = True
        while is_open:
            try:
                request = await self._next_request()
            except WireError as error:
                self._tell_refused(None, _malformed(error))
                await self._send(_response(None, 400, "Bad Request"))
                return
            is_open = request is not None and await self._handle(request)

    async def _next_request(self) -> Request | None:
        """None when the phone has hung up. A registered phone may be silent as long as it likes."""
        self._stream.idle_timeout_s = None
        async with asyncio.timeout(None if self._mine else self._owner.limits.request_timeout_s):
            while True:
                message = self._receiver.next_message()
                if isinstance(message, Request):
                    return message
                if message is None:
                    data = await self._stream.read()
                    if not data:
                        return None
                    self._receiver.receive_data(data)

    async def _handle(self, request: Request) -> bool:
        """Answer; whether the connection goes on."""
        if request.method == "ACK":
            return True  # never answered (RFC 3261 17.1.1.3)
        if request.method != "REGISTER":
            what = f"{request.method[:32]} is not emulated"
            refusal = _Refusal(405, "Method Not Allowed", RegistrationRefusal.METHOD, what)
            return await self._refuse(request, None, refusal)
        try:
            name = device_name_of(request)
            expires_s = min(_requested_expiry(request), EXPIRES_S)
        except WireError as error:
            return await self._refuse(request, None, _malformed(error))
        objection = self._judge(name)
        if objection is not None:
            return await self._refuse(request, name, objection)
        if expires_s:
            self._register(name)
        else:
            self._unregister(name, RegistrationEnd.DEREGISTERED)
        await self._send(_accepted(request, expires_s))
        return True

    def _judge(self, name: str) -> _Refusal | None:
        """Why this device may not register here and thus, None if it may."""
        bearer = _device_in(self._stream.peer_certificate)
        if self._transport == "tls" and bearer != name:
            return _Refusal(
                403, "Forbidden", RegistrationRefusal.CERTIFICATE_NAME, f"the certificate is that of {bearer}"
            )
        try:
            device = self._owner.database.device(name)
        except LabError as error:
            return _Refusal(500, "Server Internal Error", RegistrationRefusal.DATABASE, str(error))
        if device is None:
            # auto-registration is off; the status is [recall]
            return _Refusal(404, "Not Found", RegistrationRefusal.UNKNOWN_DEVICE, "not in this cluster's database")
        demanded = "tcp" if device.security_mode == NON_SECURE else "tls"
        if demanded != self._transport:
            # 403 on 5060 for a secure profile: facts 7.7; the other way round [inferred]
            detail = f"security mode {device.security_mode} demands {demanded}"
            return _Refusal(403, "Forbidden", RegistrationRefusal.SECURITY_MODE, detail)
        return None

    async def _refuse(self, request: Request, name: str | None, refusal: _Refusal) -> bool:
        """Say no; after a malformed request the connection does not go on."""
        self._tell_refused(name, refusal)
        await self._send(_response(request, refusal.status or 500, refusal.phrase))
        return refusal.reason is not RegistrationRefusal.MALFORMED

    def _register(self, name: str) -> None:
        """A refresh keeps `since`; a device that comes over a new connection leaves its old one."""
        current = self._mine.get(name)
        if current is not None and self._owner.registered.get(name) is current:
            return
        device = RegisteredDevice(self._transport, self._stream.peer_address, self._owner.now())
        self._mine[name] = self._owner.registered[name] = device
        self._owner.emit(
            RegistrationAccepted(
                self._transport, *self._stream.peer_address, name, self._stream.cipher, self._stream.tls_version
            )
        )

    def _unregister(self, name: str, end: RegistrationEnd) -> None:
        device = self._mine.pop(name, None)
        if device is not None and self._owner.registered.get(name) is device:
            del self._owner.registered[name]
            self._owner.emit(RegistrationEnded(self._transport, *self._stream.peer_address, name, end))

    def _tell_refused(self, name: str | None, refusal: _Refusal) -> None:
        self._owner.emit(
            RegistrationRefused(
                self._transport,
                *self._stream.peer_address,
                name,
                refusal.reason,
                refusal.status,
                refusal.detail,
            )
        )

    async def _send(self, response: Response) -> None:
        self._stream.idle_timeout_s = self._owner.limits.idle_timeout_s
        self._stream.write(bytes(response))
        await self._stream.drain()


def _malformed(error: WireError) -> _Refusal:
    return _Refusal(400, "Bad Request", RegistrationRefusal.MALFORMED, str(error))


def _handshake_reason(error: Exception) -> RegistrationRefusal:
    return RegistrationRefusal.CLIENT_CERTIFICATE if isinstance(error, TrustError) else RegistrationRefusal.HANDSHAKE


def _device_in(certificate: bytes | None) -> str | None:
    """`SEPB000B4BA0AEE` of a LSC or MIC whose CN is `CP-8861-SEPB000B4BA0AEE` (facts 7.7)."""
    if certificate is None:
        return None
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value).rsplit("-", 1)[-1] if names else None


def _requested_expiry(request: Request) -> int:
    """Seconds from the Expires header, the most there is if it has none. Raises DecodeError."""
    text = request.headers.get("Expires", str(EXPIRES_S)) or ""
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        raise DecodeError("no number of seconds", offset=0, path="sip.Expires")
    return int(text)


def _accepted(request: Request, expires_s: int) -> Response:
    response = _response(request, 200, "OK")
    response.headers.setlist("Contact", request.headers.getlist("Contact"))
    response.expires = expires_s
    return response


def _response(request: Request | None, status: int, phrase: str) -> Response:
    """An answer that repeats what RFC 3261 8.2.6 asks for; of a request that could not be read there is nothing."""
    response = Response(status, phrase)
    if request is not None:
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            values = request.headers.getlist(name)
            if values:
                response.headers.setlist(name, list(values))
        _add_tag(response, request.headers.get("Call-ID") or "")
    if status == 405:
        response.headers.set("Allow", "REGISTER")
    response.content_length = 0
    return response


def _add_tag(response: Response, call_id: str) -> None:
    """The answering side's tag in To (RFC 3261 8.2.6.2); made of the Call-ID, so that a repetition has the same."""
    to = response.headers.get("To")
    if to is not None and ";tag=" not in to:
        response.headers.set("To", f"{to};tag={hashlib.sha256(call_id.encode()).hexdigest()[:16]}")
