"""The CallManager's side of registration against a real database, real sockets and the phone's own client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sipmessage import Message, Response

from cucm.certificates import Identity, capf_certificate, lsc, manufacturing_ca, mic, node_certificate
from cucm.clock import MovableClock
from cucm.database import Device, NodeDatabase
from cucm.errors import AddressBusy
from cucm.events import Event
from cucm.events.cluster import (
    AlarmReceived,
    AlarmRefused,
    RegistrationAccepted,
    RegistrationChallenged,
    RegistrationEnd,
    RegistrationEnded,
    RegistrationRefusal,
    RegistrationRefused,
)
from cucm.faults import NO_FAULTS, FaultBoard, FaultSource, fault_of
from cucm.key_store import KeyStore
from cucm.net.listener import Limits
from cucm.net.reachability import Reachability
from cucm.net.tls import Stream, TlsProfile, client_context, open_stream
from cucm.roles import CertificateUnit
from cucm.wire.alarm import DeviceTlInfo
from cucm.wire.sip import SipReceiver, expiry_of
from cucm.wire.sip_digest import response_of
from lab.admission import NONCE_VALIDITY_S
from lab.call_processing import EXPIRES_S, CallProcessing
from lab.station_connection import MAX_WRONG_CREDENTIALS
from phone_agent.commands import Register, RegistrationStatus
from phone_agent.flash import DeviceIdentity
from phone_agent.registration import Registration, RegistrationClient
from phone_agent.sip_requests import SipRequests

NOW = 1_480_401_239.0
"""Nov 29 2016, the seed's: certificates are dated by the lab's clock, not by the machine's."""
BORN = NOW - 86_400
KEYS = KeyStore()
SECURE, OPEN = "SEPB000B4BA0AEE", "SEPB000B4BA0AEF"
CALL_MANAGER = node_certificate(KEYS, CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=BORN)
CAPF = capf_certificate(KEYS, "ucm11pub", seed=1, not_before=BORN)
OLD_CAPF = capf_certificate(KEYS, "ucm105pub", seed=1, not_before=BORN)
MAKER = manufacturing_ca(KEYS, seed=1, not_before=BORN)


def phone_certificate(issuer: Identity = CAPF, mac: str = "B000B4BA0AEE", days: float = 365) -> DeviceIdentity:
    make = mic if issuer is MAKER else lsc
    issued = make(
        issuer,
        KEYS,
        model="CP-8861",
        mac=mac,
        serial_number="FCH18198CNQ",
        seed=1,
        not_before=BORN,
        lifetime_days=days,
        key_label="phone",
    )
    return DeviceIdentity(issued.certificate_der, issued.private_key_der)


@dataclass
class Bench:
    """A CallManager, what it told, and phones that register with it."""

    address: str
    node: CallProcessing
    events: list[Event] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    clock: MovableClock = field(default_factory=lambda: MovableClock(NOW, frozen=True))
    news: list[str] = field(default_factory=list)
    phones: AsyncExitStack = field(default_factory=AsyncExitStack)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.told.set()

    async def until(self, kind: type[Event], number: int = 1) -> Event:
        """The `number`-th event of this kind."""
        async with asyncio.timeout(5):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < number:
                self.told.clear()
                await self.told.wait()
        return found[number - 1]

    async def register(
        self,
        device: str,
        identity: DeviceIdentity | None,
        transport: str = "tls",
        profile: TlsProfile = TlsProfile.MODERN,
        **command: Any,
    ) -> Registration:
        client = RegistrationClient(randomness=Random(7), identity=identity, profile=profile, clock=self.clock)
        registration = await client.register(replace(self.command(device, transport), **command))
        self.phones.push_async_callback(registration.close)
        return registration

    def command(self, device: str, transport: str = "tls") -> Register:
        port = self.node.secure_sip_port if transport == "tls" else self.node.sip_port
        trusted = (CALL_MANAGER.certificate_der,)
        return Register(self.address, port, transport, device, trusted)  # type: ignore[arg-type]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[NodeDatabase]:
    with NodeDatabase(tmp_path / "node.db").create() as database:
        database.add_node("ucm11pub", "127.0.11.34", services=())
        database.put_callmanager_group("Default", ["ucm11pub"])
        for name, mode in ((SECURE, 3), (OPEN, 1), ("SEPB000B4BA0AF0", 2)):
            database.put_device(Device(name, "8861", "", mode, "Default"))
        yield database


@pytest.fixture
async def bench(database: NodeDatabase, loopback: Callable[[], str]) -> AsyncIterator[Bench]:
    async with new_bench(database, loopback()) as made:
        yield made


