"""OpenSSL's own programs read the certificates, keys and signatures that the lab makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cucm.broken_certificates import expired, tampered, wrong_hash, wrong_key
from cucm.certificates import (
    CertificateAuthority,
    Identity,
    Organisation,
    capf_certificate,
    lsc,
    manufacturing_ca,
    mic,
    node_certificate,
)
from cucm.key_store import KeyStore, load_private_key
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import anchors_of_certificate, verify_trust_list
from cucm.wire.trust_list import DigestAlgorithm, Record, build_trust_list, decode_trust_list, signed_bytes

pytestmark = pytest.mark.needs("openssl")
BEGIN = 1_480_000_000
NOW = BEGIN + 86_400


def openssl(*arguments: str | Path, stdin: bytes = b"", check: bool = True) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, timeout=60, check=False)
    if check:
        assert done.returncode == 0, done.stderr.decode()
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture(scope="module")
def ca(keys: KeyStore) -> Identity:
    return CertificateAuthority.self_signed(keys, "CN=stormin-WIN2012-CA", seed=7, not_before=BEGIN).identity


@pytest.fixture(scope="module")
def destination(keys: KeyStore, ca: Identity) -> Identity:
    return node_certificate(
        keys,
        CertificateUnit.CALLMANAGER,
        "ucm11pub.stormin.local",
        seed=7,
        not_before=BEGIN,
        issuer=ca,
        serial=bytes.fromhex("24000000179479b8f124ac3f3b000000000017"),
        der_length=1451,
    )


@pytest.fixture(scope="module")
def capf(keys: KeyStore) -> Identity:
    place = Organisation(company="stormin", state="NSQ", locality="Sydney")
    return capf_certificate(keys, "ucm105pub", seed=7, not_before=BEGIN, organisation=place, name="CAPF-a7fb32bf")


@pytest.fixture(scope="module")
def phone(keys: KeyStore, capf: Identity) -> Identity:
    return lsc(capf, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="FCH18198CNQ", seed=7, not_before=BEGIN)


def pem_file(folder: Path, name: str, identity: Identity) -> Path:
    path = folder / f"{name}.pem"
    path.write_bytes(identity.certificate_pem)
    return path


def test_openssl_reads_the_seeds_certificate(destination: Identity) -> None:
    text = openssl(
        "x509", "-inform", "DER", "-noout", "-text", "-nameopt", "sep_comma_plus", stdin=destination.certificate_der
    )
    assert "CN=ucm11pub.stormin.local,OU=IST,O=Stormin,L=Brisbane,ST=QLD,C=AU" in text
    assert "Issuer: CN=stormin-WIN2012-CA" in text
    assert "24:00:00:00:17:94:79:b8:f1:24:ac:3f:3b:00:00:00:00:00:17" in text
    assert "Signature Algorithm: sha256WithRSAEncryption" in text
    assert "Public-Key: (2048 bit)" in text
    assert "Netscape Comment" in text
    assert "Lab toy by cucm-migration-lab. Trust it nowhere." in text


def test_openssl_prints_the_lscs_names_as_the_seeds_console_does(phone: Identity) -> None:
    def name(field: str) -> str:
        return openssl("x509", "-inform", "DER", "-noout", field, "-nameopt", "compat", stdin=phone.certificate_der)

    subject = "/serialNumber=PID:CP-8861 SN:FCH18198CNQ/C=AU/O=stormin/OU=IST/CN=CP-8861-SEPB000B4BA0AEE"
    assert name("-subject").strip() == f"subject={subject}"
    assert name("-issuer").strip() == "issuer=/C=AU/O=stormin/OU=IST/CN=CAPF-a7fb32bf/ST=NSQ/L=Sydney"


def test_openssl_accepts_the_chains_even_when_strict(
    tmp_path: Path, keys: KeyStore, ca: Identity, destination: Identity, capf: Identity, phone: Identity
) -> None:
    maker = manufacturing_ca(keys, seed=7, not_before=BEGIN)
    made = mic(maker, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="F1", seed=7, not_before=BEGIN)
    for leaf, root, purpose in ((destination, ca, "sslserver"), (phone, capf, "sslclient"), (made, maker, "sslclient")):
        verdict = openssl(
            "verify", "-x509_strict", "-attime", str(NOW), "-purpose", purpose,
            "-CAfile", pem_file(tmp_path, "root", root), pem_file(tmp_path, "leaf", leaf),
        )  # fmt: skip
        assert verdict.strip().endswith("OK")


def test_openssl_refuses_the_broken_ones(tmp_path: Path, keys: KeyStore, capf: Identity, phone: Identity) -> None:
    def verdict(leaf: Identity) -> str:
        return openssl(
            "verify", "-attime", str(NOW),
            "-CAfile", pem_file(tmp_path, "root", capf), pem_file(tmp_path, "leaf", leaf),
            check=False,
        )  # fmt: skip

    assert "certificate has expired" in verdict(expired(phone, NOW, issuer=capf))
    for broken in (wrong_hash(phone, issuer=capf), tampered(phone), wrong_key(phone, keys.key("impostor"))):
        assert "certificate signature failure" in verdict(broken)


@pytest.mark.parametrize("kind", [1024, 2048, 4096, "secp256r1", "secp384r1"])
def test_openssl_reads_our_keys_and_we_read_its(keys: KeyStore, tmp_path: Path, kind: int | str) -> None:
    identity = node_certificate(keys, CertificateUnit.TVS, "sized", seed=7, not_before=BEGIN, kind=kind)
    theirs = tmp_path / "theirs.der"
    openssl("pkey", "-inform", "DER", "-check", "-noout", stdin=identity.private_key_der)
    openssl("pkey", "-inform", "DER", "-outform", "DER", "-out", theirs, stdin=identity.private_key_der)
    loaded = load_private_key(theirs.read_bytes())
    assert Identity(identity.certificate, loaded).private_key_der == identity.private_key_der


def public_key_file(folder: Path, identity: Identity) -> Path:
    path = folder / "public.pem"
    path.write_text(openssl("x509", "-noout", "-pubkey", stdin=identity.certificate_pem))
    return path


@pytest.mark.parametrize("kind", [1024, 2048, "secp256r1"])
@pytest.mark.parametrize("digest", list(DigestAlgorithm))
def test_openssl_verifies_what_we_sign(
    keys: KeyStore, tmp_path: Path, kind: int | str, digest: DigestAlgorithm
) -> None:
    identity = node_certificate(keys, CertificateUnit.CALLMANAGER, "sized", seed=7, not_before=BEGIN, kind=kind)
    signature = tmp_path / "signature"
    signature.write_bytes(identity.sign(b"every byte counts", digest))
    arguments = (
        "dgst",
        f"-{digest.hashlib_name}",
        "-verify",
        public_key_file(tmp_path, identity),
        "-signature",
        signature,
    )
    assert openssl(*arguments, stdin=b"every byte counts").strip() == "Verified OK"
    assert "Verif" in openssl(*arguments, stdin=b"every byte count5", check=False)
    assert "Verified OK" not in openssl(*arguments, stdin=b"every byte count5", check=False)


def record(identity: Identity) -> Record:
    return Record.build(
        function=TrustRole.SAST,
        subject=identity.subject,
        issuer=identity.issuer,
        serial=identity.serial,
        public_key=identity.public_key_record,
        certificate=identity.certificate_der,
    )


@pytest.mark.parametrize("digest", list(DigestAlgorithm))
def test_openssl_verifies_a_trust_list(destination: Identity, tmp_path: Path, digest: DigestAlgorithm) -> None:
    data = build_trust_list(
        signer=destination.signer_id,
        records=(record(destination),),
        digest=digest,
        sign=destination.sign,
        signature_length=256,
        file_name="CTLFile.tlv",
        timestamp=BEGIN,
    )
    signature = tmp_path / "signature"
    signature.write_bytes(decode_trust_list(data).signature)
    arguments = ("-verify", public_key_file(tmp_path, destination), "-signature", signature)
    assert openssl("dgst", f"-{digest.hashlib_name}", *arguments, stdin=signed_bytes(data)).strip() == "Verified OK"


def test_we_verify_a_trust_list_that_openssl_signed(destination: Identity, tmp_path: Path) -> None:
    key = tmp_path / "key.der"
    key.write_bytes(destination.private_key_der)

    def sign(data: bytes, digest: DigestAlgorithm) -> bytes:
        out = tmp_path / "out"
        openssl("dgst", f"-{digest.hashlib_name}", "-sign", key, "-keyform", "DER", "-out", out, stdin=data)
        return out.read_bytes()

    data = build_trust_list(
        signer=destination.signer_id,
        records=(record(destination),),
        digest=DigestAlgorithm.SHA512,
        sign=sign,
        signature_length=256,
        file_name="ITLFile.tlv",
        timestamp=BEGIN,
    )
    granted = anchors_of_certificate(destination.certificate_der, (TrustRole.SAST,), "TVS cache")
    assert verify_trust_list(data, granted)[1].subject == destination.subject


def test_record_keys_are_what_openssl_extracts(destination: Identity, tmp_path: Path) -> None:
    out = tmp_path / "key"
    openssl(
        "rsa",
        "-pubin",
        "-in",
        public_key_file(tmp_path, destination),
        "-RSAPublicKey_out",
        "-outform",
        "DER",
        "-out",
        out,
    )
    assert out.read_bytes() == destination.public_key_record
