"""The phone as a TVS client: one connection, one QUERY_CERT request, one answer (facts 2.9).

Every step is an event, because every step is a line on the phone's console. The server's certificate must equal one of
the TVS records of the phone's ITL (role 21); TVS is never asked about a TVS certificate.
"""

from __future__ import annotations

import asyncio
from typing import Final

from cucm.certificates import load_certificate
from cucm.errors import LabError, TlsError, TrustError, TrustReason, WireError
from cucm.events import Emit, ignore
from cucm.events.phone import (
    TvsClientCertificateChosen,
    TvsConnected,
    TvsConnecting,
    TvsHandshakeStarted,
    TvsHandshakeSucceeded,
    TvsHandshakeWaiting,
    TvsRequestSent,
    TvsResponseReceived,
    TvsServerCertificateChecked,
)
from cucm.names import openssl_oneline
from cucm.net.tls import Stream, TlsProfile, open_stream
from cucm.records import dataclass
from cucm.roles import TrustRole
from cucm.wire.tvs import ConnectionClosed, NeedData, QueryCertificateRequest, QueryCertificateResponse, TvsConnection
from phone_agent.commands import QueryTvs, TvsAnswer, TvsFailure
from phone_agent.flash import DeviceIdentity
from phone_agent.network_trouble import words_of
from phone_agent.tls_identity import ClientTls, client_tls, pkcs1_length

TYPE_OF_SERVICE: Final = 96
"""`TOS set to [96] on sock` (seed, facts 2.9)."""
CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 5.0
"""How long a phone waits for TCP, TLS and the answer is UNKNOWN (facts 2.9): these three are ours."""


