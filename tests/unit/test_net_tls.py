"""TLS on memory BIOs, both sides, against each other and against the standard library's ssl."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from both_loops import on_both_loops
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto
from stub_server import stub_server
from test_cucm_identity import certificate_of

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.errors import TlsError, TrustError, TrustReason, UsageError
from cucm.identity import MAX_REMEMBERED
from cucm.key_store import KeyStore
from cucm.net import tls, tls_context, tls_session
from cucm.net.between import TransportBetween
from cucm.net.listener import Limits, Listener
from cucm.net.stream import READ_HIGH_WATER, READ_SIZE, Stream
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, client_context, open_stream, server_context
from cucm.net.tls_context import client_check
from cucm.net.tls_session import QuickTlsSession, TlsSession
from cucm.roles import CertificateUnit

NOT_BEFORE = 1_700_000_000.0
YEAR_S = 365 * 86_400
DEADLINE_S = 20

Draw = Callable[[], str]


@pytest.fixture(params=[QuickTlsSession, TlsSession], autouse=True)
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By OpenSSL's own functions, and by pyOpenSSL's methods alone."""
    monkeypatch.setattr(tls, "SESSION", request.param)


def test_without_its_inner_parts_pyopenssl_is_used_by_its_own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tls_session.quick_or_plain() is QuickTlsSession
    for parts in ("_FUNCTIONS", "_ATTRIBUTES"):
        with monkeypatch.context() as changed:
            changed.setattr(tls_session, parts, (*getattr(tls_session, parts), "gone in a release to come"))
            assert tls_session.quick_or_plain() is TlsSession


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture(scope="module")
def server(keys: KeyStore) -> Identity:
    return node_certificate(keys, CertificateUnit.TVS, "ucm105pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def capf(keys: KeyStore) -> Identity:
    return capf_certificate(keys, "ucm105pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def phone(keys: KeyStore, capf: Identity) -> Identity:
    return lsc(
        capf, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="FCH18198CNQ", seed=1, not_before=NOT_BEFORE
    )


@pytest.fixture(scope="module")
def stranger(keys: KeyStore) -> Identity:
    return node_certificate(keys, CertificateUnit.TVS, "stranger", seed=1, not_before=NOT_BEFORE)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


class Server:
    """A listener that remembers what it was told."""

    def __init__(self, address: str, handler: Callable[[Stream], Awaitable[None]], context: object) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.failures: asyncio.Queue[Exception] = asyncio.Queue()
        self.closed: asyncio.Queue[Stream] = asyncio.Queue()
        self._handler = handler
        self.listener = Listener(
            address,
            0,
            self._serve,
            context=context,  # type: ignore[arg-type]
            limits=Limits(handshake_timeout_s=DEADLINE_S),
            on_handshake_failed=lambda _stream, error: self.failures.put_nowait(error),
            on_closed=self.closed.put_nowait,
        )

    async def _serve(self, stream: Stream) -> None:
        self.streams.put_nowait(stream)
        await self._handler(stream)

    @property
    def target(self) -> tuple[str, int]:
        return self.listener.address, self.listener.port


@asynccontextmanager
async def serving(
    draw: Draw,
    identity: Identity,
    handler: Callable[[Stream], Awaitable[None]] = echo,
    *,
    profile: TlsProfile = TlsProfile.MODERN,
    policy: ClientCertificatePolicy = ClientCertificatePolicy.REQUESTED,
    client_cas: tuple[Identity, ...] = (),
    now: float = NOT_BEFORE + 1,
) -> AsyncIterator[Server]:
    context = server_context(
        identity.certificate_der,
        identity.private_key_der,
        profile=profile,
        policy=policy,
        client_cas=[ca.certificate_der for ca in client_cas],
        now=lambda: now,
    )
    server = Server(draw(), handler, context)
    await server.listener.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server
    finally:
        await server.listener.stop()


def client_of(identity: Identity | None, profile: TlsProfile = TlsProfile.MODERN) -> object:
    if identity is None:
        return client_context(profile=profile)
    return client_context(
        profile=profile, certificate_der=identity.certificate_der, private_key_der=identity.private_key_der
    )


@pytest.mark.parametrize(
    ("profile", "cipher", "version"),
    [
        (TlsProfile.MODERN, "TLS_AES_256_GCM_SHA384", "TLSv1.3"),
        (TlsProfile.AES256_SHA, "AES256-SHA", "TLSv1.2"),
    ],
)
@on_both_loops
async def test_both_sides_agree_and_see_each_other(
    loopback: Draw, server: Identity, capf: Identity, phone: Identity, profile: TlsProfile, cipher: str, version: str
) -> None:
    async with serving(loopback, server, profile=profile, client_cas=(capf,)) as there:
        origin = loopback()
        connected: list[Stream] = []
        async with await open_stream(
            *there.target,
            context=client_of(phone, profile),
            verify_peer=lambda _der: None,
            local_address=origin,
            on_connected=connected.append,
        ) as here:
            here.write(b"ping")
            assert await here.read() == b"ping"
            accepted = await there.streams.get()
            assert (here.cipher, here.tls_version) == (accepted.cipher, accepted.tls_version) == (cipher, version)
            assert here.peer_certificate == server.certificate_der
            assert accepted.peer_certificate == phone.certificate_der
            assert here.local_address[0] == accepted.peer_address[0] == origin
            assert here.peer_address == accepted.local_address == there.target
            assert connected == [here]


@on_both_loops
async def test_much_data_arrives_whole_with_bounded_buffers(loopback: Draw, server: Identity) -> None:
    sent = bytes(range(256)) * 4096
    async with serving(loopback, server) as there, await open_stream(*there.target, context=client_of(None)) as here:

        async def send() -> None:
            for start in range(0, len(sent), 50_000):
                here.write(sent[start : start + 50_000])
                await here.drain()

        sender = asyncio.create_task(send())
        received = bytearray()
        while len(received) < len(sent):
            chunk = await here.read()
            assert len(chunk) <= READ_SIZE
            assert len(here._received) <= READ_HIGH_WATER + 2 * READ_SIZE
            received += chunk
        await sender
        assert bytes(received) == sent


@on_both_loops
async def test_a_reader_that_does_not_read_slows_the_writer_down(loopback: Draw, server: Identity) -> None:
    release = asyncio.Event()
    count = 0

    async def lazy(stream: Stream) -> None:
        nonlocal count
        await release.wait()
        while data := await stream.read():
            count += len(data)

    block = bytes(1 << 20)
    async with serving(loopback, server, lazy) as there:
        async with await open_stream(*there.target, context=client_of(None)) as here:
            written = 0
            with pytest.raises(TimeoutError):  # noqa: PT012
                here.idle_timeout_s = 0.2
                while written < 200 * len(block):
                    here.write(block)
                    written += len(block)
                    await here.drain()
            here.idle_timeout_s = None
            accepted = await there.streams.get()
            assert len(accepted._received) <= READ_HIGH_WATER + READ_SIZE
            release.set()
            await here.drain()
        await there.closed.get()
        assert count == written


@on_both_loops
async def test_the_server_learns_that_its_certificate_was_refused(loopback: Draw, server: Identity) -> None:
    seen: list[bytes] = []

    def refuse(der: bytes) -> None:
        seen.append(der)
        raise TrustError(TrustReason.TVS_CERTIFICATE_NOT_TRUSTED, "not in the ITL")

    for profile in TlsProfile:
        async with serving(loopback, server, profile=profile) as there:
            with pytest.raises(TrustError, match="not in the ITL"):
                await open_stream(*there.target, context=client_of(None, profile), verify_peer=refuse)
            failure = await there.failures.get()
            assert isinstance(failure, TlsError)
            assert failure.alert is not None
            assert "alert" in failure.alert
            assert there.streams.empty()
    assert seen == [server.certificate_der] * 2


@pytest.mark.parametrize("profile", list(TlsProfile))
@on_both_loops
async def test_a_strangers_certificate_is_refused_with_an_alert(
    loopback: Draw, server: Identity, capf: Identity, stranger: Identity, profile: TlsProfile
) -> None:
    async with serving(loopback, server, profile=profile, client_cas=(capf,)) as there:
        with pytest.raises(TlsError) as refused:  # noqa: PT012
            async with await open_stream(*there.target, context=client_of(stranger, profile)) as here:
                here.write(b"request sent before the refusal is known")
                await here.read()
        assert refused.value.alert is not None
        failure = await there.failures.get()
        assert isinstance(failure, TrustError)
        assert failure.reason is TrustReason.SIGNER_UNKNOWN
        assert there.streams.empty()


def test_nothing_is_kept_of_a_strangers_certificate(capf: Identity) -> None:
    """He can make another one for every connection, of 64 KiB each."""
    check = client_check([capf.certificate_der], lambda: NOT_BEFORE)
    der = certificate_of(MAX_REMEMBERED, "stranger")
    references = sys.getrefcount(der)
    with pytest.raises(TrustError) as refused:
        check(der)
    assert refused.value.reason is TrustReason.SIGNER_UNKNOWN
    del refused
    assert sys.getrefcount(der) == references


def test_of_certificates_that_are_good_no_more_is_kept_than_may_be(
    keys: KeyStore, capf: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    def counted(der: bytes) -> Any:
        read.append(der)
        return parse(der)

    parse = tls_context._parse_offered
    monkeypatch.setattr(tls_context, "_parse_offered", counted)
    monkeypatch.setattr(tls_context, "_REMEMBERED_CERTIFICATES", 2)
    check = client_check([capf.certificate_der], lambda: NOT_BEFORE)
    one, two, three = (
        lsc(
            capf, keys, model="CP-8861", mac=mac, serial_number="F", seed=1, not_before=NOT_BEFORE, key_label="phone"
        ).certificate_der
        for mac in ("B000B4BA0AE1", "B000B4BA0AE2", "B000B4BA0AE3")
    )
    for der in one, two, one, three, two, one:
        check(der)
    assert read == [one, two, three, one]


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL X509 objects:DeprecationWarning")  # cryptography reads it not
@on_both_loops
async def test_a_certificate_of_a_version_nobody_knows_is_refused_in_words(
    loopback: Draw, server: Identity, capf: Identity, phone: Identity
) -> None:
    version_3, version_7 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"
    strange = phone.certificate_der.replace(version_3, version_7, 1)
    context = client_context()
    context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, strange))
    context.use_privatekey(phone.private_key)
    async with serving(loopback, server, client_cas=(capf,)) as there:
        with pytest.raises(TlsError):
            async with await open_stream(*there.target, context=context) as here:
                await here.read()
        failure = await there.failures.get()
        assert isinstance(failure, TrustError)
        assert failure.reason is TrustReason.MALFORMED


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (NOT_BEFORE + 6 * YEAR_S, TrustReason.CERTIFICATE_EXPIRED),
        (NOT_BEFORE - 1, TrustReason.CERTIFICATE_NOT_YET_VALID),
    ],
)
@on_both_loops
async def test_client_certificates_are_dated_by_the_given_clock(
    loopback: Draw, server: Identity, capf: Identity, phone: Identity, now: float, reason: TrustReason
) -> None:
    async with serving(loopback, server, client_cas=(capf,), now=now) as there:
        with pytest.raises(TlsError):
            async with await open_stream(*there.target, context=client_of(phone)) as here:
                await here.read()
        failure = await there.failures.get()
        assert isinstance(failure, TrustError)
        assert failure.reason is reason


