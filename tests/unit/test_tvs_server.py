"""The TVS on real sockets: what it answers, what it refuses, and that nobody pays for another's misdeeds."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from both_loops import on_both_loops

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.errors import AddressBusy, TrustError, TrustReason, UsageError
from cucm.events import Event
from cucm.events.tvs import (
    CacheName,
    CacheStep,
    TvsCertificateLookedUp,
    TvsConnectionAccepted,
    TvsConnectionClosed,
    TvsConnectionRefused,
    TvsHandshakeDone,
    TvsHandshakeFailed,
    TvsRefusalReason,
    TvsRequestReceived,
    TvsRequestRefused,
    TvsResponseSent,
    TvsServerStarted,
    TvsServerStopped,
)
from cucm.faults import FaultBoard, fault_of
from cucm.key_store import KeyStore
from cucm.net.listener import Limits
from cucm.net.stream import Stream
from cucm.net.tls import TlsProfile, client_context, open_stream
from cucm.roles import CertificateUnit
from cucm.wire.tvs import (
    STATUS_NOT_FOUND,
    STATUS_OK,
    NeedData,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsConnection,
    TvsMessage,
    VerifyRequest,
    VerifyResponse,
    encode_message,
)
from tvs_server.certificate_cache import CertificateCache, PemFolderSource
from tvs_server.connection import MAX_REQUESTS
from tvs_server.server import TvsServer

NOT_BEFORE = 1_700_000_000.0
DEVICE = "CP-8861-SEPB000B4BA0AEE"
DEADLINE_S = 20

E = TypeVar("E", bound=Event)
Draw = Callable[[], str]


def make(name: str, unit: CertificateUnit = CertificateUnit.CALLMANAGER) -> Identity:
    return node_certificate(KeyStore(), unit, name, seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def tvs() -> Identity:
    return make("ucm105pub", CertificateUnit.TVS)


@pytest.fixture(scope="module")
def foreign() -> Identity:
    return make("ucm11pub")


@pytest.fixture(scope="module")
def capf() -> Identity:
    return capf_certificate(KeyStore(), "ucm105pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def phone(capf: Identity) -> Identity:
    numbers = {"mac": "B000B4BA0AEE", "serial_number": "FCH18198CNQ"}
    return lsc(capf, KeyStore(), model="CP-8861", seed=1, not_before=NOT_BEFORE, **numbers)


@pytest.fixture
def folder(tmp_path: Path, foreign: Identity) -> Path:
    (tmp_path / "ucm11pub.pem").write_bytes(foreign.certificate_pem)
    return tmp_path


class Told:
    """Events as they come; `next(kind)` waits for the next of a kind."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self.all.append(event)
        self._queue.put_nowait(event)

    async def next(self, kind: type[E]) -> E:
        while not isinstance(event := await self._queue.get(), kind):
            pass
        return event

    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.all]


@asynccontextmanager
async def serving(
    draw: Draw,
    tvs: Identity,
    folder: Path,
    *,
    roles: tuple[int, ...] = (0, 3),
    told: Told | None = None,
    **options: Any,
) -> AsyncIterator[tuple[TvsServer, Told]]:
    told = told or Told()
    server = TvsServer(
        draw(),
        0,
        certificate_der=tvs.certificate_der,
        private_key_der=tvs.private_key_der,
        cache=CertificateCache(PemFolderSource(folder, roles), emit=told),
        emit=told,
        now=lambda: NOT_BEFORE + 1,
        **options,
    )
    await server.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server, told
    finally:
        await server.stop()


async def connect(server: TvsServer, identity: Identity | None = None, **options: Any) -> Stream:
    own = {}
    if identity is not None:
        own = {"certificate_der": identity.certificate_der, "private_key_der": identity.private_key_der}
    return await open_stream(server.address, server.port, context=client_context(**own), **options)


async def receive(stream: Stream) -> TvsMessage:
    connection = TvsConnection()
    while isinstance(event := connection.next_event(), NeedData):
        data = await stream.read()
        if data:
            connection.receive_data(data)
        else:
            connection.receive_eof()
    assert isinstance(event, TvsMessage), event
    return event


