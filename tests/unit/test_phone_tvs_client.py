"""The phone's TVS client on real sockets, against servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from both_loops import on_both_loops
from phone_script import MAC, NEW, NOW, OLD, phone_identity

from cucm.certificates import Identity
from cucm.errors import TrustReason
from cucm.events import Event
from cucm.events import phone as events
from cucm.net.listener import Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import Stream
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, server_context
from cucm.wire.tvs import (
    QueryCertificateRequest,
    QueryCertificateResponse,
    VerifyResponse,
    decode_message,
    encode_message,
)
from phone_agent.commands import QueryTvs, TvsAnswer, TvsFailure, TvsServer
from phone_agent.flash import DeviceIdentity
from phone_agent.tvs_client import ClientCertificate, TvsClient, TvsDeadlines

DEADLINE_S = 20
Handler = Callable[[Stream], Awaitable[None]]
Draw = Callable[[], str]


def query(address: str, port: int, accepted: Identity = OLD.tvs) -> QueryTvs:
    signer = NEW.call_manager
    return QueryTvs(
        TvsServer(address, port, 0),
        1001,
        f"CP-8861-SEP{MAC}",
        signer.subject,
        signer.issuer,
        signer.serial,
        (NEW.tvs.certificate_der, accepted.certificate_der),
    )


def answer(session_id: int = 1001) -> bytes:
    certificate = NEW.call_manager.certificate_der
    return encode_message(QueryCertificateResponse.build(session_id, 0, certificate, (0, 3), 86_400))


def replying(data: bytes, *, then_wait: bool = False) -> Handler:
    async def reply(stream: Stream) -> None:
        await stream.read()
        stream.write(data)
        if then_wait:
            await stream.read()

    return reply


@asynccontextmanager
async def tvs(
    draw: Draw,
    handler: Handler,
    *,
    profile: TlsProfile = TlsProfile.MODERN,
    identity: Identity = OLD.tvs,
    client_cas: tuple[bytes, ...] = (),
) -> AsyncIterator[Listener]:
    policy = ClientCertificatePolicy.REQUIRED if client_cas else ClientCertificatePolicy.REQUESTED
    context = server_context(
        identity.certificate_der,
        identity.private_key_der,
        profile=profile,
        policy=policy,
        client_cas=client_cas,
        now=lambda: NOW,
    )
    listener = Listener(draw(), 0, handler, context=context)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


class Told:
    """Keeps the events, and the client's answer."""

    def __init__(self, **settings: object) -> None:
        self.events: list[Event] = []
        self.client = TvsClient(emit=self.events.append, **settings)  # type: ignore[arg-type]

    async def ask(self, command: QueryTvs) -> TvsAnswer | TvsFailure:
        async with asyncio.timeout(DEADLINE_S):
            return await self.client.query(command)

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


LSC = ClientCertificate(phone_identity(OLD), "LSC")
UNTIL_CHECKED = [
    events.TvsConnecting,
    events.TvsConnected,
    events.TvsClientCertificateChosen,
    events.TvsHandshakeStarted,
    events.TvsHandshakeWaiting,
    events.TvsServerCertificateChecked,
]


