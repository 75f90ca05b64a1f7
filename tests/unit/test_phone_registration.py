"""The phone's side of registration against servers that behave and servers that do not; all of them on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from sipmessage import Message, Request

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.clock import MovableClock
from cucm.key_store import KeyStore
from cucm.net.listener import Limits, Listener
from cucm.net.tls import ClientCertificatePolicy, Stream, TlsProfile, server_context
from cucm.roles import CertificateUnit
from cucm.wire.alarm import Alarm, DeviceTlInfo
from cucm.wire.sip import SipReceiver, response_to
from cucm.wire.sip_digest import Digest, is_right
from cucm.wire.sip_message import Request as OwnRequest
from cucm.wire.sip_message import Response
from phone_agent.commands import Register, RegistrationResult, RegistrationStatus
from phone_agent.flash import DeviceIdentity
from phone_agent.registration import Registration, RegistrationClient, RegistrationDeadlines
from phone_agent.sip_requests import SipRequests

NOW = 1_480_401_239.0
KEYS = KeyStore()
DEVICE = "SEPB000B4BA0AEE"
CALL_MANAGER = node_certificate(KEYS, CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOW)
IMPOSTOR = node_certificate(
    KEYS, CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOW, key_label="impostor ucm11pub"
)
CAPF = capf_certificate(KEYS, "ucm11pub", seed=1, not_before=NOW)
LSC = lsc(
    CAPF, KEYS, model="CP-8861", mac=DEVICE[3:], serial_number="FCH18198CNQ", seed=1, not_before=NOW, key_label="phone"
)
PHONE = DeviceIdentity(LSC.certificate_der, LSC.private_key_der)
IMPATIENT = RegistrationDeadlines(connect_s=0.2, handshake_s=0.1, answer_s=0.1)

Handler = Callable[[Stream], Awaitable[None]]


@asynccontextmanager
async def listening(address: str, handler: Handler, certificate: Identity | None = None) -> AsyncIterator[int]:
    context = None
    if certificate is not None:
        context = server_context(
            certificate.certificate_der,
            certificate.private_key_der,
            policy=ClientCertificatePolicy.REQUIRED,
            client_cas=[CAPF.certificate_der],
            now=lambda: NOW + 1,
        )
    listener = Listener(address, 0, handler, context=context, limits=Limits())
    await listener.start()
    try:
        yield listener.port
    finally:
        await listener.stop()


def answering(*answers: str, then_wait: bool = True) -> Handler:
    """Sends these; `{call_id}` and `{cseq}` become the request's."""

    async def handle(stream: Stream) -> None:
        request = Message.parse(await stream.read())
        for answer in answers:
            text = answer.format(call_id=request.call_id, cseq=request.headers["CSeq"]).replace("\n", "\r\n")
            stream.write(text.encode())
            await stream.drain()
        if then_wait:
            await stream.read()

    return handle


HEADERS = "Call-ID: {call_id}\nCSeq: {cseq}\nContent-Length: 0\n\n"
TRYING, OK, FORBIDDEN = (f"SIP/2.0 {line}\n{HEADERS}" for line in ("100 Trying", "200 OK", "403 Forbidden"))
OTHERS_OK = "SIP/2.0 200 OK\nCall-ID: another\nCSeq: {cseq}\nContent-Length: 0\n\n"
NOTIFY = "NOTIFY sip:phone@127.0.0.1 SIP/2.0\n" + HEADERS


async def register(
    address: str,
    port: int,
    transport: str = "tcp",
    *,
    deadlines: RegistrationDeadlines | None = None,
    trusted: tuple[bytes, ...] = (CALL_MANAGER.certificate_der,),
    local_address: str | None = None,
    on_lost: Callable[[str], None] = lambda _: None,
) -> Registration:
    client = RegistrationClient(randomness=Random(1), identity=PHONE, local_address=local_address, deadlines=deadlines)
    return await client.register(Register(address, port, transport, DEVICE, trusted), on_lost)  # type: ignore[arg-type]


async def result_of(*arguments: object, **keywords: object) -> RegistrationResult:
    registration = await register(*arguments, **keywords)  # type: ignore[arg-type]
    await registration.close()
    return registration.result


# -- the request ----------------------------------------------------------------------------------------------------


