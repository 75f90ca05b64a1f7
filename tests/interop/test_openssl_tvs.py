"""Our TVS against OpenSSL's own client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.errors import TrustReason
from cucm.events import Event
from cucm.events.tvs import TvsHandshakeDone, TvsHandshakeFailed, TvsRefusalReason
from cucm.key_store import KeyStore
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.roles import CertificateUnit
from cucm.wire.tvs import (
    HEADER_BYTES,
    QueryCertificateRequest,
    QueryCertificateResponse,
    decode_message,
    encode_message,
)
from tvs_server.certificate_cache import CertificateCache, PemFolderSource
from tvs_server.server import TvsServer

NOT_BEFORE = 1_700_000_000.0
DEADLINE_S = 30
MODERN, OLD = TlsProfile.MODERN, TlsProfile.AES256_SHA
REQUIRED, REQUESTED, OFF = (
    ClientCertificatePolicy.REQUIRED,
    ClientCertificatePolicy.REQUESTED,
    ClientCertificatePolicy.OFF,
)

pytestmark = pytest.mark.needs("openssl")
E = TypeVar("E", bound=Event)
Draw = Callable[[], str]


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture(scope="module")
def foreign(keys: KeyStore) -> Identity:
    return node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def capf(keys: KeyStore) -> Identity:
    return capf_certificate(keys, "ucm105pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def phone(keys: KeyStore, capf: Identity) -> Identity:
    return lsc(
        capf, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="FCH18198CNQ", seed=1, not_before=NOT_BEFORE
    )


class Told:
    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.emit = self._queue.put_nowait

    async def next(self, kind: type[E]) -> E:
        while not isinstance(event := await self._queue.get(), kind):
            pass
        return event


@asynccontextmanager
async def serving(
    loopback: Draw,
    folder: Path,
    keys: KeyStore,
    foreign: Identity,
    *,
    profile: TlsProfile = MODERN,
    policy: ClientCertificatePolicy = REQUESTED,
    client_cas: tuple[Identity, ...] = (),
) -> AsyncIterator[tuple[TvsServer, Told]]:
    tvs = node_certificate(keys, CertificateUnit.TVS, "ucm105pub", seed=1, not_before=NOT_BEFORE)
    certificates = folder / "certificates"
    certificates.mkdir()
    (certificates / "ucm11pub.pem").write_bytes(foreign.certificate_pem)
    told = Told()
    server = TvsServer(
        loopback(),
        certificate_der=tvs.certificate_der,
        private_key_der=tvs.private_key_der,
        cache=CertificateCache(PemFolderSource(certificates, (0, 3))),
        emit=told.emit,
        policy=policy,
        profile=profile,
        client_cas=[ca.certificate_der for ca in client_cas],
        now=lambda: NOT_BEFORE + 1,
    )
    await server.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server, told
    finally:
        await server.stop()


@dataclass(frozen=True)
class Said:
    """What s_client printed: the peer's bytes, its own talk, and its exit code."""

    data: bytes
    talk: str
    code: int | None


