"""The phone's side of registration against servers that behave and servers that do not; all of them on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from sipmessage import Message, Request

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.key_store import KeyStore
from cucm.net.listener import Limits, Listener
from cucm.net.tls import ClientCertificatePolicy, Stream, TlsProfile, server_context
from cucm.roles import CertificateUnit
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


def request_of(seed: int = 1) -> Request:
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
        await answering(OK, NOTIFY, then_wait=False)(stream)
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


async def test_cancelling_the_close_still_hangs_up(loopback: Callable[[], str]) -> None:
    address = loopback()
    hung_up = asyncio.Event()

    async def handle(stream: Stream) -> None:
        await answering(OK)(stream)
        hung_up.set()

    async with listening(address, handle) as port:
        registration = await register(address, port)
        closing = asyncio.create_task(registration.close())
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
