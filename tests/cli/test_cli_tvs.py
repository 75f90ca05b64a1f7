from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from stub_server import stub_server

from cucm.errors import UsageError
from cucm.net.listener import Listener
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, server_context
from cucm.wire.tvs import (
    QueryCertificateResponse,
    TvsConnection,
    VerifyResponse,
    encode_message,
)
from lab.cli.tvs import parse_host, parse_serial
from tvs_server.certificate_cache import CertificateCache, PemFolderSource
from tvs_server.server import TvsServer


@asynccontextmanager
async def tvs(address, folder, source_tvs, *, roles=(0, 3), **options):
    """The lab's TVS with the PEM files of a folder."""
    cache = CertificateCache(PemFolderSource(folder, roles))
    identity = {
        "certificate_der": source_tvs.identity.certificate_der,
        "private_key_der": source_tvs.identity.private_key_der,
    }
    server = TvsServer(address, 0, **identity, cache=cache, **options)
    await server.start()
    try:
        yield f"{address}:{server.port}"
    finally:
        await server.stop()


@asynccontextmanager
async def strange_tvs(address, source_tvs, answer):
    """A TLS server that reads one request and writes `answer(request)`, or hangs up for None."""
    identity = source_tvs.identity

    async def handle(stream):
        connection = TvsConnection()
        connection.receive_data(await stream.read())
        reply = answer(connection.next_event())
        if reply is not None:
            stream.write(reply)
            await stream.drain()

    context = server_context(identity.certificate_der, identity.private_key_der, policy=ClientCertificatePolicy.OFF)
    listener = Listener(address, 0, handle, context=context)
    await listener.start()
    try:
        yield f"{address}:{listener.port}"
    finally:
        await listener.stop()


@pytest.fixture
def ask(cucm_lab):
    async def run(*words):
        return await asyncio.to_thread(cucm_lab, "tvs", *words)

    return run


async def test_query_finds_a_certificate(ask, loopback, files, source_tvs, destination):
    async with tvs(loopback(), files.folder, source_tvs) as host:
        done = await ask("query", host, "--certificate", files.destination_pem)
    assert done.returncode == 0, done.stderr
    assert "status:          0 (found)" in done.stdout
    assert "roles:           0 SAST, 3 TFTP" in done.stdout
    assert "time to live:    86400 s = 24 h" in done.stdout
    assert f"subject:       {destination.identity.subject}" in done.stdout
    assert "a phone would take CTL and ITL files and configuration files signed with it" in done.stdout


async def test_query_by_names_as_json_and_saved(ask, loopback, files, source_tvs, destination, tmp_path):
    identity = destination.identity
    names = ("--subject", identity.subject, "--issuer", identity.issuer, "--serial", identity.serial.hex(":"))
    async with tvs(loopback(), files.folder, source_tvs) as host:
        done = await ask("query", host, *names, "--json", "--save", tmp_path / "saved.pem")
        again = await ask("query", host, *names, "--save", tmp_path / "saved.pem")
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert (answer["positive"], answer["status"], answer["ttl_s"]) == (True, 0, 86400)
    assert [role["number"] for role in answer["roles"]] == [0, 3]
    assert bytes.fromhex(answer["certificate"]["der"]) == identity.certificate_der
    assert answer["server"]["certificate"]["subject"] == source_tvs.identity.subject
    assert (tmp_path / "saved.pem").read_bytes() == identity.certificate_pem
    assert again.returncode == 2
    assert "exists and is not overwritten" in again.stderr


async def test_query_not_found(ask, loopback, files, source_tvs):
    async with tvs(loopback(), files.folder, source_tvs) as host:
        done = await ask("query", host, "--subject", "CN=x", "--issuer", "CN=y", "--serial", "1234")
    assert done.returncode == 1
    assert "status:          1 (not found)" in done.stdout
    assert "UNKNOWN" in done.stdout