async def s_client(server: TvsServer, request: bytes, *options: str) -> Said:
    """Send `request` by `openssl s_client`, read one TVS message if there is one, and let it go."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"{server.address}:{server.port}", "-quiet", "-no_ign_eof", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    data = b""
    try:
        process.stdin.write(request)
        try:
            data = await process.stdout.readexactly(HEADER_BYTES)
            data += await process.stdout.readexactly(int.from_bytes(data[8:10], "big"))
        except asyncio.IncompleteReadError as short:
            data += short.partial
        process.stdin.close()
        rest, talk = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Said(data + rest, talk.decode("utf-8", "replace"), process.returncode)


def query(identity: Identity) -> bytes:
    return encode_message(
        QueryCertificateRequest.build(
            1001, "CP-8861-SEPB000B4BA0AEE", identity.subject, identity.issuer, identity.serial
        )
    )


def files(identity: Identity, folder: Path) -> tuple[str, ...]:
    certificate, key = folder / "client.pem", folder / "client.key"
    certificate.write_bytes(identity.certificate_pem)
    key.write_bytes(identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return "-cert", str(certificate), "-key", str(key)


def assert_answered(said: Said, foreign: Identity) -> None:
    answer = decode_message(said.data)
    assert isinstance(answer, QueryCertificateResponse), said.talk
    assert (answer.session_id, answer.certificate, answer.roles) == (1001, foreign.certificate_der, (0, 3))


@pytest.mark.parametrize(
    ("profile", "options", "cipher", "version"),
    [
        (MODERN, (), "TLS_AES_256_GCM_SHA384", "TLSv1.3"),
        (MODERN, ("-tls1_2",), "ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2"),
        (OLD, (), "AES256-SHA", "TLSv1.2"),
        (OLD, ("-tls1", "-cipher", "AES256-SHA:@SECLEVEL=0"), "AES256-SHA", "TLSv1"),
        (OLD, ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "AES256-SHA", "TLSv1.1"),
        (OLD, ("-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2"),
    ],
)
async def test_profiles(
    loopback: Draw,
    tmp_path: Path,
    keys: KeyStore,
    foreign: Identity,
    profile: TlsProfile,
    options: tuple[str, ...],
    cipher: str,
    version: str,
) -> None:
    async with serving(loopback, tmp_path, keys, foreign, profile=profile) as (server, told):
        assert server.port == 2445
        assert_answered(await s_client(server, query(foreign), *options), foreign)
        done = await told.next(TvsHandshakeDone)
        assert (done.cipher, done.tls_version, done.client_subject) == (cipher, version, None)


@pytest.mark.parametrize("options", [("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), ("-tls1_2", "-cipher", "AES256-SHA")])
async def test_the_modern_profile_refuses_the_old_ways(
    loopback: Draw, tmp_path: Path, keys: KeyStore, foreign: Identity, options: tuple[str, ...]
) -> None:
    async with serving(loopback, tmp_path, keys, foreign) as (server, told):
        said = await s_client(server, query(foreign), *options)
        assert said.data == b""
        assert re.search(r"alert (protocol version|handshake failure)", said.talk)
        failed = await told.next(TvsHandshakeFailed)
        assert (failed.reason, failed.alert) == (TvsRefusalReason.HANDSHAKE, None)
        assert failed.detail


@pytest.mark.parametrize("profile", [MODERN, OLD])
@pytest.mark.parametrize("policy", [REQUESTED, REQUIRED, OFF])
async def test_an_lsc_of_the_capf_is_accepted(
    loopback: Draw,
    tmp_path: Path,
    keys: KeyStore,
    foreign: Identity,
    capf: Identity,
    phone: Identity,
    profile: TlsProfile,
    policy: ClientCertificatePolicy,
) -> None:
    options = {"profile": profile, "policy": policy}
    async with serving(loopback, tmp_path, keys, foreign, client_cas=(capf,), **options) as (server, told):  # type: ignore[arg-type]
        assert_answered(await s_client(server, query(foreign), *files(phone, tmp_path)), foreign)
        expected = None if policy is OFF else phone.subject
        assert (await told.next(TvsHandshakeDone)).client_subject == expected


@pytest.mark.parametrize("profile", [MODERN, OLD])
async def test_a_stranger_gets_an_alert(
    loopback: Draw, tmp_path: Path, keys: KeyStore, foreign: Identity, capf: Identity, profile: TlsProfile
) -> None:
    async with serving(loopback, tmp_path, keys, foreign, profile=profile, client_cas=(capf,)) as (server, told):
        said = await s_client(server, query(foreign), *files(foreign, tmp_path))
        assert said.data == b""
        assert "alert unknown ca" in said.talk
        failed = await told.next(TvsHandshakeFailed)
        assert (failed.reason, failed.trust) == (TvsRefusalReason.CLIENT_CERTIFICATE, TrustReason.SIGNER_UNKNOWN)


@pytest.mark.parametrize("profile", [MODERN, OLD])
async def test_required_and_none_offered(
    loopback: Draw, tmp_path: Path, keys: KeyStore, foreign: Identity, profile: TlsProfile
) -> None:
    async with serving(loopback, tmp_path, keys, foreign, profile=profile, policy=REQUIRED) as (server, told):
        said = await s_client(server, query(foreign))
        assert said.data == b""
        assert re.search(r"alert (certificate required|handshake failure)", said.talk)
        assert (await told.next(TvsHandshakeFailed)).reason is TvsRefusalReason.HANDSHAKE


async def test_a_client_that_checks_and_refuses_our_certificate(
    loopback: Draw, tmp_path: Path, keys: KeyStore, foreign: Identity, capf: Identity
) -> None:
    ca = tmp_path / "other-ca.pem"
    ca.write_bytes(capf.certificate_pem)
    async with serving(loopback, tmp_path, keys, foreign) as (server, told):
        said = await s_client(server, b"", "-verify_return_error", "-CAfile", str(ca))
        assert said.code != 0
        assert "unknown ca" in ((await told.next(TvsHandshakeFailed)).alert or "")