def request_of(seed: int = 1) -> OwnRequest:
    command = Register("127.0.11.34", 5061, "tls", DEVICE)
    return SipRequests(command, ("127.0.11.100", 50_000), Random(seed)).register()


def test_the_request_names_phone_and_call_manager() -> None:
    lines = bytes(request_of()).decode().split("\r\n")
    assert lines[0] == "REGISTER sip:127.0.11.34 SIP/2.0"
    assert "To: <sip:b000b4ba0aee@127.0.11.34>" in lines
    assert (
        "Contact: <sip:b000b4ba0aee@127.0.11.100:50000;transport=tls>"
        ';+sip.instance="<urn:uuid:00000000-0000-0000-0000-b000b4ba0aee>"'
        ';+u.sip!devicename.ccm.cisco.com="SEPB000B4BA0AEE"'
    ) in lines
    assert {"CSeq: 101 REGISTER", "Max-Forwards: 70", "Expires: 3600", "Content-Length: 0"} <= set(lines)


def test_it_can_be_read_back() -> None:
    request = Message.parse(bytes(request_of()))
    assert isinstance(request, Request)
    assert (request.via[0].transport, request.via[0].host, request.via[0].port) == ("TLS", "127.0.11.100", 50_000)
    assert (request.via[0].parameters["branch"] or "").startswith("z9hG4bK")
    assert request.from_address.parameters["tag"]


def test_tags_come_from_the_given_randomness_only() -> None:
    assert bytes(request_of(1)) == bytes(request_of(1)) != bytes(request_of(2))


# -- good ends ------------------------------------------------------------------------------------------------------


async def test_200_over_tcp_registers_and_keeps_the_connection(loopback: Callable[[], str]) -> None:
    address, phone = loopback(), loopback()
    peers = []

    async def handle(stream: Stream) -> None:
        peers.append(stream.peer_address[0])
        await answering(OK)(stream)

    async with listening(address, handle) as port:
        registration = await register(address, port, local_address=phone)
        assert registration.result == RegistrationResult(RegistrationStatus.REGISTERED, 200, "200 OK")
        assert registration.is_open
        await registration.close()
        assert not registration.is_open
    assert peers == [phone]


async def test_200_over_tls_with_the_lsc(loopback: Callable[[], str]) -> None:
    address = loopback()
    seen = []

    async def handle(stream: Stream) -> None:
        seen.append(stream.peer_certificate)
        await answering(OK)(stream)

    async with listening(address, handle, CALL_MANAGER) as port:
        assert (await result_of(address, port, "tls")).status is RegistrationStatus.REGISTERED
    assert seen == [PHONE.certificate]


