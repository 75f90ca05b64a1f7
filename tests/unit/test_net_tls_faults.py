"""Faults of `tls.handshake` as clients meet them: our own, and OpenSSL's command."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from both_loops import on_both_loops

from cucm.certificates import Identity, node_certificate
from cucm.errors import EnvironmentProblem, TlsError, TrustError, TrustReason
from cucm.faults import FaultBoard, fault_of
from cucm.identity import CertificateSummary, describe
from cucm.issuing import WATERMARK_OID
from cucm.key_store import KeyKind, KeyStore
from cucm.net import tls
from cucm.net.listener import Limits, Listener
from cucm.net.stream import Stream
from cucm.net.tls import TlsProfile, client_context, open_stream, server_context
from cucm.net.tls_faults import STRANGER, FalseCertificates
from cucm.roles import CertificateUnit

NOW = 1_700_000_000.0
DAY_S = 86_400.0
DEADLINE_S = 20
Draw = Callable[[], str]


def made(name: str, **options: Any) -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.TVS, name, seed=1, not_before=NOW - 30 * DAY_S, **options)


@pytest.fixture(scope="module")
def own() -> Identity:
    return made("ucm105pub")


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)


@asynccontextmanager
async def spoilt(
    draw: Draw,
    identity: Identity,
    action: str,
    *,
    attributes: dict[str, Any] | None = None,
    profile: TlsProfile = TlsProfile.MODERN,
    failures: list[Exception] | None = None,
    **options: Any,
) -> AsyncIterator[Listener]:
    board = FaultBoard()
    rule = {"id": "it", "point": "tls.handshake", "action": action, "times": 1, "match": {"service": "TVS"}}
    board.set(fault_of(rule | {"attributes": attributes or {}}))
    der = identity.certificate_der, identity.private_key_der
    listener = Listener(
        draw(),
        0,
        echo,
        context=server_context(*der, profile=profile),
        faults=board.at(service="TVS"),
        false_certificates=FalseCertificates(*der, now=lambda: NOW),
        on_handshake_failed=lambda _stream, error: (failures if failures is not None else []).append(error),
        **options,
    )
    await listener.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield listener
        async with asyncio.timeout(DEADLINE_S), await opened(listener, profile) as stream:  # it was for one only
            stream.write(b"ping")
            assert await stream.read() == b"ping"
            assert stream.peer_certificate == identity.certificate_der
        assert board.status("it").hits == 1
    finally:
        await listener.stop()


async def opened(listener: Listener, profile: TlsProfile = TlsProfile.MODERN, **options: Any) -> Stream:
    return await open_stream(listener.address, listener.port, context=client_context(profile=profile), **options)


async def shown(listener: Listener, profile: TlsProfile = TlsProfile.MODERN) -> CertificateSummary:
    """The handshake is done whole: whoever shows a certificate has its key."""
    async with await opened(listener, profile) as stream:
        stream.write(b"ping")
        assert await stream.read() == b"ping"
        assert stream.peer_certificate is not None
        return describe(stream.peer_certificate)


@pytest.mark.parametrize("profile", list(TlsProfile))
@on_both_loops
async def test_a_strangers_certificate(loopback: Draw, own: Identity, profile: TlsProfile) -> None:
    async with spoilt(loopback, own, "wrong-certificate", profile=profile) as listener:
        seen = await shown(listener, profile)
    assert seen.common_name == STRANGER
    assert seen.public_key_record != own.public_key_record
    assert seen.not_before < NOW < seen.not_after


@on_both_loops
async def test_an_expired_certificate(loopback: Draw, own: Identity) -> None:
    async with spoilt(loopback, own, "expired-certificate") as listener:
        seen = await shown(listener)
    assert (seen.subject, seen.serial, seen.public_key_record) == (own.subject, own.serial, own.public_key_record)
    assert seen.not_after == NOW - DAY_S


@on_both_loops
async def test_a_certificate_that_is_not_yet_valid(loopback: Draw, own: Identity) -> None:
    async with spoilt(loopback, own, "not-yet-valid-certificate") as listener:
        seen = await shown(listener)
    assert (seen.subject, seen.serial, seen.public_key_record) == (own.subject, own.serial, own.public_key_record)
    assert seen.not_before == NOW + DAY_S


@on_both_loops
async def test_an_impostors_key(loopback: Draw, own: Identity) -> None:
    async with spoilt(loopback, own, "wrong-key") as listener:
        seen = await shown(listener)
    assert (seen.subject, seen.issuer, seen.serial) == (own.subject, own.issuer, own.serial)
    assert seen.public_key_record != own.public_key_record


@pytest.mark.parametrize("kind", ["secp256r1", "secp384r1", 3072])
@pytest.mark.parametrize("action", ["wrong-key", "wrong-certificate", "expired-certificate"])
async def test_whatever_kind_of_key_the_service_has(loopback: Draw, kind: KeyKind, action: str) -> None:
    identity = made("other", kind=kind)
    async with spoilt(loopback, identity, action) as listener:
        seen = await shown(listener)
    assert seen.der != identity.certificate_der


@pytest.mark.parametrize("action", ["wrong-key", "expired-certificate", "not-yet-valid-certificate"])
async def test_a_certificate_of_a_ca_keeps_its_issuers_name(loopback: Draw, own: Identity, action: str) -> None:
    issued = made("issued", issuer=own)
    async with spoilt(loopback, issued, action) as listener:
        seen = await shown(listener)
    assert (seen.subject, seen.issuer, seen.serial) == (issued.subject, own.subject, issued.serial)


def test_false_certificates_say_that_they_are_toys_and_follow_the_clock(own: Identity) -> None:
    now = NOW
    false = FalseCertificates(own.certificate_der, own.private_key_der, now=lambda: now)
    for action in ("wrong-certificate", "expired-certificate", "not-yet-valid-certificate", "wrong-key"):
        fault = fault_of({"point": "tls.handshake", "action": action})
        identity = false.of(fault.action)
        assert identity.certificate.extensions.get_extension_for_oid(WATERMARK_OID)
        assert false.of(fault.action) is identity
    expired = fault_of({"point": "tls.handshake", "action": "expired-certificate"}).action
    now = NOW + 900 * DAY_S
    assert describe(false.of(expired).certificate_der).not_after == now - DAY_S


@on_both_loops
async def test_the_phones_refusal_of_a_false_certificate_is_heard(loopback: Draw, own: Identity) -> None:
    def refuse(_der: bytes) -> None:
        raise TrustError(TrustReason.TVS_CERTIFICATE_NOT_TRUSTED, "not mine")

    failures: list[Exception] = []
    async with spoilt(loopback, own, "wrong-key", failures=failures) as listener:
        with pytest.raises(TrustError):
            await opened(listener, verify_peer=refuse)
    assert [type(failure) for failure in failures] == [TlsError]


@pytest.mark.parametrize(
    ("action", "attributes", "words"),
    [
        ("alert", {}, "handshake failure"),
        ("alert", {"description": 70}, "protocol version"),
        ("alert", {"description": 80}, "internal error"),
        ("plaintext", {}, "wrong version number"),
        ("plaintext", {"text": "220 ready\r\n"}, "wrong version number"),
    ],
)
@on_both_loops
async def test_words_instead_of_a_handshake(
    loopback: Draw, own: Identity, action: str, attributes: dict[str, Any], words: str
) -> None:
    failures: list[Exception] = []
    async with spoilt(loopback, own, action, attributes=attributes, failures=failures) as listener:
        with pytest.raises(TlsError) as refused:
            await opened(listener)
        assert words in str(refused.value)
        assert (refused.value.alert is not None) == (action == "alert")
    assert "instead of a ServerHello" in str(failures[0])


@on_both_loops
async def test_the_bytes_of_an_alert(loopback: Draw, own: Identity) -> None:
    async with spoilt(loopback, own, "alert") as listener:
        reader, writer = await asyncio.open_connection(listener.address, listener.port)
        writer.write(b"\x16\x03\x01")
        assert await reader.read() == bytes.fromhex("15 0303 0002 02 28")
        writer.close()


@pytest.mark.parametrize("action", ["stall-before", "stall-inside"])
@on_both_loops
async def test_stalled_past_the_services_own_deadline(loopback: Draw, own: Identity, action: str) -> None:
    failures: list[Exception] = []
    limits = Limits(handshake_timeout_s=0.1)
    async with spoilt(loopback, own, action, failures=failures, limits=limits) as listener:
        with pytest.raises(TimeoutError):
            await opened(listener, handshake_timeout_s=0.5)
        listener.limits = Limits()
    assert "hung up" in str(failures[0])


@on_both_loops
async def test_how_much_a_stalled_server_says(loopback: Draw, own: Identity) -> None:
    for action, attributes, count in (("stall-before", {}, 0), ("stall-inside", {"bytes": 11}, 11)):
        async with spoilt(loopback, own, action, attributes=attributes) as listener:
            reader, writer = await asyncio.open_connection(listener.address, listener.port)
            writer.write(client_hello())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.readexactly(count + 1)
            writer.write_eof()
            said = await reader.read()
            assert len(said) == count
            assert said == b"" or said[0] == 22
            writer.close()


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="x").do_handshake()
    return outgoing.read()


@on_both_loops
async def test_a_stall_has_an_end(loopback: Draw, own: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HOLD_S", 0.2)
    failures: list[Exception] = []
    async with spoilt(loopback, own, "stall-inside", failures=failures) as listener:
        with pytest.raises((TlsError, ConnectionError)):
            await opened(listener)
    assert isinstance(failures[0], TimeoutError)


async def test_a_false_certificate_that_cannot_be_made_is_not_replaced_by_the_right_one(
    loopback: Draw, own: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_arguments: object) -> None:
        raise EnvironmentProblem("no key can be kept", mend="make room")

    failures: list[Exception] = []
    async with spoilt(loopback, own, "wrong-key", failures=failures) as listener:
        with monkeypatch.context() as patched:
            patched.setattr(FalseCertificates, "of", unable)
            with pytest.raises((TlsError, ConnectionError)):
                await opened(listener)
    assert "no key can be kept" in str(failures[0])


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("alert", "alert handshake failure"),
        ("plaintext", "wrong version number"),
        ("expired-certificate", "certificate has expired"),
        ("not-yet-valid-certificate", "certificate is not yet valid"),
        ("wrong-certificate", STRANGER),
    ],
)
async def test_as_openssl_sees_it(loopback: Draw, own: Identity, action: str, says: str, tmp_path: Any) -> None:
    ca = tmp_path / "own.pem"
    ca.write_bytes(own.certificate_pem)
    async with spoilt(loopback, own, action) as listener:
        where = f"{listener.address}:{listener.port}"
        command = ["openssl", "s_client", "-connect", where, "-CAfile", str(ca), "-attime", str(int(NOW))]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
    assert says in out.decode()