@pytest.mark.parametrize("profile", list(TlsProfile))
@on_both_loops
async def test_a_required_certificate_that_is_missing_ends_the_handshake(
    loopback: Draw, server: Identity, profile: TlsProfile
) -> None:
    policy = ClientCertificatePolicy.REQUIRED
    async with serving(loopback, server, profile=profile, policy=policy) as there:
        with pytest.raises(TlsError):
            async with await open_stream(*there.target, context=client_of(None, profile)) as here:
                await here.read()
        assert "did not return a certificate" in str(await there.failures.get())


@on_both_loops
async def test_off_does_not_ask_and_requested_without_cas_takes_anybody(
    loopback: Draw, server: Identity, stranger: Identity
) -> None:
    for policy, expected in [
        (ClientCertificatePolicy.OFF, None),
        (ClientCertificatePolicy.REQUESTED, stranger.certificate_der),
    ]:
        async with (
            serving(loopback, server, policy=policy) as there,
            await open_stream(*there.target, context=client_of(stranger)) as here,
        ):
            here.write(b"x")
            await here.read()
            assert (await there.streams.get()).peer_certificate == expected


@on_both_loops
async def test_the_end_of_a_session_is_an_end_of_file(loopback: Draw, server: Identity) -> None:
    async def greet(stream: Stream) -> None:
        stream.write(b"hello")

    async with (
        serving(loopback, server, greet) as there,
        await open_stream(*there.target, context=client_of(None)) as here,
    ):
        assert await here.read(2) == b"he"
        assert await here.read() == b"llo"
        assert await here.read() == b""
        assert await here.read() == b""