async def test_what_comes_before_the_final_answer_is_passed_over(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with listening(address, answering(TRYING, NOTIFY, OTHERS_OK, FORBIDDEN)) as port:
        result = await result_of(address, port)
    assert (result.status, result.sip_status) == (RegistrationStatus.REFUSED, 403)


async def test_the_phone_hangs_up_when_it_closes_and_loss_is_not_told(loopback: Callable[[], str]) -> None:
    address = loopback()
    hung_up = asyncio.Event()
    lost: list[str] = []

    async def handle(stream: Stream) -> None:
        await answering(OK)(stream)
        hung_up.set()

    async with listening(address, handle) as port:
        registration = await register(address, port, on_lost=lost.append)
        await registration.close()
        async with asyncio.timeout(5):
            await hung_up.wait()
        await registration.close()
    assert lost == []


@pytest.mark.parametrize("certificate", [None, CALL_MANAGER], ids=["tcp", "tls"])
async def test_a_call_manager_that_hangs_up_is_told_once(
    loopback: Callable[[], str], certificate: Identity | None
) -> None:
    address = loopback()
    drop = asyncio.Event()
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle(stream: Stream) -> None:
        await answering(OK, NOTIFY)(stream)  # what the phone says to it is read: unread, it makes a reset of the end
        await drop.wait()

    async with listening(address, handle, certificate) as port:
        transport = "tls" if certificate else "tcp"
        registration = await register(address, port, transport, on_lost=lost.set_result)
        assert registration.is_open
        drop.set()
        async with asyncio.timeout(5):
            assert "closed the connection" in await lost
        assert not registration.is_open
        await registration.close()


@pytest.mark.parametrize("way", ["close", "unregister", "abort"])
async def test_cancelling_the_end_still_hangs_up(way: str, loopback: Callable[[], str]) -> None:
    address = loopback()
    hung_up = asyncio.Event()

    async def handle(stream: Stream) -> None:
        with contextlib.suppress(ConnectionError):
            await answering(OK)(stream)
        hung_up.set()

    async with listening(address, handle) as port:
        registration = await register(address, port)
        closing = asyncio.create_task(getattr(registration, way)())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        async with asyncio.timeout(5):
            await hung_up.wait()


async def test_a_broken_connection_is_told(loopback: Callable[[], str]) -> None:
    address = loopback()
    drop = asyncio.Event()
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle(stream: Stream) -> None:
        await answering(OK, then_wait=False)(stream)
        await drop.wait()
        stream.abort()

    async with listening(address, handle) as port:
        registration = await register(address, port, on_lost=lost.set_result)
        drop.set()
        async with asyncio.timeout(5):
            assert await lost
        await registration.close()


# -- the dialogue ---------------------------------------------------------------------------------------------------

LISTS = DeviceTlInfo(DEVICE, None, None, b"\xa3" * 20, "127.0.11.32")


@dataclass
class Registrar:
    """Answers each request with the next of `answers`, then 200; `requests` are those that came."""

    answers: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, stream: Stream) -> None:
        receiver = SipReceiver()
        while data := await stream.read():
            receiver.receive_data(data)
            while (message := receiver.next_message()) is not None:
                if isinstance(message, OwnRequest):
                    self.answer(stream, message)

    def answer(self, stream: Stream, request: OwnRequest) -> None:
        read = Message.parse(bytes(request))  # by others than us
        assert isinstance(read, Request)
        self.requests.append(read)
        self.came.set()
        head, _, more = (self.answers.pop(0) if self.answers else "200 OK").partition("\n")
        response = response_to(request, int(head[:3]), head[4:])
        for line in more.splitlines():
            name, _, value = line.partition(": ")
            response.headers.set(name, value)
        stream.write(bytes(response))

    async def until(self, number: int) -> Request:
        async with asyncio.timeout(5):
            while len(self.requests) < number:
                self.came.clear()
                await self.came.wait()
        return self.requests[number - 1]


@asynccontextmanager
async def registered(
    address: str, registrar: Registrar, clock: MovableClock | None = None, **command: Any
) -> AsyncIterator[Registration]:
    async with listening(address, registrar.serve) as port:
        client = RegistrationClient(randomness=Random(1), deadlines=RegistrationDeadlines(answer_s=2), clock=clock)
        registration = await client.register(
            Register(address, port, "tcp", DEVICE, **{"alarms": (LISTS,)} | command),
        )
        yield registration
        await registration.close()


async def test_the_alarm_says_what_the_facts_say(loopback: Callable[[], str]) -> None:
    registrar = Registrar()
    async with registered(loopback(), registrar):
        refer, register = registrar.requests
    assert (refer.method, refer.cseq.sequence, refer.expires, refer.require) == ("REFER", 1000, 10, ["norefersub"])
    assert refer.headers["Content-Type"] == "application/x-cisco-alarm+xml"
    assert DeviceTlInfo.of(Alarm.decode(refer.body)) == replace(LISTS, ipv4_address="127.0.0.1")
    assert register.method == "REGISTER"
    assert refer.call_id != register.call_id


@pytest.mark.parametrize("answer", ["403 Forbidden", "400 Bad Request", "100 Trying"])
async def test_an_alarm_nobody_wants_does_not_keep_the_phone(loopback: Callable[[], str], answer: str) -> None:
    async with registered(loopback(), Registrar([answer])) as registration:
        assert registration.result.status is RegistrationStatus.REGISTERED


def test_an_ipv6_phone_says_so() -> None:
    command = Register("::1", 5060, "tcp", DEVICE)
    refer = SipRequests(command, ("::2", 50_000), Random(1)).alarm(LISTS)
    assert DeviceTlInfo.of(Alarm.decode(refer.body)) == replace(LISTS, ipv6_address="::2")
    assert str(Message.parse(bytes(refer)).via[0].host) == "[::2]"