async def test_query_without_roles_warns(ask, loopback, files, source_tvs):
    async with tvs(loopback(), files.folder, source_tvs, roles=(7,)) as host:
        done = await ask("query", host, "--certificate", files.destination_pem)
    assert done.returncode == 0
    assert "is it in CallManager-trust only, and not in Phone-SAST-trust?" in done.stdout


async def test_verify(ask, loopback, files, source_tvs, source):
    stranger = files.add("source.crt.txt", source.identity.certificate_pem)
    async with tvs(loopback(), files.folder, source_tvs) as host:
        valid = await ask("verify", host, files.destination_pem)
        invalid = await ask("verify", host, stranger)
    assert (valid.returncode, invalid.returncode) == (0, 1)
    assert "status:          0 (valid)" in valid.stdout
    assert "status:          1 (not valid)" in invalid.stdout


async def test_the_expected_server_certificate(ask, loopback, files, source_tvs, source):
    expected = files.add("tvs.der", source_tvs.identity.certificate_der)
    other = files.add("other.der", source.identity.certificate_der)
    words = ("--certificate", files.destination_pem, "--expect-server-certificate")
    async with tvs(loopback(), files.folder, source_tvs) as host:
        good = await ask("query", host, *words, expected)
        bad = await ask("query", host, *words, other)
    assert good.returncode == 0
    assert bad.returncode == 1
    assert "the server shows another certificate than expected" in bad.stderr


async def test_an_old_tls_and_a_client_certificate(ask, loopback, files, source_tvs, source):
    certificate = files.add("lsc.pem.txt", source.identity.certificate_pem)
    key = files.add("lsc.key", source.identity.private_key_der)
    options = {"profile": TlsProfile.AES256_SHA, "policy": ClientCertificatePolicy.REQUIRED}
    words = ("--certificate", files.destination_pem, "--tls-profile", "aes256-sha")
    async with tvs(loopback(), files.folder, source_tvs, **options) as host:
        done = await ask("query", host, *words, "--client-certificate", certificate, "--client-key", key)
        without = await ask("query", host, *words)
    assert done.returncode == 0, done.stderr
    assert "with AES256-SHA" in done.stdout
    assert without.returncode == 3
    assert "no TLS" in without.stderr
    assert "--client-certificate" in without.stderr


