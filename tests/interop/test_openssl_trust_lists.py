"""OpenSSL checks what our file server serves and signs; the parser here is the test's own and knows nothing of ours."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_on_disk import NOW, PHONE, PUBLISHER, SUBSCRIBER, ClusterOnDisk
from served_cluster import LAYOUTS, Mode, ServedCluster, serving

from cucm.clock import MovableClock
from tftp_server.node_files import NodeFileStore, write_ctl
from tftp_server.server import FileServer
from tftp_server.trust_list_builder import KeyFolder, build_ctl, build_itl

pytestmark = pytest.mark.needs("openssl", "curl")

FILES = (f"CTL{PHONE}.tlv", f"ITL{PHONE}.tlv", f"{PHONE}.cnf.xml.sgn", "XMLDefault.cnf.xml.sgn", "ringlist.xml.sgn")


def elements(data: bytes) -> list[tuple[int, int, bytes]]:
    """(offset, tag, value) of every TLV; a 0x0d byte is padding and has no length."""
    found, at = [], 0
    while at < len(data):
        if data[at] == 13:
            at += 1
            continue
        length = data[at + 1] << 8 | data[at + 2]
        found.append((at, data[at], data[at + 3 : at + 3 + length]))
        at += 3 + length
    return found


@dataclass
class Signed:
    """What openssl needs to know of a .tlv or .sgn file."""

    covered: bytes
    signature: bytes
    digest: str
    signer_serial: bytes
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Signed:
        header_length = data[8] << 8 | data[9]
        header = {tag: (offset, value) for offset, tag, value in elements(data[:header_length])}
        offset, signature = header[12]
        signer = {tag: value for _, tag, value in elements(header[3][1])}
        algorithm = {tag: value for _, tag, value in elements(header[7][1])}[8][0]
        return cls(
            covered=data[:offset] + data[offset + 3 + len(signature) :],
            signature=signature,
            digest={1: "-sha1", 3: "-sha512"}[algorithm],
            signer_serial=signer[5],
            body=data[header_length:],
        )


def records(body: bytes) -> list[dict[int, bytes]]:
    found, at = [], 0
    while at < len(body):
        length = body[at + 3] << 8 | body[at + 4]
        found.append({tag: value for _, tag, value in elements(body[at : at + length])})
        at += length
    return found


def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, capture_output=True, timeout=30, check=False)


def openssl(*arguments: str, stdin: bytes = b"") -> str:
    done = run("openssl", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def openssl_accepts(signed: Signed, public_key_pem: str, folder: Path) -> bool:
    (folder / "key.pem").write_text(public_key_pem)
    (folder / "signature").write_bytes(signed.signature)
    done = run(
        *("openssl", "dgst", signed.digest, "-verify", str(folder / "key.pem")),
        *("-signature", str(folder / "signature")),
        stdin=signed.covered,
    )
    return done.returncode == 0 and done.stdout == b"Verified OK\n"


def public_key_of(certificate: bytes) -> str:
    return openssl("x509", "-inform", "DER", "-noout", "-pubkey", stdin=certificate)


@dataclass
class Served:
    cluster: ClusterOnDisk
    url: str

    async def get(self, name: str) -> bytes:
        return await fetched(f"{self.url}/{name}")


async def fetched(url: str) -> bytes:
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--fail", "--max-time", "20", url),
        stdout=asyncio.subprocess.PIPE,
    )
    data, _ = await curl.communicate()
    assert curl.returncode == 0, f"curl ended with {curl.returncode} for {url}"
    return data


@pytest.fixture(params=[("10.5.2", "SHA-1"), ("11.0.1", "SHA-512"), ("12.0.1", "SHA-1")], ids=lambda p: "-".join(p))
async def served(request: pytest.FixtureRequest, tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[Served]:
    version, algorithm = request.param
    cluster = ClusterOnDisk(tmp_path / "node", version)
    cluster.database.set_parameter("TFTP File Signature Algorithm", algorithm)
    (cluster.directory / "tftp" / "ringlist.xml").write_bytes(b"<rings/>")
    keys = KeyFolder(cluster.directory / "security")
    write_ctl(cluster.directory, build_ctl(cluster.database, keys, cluster.profile, NOW))
    store = NodeFileStore(cluster.directory, PUBLISHER, cluster.profile, MovableClock(NOW))
    server = FileServer(loopback(), store, tftp_port=0, http_port=0)
    await server.start()
    yield Served(cluster, f"http://{server.address}:{server.http_port}")
    await server.stop()
    store.close()
    cluster.database.close()


@pytest.mark.parametrize("name", FILES)
async def test_openssl_verifies_what_is_served_with_the_certificate_of_the_itl(
    served: Served, name: str, tmp_path: Path
) -> None:
    signed = Signed.of(await served.get(name))
    itl = records(Signed.of(await served.get("ITLFile.tlv")).body)
    certificate = next(record[9] for record in itl if record.get(6) == signed.signer_serial)
    key = public_key_of(certificate)
    assert openssl_accepts(signed, key, tmp_path)
    signed.covered = signed.covered[:-1] + bytes([signed.covered[-1] ^ 1])
    assert not openssl_accepts(signed, key, tmp_path)


async def test_a_signed_configuration_is_the_plain_one_in_an_envelope(served: Served) -> None:
    signed = Signed.of(await served.get(f"{PHONE}.cnf.xml.sgn"))
    assert signed.body == await served.get(f"{PHONE}.cnf.xml")


@pytest.mark.parametrize("name", ["CTLFile.tlv", "ITLFile.tlv"])
async def test_openssl_reads_in_each_certificate_what_its_record_says(served: Served, name: str) -> None:
    listed = records(Signed.of(await served.get(name)).body)
    assert len(listed) > 3
    for record in listed:
        seen = openssl("x509", "-inform", "DER", "-noout", "-serial", stdin=record[9]).strip().removeprefix("serial=")
        assert bytes.fromhex(seen) == record[6]
        pem = openssl("rsa", "-RSAPublicKey_in", "-inform", "DER", "-pubout", stdin=record[7])
        assert pem == public_key_of(record[9])
        text = openssl("x509", "-inform", "DER", "-noout", "-issuer", "-nameopt", "sep_comma_plus", stdin=record[9])
        assert text.strip().removeprefix("issuer=").split(",") == record[5].rstrip(b"\0").decode().split(";")


def openssl_verifies(data: bytes, folder: Path) -> dict[int, bytes]:
    """The SAST record of the list's own signer, after openssl has checked the signature with its certificate."""
    signed = Signed.of(data)
    sast = [record for record in records(signed.body) if record[4] == b"\0\0"]
    signer = next(record for record in sast if record[6] == signed.signer_serial)
    assert openssl_accepts(signed, public_key_of(signer[9]), folder)
    return signer