async def test_who_asks_on_and_on_and_takes_no_answer_is_cut_off(loopback: Callable[[], str]) -> None:
    asked = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a;x=" + b"y" * 7000 + b"\r\nContent-Length: 0\r\n\r\n"
    cut = asyncio.Event()

    async def ask_on(stream: Stream) -> None:
        try:
            while True:
                stream.write(asked * 100)
                await stream.drain()
        except ConnectionError:
            cut.set()

    address = loopback()
    async with listening(address, ask_on) as port:
        client = RegistrationClient(randomness=Random(1), deadlines=RegistrationDeadlines(answer_s=30))
        registration = await client.register(Register(address, port, "tcp", DEVICE))
        async with asyncio.timeout(30):
            await cut.wait()
    assert registration.result.status is RegistrationStatus.UNREACHABLE
    assert "within" not in registration.result.detail


CHALLENGE = '401 Unauthorized\nWWW-Authenticate: Digest realm="ccmsipline", nonce="{nonce}"{more}'
OTHER_CHALLENGES = (
    "401 Unauthorized\nWWW-Authenticate: Basic x\nWWW-Authenticate: Digest nothing"
    '\nWWW-Authenticate: Digest realm="r", nonce="2", algorithm=SHA-256'
    '\nWWW-Authenticate: Digest realm="r", nonce="2", qop="auth-int"'
)
CREDENTIALS = {"digest_user": "phone", "digest_password": "secret", "alarms": ()}


async def test_a_challenge_is_answered_and_the_refresh_knows_it_already(loopback: Callable[[], str]) -> None:
    clock = MovableClock(NOW, frozen=True)
    registrar = Registrar([CHALLENGE.format(nonce="n", more=""), "200 OK\nExpires: 120"])
    async with registered(loopback(), registrar, clock, **CREDENTIALS) as registration:
        assert registration.result.status is RegistrationStatus.REGISTERED
        clock.move(115)
        refresh = await registrar.until(3)
    first, second, _ = registrar.requests
    assert "Authorization" not in first.headers.keys()  # noqa: SIM118
    for request in (second, refresh):
        assert is_right(Digest.parse(request.headers["Authorization"]), "REGISTER", "phone", "secret")
    assert [request.cseq.sequence for request in registrar.requests] == [101, 102, 103]
    assert len({request.call_id for request in registrar.requests}) == 1
    assert refresh.expires == 3600


@pytest.mark.parametrize(
    ("answers", "asked", "status"),
    [
        ([CHALLENGE.format(nonce=1, more=""), CHALLENGE.format(nonce=2, more="")], 2, 401),
        ([CHALLENGE.format(nonce=1, more=""), CHALLENGE.format(nonce=2, more=", stale=true")], 3, 200),
        ([CHALLENGE.format(nonce=1, more=", stale=true")] * 9, 3, 401),
        (["401 Unauthorized\nWWW-Authenticate: Basic x"], 1, 401),
        ([CHALLENGE.format(nonce=1, more=", algorithm=SHA-256"), "200 OK"], 1, 401),
        ([OTHER_CHALLENGES + CHALLENGE.format(nonce=1, more="").removeprefix("401 Unauthorized")], 2, 200),
        ([OTHER_CHALLENGES, "200 OK"], 1, 401),
        (["401 Unauthorized"], 1, 401),
    ],
)
async def test_how_often_a_phone_tries(
    loopback: Callable[[], str], answers: list[str], asked: int, status: int
) -> None:
    registrar = Registrar(list(answers))
    async with registered(loopback(), registrar, **CREDENTIALS) as registration:
        assert registration.result.sip_status == status
    assert len(registrar.requests) == asked


@pytest.mark.parametrize("granted", ["", "\nExpires: 0", "\nExpires: soon"])
async def test_what_is_not_granted_in_words_is_what_was_asked_for(loopback: Callable[[], str], granted: str) -> None:
    clock = MovableClock(NOW, frozen=True)
    registrar = Registrar([f"200 OK{granted}"])
    async with registered(loopback(), registrar, clock, alarms=()) as registration:
        clock.move(3595)
        await registrar.until(2)
        assert registration.is_open


async def test_a_refresh_that_is_refused_loses_the_registration(loopback: Callable[[], str]) -> None:
    clock, lost = MovableClock(NOW, frozen=True), asyncio.get_running_loop().create_future()
    registrar = Registrar(["200 OK\nExpires: 6", "404 Not Found"])
    address = loopback()
    async with listening(address, registrar.serve) as port:
        client = RegistrationClient(randomness=Random(1), clock=clock)
        registration = await client.register(Register(address, port, "tcp", DEVICE), lost.set_result)
        clock.move(3)
        async with asyncio.timeout(5):
            assert await lost == "the registration could not be refreshed: 404 Not Found"
        assert not registration.is_open
        assert not await registration.unregister()
        await registration.close()