async def test_nobody_there_is_exit_3(ask, cucm_lab, loopback):
    words = ("--subject", "a", "--issuer", "b", "--serial", "1")
    done = await ask("query", f"{loopback()}:2445", *words)
    assert done.returncode == 3
    assert "cannot connect: Connection refused" in done.stderr
    done = await ask("query", "[::1]:1", *words, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["where"] == "::1 TCP port 1"


async def test_a_server_that_never_speaks_is_exit_3(ask, loopback):
    address = loopback()
    silent = asyncio.Event()

    async def handle(_reader, _writer):
        await silent.wait()

    async with stub_server(handle, address) as port:
        words = ("--subject", "a", "--issuer", "b", "--serial", "1", "--timeout", "0.5")
        try:
            done = await ask("query", f"{address}:{port}", *words)
        finally:
            silent.set()
    assert done.returncode == 3
    assert "0.5 s" in done.stderr


@pytest.mark.parametrize(
    ("reply", "exit_code", "text"),
    [
        (lambda request: None, 3, "closed the connection without an answer"),
        (lambda request: b"HTTP/1.1 400 Bad Request\r\n", 1, "protocol discriminator"),
        (lambda request: encode_message(VerifyResponse.build(1001, 0)), 1, "TVS_MSG_CERT_VERIFICATION_RES where"),
        (lambda request: encode_message(QueryCertificateResponse.build(1001, 0))[:-1], 1, "mid-message"),
        (lambda request: encode_message(QueryCertificateResponse.build(5, 1)), 1, "the answer has session id 5"),
        (lambda request: encode_message(QueryCertificateResponse.build(1001, 0)), 1, "no certificate came with it"),
        (
            lambda request: encode_message(QueryCertificateResponse.build(1001, 0, b"?", [0])),
            0,
            "not a usable certificate",
        ),
    ],
)
async def test_strange_answers(ask, loopback, source_tvs, reply, exit_code, text):
    async with strange_tvs(loopback(), source_tvs, reply) as host:
        done = await ask("query", host, "--subject", "a", "--issuer", "b", "--serial", "1")
    assert done.returncode == exit_code, done
    assert text in done.stdout + done.stderr
    assert "internal error" not in done.stderr


def test_hosts():
    assert parse_host("ucm105pub") == ("ucm105pub", 2445)
    assert parse_host("127.0.11.32:99") == ("127.0.11.32", 99)
    assert parse_host("[::1]") == ("::1", 2445)
    assert parse_host("[::1]:99") == ("::1", 99)
    assert parse_host("fe80::1") == ("fe80::1", 2445)
    for wrong in ("", ":1", "a:", "a:x", "a:0", "a:65536", "a:²", "a:" + "9" * 5000, "[::1", "[::1]x", "[::1]:", "[]"):
        with pytest.raises(UsageError):
            parse_host(wrong)


def test_serials():
    assert parse_serial("24:00:0A") == parse_serial("0x24000a") == parse_serial("24000a") == b"\x24\x00\x0a"
    assert parse_serial("123") == b"\x01\x23"
    for wrong in ("", "0x", "12xy", "-1"):
        with pytest.raises(UsageError):
            parse_serial(wrong)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "QUESTION"),
        (("query", "host"), "needs --subject, --issuer and --serial"),
        (("query", "host", "--certificate", "{pem}", "--serial", "1"), "already says"),
        (("query", "host", "--certificate", "{ctl}"), "holds no certificate"),
        (("query", "host", "--certificate", "none"), "no such file"),
        (("query", "host", "--certificate", "{pem}", "--client-key", "{pem}"), "need each other"),
        (("verify", "host", "{pem}", "--client-key", "{pem}", "--client-certificate", "{pem}"), "holds no private key"),
        (("verify", "host", "{pem}", "--timeout", "-1"), "--timeout"),
        (("verify", "host", "{pem}", "--tls-profile", "ssl3"), "--tls-profile"),
        (("verify", "host:port", "{pem}"), "is not HOST or HOST:PORT"),
    ],
)
def test_wrong_words(cucm_lab, files, words, text):
    done = cucm_lab("tvs", *(word.format(pem=files.destination_pem, ctl=files.source_ctl) for word in words))
    assert done.returncode == 2, done
    assert text in done.stderr


async def test_a_certificate_that_cannot_be_saved_leaves_nothing(ask, loopback, files, source_tvs, tmp_path):
    unusable = encode_message(QueryCertificateResponse.build(1001, 0, b"?", [0]))
    words = ("--subject", "a", "--issuer", "b", "--serial", "1", "--save")
    async with strange_tvs(loopback(), source_tvs, lambda request: unusable) as host:
        done = await ask("query", host, *words, tmp_path / "saved.pem")
    assert done.returncode == 1
    assert "not a usable certificate" in done.stderr
    assert not (tmp_path / "saved.pem").exists()
    async with tvs(loopback(), files.folder, source_tvs) as host:
        done = await ask("query", host, "--certificate", files.destination_pem, "--save", tmp_path / "none" / "x.pem")
    assert done.returncode == 2
    assert "cannot be written: No such file or directory" in done.stderr


def test_odd_certificates_and_keys_are_wrong_words(cucm_lab, files, source):
    der = source.identity.certificate_der
    version_5 = files.add("5.der", der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1))
    key = X25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    shown = ("--client-certificate", files.destination_pem, "--client-key", files.add("x25519.key", key))
    for words, text in (((version_5,), "holds no certificate"), ((files.destination_pem, *shown), "of this kind")):
        done = cucm_lab("tvs", "verify", "127.0.0.1:1", *words)
        assert (done.returncode, text in done.stderr) == (2, True), done