@pytest.mark.parametrize(("version", "mode"), LAYOUTS, ids=[f"{version} {mode.value}" for version, mode in LAYOUTS])
async def test_openssl_verifies_the_lists_of_every_release_and_mode(
    tmp_path: Path, loopback: Callable[[], str], version: str, mode: Mode
) -> None:
    async with serving(tmp_path / "cluster", loopback, version, mode) as served:
        for node in (PUBLISHER, SUBSCRIBER):
            openssl_verifies(await fetched(f"{served.url(node)}/ITL{PHONE}.tlv"), tmp_path)
        if mode is not Mode.NON_SECURE:
            signer = openssl_verifies(await fetched(f"{served.url(SUBSCRIBER)}/CTL{PHONE}.tlv"), tmp_path)
            assert (signer[2] == b"\0") == mode.has_tokens


def reset_itl(served: ServedCluster, node: str) -> bytes:
    cluster = served.cluster
    unit = cluster.profile.itl_reset_signer
    return build_itl(cluster.database, served.keys_of(node), cluster.profile, node, NOW, signer_unit=unit)


@pytest.mark.parametrize(("version", "name"), [("11.5", "ITLRECOVERY_ucm105sub"), ("12.5", "ucm105sub")])
async def test_openssl_verifies_a_reset_itl_with_the_other_certificate(
    tmp_path: Path, loopback: Callable[[], str], version: str, name: str
) -> None:
    async with serving(tmp_path / "cluster", loopback, version, Mode.TOKENLESS) as served:
        served.stores[SUBSCRIBER].serve_reset_itl(reset_itl(served, SUBSCRIBER))
        signer = openssl_verifies(await fetched(f"{served.url(SUBSCRIBER)}/ITLFile.tlv"), tmp_path)
        assert openssl("x509", "-inform", "DER", "-noout", "-subject", stdin=signer[9]).count(f"CN = {name},") == 1