@on_both_loops
async def test_asks_and_gets_the_certificate_step_by_step(loopback: Draw) -> None:
    requests: list[bytes] = []

    async def serve(stream: Stream) -> None:
        requests.append(await stream.read())
        assert stream.peer_certificate == LSC.identity.certificate
        stream.write(answer())

    told = Told(client_certificate=LSC, profile=TlsProfile.AES256_SHA, local_address=loopback())
    async with tvs(loopback, serve, profile=TlsProfile.AES256_SHA, client_cas=(OLD.capf.certificate_der,)) as server:
        result = await told.ask(query(server.address, server.port))
    assert result == TvsAnswer(0, NEW.call_manager.certificate_der, (0, 3), 86_400)
    request = decode_message(requests[0])
    assert isinstance(request, QueryCertificateRequest)
    assert (request.session_id, request.device_name) == (1001, f"CP-8861-SEP{MAC}")
    assert (request.issuer, request.serial) == (NEW.call_manager.issuer, NEW.call_manager.serial)
    assert told.kinds == [
        *UNTIL_CHECKED,
        events.TvsHandshakeWaiting,
        events.TvsHandshakeSucceeded,
        events.TvsRequestSent,
        events.TvsResponseReceived,
    ]
    chosen, connected, succeeded = told.events[2], told.events[1], told.events[-3]
    assert isinstance(chosen, events.TvsClientCertificateChosen)
    assert (chosen.certificate_type, chosen.certificate_length) == ("LSC", len(LSC.identity.certificate))
    assert chosen.key_length in range(1187, 1195)
    assert chosen.subject.startswith("/serialNumber=PID:CP-8861 SN:FCH18198CNQ/C=AU/")
    assert isinstance(connected, events.TvsConnected)
    assert connected.type_of_service == 96
    assert isinstance(succeeded, events.TvsHandshakeSucceeded)
    assert succeeded.cipher == "AES256-SHA"


@on_both_loops
async def test_a_modern_handshake_has_one_flight_of_the_server(loopback: Draw) -> None:
    told = Told()
    async with tvs(loopback, replying(answer())) as server:
        assert isinstance(await told.ask(query(server.address, server.port)), TvsAnswer)
    waits = [event.flight for event in told.events if isinstance(event, events.TvsHandshakeWaiting)]
    assert waits == [0]
    assert events.TvsClientCertificateChosen not in told.kinds


@on_both_loops
async def test_the_server_certificate_must_equal_a_record(loopback: Draw) -> None:
    errors: list[Exception] = []
    told = Told(client_certificate=LSC)
    async with tvs(loopback, replying(answer()), identity=OLD.call_manager) as server:
        server._on_handshake_failed = lambda _stream, error: errors.append(error)
        result = await told.ask(query(server.address, server.port))
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_CERTIFICATE_NOT_TRUSTED
    assert told.kinds == UNTIL_CHECKED
    checked = told.events[-1]
    assert isinstance(checked, events.TvsServerCertificateChecked)
    assert (checked.role, checked.valid) == (21, False)
    assert [type(error).__name__ for error in errors] == ["TlsError"]


@pytest.mark.parametrize("profile", list(TlsProfile))
async def test_a_server_that_refuses_the_lsc(loopback: Draw, profile: TlsProfile) -> None:
    told = Told(client_certificate=LSC, profile=profile)
    stranger = (NEW.capf.certificate_der,)
    async with tvs(loopback, replying(answer()), profile=profile, client_cas=stranger) as server:
        result = await told.ask(query(server.address, server.port))
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_HANDSHAKE_FAILED


async def test_versions_that_do_not_meet(loopback: Draw) -> None:
    told = Told(profile=TlsProfile.AES256_SHA)
    context = server_context(OLD.tvs.certificate_der, OLD.tvs.private_key_der)
    context.set_min_proto_version(0x0304)
    listener = Listener(loopback(), 0, replying(b""), context=context)
    await listener.start()
    result = await told.ask(query(listener.address, listener.port))
    await listener.stop()
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_HANDSHAKE_FAILED
    assert "alert" in result.detail


async def test_nobody_listens(loopback: Draw) -> None:
    told = Told()
    result = await told.ask(query(loopback(), 2445))
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_UNREACHABLE
    assert told.kinds == [events.TvsConnecting]


@pytest.mark.parametrize(
    ("how", "words"),
    [(Reachability.REFUSE, "connection refused"), (Reachability.UNREACHABLE, "does not answer within 0.1 s")],
)
async def test_a_firewall_and_a_network_that_is_gone_look_different(
    loopback: Draw, how: Reachability, words: str
) -> None:
    told = Told(deadlines=TvsDeadlines(connect_s=0.1))
    async with tvs(loopback, replying(answer())) as server:
        server.set_reachability(how)
        result = await told.ask(query(server.address, server.port))
    assert isinstance(result, TvsFailure)
    assert (result.reason, words in result.detail) == (TrustReason.TVS_UNREACHABLE, True)