ALERT_BYTES = 5 + 2 + 1 + 16
"""In TLS 1.3: head of the record, alert, type of what is encrypted, tag."""


class _Recorded(TransportBetween):
    """Keeps how much is sent each time."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__(inner)
        self.lengths: list[int] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.lengths.append(len(data))
        super().write(data)


@on_both_loops
async def test_who_closes_says_goodbye_once(loopback: Draw, server: Identity) -> None:
    async def listen(stream: Stream) -> None:
        assert await stream.read() == b""

    async with serving(loopback, server, listen) as there:
        here = await open_stream(*there.target, context=client_of(None))
        here.send_through(sent := _Recorded(here.transport))
        await here.close()
        await here.close()
        assert sent.lengths == [ALERT_BYTES]


@on_both_loops
async def test_rubbish_inside_a_session_is_a_tls_error(loopback: Draw, server: Identity) -> None:
    async def spoil(stream: Stream) -> None:
        await stream.read()
        stream._transport.write(b"\x17\x03\x03\x00\x40" + bytes(64))
        await stream.read()

    async with (
        serving(loopback, server, spoil) as there,
        await open_stream(*there.target, context=client_of(None)) as here,
    ):
        here.write(b"x")
        here.send_through(sent := _Recorded(here.transport))
        with pytest.raises(TlsError) as broken:
            await here.read()
        assert broken.value.alert is None  # found here, not told by the peer
        assert sent.lengths == [ALERT_BYTES]  # but the peer is told: once


class _CountingSession:
    """A TLS session, and how many bytes it was given to decrypt."""

    def __init__(self, session: TlsSession) -> None:
        self._session = session
        self.taken = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def decrypt_into(self, received: bytearray, count: int = 0) -> bool:
        self.taken += count
        return self._session.decrypt_into(received, count)


async def wait_until_sent(stream: Stream) -> None:
    while stream._transport.get_write_buffer_size():
        await asyncio.sleep(0)


@on_both_loops
async def test_what_comes_after_the_end_of_a_session_is_not_kept(loopback: Draw, server: Identity) -> None:
    go_on = asyncio.Event()

    async def busy(stream: Stream) -> None:
        await stream.read()
        await go_on.wait()

    rubbish = b"\x17\x03\x03\x00\x20" + b"z" * 32
    async with serving(loopback, server, busy) as there:
        for broken in (False, True):
            async with await open_stream(*there.target, context=client_of(None)) as here:
                here.write(b"request")
                far = await there.streams.get()
                if broken:
                    here._transport.write(rubbish)
                else:
                    here._tls.say_goodbye()
                    here._send_out()
                while not far._eof:
                    await asyncio.sleep(0)
                far._tls = counting = _CountingSession(far._tls)
                here._transport.write(bytes(16 << 20))  # more than the kernel holds: the server must have taken some
                await wait_until_sent(here)
                here._transport.write_eof()
                go_on.set()
                assert await there.closed.get() is far
                assert counting.taken == 0
            go_on.clear()


@on_both_loops
async def test_renegotiation_is_declined_at_once(loopback: Draw, server: Identity) -> None:
    profile = TlsProfile.AES256_SHA
    async with serving(loopback, server, profile=profile) as there:
        willing = SSL.Context(SSL.TLS_METHOD)  # ours would not even ask
        willing.set_max_proto_version(SSL.TLS1_2_VERSION)
        async with await open_stream(*there.target, context=willing) as here:
            assert here.tls_version == "TLSv1.2"
            assert here._tls.renegotiate()
            with pytest.raises(SSL.WantReadError):
                here._tls.do_handshake()
            here._tls.out = here._tls.take_out()
            here._send_out()
            with pytest.raises(TlsError, match="no renegotiation"):
                await here.read()


@on_both_loops
async def test_a_server_that_speaks_no_tls_hangs_up_or_is_silent(loopback: Draw) -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pass

    async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    for handler, expected in [(rubbish, TlsError), (hang_up, (TlsError, ConnectionError)), (silence, TimeoutError)]:
        address = loopback()
        async with stub_server(handler, address) as port:
            with pytest.raises(expected):
                await open_stream(address, port, context=client_of(None), handshake_timeout_s=0.2)


@on_both_loops
async def test_nobody_listening_is_an_os_error(loopback: Draw) -> None:
    with pytest.raises(ConnectionRefusedError):
        await open_stream(loopback(), 1, context=client_of(None))


@on_both_loops
async def test_a_name_is_resolved_only_where_that_is_wanted() -> None:
    async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pass

    async with stub_server(hang_up, "127.0.0.1") as port:
        with pytest.raises(OSError, match="'localhost' is no IP address; names are not resolved"):
            await open_stream("localhost", port)
        async with await open_stream("localhost", port, resolves_names=True) as stream:
            assert stream.peer_address == ("127.0.0.1", port)


@on_both_loops
async def test_a_connection_that_does_not_come_about_ends_with_its_deadline(loopback: Draw) -> None:
    # a listening socket whose queue is full answers no SYN
    address = loopback()
    with socket.socket() as full:
        full.bind((address, 0))
        full.listen(0)
        waiting = []
        try:
            for _ in range(4):
                waiting.append(filler := socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            with pytest.raises(TimeoutError, match="does not answer"):
                await open_stream(*full.getsockname(), connect_timeout_s=0.2)
        finally:
            for filler in waiting:
                filler.close()


@on_both_loops
async def test_cancelling_an_open_leaves_nothing(loopback: Draw) -> None:
    begun = asyncio.Event()
    address = loopback()

    async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()

    async with stub_server(silence, address) as port:
        opening = asyncio.create_task(open_stream(address, port, context=client_of(None), handshake_timeout_s=60))
        await begun.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


def pem_files(identity: Identity, folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(identity.certificate_pem)
    key.write_bytes(identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


@on_both_loops
async def test_against_the_standard_library(
    loopback: Draw, server: Identity, capf: Identity, phone: Identity, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*pem_files(phone, tmp_path))
    async with serving(loopback, server, client_cas=(capf,)) as there:
        reader, writer = await asyncio.open_connection(*there.target, ssl=context)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()
        await writer.wait_closed()
        assert (await there.streams.get()).tls_version == "TLSv1.3"


@on_both_loops
async def test_no_session_is_ever_resumed(loopback: Draw, server: Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def twice(target: tuple[str, int]) -> bool | None:
        with socket.create_connection(target) as first, context.wrap_socket(first) as one:
            session = one.session
        with socket.create_connection(target) as second, context.wrap_socket(second, session=session) as two:
            return two.session_reused

    async with serving(loopback, server) as there:
        assert await asyncio.to_thread(twice, there.target) is False


def test_a_key_that_does_not_fit_is_a_usage_error(server: Identity, stranger: Identity) -> None:
    with pytest.raises(UsageError, match="cannot be used for TLS"):
        server_context(server.certificate_der, stranger.private_key_der)
    with pytest.raises(UsageError, match="private key"):
        server_context(server.certificate_der, b"no key")
    with pytest.raises(UsageError, match="not a certificate"):
        client_context(certificate_der=b"no certificate", private_key_der=server.private_key_der)
    with pytest.raises(UsageError, match="not a certificate"):
        server_context(server.certificate_der, server.private_key_der, client_cas=[b"no certificate"])


async def test_an_opening_that_is_cancelled_leaves_nothing_behind(loopback):
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["message"]))

    async def hang_up(_reader, _writer):
        pass

    address = loopback()
    async with stub_server(hang_up, address) as port:
        for turns in range(12):
            opening = asyncio.create_task(open_stream(address, port, context=client_context()))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    assert said == []


@on_both_loops
async def test_a_client_shows_its_own_certificate_on_a_shared_context_and_may_rest(
    loopback: Draw, server: Identity, capf: Identity, phone: Identity, stranger: Identity
) -> None:
    context = client_context()

    def showing(identity: Identity) -> Callable[[Stream], None]:
        return lambda stream: stream.show(identity) if isinstance(stream, tls.TlsStream) else None

    async with serving(loopback, server, client_cas=(capf,)) as there:
        for _ in range(2):  # what was kept of the first connection serves the second
            async with await open_stream(*there.target, context=context, on_connected=showing(phone)) as here:
                for words in (b"before", bytes(READ_HIGH_WATER), b"after"):
                    here.write(words)
                    answer = b""
                    while len(answer) < len(words):
                        answer += await here.read()
                    assert answer == words
                    here.rest()
                stream = await there.streams.get()
                assert stream.peer_certificate == phone.certificate_der
                stream.rest()
                assert stream.peer_certificate == phone.certificate_der
        with pytest.raises(SSL.Error):
            tls.SESSION(context, server_side=False).show(phone.certificate, stranger.private_key)
