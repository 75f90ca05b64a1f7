from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption, PrivateFormat, pkcs12

from cucm import certificate_bundle
from cucm.certificate_bundle import BundledCertificate, decode_bundle, encode_bundle
from cucm.certificates import Identity, node_certificate
from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit

BEGIN = 1_480_000_000
PASSWORD = b"both know it"


@pytest.fixture(scope="module")
def identity() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "ucm105pub", seed=1, not_before=BEGIN)


@pytest.fixture(scope="module")
def certificates(identity: Identity) -> tuple[BundledCertificate, ...]:
    first = BundledCertificate(
        identity.certificate_der, CertificateUnit.CALLMANAGER, "cluster1", "ucm105pub", "10.5.2.13900-12"
    )
    return first, dataclasses.replace(first, cluster="cluster2", node="ucm11pub", version="12.5(1)SU3")


def test_what_goes_in_comes_out_ordered(certificates: tuple[BundledCertificate, ...]) -> None:
    assert decode_bundle(encode_bundle(certificates[::-1], PASSWORD), PASSWORD) == certificates


def test_another_password(certificates: tuple[BundledCertificate, ...]) -> None:
    with pytest.raises(DecodeError, match="another password"):
        decode_bundle(encode_bundle(certificates, PASSWORD), b"wrong")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x30\x00", b"\x30\x03\x02\x01\x03", b"\x30\x80\x02\x01\x03\x00\x00"])
def test_no_pkcs12(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_bundle(data, PASSWORD)


@pytest.mark.parametrize("cut", [1, 7, 100, 700])
def test_torn_files(cut: int, certificates: tuple[BundledCertificate, ...]) -> None:
    with pytest.raises(DecodeError):
        decode_bundle(encode_bundle(certificates, PASSWORD)[:-cut], PASSWORD)


def test_sizes_and_numbers(certificates: tuple[BundledCertificate, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitExceeded, match="bytes"):
        decode_bundle(bytes(certificate_bundle.MAX_BUNDLE + 1), PASSWORD)
    with pytest.raises(EncodeError, match="0 certificates"):
        encode_bundle((), PASSWORD)
    two = encode_bundle(certificates, PASSWORD)
    monkeypatch.setattr(certificate_bundle, "MAX_CERTIFICATES", 1)
    with pytest.raises(EncodeError, match="2 certificates"):
        encode_bundle(certificates, PASSWORD)
    with pytest.raises(LimitExceeded, match="2 certificates"):
        decode_bundle(two, PASSWORD)


@pytest.mark.parametrize("field", ["node", "cluster", "version"])
@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "x" * 300])
def test_names_that_would_not_come_back(field: str, value: str, certificates: tuple[BundledCertificate, ...]) -> None:
    with pytest.raises(EncodeError, match="names in a bundle"):
        encode_bundle([dataclasses.replace(certificates[0], **{field: value})], PASSWORD)


def foreign(identity: Identity, name: bytes | None, *, key: bool = False, iterations: int | None = None) -> bytes:
    """A PKCS#12 file made without this lab's module."""
    encryption = BestAvailableEncryption(PASSWORD)
    if iterations is not None:
        builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(iterations).hmac_hash(hashes.SHA256())
        encryption = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).build(PASSWORD)  # type: ignore[assignment]
    entry = pkcs12.PKCS12Certificate(identity.certificate, name)
    if key:
        return pkcs12.serialize_key_and_certificates(name, identity.private_key, identity.certificate, None, encryption)
    return pkcs12.serialize_key_and_certificates(None, None, None, [entry], encryption)


GOOD_NAME = b"unit=CallManager node=n cluster=c version=12.5"


def test_a_file_of_the_same_form_is_read(identity: Identity) -> None:
    (found,) = decode_bundle(foreign(identity, GOOD_NAME, iterations=2048), PASSWORD)
    assert found == BundledCertificate(identity.certificate_der, CertificateUnit.CALLMANAGER, "c", "n", "12.5")


@pytest.mark.parametrize(
    "name", [None, b"my certificate", GOOD_NAME + b" and=more", GOOD_NAME.replace(b"Call", b"Ball")]
)
def test_certificates_of_unknown_origin(name: bytes | None, identity: Identity) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_bundle(foreign(identity, name), PASSWORD)
    assert refused.value.path == "friendlyName"


def test_a_private_key_is_not_taken(identity: Identity) -> None:
    with pytest.raises(DecodeError, match="private key"):
        decode_bundle(foreign(identity, GOOD_NAME, key=True), PASSWORD)


def test_a_file_that_asks_for_minutes_of_work_is_not_opened(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = foreign(identity, GOOD_NAME, iterations=certificate_bundle.MAX_ITERATIONS + 1)
    monkeypatch.setattr(pkcs12, "load_pkcs12", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(LimitExceeded, match="100001 iterations"):
        decode_bundle(dear, PASSWORD)


def test_the_iterations_of_the_authentication_code_count_too(
    certificates: tuple[BundledCertificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode_bundle(certificates, PASSWORD)
    assert data.endswith(b"\x02\x02\x08\x00")  # MacData ends with them
    monkeypatch.setattr(certificate_bundle, "MAX_ITERATIONS", 0x7FFE)
    with pytest.raises(LimitExceeded, match="32767 iterations"):
        decode_bundle(data[:-2] + b"\x7f\xff", PASSWORD)


def test_nothing_but_certificates_can_be_bundled() -> None:
    item = BundledCertificate(b"no certificate", CertificateUnit.TVS, "c", "n", "11.5")
    with pytest.raises(DecodeError):
        encode_bundle([item], PASSWORD)


def test_unprotected_files_are_refused(identity: Identity) -> None:
    entry = pkcs12.PKCS12Certificate(identity.certificate, GOOD_NAME)
    data = pkcs12.serialize_key_and_certificates(None, None, None, [entry], NoEncryption())
    with pytest.raises(DecodeError):
        decode_bundle(data, PASSWORD)


def test_a_private_key_beside_the_certificates_asks_for_no_work(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted by itself in a part that is not: its iterations are none of that part's."""
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(certificate_bundle.MAX_ITERATIONS + 1)
    builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
    data = pkcs12.serialize_key_and_certificates(None, identity.private_key, None, None, builder.build(PASSWORD))
    monkeypatch.setattr(pkcs12, "load_pkcs12", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(DecodeError, match="private key"):
        decode_bundle(data, PASSWORD)
