"""The servers of a lab as a simulated phone meets them: no socket, but the state, the bytes and the rules of the
services that run now.

Files are what a node's TFTP service would send, built and signed by it; a TVS answers with its policy from its cache;
a CallManager judges by its CAs, its database and its admission rules; DHCP tells what its pools and faults say. What a
phone sees of a server that is stopped, refused or unreachable is what the phone's clients make of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from cucm.errors import DecodeError, TrustError, TrustReason
from cucm.net.reachability import Reachability
from cucm.net.tls import silence_of
from cucm.net.tls_context import CLIENT_REFUSED
from cucm.records import dataclass
from cucm.wire.tvs import QueryCertificateRequest, QueryCertificateResponse
from lab.admission import Refusal, device_in
from lab.call_processing import CallProcessing
from lab.fleet.calibration import Kind
from lab.node import Node
from lab.plain_server import PlainServer
from lab.runtime import Lab
from phone_agent import http_client, registration, tftp_client, tvs_client
from phone_agent.commands import (
    Command,
    Fetch,
    FetchAttempt,
    FetchResult,
    FetchStatus,
    FileTransport,
    QueryTvs,
    Register,
    RegistrationResult,
    RegistrationStatus,
    RequestTftpServers,
    TvsAnswer,
    TvsFailure,
)
from phone_agent.dhcp_lease import DhcpDeadlines
from phone_agent.flash import FlashContents
from phone_agent.models import PhoneModel
from phone_agent.network_trouble import REFUSED
from tftp_server.file_store import FileStore, NotServed, NotServedReason, look_up
from tftp_server.server import FileServer
from tvs_server.server import TvsServer

TFTP_SILENCE_S: Final = tftp_client.RETRANSMISSION_TIMEOUT_S * (tftp_client.MAX_RETRANSMISSIONS + 1)
_DHCP: Final = DhcpDeadlines()
DHCP_SILENCE_S: Final = sum(_DHCP.first_s * 2**attempt for attempt in range(_DHCP.attempts))
"""A phone that nobody answers asks again for so long; it then goes on with what it knows."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One request: to which node (None: nobody works, the phone waits `delay_s`), how many bytes come back, and how
    long the phone would wait. `signed` is a file that has to be made and signed for each phone; `failed`: no success.
    """

    kind: Kind
    node: str | None
    size: int = 0
    delay_s: float = 0.0
    deadline_s: float = 60.0
    signed: bytes | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command comes to: the requests it takes, the reply, and the reply if one of them takes too long."""

    demands: tuple[Demand, ...]
    reply: Any
    late: Any