async def ask(stream: Stream, request: TvsMessage) -> TvsMessage:
    stream.write(encode_message(request))
    return await receive(stream)


def query(identity: Identity, session_id: int = 1001) -> QueryCertificateRequest:
    return QueryCertificateRequest.build(session_id, DEVICE, identity.subject, identity.issuer, identity.serial)


async def is_served(server: TvsServer, identity: Identity) -> bool:
    async with await connect(server) as stream:
        answer = await ask(stream, query(identity))
        return isinstance(answer, QueryCertificateResponse) and answer.certificate == identity.certificate_der


# -- what it answers -------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_query_is_answered_and_told(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity, capf: Identity, phone: Identity
) -> None:
    async with serving(loopback, tvs, folder, client_cas=[capf.certificate_der]) as (server, told):
        origin = loopback()
        async with await connect(server, phone, local_address=origin) as stream:
            assert stream.peer_certificate == tvs.certificate_der
            answer = await ask(stream, query(foreign))
            place = (1, *stream.local_address)
        expected = QueryCertificateResponse.build(1001, STATUS_OK, foreign.certificate_der, (0, 3), 86_400)
        assert answer == expected
        closed = await told.next(TvsConnectionClosed)
        assert (closed.connection, closed.peer, closed.peer_port, closed.requests) == (*place, 1)
        lifecycle = [kind for kind in told.kinds() if kind.kind.startswith("tvs.") and "cache" not in kind.kind]
        assert [kind.kind.removeprefix("tvs.") for kind in lifecycle] == [
            "connection_accepted",
            "handshake_begun",
            "handshake_done",
            "request_received",
            "certificate_looked_up",
            "response_sent",
            "connection_closed",
        ]
    events = {type(event): event for event in told.all}
    handshake = events[TvsHandshakeDone]
    assert isinstance(handshake, TvsHandshakeDone)
    assert handshake.client_subject == phone.subject
    received, sent = events[TvsRequestReceived], events[TvsResponseSent]
    assert isinstance(received, TvsRequestReceived)
    assert isinstance(sent, TvsResponseSent)
    assert received.data == encode_message(query(foreign))
    assert (received.device_name, received.issuer, received.serial) == (DEVICE, foreign.issuer, foreign.serial)
    assert (sent.data, sent.status, sent.roles, sent.ttl_s) == (encode_message(expected), STATUS_OK, (0, 3), 86_400)
    assert events[TvsServerStarted] == TvsServerStarted(server.address, server.port, 1, 0)
    assert told.all[-1] == TvsServerStopped(server.address, server.port)


class CountingSource(PemFolderSource):
    """Counts how often it is asked whether it has changed."""

    asked = 0

    def version(self) -> object:
        self.asked += 1
        return super().version()


@on_both_loops
async def test_requests_of_one_turn_cost_one_look_at_the_source_which_is_as_new_as_the_last_of_them(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity, phone: Identity
) -> None:
    source, told = CountingSource(folder, (0,)), Told()
    server = TvsServer(
        loopback(),
        0,
        certificate_der=tvs.certificate_der,
        private_key_der=tvs.private_key_der,
        cache=CertificateCache(source),
        emit=told,
    )
    await server.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            streams = [await connect(server) for _ in range(5)]
            for _ in streams:
                await told.next(TvsHandshakeDone)
            for wanted, name in ((foreign, ""), (phone, "phone.pem")):
                if name:  # a moment before the requests are sent
                    (folder / name).write_bytes(wanted.certificate_pem)
                before = source.asked
                for number, stream in enumerate(streams):
                    stream.write(encode_message(query(wanted, number)))
                for number, stream in enumerate(streams):
                    expected = QueryCertificateResponse.build(number, STATUS_OK, wanted.certificate_der, (0,), 86_400)
                    assert await receive(stream) == expected
                # a source that has changed is asked once more, when it is read
                assert source.asked - before == (2 if name else 1)
            for stream in streams:
                await stream.close()
    finally:
        await server.stop()