@dataclass(frozen=True, slots=True)
class TvsDeadlines:
    """Seconds per server."""

    connect_s: float = CONNECT_TIMEOUT_S
    handshake_s: float = HANDSHAKE_TIMEOUT_S
    answer_s: float = ANSWER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What the phone offers as TLS client: its LSC, or its MIC while it has no LSC (facts 2.9)."""

    identity: DeviceIdentity
    certificate_type: str

    def chosen(self) -> TvsClientCertificateChosen:
        """The event that tells of it. Raises LabError for a certificate or key that cannot be read."""
        certificate = load_certificate(self.identity.certificate)
        return TvsClientCertificateChosen(
            certificate_type=self.certificate_type,
            certificate_length=len(self.identity.certificate),
            # a phone keeps PKCS#1: the seed's `key len=1191` is that of a 2048-bit key [calc]
            key_length=pkcs1_length(self.identity.private_key),
            subject=openssl_oneline(certificate.subject),
            issuer=openssl_oneline(certificate.issuer),
        )


class TvsClient:
    """Asks TVS servers on behalf of one phone."""

    def __init__(
        self,
        *,
        client_certificate: ClientCertificate | None = None,
        local_address: str | None = None,
        profile: TlsProfile = TlsProfile.MODERN,
        deadlines: TvsDeadlines | None = None,
        emit: Emit = ignore,
    ) -> None:
        self._client_certificate = client_certificate
        self._local_address = local_address
        self._profile = profile
        self._deadlines = deadlines or TvsDeadlines()
        self._emit = emit
        self._tls: ClientTls | None = None
        self._chosen: TvsClientCertificateChosen | None = None

    async def query(self, query: QueryTvs) -> TvsAnswer | TvsFailure:
        """Connect, ask, close. Never raises: what goes wrong is a `TvsFailure`."""
        session = _Session(query, self._emit)
        try:
            request = QueryCertificateRequest.build(
                query.session_id, query.device_name, query.subject, query.issuer, query.serial
            )
            stream = await self._connect(session)
            try:
                async with asyncio.timeout(self._deadlines.answer_s):
                    return await session.ask(stream, request)
            finally:
                await stream.close()
        except TrustError as error:
            return TvsFailure(error.reason, str(error))
        except TlsError as error:
            return TvsFailure(TrustReason.TVS_HANDSHAKE_FAILED, f"TLS with TVS {session.where}: {error.what}")
        except (OSError, UnicodeError) as error:
            return session.unreachable(error)
        except LabError as error:
            return TvsFailure(TrustReason.TVS_HANDSHAKE_FAILED, f"cannot ask TVS {session.where}: {error}")

    async def _connect(self, session: _Session) -> Stream:
        server = session.query.server
        self._emit(TvsConnecting(server.address, server.port))
        tls = self._tls or self._prepare_tls()
        session.chosen = self._chosen
        try:
            stream = await open_stream(
                server.address,
                server.port,
                context=tls.context,
                verify_peer=session.verify_server,
                local_address=self._local_address,
                connect_timeout_s=self._deadlines.connect_s,
                handshake_timeout_s=self._deadlines.handshake_s,
                on_connected=lambda stream: session.connected(stream, tls),
            )
        except TlsError:
            session.wait_for_second_flight()
            raise
        session.established(stream)
        return stream

    def _prepare_tls(self) -> ClientTls:
        offered = self._client_certificate
        self._chosen = offered.chosen() if offered else None
        self._tls = client_tls(self._profile, offered.identity if offered else None)
        return self._tls


class _Session:
    """One query's way through connect, handshake, request and answer, told as events."""

    def __init__(self, query: QueryTvs, emit: Emit) -> None:
        self.query = query
        self.where = f"{query.server.address} port {query.server.port}"
        self._emit = emit
        self.chosen: TvsClientCertificateChosen | None = None
        self._is_connected = False
        self._is_established = False
        self._server_accepted = False

    def connected(self, stream: Stream, tls: ClientTls) -> None:
        self._is_connected = True
        tls.present(stream)
        type_of_service = stream.set_type_of_service(TYPE_OF_SERVICE)
        server = self.query.server
        self._emit(TvsConnected(server.address, server.port, stream.socket_number, type_of_service))
        if self.chosen is not None:
            self._emit(self.chosen)
        self._emit(TvsHandshakeStarted(stream.socket_number))
        self._emit(TvsHandshakeWaiting(0))

    def verify_server(self, certificate: bytes) -> None:
        """Raises TrustError unless the certificate equals a TVS record of the ITL."""
        self._server_accepted = certificate in self.query.accepted_certificates
        subject = _subject_of(certificate)
        self._emit(
            TvsServerCertificateChecked(self.query.server.address, TrustRole.TVS, self._server_accepted, subject)
        )
        if not self._server_accepted:
            raise TrustError(
                TrustReason.TVS_CERTIFICATE_NOT_TRUSTED,
                foreign_certificate(self.where, certificate),
            )

    def wait_for_second_flight(self) -> None:
        """Up to TLS 1.2 the client's certificate and Finished are answered by one more flight of the server."""
        if self._server_accepted:
            self._emit(TvsHandshakeWaiting(1))

    def established(self, stream: Stream) -> None:
        self._is_established = True
        if stream.tls_version != "TLSv1.3":
            self.wait_for_second_flight()
        self._emit(
            TvsHandshakeSucceeded(self.query.server.address, stream.socket_number, stream.tls_version, stream.cipher)
        )

    async def ask(self, stream: Stream, request: QueryCertificateRequest) -> TvsAnswer | TvsFailure:
        connection = TvsConnection(max_messages=1)
        message = connection.send(request)
        stream.write(message)
        self._emit(TvsRequestSent(self.query.session_id, message))
        received = bytearray()
        try:
            while isinstance(answer := connection.next_event(), NeedData):
                chunk = await stream.read()
                received += chunk
                connection.receive_data(chunk)
                if not chunk:
                    connection.receive_eof()
        except WireError as error:
            return TvsFailure(TrustReason.TVS_ANSWER_INVALID, f"TVS {self.where} sent no TVS message: {error}")
        if isinstance(answer, ConnectionClosed):
            return TvsFailure(TrustReason.TVS_ANSWER_INVALID, f"TVS {self.where} hung up without an answer")
        self._emit(TvsResponseReceived(answer.session_id, bytes(received)))
        if not isinstance(answer, QueryCertificateResponse):
            text = f"TVS {self.where} answered with {answer.type.log_name}"
            return TvsFailure(TrustReason.TVS_ANSWER_INVALID, text)
        if answer.session_id != self.query.session_id:
            text = f"TVS {self.where} answered session {answer.session_id} instead of {self.query.session_id}"
            return TvsFailure(TrustReason.TVS_ANSWER_INVALID, text)
        return TvsAnswer(answer.status, answer.certificate, answer.roles, answer.ttl_s)

    def unreachable(self, error: Exception) -> TvsFailure:
        """The connection did not come about, or broke: at which point says how to name it."""
        text = words_of(error)
        if self._is_connected and not self._is_established:
            return TvsFailure(TrustReason.TVS_HANDSHAKE_FAILED, f"TLS with TVS {self.where}: {text}")
        if self._is_established and isinstance(error, TimeoutError):
            text = "no answer in time"
        return TvsFailure(TrustReason.TVS_UNREACHABLE, f"TVS {self.where}: {text}")


def foreign_certificate(where: str, certificate: bytes) -> str:
    """What is said of a TVS whose certificate (DER) the phone does not know."""
    return f"the certificate of TVS {where} ({_subject_of(certificate)}) is no TVS record of the phone's ITL"


def _subject_of(certificate: bytes) -> str:
    try:
        return openssl_oneline(load_certificate(certificate).subject)
    except WireError as error:
        return f"(unreadable: {error.what})"