class SimulatedServers:
    """The lab as it is now; make a new one when something has changed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._nodes: dict[str, Node | PlainServer] = {
            node.address: node for cluster in lab.clusters.values() for node in cluster.nodes.values()
        }
        self._nodes |= {server.address: server for server in lab.plain_servers.values()}

    def node_at(self, address: str) -> str:
        return self._nodes[address].name

    def call_processing_of(self, node: str) -> CallProcessing | None:
        """The CallManager that runs on the node now."""
        return next((one.call_processing for one in self._nodes.values() if one.name == node), None)

    def answer(self, command: Command, phone: PhoneModel, contents: FlashContents) -> Answer:
        """Of a command that goes to a server, for a phone with this in its flash."""
        match command:
            case RequestTftpServers():
                return self._address(phone)
            case Fetch():
                return self._fetch(command, http=phone.capabilities.http)
            case QueryTvs():
                return self._query(command, contents)
            case Register():
                return self._register(command, contents)
        raise TypeError(f"{type(command).__name__} goes to no server")

    # --- DHCP

    def _address(self, phone: PhoneModel) -> Answer:
        told = self._lab.dhcp.option_150_for(phone.mac)
        silent = told is None
        return Answer((Demand(Kind.DHCP, None if silent else "dhcp", delay_s=DHCP_SILENCE_S),), told, None)

    # --- files

    def _fetch(self, command: Fetch, *, http: bool) -> Answer:
        """As `phone_agent.file_client` goes about it: per server HTTP, then TFTP, then the next server."""
        attempts: list[FetchAttempt] = []
        demands: list[Demand] = []
        late = FetchResult(FetchStatus.TIMEOUT, attempts=(FetchAttempt("", "http", FetchStatus.TIMEOUT, "overload"),))
        transports: tuple[FileTransport, ...] = ("http", "tftp") if http else ("tftp",)
        for server in command.servers:
            for transport in transports:
                attempt, data, demand = self._attempt(server, transport, command.file_name)
                attempts.append(attempt)
                demands.append(demand)
                if data is not None:
                    result = FetchResult(FetchStatus.OK, data, server, transport, tuple(attempts))
                    return Answer(tuple(demands), result, late)
        status = attempts[-1].status if attempts else FetchStatus.ERROR
        return Answer(tuple(demands), FetchResult(status, attempts=tuple(attempts)), late)

    def _attempt(self, server: str, transport: FileTransport, name: str) -> tuple[FetchAttempt, bytes | None, Demand]:
        kind = Kind(transport.upper())
        deadline_s = http_client.DEADLINE_S if kind is Kind.HTTP else tftp_client.TRANSFER_DEADLINE_S
        open_store = self._store_at(server)
        if not isinstance(open_store, _Open):
            status, detail, delay_s = open_store.as_file_status(kind, server)
            return FetchAttempt(server, transport, status, detail), None, Demand(kind, None, delay_s=delay_s)
        node = open_store.node
        try:
            data = look_up(open_store.store, name)
        except NotServed as refusal:
            status = FetchStatus.NOT_FOUND if refusal.reason is NotServedReason.NOT_FOUND else FetchStatus.ERROR
            attempt = FetchAttempt(server, transport, status, _words(kind, refusal.reason))
            return attempt, None, Demand(kind, node, deadline_s=deadline_s, failed=True)
        detail = "200 OK" if kind is Kind.HTTP else f"{len(data)} bytes"
        signed = data if name.endswith(".sgn") else None
        demand = Demand(kind, node, len(data), deadline_s=deadline_s, signed=signed)
        return FetchAttempt(server, transport, FetchStatus.OK, detail), data, demand

    def _store_at(self, address: str) -> _Open | _Shut:
        place = self._nodes.get(address)
        server: FileServer | None = place.file_server if place is not None else None
        if place is None or server is None:
            return _Shut(Reachability.REFUSE)
        if isinstance(place, Node) and (how := place.reachability_of("TFTP")) is not Reachability.OPEN:
            return _Shut(how)
        return _Open(place.name, server.store)

    # --- TVS

    def _query(self, query: QueryTvs, contents: FlashContents) -> Answer:
        where = f"{query.server.address} port {query.server.port}"
        late = TvsFailure(TrustReason.TVS_UNREACHABLE, f"TVS {where}: no answer in time")
        place = self._nodes.get(query.server.address)
        server = place.tvs if isinstance(place, Node) else None
        if not isinstance(place, Node) or server is None:
            failure = TvsFailure(TrustReason.TVS_UNREACHABLE, f"TVS {where}: {REFUSED}")
            return Answer((Demand(Kind.TVS, None),), failure, late)
        how = place.reachability_of("TVS")
        if how is not Reachability.OPEN:
            shut = _Shut(how)
            words = shut.words(query.server.address, query.server.port, tvs_client.CONNECT_TIMEOUT_S)
            failure = TvsFailure(TrustReason.TVS_UNREACHABLE, f"TVS {where}: {words}")
            return Answer((Demand(Kind.TVS, None, delay_s=shut.delay_s(tvs_client.CONNECT_TIMEOUT_S)),), failure, late)
        reply = _answer_of(server, query, contents, where)
        failed = isinstance(reply, TvsFailure)
        deadline_s = tvs_client.HANDSHAKE_TIMEOUT_S
        return Answer((Demand(Kind.TVS, place.name, deadline_s=deadline_s, failed=failed),), reply, late)

    # --- registration

    def _register(self, command: Register, contents: FlashContents) -> Answer:
        is_tls = command.transport == "tls"
        kind = Kind.REGISTER_TLS if is_tls else Kind.REGISTER_TCP
        late = RegistrationResult(RegistrationStatus.UNREACHABLE, detail="no SIP answer in time")
        place = self._nodes.get(command.address)
        service = place.call_processing if place is not None else None
        how = place.reachability_of("CallManager") if isinstance(place, Node) else Reachability.OPEN
        if place is None or service is None or how is not Reachability.OPEN:
            shut = _Shut(Reachability.REFUSE if how is Reachability.OPEN else how)
            delay_s = shut.delay_s(registration.CONNECT_TIMEOUT_S)
            words = shut.words(command.address, command.port, registration.CONNECT_TIMEOUT_S)
            result = RegistrationResult(RegistrationStatus.UNREACHABLE, detail=words)
            return Answer((Demand(kind, None, delay_s=delay_s),), result, late)
        result = _registration(service, command, contents, is_tls=is_tls)
        failed = result.status is not RegistrationStatus.REGISTERED
        deadline_s = registration.HANDSHAKE_TIMEOUT_S
        return Answer((Demand(kind, place.name, deadline_s=deadline_s, failed=failed),), result, late)


@dataclass(frozen=True, slots=True)
class _Open:
    node: str
    store: FileStore


@dataclass(frozen=True, slots=True)
class _Shut:
    """Nobody listens, or the network does not let a phone through."""

    how: Reachability

    def words(self, address: str, port: int, timeout_s: float) -> str:
        return REFUSED if self.how is Reachability.REFUSE else silence_of(address, port, timeout_s)

    def delay_s(self, timeout_s: float) -> float:
        return 0.0 if self.how is Reachability.REFUSE else timeout_s

    def as_file_status(self, kind: Kind, server: str) -> tuple[FetchStatus, str, float]:
        if kind is Kind.TFTP:  # nobody tells a phone that its datagrams come to nothing
            packets = tftp_client.MAX_RETRANSMISSIONS + 1
            return FetchStatus.TIMEOUT, tftp_client.silence_after(packets), TFTP_SILENCE_S
        timeout_s = http_client.CONNECT_TIMEOUT_S
        words, delay_s = self.words(server, http_client.HTTP_PORT, timeout_s), self.delay_s(timeout_s)
        return FetchStatus.TIMEOUT if delay_s else FetchStatus.ERROR, words, delay_s


def _words(kind: Kind, reason: NotServedReason) -> str:
    if kind is Kind.HTTP:
        return "404 Not Found" if reason is NotServedReason.NOT_FOUND else "503 Service Unavailable"
    return "error 1: File not found" if reason is NotServedReason.NOT_FOUND else "error 0: Requested file is Busy"


def _answer_of(server: TvsServer, query: QueryTvs, contents: FlashContents, where: str) -> TvsAnswer | TvsFailure:
    """First the phone judges the server's certificate, then the server the phone's, as in the handshake."""
    if server.certificate not in query.accepted_certificates:
        text = tvs_client.foreign_certificate(where, server.certificate)
        return TvsFailure(TrustReason.TVS_CERTIFICATE_NOT_TRUSTED, text)
    if contents.active_identity is not None:
        try:
            server.require_client(contents.active_identity.certificate)
        except TrustError:
            return TvsFailure(TrustReason.TVS_HANDSHAKE_FAILED, f"TLS with TVS {where}: {CLIENT_REFUSED}")
    request = QueryCertificateRequest.build(
        query.session_id, query.device_name, query.subject, query.issuer, query.serial
    )
    response = server.decide(request)
    if not isinstance(response, QueryCertificateResponse):
        return TvsFailure(TrustReason.TVS_ANSWER_INVALID, f"TVS {where} answered with {response.type.log_name}")
    return TvsAnswer(response.status, response.certificate, response.roles, response.ttl_s)


def _registration(
    service: CallProcessing, command: Register, contents: FlashContents, *, is_tls: bool
) -> RegistrationResult:
    bearer = None
    if is_tls:
        identity = contents.active_identity
        trouble = "the CallManager's certificate is not that of a CCM record of the phone's lists"
        if service.certificate in command.trusted_certificates and identity is not None:
            try:
                service.require_client(identity.certificate)
                trouble = ""
            except TrustError:
                trouble = registration.refused_by(CLIENT_REFUSED)
        if trouble or identity is None:
            return RegistrationResult(RegistrationStatus.TLS_FAILED, detail=trouble or "no certificate")
        with suppress(DecodeError):
            bearer = device_in(identity.certificate)
    why = next(_refusals(service, command, bearer, is_tls=is_tls), None)
    if why is not None:
        return RegistrationResult(RegistrationStatus.REFUSED, why.status, f"{why.status} {why.phrase}")
    return RegistrationResult(RegistrationStatus.REGISTERED, 200, "200 OK")


def _refusals(service: CallProcessing, command: Register, bearer: str | None, *, is_tls: bool) -> Iterator[Refusal]:
    """By the CallManager's own rules; whoever has the right digest credentials answers its challenge rightly."""
    admission, transport = service.admission, command.transport
    device = admission.device(command.device_name, transport, bearer if is_tls else None)
    if isinstance(device, Refusal):
        yield device
        return
    if (objection := admission.objection(device, transport)) is not None:
        yield objection
    if (refusal := admission.refuses_credentials(device, command.digest_user, command.digest_password)) is not None:
        yield refusal