async def test_unregistering_says_so_and_hangs_up(loopback: Callable[[], str]) -> None:
    registrar = Registrar()
    async with registered(loopback(), registrar, alarms=()) as registration:
        assert await registration.unregister()
        assert not registration.is_open
    assert [request.expires for request in registrar.requests] == [3600, 0]


async def test_unregistering_where_nobody_answers_takes_no_longer_than_its_deadline(
    loopback: Callable[[], str],
) -> None:
    address = loopback()
    async with listening(address, answering(OK)) as port:
        registration = await register(address, port, deadlines=RegistrationDeadlines(goodbye_s=0.05))
        assert not await registration.unregister()


async def test_cutting_the_connection_says_nothing(loopback: Callable[[], str]) -> None:
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handle(stream: Stream) -> None:
        await answering(OK, then_wait=False)(stream)
        with contextlib.suppress(ConnectionError):
            await stream.read()
        ended.set_result(True)

    address, lost = loopback(), []
    async with listening(address, handle) as port:
        registration = await register(address, port, on_lost=lost.append)
        await registration.abort()
        async with asyncio.timeout(5):
            await ended
        await registration.abort()
    assert lost == []


async def test_what_the_call_manager_asks_is_answered(loopback: Callable[[], str]) -> None:
    answers: asyncio.Queue[Response] = asyncio.Queue()

    async def handle(stream: Stream) -> None:
        receiver = SipReceiver()
        await answering(OK, then_wait=False)(stream)
        for method in ("OPTIONS", "ACK", "NOTIFY"):
            text = f"{method} sip:a SIP/2.0\nCall-ID: 1\nCSeq: 1 {method}\nContent-Length: 0\n\n"
            stream.write(text.replace("\n", "\r\n").encode())
        while data := await stream.read():
            receiver.receive_data(data)
            while isinstance(message := receiver.next_message(), Response):
                answers.put_nowait(message)

    address = loopback()
    async with listening(address, handle) as port:
        registration = await register(address, port)
        async with asyncio.timeout(5):
            first, second = await answers.get(), await answers.get()
        await registration.close()
    assert [(one.code, one.headers["CSeq"], one.headers["Allow"]) for one in (first, second)] == [
        (200, "1 OPTIONS", "OPTIONS"),
        (405, "1 NOTIFY", "OPTIONS"),
    ]


# -- bad ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["403 Forbidden", "404 Not Found", "503 Service Unavailable", "302 Moved"])
async def test_any_other_final_answer_is_a_refusal(loopback: Callable[[], str], line: str) -> None:
    address = loopback()
    async with listening(address, answering(f"SIP/2.0 {line}\n{HEADERS}")) as port:
        result = await result_of(address, port)
    assert result == RegistrationResult(RegistrationStatus.REFUSED, int(line[:3]), line)