@asynccontextmanager
async def new_bench(
    database: NodeDatabase,
    address: str,
    *,
    cas: Callable[[], list[bytes]] = lambda: [CAPF.certificate_der, MAKER.certificate_der],
    profile: TlsProfile = TlsProfile.MODERN,
    limits: Limits | None = None,
    expiry_grace_s: float = 0.01,
    faults: FaultSource = NO_FAULTS,
) -> AsyncIterator[Bench]:
    clock = MovableClock(NOW, frozen=True)
    node = CallProcessing(
        "ucm11pub",
        address,
        database,
        (CALL_MANAGER.certificate_der, CALL_MANAGER.private_key_der),
        client_cas=cas,
        profile=profile,
        sip_port=0,
        secure_sip_port=0,
        limits=limits,
        now=clock.now,
        on_registered=lambda device: bench.news.append(device),
        expiry_grace_s=expiry_grace_s,
        emit=lambda event: bench.emit(event),
        faults=faults,
    )
    bench = Bench(address, node, clock=clock)
    await node.start()
    try:
        async with bench.phones:
            yield bench
    finally:
        await node.stop()


# -- who is let in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", list(TlsProfile))
async def test_a_phone_with_its_lsc_registers_over_tls(
    database: NodeDatabase, loopback: Callable[[], str], profile: TlsProfile
) -> None:
    async with new_bench(database, loopback(), profile=profile) as bench:
        registration = await bench.register(SECURE, phone_certificate(), profile=profile)
        assert (registration.result.status, registration.result.sip_status) == (RegistrationStatus.REGISTERED, 200)
        assert registration.is_open
        known = bench.node.registered[SECURE]
        assert (known.transport, known.since) == ("tls", NOW)
        (event,) = bench.events
        assert isinstance(event, RegistrationAccepted)
        assert (event.device_name, event.transport, (event.peer, event.peer_port)) == (SECURE, "tls", known.peer)
        assert event.cipher
        assert event.tls_version.startswith("TLSv1")


@pytest.mark.parametrize("device", ["SEPB000B4BA0AF0"])
async def test_authenticated_mode_is_served_over_tls(bench: Bench, device: str) -> None:
    registration = await bench.register(device, phone_certificate(mac=device[3:]))
    assert registration.result.status is RegistrationStatus.REGISTERED


async def test_a_mic_of_the_maker_will_do(bench: Bench) -> None:
    registration = await bench.register(SECURE, phone_certificate(MAKER))
    assert registration.result.status is RegistrationStatus.REGISTERED


async def test_a_non_secure_phone_registers_over_tcp(bench: Bench) -> None:
    registration = await bench.register(OPEN, None, "tcp")
    assert registration.result.status is RegistrationStatus.REGISTERED
    assert bench.node.registered[OPEN].transport == "tcp"


# -- who is not -----------------------------------------------------------------------------------------------------


async def refused(bench: Bench) -> RegistrationRefused:
    event = await bench.until(RegistrationRefused)
    assert isinstance(event, RegistrationRefused)
    assert bench.node.registered == {}
    return event


@pytest.mark.parametrize("profile", list(TlsProfile))
async def test_a_lsc_of_an_unknown_capf_fails_in_tls(
    database: NodeDatabase, loopback: Callable[[], str], profile: TlsProfile
) -> None:
    """F7: the source cluster's CAPF is not in the destination's CAPF-trust."""
    async with new_bench(database, loopback(), profile=profile) as bench:
        registration = await bench.register(SECURE, phone_certificate(OLD_CAPF), profile=profile)
        assert (registration.result.status, registration.result.sip_status) == (RegistrationStatus.TLS_FAILED, None)
        event = await refused(bench)
        assert (event.reason, event.sip_status, event.device_name) == (
            RegistrationRefusal.CLIENT_CERTIFICATE,
            None,
            SECURE,
        )
        known = bench.node.devices[SECURE]
        assert (known.status, known.reason, known.sip_status) == ("rejected", "client-certificate", None)
        assert OLD_CAPF.subject.split(";")[0] in event.detail or "CAPF-" in event.detail


