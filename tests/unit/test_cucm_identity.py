from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cucm.identity import MAX_REMEMBERED, _known_certificate, _known_summary, describe, load_certificate


def certificate_of(size: int, name: str) -> bytes:
    """As any stranger can make them: of at least so many bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(size))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(day).not_valid_after(day).add_extension(padding, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_strangers_large_certificate_is_read_and_not_kept() -> None:
    der = certificate_of(MAX_REMEMBERED, "large")
    before = _known_summary.cache_info().currsize, _known_certificate.cache_info().currsize
    assert describe(der).subject == "CN=large"
    assert load_certificate(der).serial_number == 1
    assert (_known_summary.cache_info().currsize, _known_certificate.cache_info().currsize) == before


def test_a_certificate_of_the_usual_size_is_read_once() -> None:
    der = certificate_of(1, "small")
    assert describe(der) is describe(der)
    assert load_certificate(der) is load_certificate(der)