async def test_a_400_that_repeats_nothing_is_an_answer(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with listening(address, answering("SIP/2.0 400 Bad Request\nContent-Length: 0\n\n")) as port:
        assert (await result_of(address, port)).sip_status == 400


async def test_nobody_there_is_unreachable(loopback: Callable[[], str]) -> None:
    for transport in ("tcp", "tls"):
        result = await result_of(loopback(), 45_061, transport)
        assert (result.status, result.sip_status) == (RegistrationStatus.UNREACHABLE, None)
        assert result.detail


async def silence(stream: Stream) -> None:
    await stream.read()
    await stream.read()


@pytest.mark.parametrize("address", ["a..b", "\x9b31m"])
async def test_an_address_that_is_no_host_is_unreachable(address: str) -> None:
    """It comes from a configuration file, so from outside."""
    registration = await register(address, 5060)
    assert registration.result.status is RegistrationStatus.UNREACHABLE
    assert registration.result.detail


async def test_no_answer_in_time_is_unreachable(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with listening(address, silence) as port:
        result = await result_of(address, port, deadlines=IMPATIENT)
    assert (result.status, result.detail) == (RegistrationStatus.UNREACHABLE, "no SIP answer within 0.1 s")


@pytest.mark.parametrize("answer", ["HTTP/1.1 200 OK\n\n", "SIP/2.0 200 OK\n\n", "x" * 9000])
async def test_an_answer_that_is_no_sip_is_unreachable(loopback: Callable[[], str], answer: str) -> None:
    address = loopback()
    async with listening(address, answering(answer)) as port:
        result = await result_of(address, port)
    assert (result.status, result.sip_status) == (RegistrationStatus.UNREACHABLE, None)


@pytest.mark.parametrize("certificate", [None, CALL_MANAGER], ids=["tcp", "tls"])
async def test_a_hang_up_without_answer_is_unreachable(
    loopback: Callable[[], str], certificate: Identity | None
) -> None:
    address = loopback()
    async with listening(address, answering(then_wait=False), certificate) as port:
        result = await result_of(address, port, "tls" if certificate else "tcp")
    assert result.status is RegistrationStatus.UNREACHABLE
    assert "without an answer" in result.detail


async def test_a_call_manager_with_another_certificate_is_refused(loopback: Callable[[], str]) -> None:
    """Same names, another key: only equality with the record of the list counts."""
    address = loopback()
    served = []

    async def handle(stream: Stream) -> None:
        served.append(stream)

    async with listening(address, handle, IMPOSTOR) as port:
        result = await result_of(address, port, "tls")
        nothing_trusted = await result_of(address, port, "tls", trusted=())
    assert (result.status, result.sip_status) == (RegistrationStatus.TLS_FAILED, None)
    assert "CCM record" in result.detail
    assert nothing_trusted.status is RegistrationStatus.TLS_FAILED
    assert served == []


async def test_any_of_several_trusted_certificates_will_do(loopback: Callable[[], str]) -> None:
    address = loopback()
    trusted = (IMPOSTOR.certificate_der, CALL_MANAGER.certificate_der)
    async with listening(address, answering(OK), CALL_MANAGER) as port:
        result = await result_of(address, port, "tls", trusted=trusted)
    assert result.status is RegistrationStatus.REGISTERED


async def test_a_server_without_tls_on_the_tls_port_is_a_tls_failure(loopback: Callable[[], str]) -> None:
    address = loopback()

    async def handle(stream: Stream) -> None:
        await stream.read()
        stream.write(b"SIP/2.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with listening(address, handle) as port:
        assert (await result_of(address, port, "tls")).status is RegistrationStatus.TLS_FAILED


async def test_a_stalled_handshake_is_a_tls_failure(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with listening(address, silence) as port:
        result = await result_of(address, port, "tls", deadlines=IMPATIENT)
    assert result.status is RegistrationStatus.TLS_FAILED


async def test_an_unusable_identity_is_a_tls_failure(loopback: Callable[[], str]) -> None:
    client = RegistrationClient(randomness=Random(1), identity=DeviceIdentity(b"no certificate", b"no key"))
    registration = await client.register(Register(loopback(), 5061, "tls", DEVICE))
    assert registration.result.status is RegistrationStatus.TLS_FAILED


@pytest.mark.parametrize("profile", list(TlsProfile))
async def test_a_certificate_the_server_refuses_is_a_tls_failure(
    loopback: Callable[[], str], profile: TlsProfile
) -> None:
    """Under TLS 1.3 the phone learns of it only after the handshake, while it waits for the answer."""
    address = loopback()
    stranger = capf_certificate(KEYS, "ucm105pub", seed=1, not_before=NOW)
    foreign = DeviceIdentity(stranger.certificate_der, stranger.private_key_der)
    client = RegistrationClient(randomness=Random(1), identity=foreign, profile=profile)
    async with listening(address, answering(OK), CALL_MANAGER) as port:
        trusted = (CALL_MANAGER.certificate_der,)
        registration = await client.register(Register(address, port, "tls", DEVICE, trusted))
    assert (registration.result.status, registration.result.sip_status) == (RegistrationStatus.TLS_FAILED, None)


async def test_cancelling_leaves_nothing_open(loopback: Callable[[], str]) -> None:
    address = loopback()
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handle(stream: Stream) -> None:
        await stream.read()
        asked.set()
        try:
            await stream.read()
        finally:
            gone.set()

    async with listening(address, handle) as port:
        registering = asyncio.create_task(register(address, port))
        async with asyncio.timeout(5):
            await asked.wait()
            registering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await registering
            await gone.wait()