@on_both_loops
async def test_who_is_cut_before_the_answer_gets_none_and_keeps_nobody_from_theirs(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        streams = [await connect(server) for _ in range(3)]
        for _ in streams:
            await told.next(TvsHandshakeDone)
        ends = {stream.peer_address[1]: stream for stream in server._clients}
        cut = ends[streams[1].local_address[1]]
        look = cut.receiver
        assert look is not None

        def look_and_cut(stream: Stream) -> None:
            look(stream)
            stream.reset()
            stream.connection_lost(None)

        cut.receiver = look_and_cut
        for stream in streams:
            stream.write(encode_message(query(foreign)))
        for stream in (streams[0], streams[2]):
            assert isinstance(await receive(stream), QueryCertificateResponse)
        with pytest.raises(ConnectionError):
            await streams[1].read()
        assert told.kinds().count(TvsResponseSent) == 2
        for stream in streams:
            await stream.close()


@on_both_loops
async def test_who_is_cut_by_another_ones_answer_gets_none_and_nothing_is_told_of_one(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    class Cutter(Told):
        """A subscriber that cuts off everybody when the first answer is sent."""

        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, TvsResponseSent) and self.kinds().count(TvsResponseSent) == 1:
                for stream in list(server._clients):
                    stream.reset()

    async with serving(loopback, tvs, folder, told=Cutter()) as (server, told):
        streams = [await connect(server) for _ in range(3)]
        for _ in streams:
            await told.next(TvsHandshakeDone)
        for stream in streams:
            stream.write(encode_message(query(foreign)))
        for _ in streams:
            await told.next(TvsConnectionClosed)
        assert told.kinds().count(TvsResponseSent) == told.kinds().count(TvsRequestReceived) == 1
        for stream in streams:
            await stream.close()


@on_both_loops
async def test_who_has_asked_is_not_idle_until_the_answer_and_is_answered_once(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        stream = await connect(server)
        await told.next(TvsHandshakeDone)
        (here,) = server._clients
        look, waiting = here.receiver, server._listener._idle
        assert look is not None

        def look_twice_as_the_idle_time_ends(stream: Stream) -> None:
            look(stream)
            look(stream)
            for idle in list(waiting._due):
                waiting._due[idle] = 0.0
            waiting._check()

        here.receiver = look_twice_as_the_idle_time_ends
        for number in range(2):
            answer = await ask(stream, query(foreign, number))
            assert isinstance(answer, QueryCertificateResponse)
            assert answer.session_id == number
        assert TvsRequestRefused not in told.kinds()
        await stream.close()


@on_both_loops
async def test_verify_and_not_found(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity, phone: Identity
) -> None:
    async with serving(loopback, tvs, folder, roles=(7,), ttl_s=60) as (server, told):
        async with await connect(server) as stream:
            good = VerifyRequest.build(1002, DEVICE, foreign.certificate_der)
            assert await ask(stream, good) == VerifyResponse.build(1002, STATUS_OK, (7,), 60)
            assert (await told.next(TvsCertificateLookedUp)).equal is True
        async with await connect(server) as stream:
            unknown = VerifyRequest.build(1003, DEVICE, phone.certificate_der)
            assert await ask(stream, unknown) == VerifyResponse.build(1003, STATUS_NOT_FOUND)
            looked = await told.next(TvsCertificateLookedUp)
            assert (looked.equal, looked.steps) == (None, (CacheStep(CacheName.DATABASE, False, ()),))
        async with await connect(server) as stream:
            assert await ask(stream, query(phone)) == QueryCertificateResponse.build(1001, STATUS_NOT_FOUND)


@on_both_loops
async def test_requests_one_after_the_other_all_at_once_and_byte_by_byte(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        async with await connect(server) as stream:
            for session_id in (1, 2):
                assert (await ask(stream, query(foreign, session_id))).session_id == session_id
            stream.write(encode_message(query(foreign, 3)) + encode_message(query(foreign, 4)))
            connection, answered = TvsConnection(), []
            while len(answered) < 2:
                connection.receive_data(await stream.read())
                while isinstance(event := connection.next_event(), TvsMessage):
                    answered.append(event.session_id)
            assert answered == [3, 4]
            for byte in encode_message(query(foreign, 5)):
                stream.write(bytes((byte,)))
                await stream.drain()
            assert (await receive(stream)).session_id == 5
        assert (await told.next(TvsConnectionClosed)).requests == 5


@on_both_loops
async def test_no_more_than_so_many_requests_on_one_connection(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told), await connect(server) as stream:
        for session_id in range(MAX_REQUESTS):
            await ask(stream, query(foreign, session_id))
        stream.write(encode_message(query(foreign)))
        assert await stream.read() == b""
        assert (await told.next(TvsRequestRefused)).reason is TvsRefusalReason.TOO_MUCH


# -- whom it refuses -------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_phone_that_refuses_our_certificate_is_heard(loopback: Draw, tvs: Identity, folder: Path) -> None:
    def refuse(_der: bytes) -> None:
        raise TrustError(TrustReason.TVS_CERTIFICATE_NOT_TRUSTED, "not in the ITL")

    for profile in TlsProfile:
        async with serving(loopback, tvs, folder, profile=profile) as (server, told):
            with pytest.raises(TrustError):
                await open_stream(
                    server.address, server.port, context=client_context(profile=profile), verify_peer=refuse
                )
            failed = await told.next(TvsHandshakeFailed)
            assert (failed.connection, failed.reason, failed.trust) == (1, TvsRefusalReason.HANDSHAKE, None)
            assert "alert" in (failed.alert or "")


@on_both_loops
async def test_a_strangers_certificate_is_refused_and_told(
    loopback: Draw, tvs: Identity, folder: Path, capf: Identity, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder, client_cas=[capf.certificate_der]) as (server, told):
        await (await connect(server, foreign)).close()  # under TLS 1.3 the client's side is done before the refusal
        failed = await told.next(TvsHandshakeFailed)
        assert (failed.reason, failed.trust) == (TvsRefusalReason.CLIENT_CERTIFICATE, TrustReason.SIGNER_UNKNOWN)
        assert await is_served(server, foreign)


GARBAGE = {
    "no TVS message": (b"GET / HTTP/1.1\r\n\r\n", TvsRefusalReason.MALFORMED),
    "unknown version": (b"\x57\x02", TvsRefusalReason.MALFORMED),
    "unknown type": (b"\x57\x01\x09", TvsRefusalReason.UNEXPECTED_MESSAGE),
    "an answer": (encode_message(VerifyResponse.build(1, 0)), TvsRefusalReason.UNEXPECTED_MESSAGE),
    "element beyond the payload": (bytes.fromhex("57010300000000010004 01ffff00"), TvsRefusalReason.MALFORMED),
    "elements missing": (bytes.fromhex("57010300000000010000"), TvsRefusalReason.MALFORMED),
    "no certificate to verify": (
        encode_message(VerifyRequest.build(1, DEVICE, b"\x30\x82")),
        TvsRefusalReason.MALFORMED,
    ),
}


@pytest.mark.parametrize(("data", "reason"), GARBAGE.values(), ids=GARBAGE)
@on_both_loops
async def test_garbage_is_refused_without_an_answer(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity, data: bytes, reason: TvsRefusalReason
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        async with await connect(server) as stream:
            stream.write(data)
            assert await stream.read() == b""
            refused = await told.next(TvsRequestRefused)
            assert refused.reason is reason
            assert refused.peer == stream.local_address[0]
            assert refused.detail
        assert await is_served(server, foreign)


@on_both_loops
async def test_bytes_that_are_no_tls_inside_a_session_are_told(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        async with await connect(server) as stream:
            stream._transport.write(b"\x17\x03\x03\x00\x20" + b"z" * 32)
            refused = await told.next(TvsRequestRefused)
            assert refused.reason is TvsRefusalReason.TLS
            assert refused.detail
        assert await is_served(server, foreign)


@on_both_loops
async def test_lying_about_the_length_and_hanging_up_is_an_error_in_mid_message(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        async with await connect(server) as stream:
            stream.write(encode_message(query(foreign))[:8] + b"\xff\xff" + bytes(200))
        assert "mid-message" in (await told.next(TvsRequestRefused)).detail
        assert await is_served(server, foreign)


@on_both_loops
async def test_hanging_up_politely_or_not_is_no_refusal(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        (await connect(server)).abort()
        await told.next(TvsConnectionClosed)
        await (await connect(server)).close()
        await told.next(TvsConnectionClosed)
        assert TvsRequestRefused not in told.kinds()
        assert await is_served(server, foreign)


@on_both_loops
async def test_stalling_ends_with_the_deadline_of_its_phase(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    limits = Limits(handshake_timeout_s=0.3, idle_timeout_s=0.3, request_timeout_s=0.2)
    async with serving(loopback, tvs, folder, limits=limits) as (server, told):
        async with await open_stream(server.address, server.port) as before:
            assert (await told.next(TvsHandshakeFailed)).reason is TvsRefusalReason.HANDSHAKE_TIMEOUT
            before.abort()
        async with await open_stream(server.address, server.port) as during:
            during.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            assert (await told.next(TvsHandshakeFailed)).reason is TvsRefusalReason.HANDSHAKE_TIMEOUT
            during.abort()
        async with await connect(server) as after:
            assert (await told.next(TvsRequestRefused)).reason is TvsRefusalReason.IDLE_TIMEOUT
            assert await after.read() == b""
        async with await connect(server) as within:
            within.write(encode_message(query(foreign))[:-1])
            refused = await told.next(TvsRequestRefused)
            assert (refused.reason, refused.detail) == (TvsRefusalReason.REQUEST_TIMEOUT, "not done in 0.2 s")
            assert await within.read() == b""
        assert await is_served(server, foreign)


@on_both_loops
async def test_the_deadline_that_ended_a_request_is_the_one_told(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    limits = Limits(idle_timeout_s=0.2, request_timeout_s=DEADLINE_S)
    async with serving(loopback, tvs, folder, limits=limits) as (server, told), await connect(server) as stream:
        stream.write(encode_message(query(foreign))[:-1])
        refused = await told.next(TvsRequestRefused)
        assert refused.reason is TvsRefusalReason.REQUEST_TIMEOUT
        assert "0.2 s" in refused.detail


@on_both_loops
async def test_dripping_bytes_does_not_stretch_the_request(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    limits = Limits(idle_timeout_s=DEADLINE_S, request_timeout_s=0.2)
    async with serving(loopback, tvs, folder, limits=limits) as (server, told), await connect(server) as stream:
        stream.write(encode_message(query(foreign))[:8] + b"\xff\xff")
        refused = asyncio.create_task(told.next(TvsRequestRefused))
        while not refused.done():
            stream.write(b"\0")
            await asyncio.wait([refused], timeout=0.02)
        assert refused.result().reason is TvsRefusalReason.REQUEST_TIMEOUT


@on_both_loops
async def test_a_client_that_takes_no_answers_is_cut_off(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    limits = Limits(request_timeout_s=0.3, idle_timeout_s=DEADLINE_S)
    flood = FaultBoard()
    flood.set(fault_of({"point": "tvs.response", "action": "unknown-tag", "attributes": {"bytes": 32_768}}))
    async with (
        serving(loopback, tvs, folder, limits=limits, faults=flood) as (server, told),
        await connect(server) as greedy,
    ):
        with socket.socket(fileno=os.dup((await told.next(TvsConnectionAccepted)).socket)) as theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # or the kernel takes all there is
        greedy.transport.pause_reading()
        greedy.write(encode_message(query(foreign)) * MAX_REQUESTS)
        assert (await told.next(TvsRequestRefused)).reason is TvsRefusalReason.REQUEST_TIMEOUT
        greedy.abort()


@on_both_loops
async def test_a_client_that_asks_one_after_the_other_and_takes_no_answers_is_given_to_a_handler(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    many = tuple(range(250)) * 200
    async with serving(loopback, tvs, folder, roles=many) as (server, told), await connect(server) as greedy:
        with socket.socket(fileno=os.dup((await told.next(TvsConnectionAccepted)).socket)) as theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        greedy.transport.pause_reading()
        await told.next(TvsHandshakeDone)
        (here,) = server._clients
        while not here.unsent_bytes():
            assert here.receiver is not None
            greedy.write(encode_message(query(foreign)))
            await told.next(TvsResponseSent)
        assert here.receiver is None  # a handler has it: what is answered next waits for the client, within bounds
        greedy.abort()


@on_both_loops
async def test_others_are_served_while_many_stall(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    limits = Limits(handshake_timeout_s=DEADLINE_S, idle_timeout_s=DEADLINE_S, request_timeout_s=DEADLINE_S)
    async with serving(loopback, tvs, folder, limits=limits) as (server, _told):
        stalled = [await open_stream(server.address, server.port) for _ in range(50)]
        for number, stream in enumerate(stalled):
            stream.write(b"\x16\x03\x01\x02\x00"[: number % 6])
        half = [await connect(server) for _ in range(20)]
        for stream in half:
            stream.write(encode_message(query(foreign))[:50])
        assert all(await asyncio.gather(*(is_served(server, foreign) for _ in range(20))))
        for stream in (*stalled, *half):
            stream.abort()
            await stream.close()


@on_both_loops
async def test_limits_are_told(loopback: Draw, tvs: Identity, folder: Path, foreign: Identity) -> None:
    limits = Limits(connections=3, connections_per_address=1)
    async with serving(loopback, tvs, folder, limits=limits) as (server, told):
        places = [loopback() for _ in range(4)]
        open_now = [await connect(server, local_address=place) for place in places[:3]]
        for place, why in [(places[0], "3 connections"), (places[3], "3 connections")]:
            async with await open_stream(server.address, server.port, local_address=place):
                refused = await told.next(TvsConnectionRefused)
                assert (refused.peer, refused.reason) == (place, TvsRefusalReason.LIMIT)
                assert refused.detail.startswith(why)
        await open_now.pop().close()
        await told.next(TvsConnectionClosed)
        async with await open_stream(server.address, server.port, local_address=places[0]):
            assert "this address" in (await told.next(TvsConnectionRefused)).detail
        async with await connect(server, local_address=places[3]) as stream:
            await ask(stream, query(foreign))
        accepted = [event for event in told.all if isinstance(event, TvsConnectionAccepted)]
        assert (accepted[-1].attempted, accepted[-1].accepted) == (7, 4)
        for stream in open_now:
            await stream.close()


# -- its life --------------------------------------------------------------------------------------------------


@on_both_loops
async def test_stop_with_open_connections_and_start_again(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    told = Told()
    async with (
        serving(loopback, tvs, folder, told=told) as (server, _),
        await connect(server) as stream,
        await open_stream(server.address, server.port) as silent,
    ):
        await ask(stream, query(foreign))
        await server.stop()
        assert server.connections == 0
        assert await stream.read() == b""
        silent.abort()
    assert told.kinds().count(TvsServerStopped) == 1
    async with serving(lambda: server.address, tvs, folder) as (again, _):
        assert await is_served(again, foreign)


@on_both_loops
async def test_a_busy_address_is_reported_and_nothing_stays_open(loopback: Draw, tvs: Identity, folder: Path) -> None:
    async with serving(loopback, tvs, folder) as (server, _told):
        second = TvsServer(
            server.address,
            server.port,
            certificate_der=tvs.certificate_der,
            private_key_der=tvs.private_key_der,
            cache=CertificateCache(folder / "none.db"),
        )
        with pytest.raises(AddressBusy):
            await second.start()
        await second.stop()


async def test_started_twice_it_says_so_and_goes_on(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    async with serving(loopback, tvs, folder) as (server, told):
        with pytest.raises(AddressBusy, match="this server has it already"):
            await server.start()
        assert [kind.kind for kind in told.kinds()] == ["tvs.cache_loaded", "tvs_server.started"]
        assert await is_served(server, foreign)


@on_both_loops
async def test_stopped_twice_at_once_it_ends_once(loopback: Draw, tvs: Identity, folder: Path) -> None:
    async with serving(loopback, tvs, folder) as (server, told), await connect(server):
        await told.next(TvsHandshakeDone)
        first = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        await server.stop()
        assert server.connections == 0
        await first
        assert told.kinds().count(TvsServerStopped) == 1


async def test_a_key_that_does_not_fit_is_a_usage_error(
    loopback: Draw, tvs: Identity, folder: Path, foreign: Identity
) -> None:
    server = TvsServer(
        loopback(),
        0,
        certificate_der=tvs.certificate_der,
        private_key_der=foreign.private_key_der,
        cache=CertificateCache(PemFolderSource(folder, ())),
    )
    with pytest.raises(UsageError):
        await server.start()
