"""The TVS service on its port: TLS connections in, answers of `policy` out, everything told as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from cucm.errors import AddressBusy, DecodeError, EncodeError, LimitExceeded, TlsError, TrustError, WireError
from cucm.events import Emit, Event, ignore
from cucm.events.tvs import (
    CacheName,
    TvsCertificateLookedUp,
    TvsConnectionAccepted,
    TvsConnectionClosed,
    TvsConnectionRefused,
    TvsHandshakeBegun,
    TvsHandshakeDone,
    TvsHandshakeFailed,
    TvsRefusalReason,
    TvsRequestReceived,
    TvsRequestRefused,
    TvsResponseSent,
    TvsServerStarted,
    TvsServerStopped,
)
from cucm.faults import NO_FAULTS, Action, FaultPoint, FaultSource
from cucm.faults.catalogue.tvs import TVS_REQUEST, TVS_RESPONSE, Close, Delay, Drop, Truncate
from cucm.identity import describe
from cucm.net.listener import Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import Address, Stream
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, server_context
from cucm.net.tls_context import client_check
from cucm.net.tls_faults import FalseCertificates
from cucm.wire.tvs import (
    HEADER_BYTES,
    NEED_DATA,
    PORT,
    ConnectionClosed,
    NeedData,
    QueryCertificateResponse,
    TvsConnection,
    TvsMessage,
    VerifyResponse,
    encode_message,
)
from tvs_server.answer_faults import request_fields, spoilt
from tvs_server.certificate_cache import CertificateCache
from tvs_server.policy import DEFAULT_TTL_S, Decision, Question, Verdict, decide, question_of

MAX_REQUESTS: Final = 64
"""UNKNOWN (facts 2.9): whether the real TVS serves more than one request per connection. We do, up to this many."""
UNREADABLE_SUBJECT: Final = "(unreadable certificate)"


class TvsServer:
    """One run of the service; a restart is a new object. `start` loads the cache and binds, `stop` closes both.

    `private_key_der` is unencrypted PKCS#8.
    `client_cas` are DER certificates (CAPF, manufacturing CA) that an offered client certificate is checked against;
    `now` dates those. `faults` says what goes wrong with connections, requests and answers. `start` raises
    AddressBusy, EnvironmentProblem and UsageError (certificate and key).
    """

    def __init__(
        self,
        address: str,
        port: int = PORT,
        *,
        certificate_der: bytes,
        private_key_der: bytes,
        cache: CertificateCache,
        emit: Emit = ignore,
        policy: ClientCertificatePolicy = ClientCertificatePolicy.REQUESTED,
        client_cas: Sequence[bytes] = (),
        profile: TlsProfile = TlsProfile.MODERN,
        limits: Limits | None = None,
        ttl_s: int = DEFAULT_TTL_S,
        faults: FaultSource = NO_FAULTS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._identity = certificate_der, private_key_der
        self._cache = cache
        self._emit = emit
        self._dead = False
        self._policy = policy
        self._client_cas = tuple(client_cas)
        self._profile = profile
        self._ttl_s = ttl_s
        self._faults = faults.at(service="TVS")
        self._now = now
        self._clients: dict[Stream, _Client] = {}
        self._attempted = 0
        self._accepted = 0
        self._running = False
        self._listener = Listener(
            address,
            port,
            self._serve,
            limits=limits,
            faults=self._faults,
            false_certificates=FalseCertificates(certificate_der, private_key_der, now=now),
            on_accept=self._accept,
            on_first_bytes=self._handshake_begun,
            on_refused=self._refused,
            on_handshake_failed=self._handshake_failed,
            on_closed=self._closed,
        )

    @property
    def address(self) -> str:
        return self._listener.address

    @property
    def port(self) -> int:
        """The bound port once started."""
        return self._listener.port

    @property
    def certificate(self) -> bytes:
        """DER of what it shows to clients."""
        return self._identity[0]

    def require_client(self, certificate: bytes) -> None:
        """What a handshake says to this client certificate (DER): nothing, or TrustError."""
        if self._client_cas:
            client_check(self._client_cas, self._now)(certificate)

    def decide(self, request: TvsMessage) -> TvsMessage:
        """The answer to a request, without a connection. DecodeError for a message that asks nothing."""
        return decide(request, question_of(request), self._cache.look_up, default_ttl_s=self._ttl_s).message

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._listener.connections

    async def start(self) -> None:
        if self._listener.is_listening:
            raise AddressBusy("this server has it already", where=f"{self.address} TCP port {self.port}")
        context = server_context(
            *self._identity,
            profile=self._profile,
            policy=self._policy,
            client_cas=self._client_cas,
            now=self._now,
        )
        self._listener.set_context(context)
        self._cache.load()
        self._dead = False
        try:
            await self._listener.start()
        except BaseException:
            self._cache.close()
            raise
        self._running = True
        counts = self._cache.count(CacheName.DATABASE), self._cache.count(CacheName.LOCAL_CTL)
        self._tell(TvsServerStarted(self.address, self.port, *counts))

    async def stop(self) -> None:
        """End all connections; nothing is left when it returns. Does nothing when it is not started."""
        try:
            await self._listener.stop()
        finally:
            self._cache.close()
        if self._running:
            self._running = False
            self._tell(TvsServerStopped(self.address, self.port))

    async def crash(self) -> None:
        """The process is killed: every connection is reset, nothing is told, the port is free."""
        self._dead = True
        self._running = False
        try:
            await self._listener.crash()
        finally:
            self._cache.close()

    def set_reachability(self, how: Reachability) -> None:
        """What the network does with packets for the port; kept over `stop` and `start`. Raises AddressBusy."""
        self._listener.set_reachability(how)

    def _tell(self, event: Event) -> None:
        if not self._dead:  # a process that is gone writes no trace
            self._emit(event)

    # -- connections -------------------------------------------------------------------------------------------

    def _accept(self, stream: Stream) -> None:
        self._attempted += 1
        self._accepted += 1
        client = self._clients[stream] = _Client(self._accepted, stream)
        counts = self._attempted, self._accepted
        self._tell(TvsConnectionAccepted(*client.place, stream.socket_number, self._listener.socket_number, *counts))

    def _handshake_begun(self, stream: Stream) -> None:
        self._tell(TvsHandshakeBegun(*self._clients[stream].place, stream.socket_number))

    def _refused(self, peer: Address, why: str) -> None:
        self._attempted += 1
        self._tell(TvsConnectionRefused(*peer, TvsRefusalReason.LIMIT, why))

    def _handshake_failed(self, stream: Stream, error: Exception) -> None:
        alert = error.alert if isinstance(error, TlsError) else None
        trust = error.reason if isinstance(error, TrustError) else None
        reason = _handshake_failure(error)
        self._tell(TvsHandshakeFailed(*self._clients[stream].place, reason, alert, trust, str(error)))

    def _closed(self, stream: Stream) -> None:
        client = self._clients.pop(stream)
        self._tell(TvsConnectionClosed(*client.place, client.answered))

    async def _serve(self, stream: Stream) -> None:
        client = self._clients[stream]
        subject = _subject(stream.peer_certificate)
        self._tell(TvsHandshakeDone(*client.place, stream.socket_number, stream.cipher, stream.tls_version, subject))
        try:
            while await self._serve_one(client):
                pass
        except (WireError, TlsError, TimeoutError) as error:
            refusal = client.refusal(error, self._listener.limits)
            self._tell(TvsRequestRefused(*client.place, *refusal))

    # -- requests ----------------------------------------------------------------------------------------------

    async def _serve_one(self, client: _Client) -> bool:
        """Whether the connection goes on."""
        await client.await_request()
        async with asyncio.timeout(self._listener.limits.request_timeout_s) as deadline:
            request = await client.complete_request()
            if request is None:
                return False
            goes_on = await self._answer(client, request, deadline)
        client.in_request = False
        return goes_on

    async def _answer(self, client: _Client, request: TvsMessage, deadline: asyncio.Timeout) -> bool:
        question = question_of(request)
        self._tell(_received(client, request, question))
        action = self._fault(TVS_REQUEST, client, question)
        match action:
            case Drop() | Close():
                return isinstance(action, Drop)
            case Delay(seconds=seconds):
                await self._wait(seconds, deadline)
        decision = decide(request, question, self._cache.look_up, default_ttl_s=self._ttl_s)
        self._tell(_looked_up(client, request, question, decision))
        action = self._fault(TVS_RESPONSE, client, question)
        match action:
            case Drop():
                return True
            case Delay(seconds=seconds):
                await self._wait(seconds, deadline)
        answer = decision.message
        await self._send(client, answer if action is None else spoilt(answer, action, self._identity[0]))
        return not isinstance(action, Truncate)

    async def _send(self, client: _Client, response: TvsMessage | bytes) -> None:
        data = response if isinstance(response, bytes) else encode_message(response)
        if not data:
            return
        client.stream.write(data)
        await client.stream.drain()
        client.answered += 1
        self._tell(_sent(client, response, data))

    def _fault(self, point: FaultPoint, client: _Client, question: Question) -> Action | None:
        if not self._faults.watches(point):
            return None
        return self._faults.fire(point, peer=client.stream.peer_address[0], **request_fields(question))

    async def _wait(self, seconds: float, deadline: asyncio.Timeout) -> None:
        """The client is to meet its own deadline, not ours."""
        deadline.reschedule(None)
        await asyncio.sleep(seconds)
        deadline.reschedule(asyncio.get_running_loop().time() + self._listener.limits.request_timeout_s)


class _Client:
    """One connection: its number, its stream and the messages in it."""

    __slots__ = ("_connection", "_event", "answered", "in_request", "place", "stream")

    def __init__(self, number: int, stream: Stream) -> None:
        self.place = (number, *stream.peer_address)
        self.stream = stream
        self.answered = 0
        self.in_request = False
        self._connection = TvsConnection(max_messages=MAX_REQUESTS)
        self._event: TvsMessage | NeedData | ConnectionClosed = NEED_DATA

    async def await_request(self) -> None:
        """Wait, as long as a connection may be idle, until a request begins or the client closes."""
        self._event = self._connection.next_event()
        if isinstance(self._event, NeedData):
            await self._receive()
        self.in_request = True

    async def complete_request(self) -> TvsMessage | None:
        """The request that has begun; None when the client has closed instead."""
        while isinstance(self._event, NeedData):
            await self._receive()
        return self._event if isinstance(self._event, TvsMessage) else None

    async def _receive(self) -> None:
        data = await self.stream.read()
        if data:
            self._connection.receive_data(data)
        else:
            self._connection.receive_eof()
        self._event = self._connection.next_event()

    def refusal(self, error: Exception, limits: Limits) -> tuple[TvsRefusalReason, str]:
        """Why `error` ends this connection."""
        match error:
            case LimitExceeded() | EncodeError():
                return TvsRefusalReason.TOO_MUCH, str(error)
            case TimeoutError() if self.in_request:
                return TvsRefusalReason.REQUEST_TIMEOUT, str(error) or f"not done in {limits.request_timeout_s:g} s"
            case TimeoutError():
                return TvsRefusalReason.IDLE_TIMEOUT, f"no request for {limits.idle_timeout_s:g} s"
            case TlsError():
                return TvsRefusalReason.TLS, str(error)
            case DecodeError(path="header.type"):
                return TvsRefusalReason.UNEXPECTED_MESSAGE, str(error)
            case _:
                return TvsRefusalReason.MALFORMED, str(error)


def _handshake_failure(error: Exception) -> TvsRefusalReason:
    match error:
        case TrustError():
            return TvsRefusalReason.CLIENT_CERTIFICATE
        case TimeoutError():
            return TvsRefusalReason.HANDSHAKE_TIMEOUT
        case _:
            return TvsRefusalReason.HANDSHAKE


def _subject(certificate: bytes | None) -> str | None:
    if certificate is None:
        return None
    try:
        return describe(certificate).subject
    except DecodeError:
        return UNREADABLE_SUBJECT


def _received(client: _Client, request: TvsMessage, question: Question) -> TvsRequestReceived:
    data = encode_message(request)  # lossless: the bytes that came
    return TvsRequestReceived(
        *client.place,
        message_type=request.type,
        session_id=request.session_id,
        payload_length=len(data) - HEADER_BYTES,
        device_name=question.device_name,
        subject=question.subject,
        issuer=question.issuer,
        serial=question.serial,
        certificate=question.certificate,
        data=data,
    )


def _looked_up(client: _Client, request: TvsMessage, question: Question, decision: Decision) -> TvsCertificateLookedUp:
    finding = decision.finding
    comparable = finding.entry is not None and question.certificate is not None
    equal = decision.verdict is Verdict.FOUND if comparable else None
    return TvsCertificateLookedUp(*client.place, request.type, finding.key, finding.steps, equal)


def _sent(client: _Client, response: TvsMessage | bytes, data: bytes) -> TvsResponseSent:
    """Raw bytes (a fault) carry no fields worth telling."""
    if not isinstance(response, QueryCertificateResponse | VerifyResponse):
        return TvsResponseSent(*client.place, None, None, None, None, None, None, data)
    certificate = response.certificate if isinstance(response, QueryCertificateResponse) else None
    return TvsResponseSent(
        *client.place,
        message_type=response.type,
        payload_length=len(data) - HEADER_BYTES,
        status=response.status,
        certificate=certificate,
        roles=response.roles,
        ttl_s=response.ttl_s,
        data=data,
    )