async def test_the_old_capf_is_known_after_a_restart(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    cas = [CAPF.certificate_der]
    async with new_bench(database, loopback(), cas=lambda: cas) as bench:
        cas.append(OLD_CAPF.certificate_der)
        before = await bench.register(SECURE, phone_certificate(OLD_CAPF))
        await bench.node.stop()
        await bench.node.start()
        after = await bench.register(SECURE, phone_certificate(OLD_CAPF))
    assert (before.result.status, after.result.status) == (
        RegistrationStatus.TLS_FAILED,
        RegistrationStatus.REGISTERED,
    )


async def test_a_node_that_trusts_no_ca_lets_nobody_in(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    async with new_bench(database, loopback(), cas=list) as bench:
        registration = await bench.register(SECURE, phone_certificate())
        assert registration.result.status is RegistrationStatus.TLS_FAILED
        assert (await refused(bench)).reason is RegistrationRefusal.CLIENT_CERTIFICATE


async def test_a_phone_without_certificate_fails_in_tls(bench: Bench) -> None:
    registration = await bench.register(SECURE, None)
    assert registration.result.status is RegistrationStatus.TLS_FAILED
    assert (await refused(bench)).reason is RegistrationRefusal.HANDSHAKE


@pytest.mark.parametrize("days", [-2, 2])
async def test_certificates_are_dated_by_the_labs_clock(bench: Bench, days: float) -> None:
    bench.clock.move(days * 86_400)
    registration = await bench.register(SECURE, phone_certificate(days=2))
    assert registration.result.status is RegistrationStatus.TLS_FAILED
    assert (await refused(bench)).reason is RegistrationRefusal.CLIENT_CERTIFICATE


async def refusal_of(bench: Bench, registration: Registration) -> tuple[int | None, RegistrationRefusal, str | None]:
    assert registration.result.status is RegistrationStatus.REFUSED
    assert not registration.is_open
    event = await refused(bench)
    assert event.sip_status == registration.result.sip_status
    return event.sip_status, event.reason, event.device_name


async def test_another_phones_certificate_is_forbidden(bench: Bench) -> None:
    registration = await bench.register(SECURE, phone_certificate(mac="B000B4BA0AF0"))
    assert await refusal_of(bench, registration) == (403, RegistrationRefusal.CERTIFICATE_NAME, SECURE)


async def test_a_secure_device_on_5060_is_forbidden(bench: Bench) -> None:
    registration = await bench.register(SECURE, None, "tcp")
    assert await refusal_of(bench, registration) == (403, RegistrationRefusal.SECURITY_MODE, SECURE)


async def test_a_non_secure_device_on_5061_is_forbidden(bench: Bench) -> None:
    registration = await bench.register(OPEN, phone_certificate(mac=OPEN[3:]))
    assert await refusal_of(bench, registration) == (403, RegistrationRefusal.SECURITY_MODE, OPEN)


@pytest.mark.parametrize("transport", ["tls", "tcp"])
async def test_an_unknown_device_is_not_found(bench: Bench, transport: str) -> None:
    registration = await bench.register("SEP000000000001", phone_certificate(mac="000000000001"), transport)
    assert await refusal_of(bench, registration) == (404, RegistrationRefusal.UNKNOWN_DEVICE, "SEP000000000001")


async def test_a_node_that_cannot_read_its_database_says_so(bench: Bench, database: NodeDatabase) -> None:
    database.close()
    database.path.unlink()
    registration = await bench.register(OPEN, None, "tcp")
    assert await refusal_of(bench, registration) == (500, RegistrationRefusal.DATABASE, OPEN)


# -- how registrations end ------------------------------------------------------------------------------------------


async def test_hanging_up_unregisters(bench: Bench) -> None:
    registration = await bench.register(OPEN, None, "tcp")
    await registration.close()
    event = await bench.until(RegistrationEnded)
    assert isinstance(event, RegistrationEnded)
    assert (event.device_name, event.reason) == (OPEN, RegistrationEnd.CONNECTION_CLOSED)
    assert bench.node.registered == {}


async def test_a_stopping_service_unregisters_and_the_phone_notices(bench: Bench) -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    client = RegistrationClient(randomness=Random(7), identity=phone_certificate())
    registration = await client.register(bench.command(SECURE), lost.set_result)
    await bench.node.stop()
    async with asyncio.timeout(5):
        assert await lost
    assert not registration.is_open
    event = await bench.until(RegistrationEnded)
    assert isinstance(event, RegistrationEnded)
    assert (event.device_name, event.reason) == (SECURE, RegistrationEnd.SERVICE_STOPPED)
    assert bench.node.registered == {}
    await registration.close()


async def test_the_newer_connection_of_a_device_counts(bench: Bench) -> None:
    first = await bench.register(OPEN, None, "tcp")
    second = await bench.register(OPEN, None, "tcp")
    newest = bench.node.registered[OPEN]
    await first.close()
    third = await bench.register(SECURE, phone_certificate())
    assert bench.node.registered[OPEN] is newest
    assert [type(event) for event in bench.events] == [RegistrationAccepted] * 3
    assert second.is_open
    assert third.is_open


async def ended(bench: Bench, device: str = OPEN) -> RegistrationEnd:
    event = await bench.until(RegistrationEnded)
    assert isinstance(event, RegistrationEnded)
    assert event.device_name == device
    assert bench.node.registered == {}
    return event.reason


async def test_a_phone_that_unregisters(bench: Bench) -> None:
    registration = await bench.register(OPEN, None, "tcp")
    assert await registration.unregister()
    assert not registration.is_open
    assert await ended(bench) is RegistrationEnd.DEREGISTERED
    assert not await registration.unregister()


async def test_a_crash_is_noticed_by_the_phone_and_the_service_starts_again(bench: Bench) -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    client = RegistrationClient(randomness=Random(7), identity=phone_certificate())
    registration = await client.register(bench.command(SECURE), lost.set_result)
    await bench.node.crash()
    async with asyncio.timeout(5):
        assert await lost
    assert await ended(bench, SECURE) is RegistrationEnd.SERVICE_CRASHED
    assert bench.node.devices[SECURE].reason == "service-crashed"
    await registration.close()
    await bench.node.start()
    assert (await bench.register(SECURE, phone_certificate())).is_open


async def test_a_device_that_is_released_is_registered_no_more_and_its_connection_ends(bench: Bench) -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    registration = await RegistrationClient(randomness=Random(7)).register(bench.command(OPEN, "tcp"), lost.set_result)
    assert bench.news == [OPEN]
    assert bench.node.release(OPEN)
    assert not bench.node.release(OPEN)
    assert await ended(bench) is RegistrationEnd.REGISTERED_ELSEWHERE
    async with asyncio.timeout(5):
        assert await lost
    await registration.close()


async def test_a_refresh_behind_the_cut_does_not_win_the_device_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm and a refresh come in one piece, and between them the device registers with another node."""
    told = bench.emit

    def release_after_the_alarm(event: Event) -> None:
        told(event)
        if isinstance(event, AlarmReceived):
            bench.node.release(OPEN)

    monkeypatch.setattr(bench, "emit", release_after_the_alarm)
    async with by_hand(bench) as (stream, receiver):
        await ask(stream, receiver, register(bench))
        stream.write(refer(bench, replace(OLD_LISTS, device_name=OPEN)) + register(bench))
        assert await ended(bench) is RegistrationEnd.REGISTERED_ELSEWHERE
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while await stream.read():
                    pass
    assert bench.news == [OPEN]
    assert bench.node.registered == {}


async def test_a_registration_that_is_not_refreshed_expires_by_the_labs_clock(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        await ask(stream, receiver, register(bench))
        bench.clock.move(EXPIRES_S)
        assert await ended(bench) is RegistrationEnd.EXPIRED
        async with asyncio.timeout(5):
            assert await stream.read() == b""
    assert (bench.node.devices[OPEN].status, bench.node.devices[OPEN].reason) == ("unregistered", "expired")


async def test_a_phone_refreshes_also_when_the_clock_jumps(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    refreshed = asyncio.Event()
    async with new_bench(database, loopback(), expiry_grace_s=30) as bench:
        registration = await bench.register(OPEN, None, "tcp")
        bench.clock.move(EXPIRES_S * 100)
        async with asyncio.timeout(10):
            while bench.node.registered[OPEN].expires_at < bench.clock.now():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(refreshed.wait(), 0.05)
        assert registration.is_open
        assert bench.node.registered[OPEN].since == NOW
        assert len(bench.events) == 1


async def test_a_node_out_of_reach_loses_its_phones_when_their_time_is_over(bench: Bench) -> None:
    registration = await bench.register(OPEN, None, "tcp")
    bench.node.set_reachability(Reachability.UNREACHABLE)
    bench.clock.move(EXPIRES_S)
    assert await ended(bench) is RegistrationEnd.EXPIRED
    await registration.abort()


# -- alarms ---------------------------------------------------------------------------------------------------------

OLD_LISTS = DeviceTlInfo(SECURE, None, None, b"\x01" * 20, "127.0.11.32")
NEW_LISTS = DeviceTlInfo(SECURE, b"\x02" * 20, "127.0.11.34", b"\x03" * 20, "127.0.11.34")


async def test_the_alarms_come_before_the_registration_and_are_kept(bench: Bench) -> None:
    await bench.register(SECURE, phone_certificate(), alarms=(OLD_LISTS, NEW_LISTS))
    assert [type(event) for event in bench.events] == [AlarmReceived, AlarmReceived, RegistrationAccepted]
    first, second, _ = bench.events
    assert isinstance(first, AlarmReceived)
    assert isinstance(second, AlarmReceived)
    assert (first.alarm, first.ctl_signature, first.itl_signature) == ("DeviceTLInfo", None, b"\x01" * 20)
    assert (second.ctl_signature, second.itl_tftp_server) == (b"\x02" * 20, "127.0.11.34")
    status = bench.node.devices[SECURE]
    assert (status.status, status.ctl_signature, status.itl_signature) == ("registered", "02" * 20, "03" * 20)
    assert (status.ctl_tftp_server, status.itl_tftp_server) == ("127.0.11.34", "127.0.11.34")


def refer(bench: Bench, lists: DeviceTlInfo) -> bytes:
    return bytes(SipRequests(bench.command(OPEN, "tcp"), ("127.0.0.1", 5060), Random(7)).alarm(lists))


async def refused_alarm(bench: Bench, data: bytes) -> Response:
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, data)
        assert (await ask(stream, receiver, register(bench))).code == 200
    told = [event.sip_status for event in bench.events if isinstance(event, AlarmRefused)]
    assert told[-1] == answer.code
    return answer


async def test_an_alarm_by_hand_is_accepted(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, refer(bench, replace(OLD_LISTS, device_name=OPEN)))
    assert (answer.code, answer.cseq.sequence, answer.cseq.method) == (202, 1000, "REFER")
    assert bench.node.devices[OPEN].status == "unknown"


async def test_alarms_that_are_refused(bench: Bench) -> None:
    unknown = refer(bench, replace(OLD_LISTS, device_name="SEP000000000001"))
    assert (await refused_alarm(bench, unknown)).code == 404
    other = refer(bench, OLD_LISTS).replace(b"x-cisco-alarm+xml", b"x-cisco-other+xml")
    assert (await refused_alarm(bench, other)).headers["Accept"] == "application/x-cisco-alarm+xml"
    broken = refer(bench, OLD_LISTS).replace(b"<Alarm ", b"<Blarm ")
    assert (await refused_alarm(bench, broken)).code == 400
    nameless = refer(bench, OLD_LISTS).replace(b"DeviceName", b"DeviceNone")
    assert (await refused_alarm(bench, nameless)).code == 400


async def test_an_alarm_in_anothers_name_is_forbidden(bench: Bench) -> None:
    lists = replace(OLD_LISTS, device_name=OPEN)
    await bench.register(SECURE, phone_certificate(), alarms=(lists,))
    event = await bench.until(AlarmRefused)
    assert isinstance(event, AlarmRefused)
    assert (event.device_name, event.sip_status) == (OPEN, 403)
    assert OPEN not in bench.node.devices


# -- digest ---------------------------------------------------------------------------------------------------------

CREDENTIALS = {"digest_user": "phone", "digest_password": "secret, \\ or so"}


@pytest.fixture
def with_digest(database: NodeDatabase) -> None:
    database.put_device(Device(OPEN, "8861", "", 1, "Default", **CREDENTIALS))


@pytest.mark.usefixtures("with_digest")
async def test_the_right_credentials_register_refresh_and_unregister(bench: Bench) -> None:
    registration = await bench.register(OPEN, None, "tcp", **CREDENTIALS)
    assert registration.result.status is RegistrationStatus.REGISTERED
    assert [type(event) for event in bench.events] == [RegistrationChallenged, RegistrationAccepted]
    assert await registration.unregister()
    assert len([event for event in bench.events if isinstance(event, RegistrationChallenged)]) == 1


@pytest.mark.usefixtures("with_digest")
async def test_credentials_for_an_old_nonce_are_asked_for_again(bench: Bench) -> None:
    registration = await bench.register(OPEN, None, "tcp", **CREDENTIALS)
    bench.clock.move(NONCE_VALIDITY_S + 1)
    assert await registration.unregister()
    assert await bench.until(RegistrationChallenged, 2) == RegistrationChallenged(
        "tcp", *bench.node.devices[OPEN].peer, OPEN, stale=True
    )


@pytest.mark.usefixtures("with_digest")
@pytest.mark.parametrize("given", [{}, {"digest_user": "phone", "digest_password": "guess"}])
async def test_no_or_wrong_credentials_are_refused(bench: Bench, given: dict[str, str]) -> None:
    registration = await bench.register(OPEN, None, "tcp", **given)
    assert (registration.result.status, registration.result.sip_status) == (RegistrationStatus.REFUSED, 401)
    assert bench.node.registered == {}
    refusals = [event.reason for event in bench.events if isinstance(event, RegistrationRefused)]
    assert refusals == ([RegistrationRefusal.DIGEST] if given else [])


@pytest.mark.usefixtures("with_digest")
async def test_who_keeps_guessing_is_cut(bench: Bench) -> None:
    guess = 'Digest username="phone", realm="ccmsipline", nonce="1-2", uri="sip:a", response="0"'
    async with by_hand(bench) as (stream, receiver):
        for _ in range(MAX_WRONG_CREDENTIALS):
            assert (await ask(stream, receiver, register(bench, Authorization=guess))).code == 401
        async with asyncio.timeout(5):
            assert await stream.read() == b""


@pytest.mark.usefixtures("with_digest")
@pytest.mark.parametrize("nonce", ["", "nonsense", "\u00b2-1", "582d8b97-00", "-"])
async def test_a_nonce_that_is_not_ours_is_stale(bench: Bench, nonce: str) -> None:
    given = {"username": "phone", "realm": "ccmsipline", "nonce": nonce, "uri": "sip:a"}
    given["response"] = response_of(given, "REGISTER", CREDENTIALS["digest_password"])
    text = "Digest " + ", ".join(f'{name}="{value}"' for name, value in given.items())
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, register(bench, Authorization=text))
    assert answer.code == 401
    assert answer.www_authenticate is not None
    assert answer.www_authenticate.parameters["stale"] == "true"


@pytest.mark.usefixtures("with_digest")
async def test_credentials_seen_on_one_connection_are_stale_on_another(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver), by_hand(bench) as (onlooker, onlookers_receiver):
        challenge = (await ask(stream, receiver, register(bench))).www_authenticate
        assert challenge is not None
        given = {"username": "phone", "realm": "ccmsipline", "nonce": challenge.parameters["nonce"], "uri": "sip:a"}
        given["response"] = response_of(given, "REGISTER", CREDENTIALS["digest_password"])
        text = "Digest " + ", ".join(f'{name}="{value}"' for name, value in given.items())
        right = register(bench, Authorization=text)
        assert (await ask(stream, receiver, right)).code == 200
        replayed = await ask(onlooker, onlookers_receiver, right)
        assert replayed.code == 401
        assert bench.node.registered[OPEN].peer == stream.local_address


@pytest.mark.usefixtures("with_digest")
async def test_an_unreadable_authorization_is_malformed(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        assert (await ask(stream, receiver, register(bench, Authorization="Digest !"))).code == 400


# -- SIP, by hand ---------------------------------------------------------------------------------------------------


async def ask(stream: Stream, receiver: SipReceiver, data: bytes) -> Response:
    stream.write(data)
    async with asyncio.timeout(5):
        while (message := receiver.next_message()) is None:
            received = await stream.read()
            assert received, "the connection ended"
            receiver.receive_data(received)
    answer = Message.parse(bytes(message))  # by others than us
    assert isinstance(answer, Response)
    return answer


@asynccontextmanager
async def by_hand(bench: Bench) -> AsyncIterator[tuple[Stream, SipReceiver]]:
    stream = await open_stream(bench.address, bench.node.sip_port)
    try:
        yield stream, SipReceiver()
    finally:
        await stream.close()


def register(bench: Bench, **headers: str) -> bytes:
    request = SipRequests(bench.command(OPEN, "tcp"), ("127.0.0.1", 5060), Random(7)).register()
    for name, value in headers.items():
        request.headers.set(name.replace("_", "-"), value)
    return bytes(request)


async def test_the_answer_repeats_what_it_must(bench: Bench) -> None:
    asked = register(bench)
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, asked)
    text = asked.decode()
    for name in ("Via", "From", "Call-ID", "CSeq"):
        assert f"\r\n{name}: {answer.headers[name]}\r\n" in text
    asked_contact, _, granted = answer.headers["Contact"].rpartition(";")
    assert f"\r\nContact: {asked_contact}\r\n" in text
    assert granted == f"expires={EXPIRES_S}"
    assert answer.to_address.parameters["tag"]
    assert (answer.code, answer.expires, answer.content_length) == (200, EXPIRES_S, 0)


async def test_expiry_is_what_was_asked_for_at_most(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        answers = [await ask(stream, receiver, register(bench, Expires=text)) for text in ("60", "7200")]
    assert [answer.expires for answer in answers] == [60, EXPIRES_S]


async def test_an_expiry_asked_for_in_the_contact_is_not_echoed_as_granted(bench: Bench) -> None:
    asked = register(bench).replace(b"\r\nExpires: 3600", b"").replace(b";+u.sip!", b";expires=3600;+u.sip!")
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, asked)
    assert expiry_of(answer, 0) == answer.expires == EXPIRES_S


async def test_a_refresh_keeps_the_registration(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        await ask(stream, receiver, register(bench))
        bench.clock.move(60)
        await ask(stream, receiver, register(bench))
        assert bench.node.registered[OPEN].since == NOW
        assert len(bench.events) == 1


async def test_expiry_zero_deregisters_and_the_connection_stays(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        await ask(stream, receiver, register(bench))
        assert (await ask(stream, receiver, register(bench, Expires="0"))).code == 200
        assert bench.node.registered == {}
        event = await bench.until(RegistrationEnded)
        assert isinstance(event, RegistrationEnded)
        assert event.reason is RegistrationEnd.DEREGISTERED
        assert (await ask(stream, receiver, register(bench))).code == 200
        assert OPEN in bench.node.registered


async def test_other_methods_are_not_allowed_and_the_connection_stays(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, register(bench).replace(b"REGISTER", b"INVITE"))
        assert (answer.code, answer.headers["Allow"]) == (405, "REGISTER, REFER, OPTIONS")
        stream.write(register(bench).replace(b"REGISTER", b"ACK"))
        assert (await ask(stream, receiver, register(bench))).code == 200
    assert (await bench.until(RegistrationRefused)).reason is RegistrationRefusal.METHOD  # type: ignore[attr-defined]


async def test_options_are_told(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, register(bench).replace(b"REGISTER", b"OPTIONS"))
    assert (answer.code, answer.headers["Allow"]) == (200, "REGISTER, REFER, OPTIONS")


async def test_what_is_required_and_not_known_is_a_bad_extension(bench: Bench) -> None:
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, register(bench, Require="norefersub, 100rel"))
        assert (answer.code, answer.unsupported) == (420, ["100rel"])
        assert (await ask(stream, receiver, register(bench, Require="norefersub"))).code == 200
    event = await bench.until(RegistrationRefused)
    assert isinstance(event, RegistrationRefused)
    assert event.reason is RegistrationRefusal.EXTENSION


GARBAGE = {
    "no SIP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS on the TCP port": b"\x16\x03\x01" + b"\r\n\r\n",
    "no length": b"REGISTER sip:x SIP/2.0\r\n\r\n",
    "a head without end": b"REGISTER sip:x SIP/2.0\r\n" + b"X: y\r\n" * 1500,
    "a huge body": b"REGISTER sip:x SIP/2.0\r\nContent-Length: 99999999\r\n\r\n",
    "no device": b"REGISTER sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n",
    "a parameter and no device": b"REGISTER sip:x;self=1 SIP/2.0\r\nContent-Length: 0\r\n\r\n",
    "a device name as large as the head": b"REGISTER sip:x SIP/2.0\r\nContent-Length: 0\r\n"
    b'Contact: <sip:a@b>;+u.sip!devicename.ccm.cisco.com="' + b"S" * 7000 + b'"\r\n\r\n',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_gets_400_and_the_connection_ends(bench: Bench, garbage: bytes) -> None:
    async with by_hand(bench) as (stream, receiver):
        assert (await ask(stream, receiver, garbage)).code == 400
        async with asyncio.timeout(5):
            assert await stream.read() == b""
    event = await refused(bench)
    assert (event.reason, event.sip_status) == (RegistrationRefusal.MALFORMED, 400)


@pytest.mark.parametrize("expires", ["soon", "-1", "99999999999", ""])
async def test_an_unreadable_expiry_is_malformed(bench: Bench, expires: str) -> None:
    async with by_hand(bench) as (stream, receiver):
        answer = await ask(stream, receiver, register(bench, Expires=expires))
    assert answer.code == 400
    assert answer.headers["Call-ID"].encode() in register(bench)


async def test_a_client_that_says_nothing_is_cut(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    limits = Limits(request_timeout_s=0.05)
    async with new_bench(database, loopback(), limits=limits) as bench, by_hand(bench) as (stream, _):
        async with asyncio.timeout(5):
            assert await stream.read() == b""
        event = await refused(bench)
        assert (event.reason, event.sip_status) == (RegistrationRefusal.TIMEOUT, None)


async def test_a_client_that_asks_on_and_on_and_never_registers_is_cut(
    database: NodeDatabase, loopback: Callable[[], str]
) -> None:
    limits = Limits(request_timeout_s=0.1)
    async with new_bench(database, loopback(), limits=limits) as bench, by_hand(bench) as (stream, _):
        question = register(bench).replace(b"REGISTER", b"OPTIONS")
        answers = 0
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                stream.write(question)
                while await stream.read():
                    answers += 1
                    stream.write(question)
        assert answers > 1
        assert (await refused(bench)).reason is RegistrationRefusal.TIMEOUT


async def test_a_registered_phone_may_be_silent(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    """Longer than a client that has not registered: that one is cut while this one stays."""
    limits = Limits(request_timeout_s=0.1, idle_timeout_s=0.05)
    async with new_bench(database, loopback(), limits=limits) as bench, by_hand(bench) as (stream, receiver):
        await ask(stream, receiver, register(bench))
        async with by_hand(bench) as (silent, _), asyncio.timeout(5):
            assert await silent.read() == b""
        assert OPEN in bench.node.registered
        assert (await ask(stream, receiver, register(bench))).code == 200


async def test_too_many_connections_are_refused_and_told(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    async with (
        new_bench(database, loopback(), limits=Limits(connections=1)) as bench,
        by_hand(bench) as (first, receiver),
    ):
        await ask(first, receiver, register(bench))
        registration = await bench.register(OPEN, None, "tcp")
        assert registration.result.status is RegistrationStatus.UNREACHABLE
        event = await bench.until(RegistrationRefused)
        assert isinstance(event, RegistrationRefused)
        assert event.reason is RegistrationRefusal.LIMIT


# -- life cycle -----------------------------------------------------------------------------------------------------


async def test_a_taken_port_is_reported_and_the_other_one_is_released(
    database: NodeDatabase, loopback: Callable[[], str]
) -> None:
    address = loopback()

    def node(sip_port: int, secure_sip_port: int) -> CallProcessing:
        return CallProcessing(
            "ucm11pub",
            address,
            database,
            (CALL_MANAGER.certificate_der, CALL_MANAGER.private_key_der),
            client_cas=list,
            sip_port=sip_port,
            secure_sip_port=secure_sip_port,
        )

    first = node(0, 0)
    await first.start()
    second = node(5060, first.secure_sip_port)
    with pytest.raises(AddressBusy):
        await second.start()
    third = node(5060, 0)
    await third.start()
    await third.stop()
    await first.stop()


async def test_a_client_with_another_protocol_on_the_tls_port_is_told(bench: Bench) -> None:
    stream = await open_stream(bench.address, bench.node.secure_sip_port)
    stream.write(register(bench))
    async with asyncio.timeout(5):
        while await stream.read():
            pass
    await stream.close()
    assert (await refused(bench)).reason is RegistrationRefusal.HANDSHAKE


async def test_a_browser_like_client_sees_the_call_managers_certificate(bench: Bench) -> None:
    identity = phone_certificate()
    context = client_context(certificate_der=identity.certificate, private_key_der=identity.private_key)
    stream = await open_stream(bench.address, bench.node.secure_sip_port, context=context)
    assert stream.peer_certificate == CALL_MANAGER.certificate_der
    await stream.close()


# -- faults ----------------------------------------------------------------------------------------------------------


def one_fault(action: str, transport: str = "tls", **attributes: object) -> FaultBoard:
    board = FaultBoard(phones={})
    rule = {"id": "it", "point": "sip.request", "action": action, "attributes": attributes, "times": 1}
    board.set(fault_of(rule | {"match": {"method": "REGISTER", "transport": transport}}))
    return board


async def test_a_fault_rejects_one_registration(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    async with new_bench(database, loopback(), faults=one_fault("reject", status=480)) as bench:
        first = await bench.register(SECURE, phone_certificate())
        assert (first.result.status, first.result.sip_status) == (RegistrationStatus.REFUSED, 480)
        refused = bench.events[0]
        assert isinstance(refused, RegistrationRefused)
        assert (refused.reason, refused.device_name) == (RegistrationRefusal.FAULT, SECURE)
        assert not bench.node.registered
        second = await bench.register(SECURE, phone_certificate())
        assert second.result.status is RegistrationStatus.REGISTERED


async def test_a_fault_closes_the_connection_instead_of_answering(
    database: NodeDatabase, loopback: Callable[[], str]
) -> None:
    async with new_bench(database, loopback(), faults=one_fault("close")) as bench:
        registration = await bench.register(SECURE, phone_certificate())
        assert registration.result.status is RegistrationStatus.UNREACHABLE
        assert not bench.node.registered


async def test_a_fault_delays_an_answer(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    async with new_bench(database, loopback(), faults=one_fault("delay", seconds=0.05)) as bench:
        registration = await bench.register(SECURE, phone_certificate())
        assert registration.result.status is RegistrationStatus.REGISTERED


async def test_a_fault_leaves_a_request_unanswered(database: NodeDatabase, loopback: Callable[[], str]) -> None:
    async with (
        new_bench(database, loopback(), faults=one_fault("drop", "tcp")) as bench,
        await open_stream(bench.address, bench.node.sip_port) as phone,
    ):
        register = (
            "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:a@x>\r\n"
            "Call-ID: 1\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"
        )
        phone.write(register.encode())
        phone.write(register.replace("REGISTER", "OPTIONS").encode())
        assert (await phone.read()).startswith(b"SIP/2.0 200 OK"), "only the second is answered"