async def test_a_server_that_dies_in_the_middle(loopback: Draw) -> None:
    asked = asyncio.Event()

    async def never_answer(stream: Stream) -> None:
        await stream.read()
        asked.set()
        await stream.read()

    told = Told()
    async with tvs(loopback, never_answer) as server:
        asking = asyncio.create_task(told.ask(query(server.address, server.port)))
        await asked.wait()
        await server.crash()
        result = await asking
    assert isinstance(result, TvsFailure)
    assert (result.reason, "the connection was reset" in result.detail) == (TrustReason.TVS_UNREACHABLE, True)


@pytest.mark.parametrize("address", ["no..such", "x" * 50, "ä" * 40])
async def test_an_address_that_is_none(address: str) -> None:
    result = await Told().ask(query(address, 2445))
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_UNREACHABLE


async def test_a_server_that_stalls_in_the_handshake(loopback: Draw) -> None:
    async def stall(stream: Stream) -> None:
        while await stream.read():
            pass

    listener = Listener(loopback(), 0, stall)
    await listener.start()
    told = Told(deadlines=TvsDeadlines(handshake_s=0.05))
    result = await told.ask(query(listener.address, listener.port))
    await listener.stop()
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_HANDSHAKE_FAILED


async def test_a_server_that_does_not_answer(loopback: Draw) -> None:
    told = Told(deadlines=TvsDeadlines(answer_s=0.05))
    async with tvs(loopback, replying(answer()[:100], then_wait=True)) as server:
        result = await told.ask(query(server.address, server.port))
    assert isinstance(result, TvsFailure)
    assert (result.reason, "no answer in time" in result.detail) == (TrustReason.TVS_UNREACHABLE, True)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        answer()[:-1],
        answer(session_id=1002),
        encode_message(VerifyResponse.build(1001, 0)),
        encode_message(replace(QueryCertificateResponse.build(1001, 0), elements=())),
    ],
)
async def test_an_answer_that_is_none(loopback: Draw, reply: bytes) -> None:
    told = Told()
    async with tvs(loopback, replying(reply)) as server:
        result = await told.ask(query(server.address, server.port))
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_ANSWER_INVALID


async def test_an_answer_in_many_pieces(loopback: Draw) -> None:
    async def dribble(stream: Stream) -> None:
        await stream.read()
        for byte in answer():
            stream.write(bytes([byte]))
            await asyncio.sleep(0)

    told = Told()
    async with tvs(loopback, dribble) as server:
        assert isinstance(await told.ask(query(server.address, server.port)), TvsAnswer)


async def test_not_found_is_an_answer(loopback: Draw) -> None:
    async with tvs(loopback, replying(encode_message(QueryCertificateResponse.build(1001, 1)))) as server:
        assert await Told().ask(query(server.address, server.port)) == TvsAnswer(1, None, (), None)


@pytest.mark.parametrize(
    "identity",
    [
        DeviceIdentity(b"no certificate", LSC.identity.private_key),
        DeviceIdentity(LSC.identity.certificate, b"no key"),
        DeviceIdentity(LSC.identity.certificate, OLD.tvs.private_key_der),
    ],
)
async def test_a_damaged_identity_is_a_failure_not_a_crash(loopback: Draw, identity: DeviceIdentity) -> None:
    told = Told(client_certificate=ClientCertificate(identity, "LSC"))
    result = await told.ask(query(loopback(), 2445))
    assert isinstance(result, TvsFailure)
    assert result.reason is TrustReason.TVS_HANDSHAKE_FAILED


async def test_a_signer_name_that_fits_no_request_is_a_failure(loopback: Draw) -> None:
    command = replace(query(loopback(), 2445), subject="x" * 70_000)
    result = await Told().ask(command)
    assert isinstance(result, TvsFailure)


async def test_the_same_client_asks_again(loopback: Draw) -> None:
    told = Told(client_certificate=LSC)
    async with tvs(loopback, replying(answer())) as server:
        first = await told.ask(query(server.address, server.port))
        second = await told.ask(query(server.address, server.port))
    assert first == second
    assert told.kinds.count(events.TvsClientCertificateChosen) == 2
