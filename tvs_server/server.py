"""The TVS service on its port: TLS connections in, answers of `policy` out, everything told as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from cucm.errors import AddressBusy, TlsError, TrustError, WireError
from cucm.events import Emit, ignore
from cucm.events.tvs import (
    CacheName,
    TvsConnectionAccepted,
    TvsConnectionClosed,
    TvsConnectionRefused,
    TvsHandshakeBegun,
    TvsHandshakeDone,
    TvsHandshakeFailed,
    TvsRefusalReason,
    TvsRequestRefused,
    TvsServerStarted,
    TvsServerStopped,
)
from cucm.faults import NO_FAULTS, Action, FaultPoint, FaultSource
from cucm.faults.catalogue.tvs import TVS_REQUEST, TVS_RESPONSE, Close, Delay, Drop, Truncate
from cucm.net.listener import Attention, Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import Address, Stream
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, server_context
from cucm.net.tls_context import client_check
from cucm.net.tls_faults import FalseCertificates
from cucm.wire.tvs import PORT, TvsMessage, encode_message, header_bytes, payload_bytes
from tvs_server.answer_faults import request_fields, spoilt
from tvs_server.certificate_cache import CertificateCache
from tvs_server.connection import Client
from tvs_server.connection_events import handshake_failure, looked_up, received, sent, subject_of
from tvs_server.policy import DEFAULT_TTL_S, Question, decide, question_of

_payload_of: Final = lru_cache(maxsize=256)(payload_bytes)
"""The bytes of an answer behind its header: the same for every phone that asks for one certificate."""


class TvsServer:
    """One run of the service; a restart is a new object. `start` loads the cache and binds, `stop` closes both.

    `private_key_der` is unencrypted PKCS#8.
    `client_cas` are DER certificates (CAPF, manufacturing CA) that an offered client certificate is checked against;
    `now` dates those. `is_shared`: other processes may serve the port as well.
    `faults` says what goes wrong with connections, requests and answers. `start` raises
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
        is_shared: bool = False,
    ) -> None:
        self._identity = certificate_der, private_key_der
        self._cache = cache
        self._emit = emit
        self._tell = emit
        self._policy = policy
        self._client_cas = tuple(client_cas)
        self._profile = profile
        self._ttl_s = ttl_s
        self._faults = faults.at(service="TVS")
        self._now = now
        self._clients: dict[Stream, Client] = {}
        self._asking: dict[Stream, None] = {}
        self._attempted = 0
        self._accepted = 0
        self._running = False
        self._listener = Listener(
            address,
            port,
            self._serve,
            is_shared=is_shared,
            limits=limits,
            faults=self._faults,
            false_certificates=FalseCertificates(certificate_der, private_key_der, now=now),
            on_accept=self._accept,
            on_first_bytes=self._handshake_begun,
            on_refused=self._refused,
            on_handshake_failed=self._handshake_failed,
            on_closed=self._closed,
            attendant=self._attend,
            on_idle=self._idle,
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
        self._tell = self._emit
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
        self._tell = ignore  # a process that is gone writes no trace
        self._running = False
        try:
            await self._listener.crash()
        finally:
            self._cache.close()

    def set_reachability(self, how: Reachability) -> None:
        """What the network does with packets for the port; kept over `stop` and `start`. Raises AddressBusy."""
        self._listener.set_reachability(how)

    # -- connections -------------------------------------------------------------------------------------------

    def _accept(self, stream: Stream) -> None:
        self._attempted += 1
        self._accepted += 1
        client = self._clients[stream] = Client(self._accepted, stream)
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
        reason = handshake_failure(error)
        self._tell(TvsHandshakeFailed(*self._clients[stream].place, reason, alert, trust, str(error)))

    def _closed(self, stream: Stream) -> None:
        client = self._clients.pop(stream)
        self._tell(TvsConnectionClosed(*client.place, client.answered))

    def _attend(self, stream: Stream) -> Attention:
        """The short way, without a coroutine: whole requests are answered when all that came together has been read.

        All that takes its time (half a request, a fault, a client that does not take its answer) and all that ends
        otherwise than by a goodbye goes the long way, `_serve`, from where it stands.
        """
        client = self._clients[stream]
        if not client.is_greeted:
            self._greet(client)
        if not stream.received:
            return _what_next(stream)
        if not client.has_whole_request() or self._faults.watches(TVS_REQUEST) or self._faults.watches(TVS_RESPONSE):
            return Attention.HANDLE
        if not self._asking:
            self._listener.soon(self._answer_all)
        self._asking[stream] = None
        return Attention.LATER

    def _answer_all(self) -> None:
        """Whose requests came together.

        The trick: the cache's sources are asked once for all of them whether they have changed, by four system calls,
        and after the last of the requests has come: what was committed before a request was sent is answered.
        """
        asking, self._asking = self._asking, {}
        self._cache.look_anew()
        for stream in asking:
            if stream.receiver is not None:  # not cut, and not in other hands meanwhile
                self._listener.attend(stream, self._answer_at_once)

    def _idle(self, stream: Stream) -> None:
        self._refuse(self._clients[stream], TimeoutError())

    async def _serve(self, stream: Stream) -> None:
        client = self._clients[stream]
        if not client.is_greeted:
            self._greet(client)
        try:
            while await self._serve_one(client):
                pass
        except (WireError, TlsError, TimeoutError) as error:
            self._refuse(client, error)

    def _greet(self, client: Client) -> None:
        client.is_greeted = True
        stream = client.stream
        subject = subject_of(stream.peer_certificate)
        self._tell(TvsHandshakeDone(*client.place, stream.socket_number, stream.cipher, stream.tls_version, subject))

    def _refuse(self, client: Client, error: Exception) -> None:
        self._tell(TvsRequestRefused(*client.place, *client.refusal(error, self._listener.limits)))

    # -- requests ----------------------------------------------------------------------------------------------

    async def _serve_one(self, client: Client) -> bool:
        """Whether the connection goes on."""
        await client.await_request()
        async with asyncio.timeout(self._listener.limits.request_timeout_s) as deadline:
            request = await client.complete_request()
            if request is None:
                return False
            goes_on = await self._answer(client, request, deadline)
        client.in_request = False
        return goes_on

    def _answer_at_once(self, stream: Stream) -> Attention:
        """The one whole request that has come."""
        client = self._clients[stream]
        try:
            self._answer_whole_request(client)
        except WireError as error:
            self._refuse(client, error)
            return Attention.END
        return Attention.HANDLE if stream.unsent_bytes() else _what_next(stream)

    def _answer_whole_request(self, client: Client) -> None:
        """Raises WireError."""
        client.in_request = True
        place, tell = client.place, self._tell
        request, data = client.take_request()
        question = question_of(request)
        tell(received(place, request, question, data))
        decision = decide(request, question, self._cache.find, default_ttl_s=self._ttl_s)
        tell(looked_up(place, request, question, decision))
        message = decision.message
        payload = _payload_of(message.elements)
        answer = header_bytes(message, len(payload)) + payload
        client.stream.write(answer)
        client.answered += 1
        tell(sent(place, message, answer))
        client.in_request = False

    async def _answer(self, client: Client, request: TvsMessage, deadline: asyncio.Timeout) -> bool:
        question = question_of(request)
        self._tell(received(client.place, request, question, encode_message(request)))  # lossless: the bytes that came
        action = self._fault(TVS_REQUEST, client, question)
        match action:
            case Drop() | Close():
                return isinstance(action, Drop)
            case Delay(seconds=seconds):
                await self._wait(seconds, deadline)
        decision = decide(request, question, self._cache.look_up, default_ttl_s=self._ttl_s)
        self._tell(looked_up(client.place, request, question, decision))
        action = self._fault(TVS_RESPONSE, client, question)
        match action:
            case Drop():
                return True
            case Delay(seconds=seconds):
                await self._wait(seconds, deadline)
        answer = decision.message
        await self._send(client, answer if action is None else spoilt(answer, action, self._identity[0]))
        return not isinstance(action, Truncate)

    async def _send(self, client: Client, response: TvsMessage | bytes) -> None:
        data = response if isinstance(response, bytes) else encode_message(response)
        if not data:
            return
        client.stream.write(data)
        await client.stream.drain()
        client.answered += 1
        self._tell(sent(client.place, response, data))

    def _fault(self, point: FaultPoint, client: Client, question: Question) -> Action | None:
        if not self._faults.watches(point):
            return None
        return self._faults.fire(point, peer=client.stream.peer_address[0], **request_fields(question))

    async def _wait(self, seconds: float, deadline: asyncio.Timeout) -> None:
        """The client is to meet its own deadline, not ours."""
        deadline.reschedule(None)
        await asyncio.sleep(seconds)
        deadline.reschedule(asyncio.get_running_loop().time() + self._listener.limits.request_timeout_s)


def _what_next(stream: Stream) -> Attention:
    """Of a connection without a request that has come."""
    if not stream.has_ended:
        return Attention.WAIT
    return Attention.END if stream.has_ended_well else Attention.HANDLE
