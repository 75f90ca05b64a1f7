"""A certificate with its private key, and what the lab reads in anybody's certificate."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cucm.errors import DecodeError, UsageError
from cucm.key_store import PrivateKey, load_private_key, private_key_der
from cucm.names import cisco_name, common_name, serial_bytes
from cucm.records import dataclass
from cucm.wire.signature_header import DigestAlgorithm, SignerId

MAX_CERTIFICATE: Final = 0xFFFF
"""What a two-byte length on the wire can hold."""
MAX_REMEMBERED: Final = 4 * 1024
"""Bytes; ours. Larger certificates, which only strangers show, are read anew: thousands of 64 KiB would stay."""
HASHES: Final[dict[DigestAlgorithm, hashes.HashAlgorithm]] = {
    DigestAlgorithm.SHA1: hashes.SHA1(),
    DigestAlgorithm.SHA256: hashes.SHA256(),
    DigestAlgorithm.SHA512: hashes.SHA512(),
}
_WARNINGS_LOCK: Final = threading.Lock()
"""Silencing warnings changes something global for a moment: one at a time."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate, its private key, and the certificates of its issuers, nearest first."""

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)
    issuers: tuple[x509.Certificate, ...] = ()

    @classmethod
    def load(cls, certificate_der: bytes, key_der: bytes, *, ours: bool = False) -> Identity:
        """From DER and PKCS#8 DER; `ours` as in `load_private_key`. DecodeError, UsageError."""
        summary = describe(certificate_der)
        key = load_private_key(key_der, ours=ours)
        if public_key_record(key.public_key()) != summary.public_key_record:
            raise UsageError("the private key does not belong to the certificate", where=summary.subject)
        return cls(load_certificate(certificate_der), key)

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def private_key_der(self) -> bytes:
        """PKCS#8, not encrypted: for TLS contexts and files of mode 0600 only."""
        return private_key_der(self.private_key)

    @property
    def subject(self) -> str:
        """In Cisco's form."""
        return cisco_name(self.certificate.subject)

    @property
    def issuer(self) -> str:
        """In Cisco's form."""
        return cisco_name(self.certificate.issuer)

    @property
    def serial(self) -> bytes:
        return serial_bytes(self.certificate)

    @property
    def signer_id(self) -> SignerId:
        """As the header of a file signed with this key names it (facts 3.1)."""
        return SignerId(self.subject, self.serial, self.issuer)

    @property
    def public_key_record(self) -> bytes:
        """The key as a CTL/ITL record's PUBLICKEY has it."""
        return public_key_record(self.certificate.public_key())

    @property
    def certificate_signature(self) -> bytes:
        """The signature on the certificate: SIGNATURE of a CTL/ITL record (facts 3.2)."""
        return self.certificate.signature

    @property
    def signature_length(self) -> int:
        """Bytes of an RSA signature made with this key."""
        return self.private_key.key_size // 8

    def sign(self, data: bytes, digest: DigestAlgorithm) -> bytes:
        """RSA PKCS#1 v1.5 as trust lists use it (facts 3.3). EC keys: ECDSA in DER, UNKNOWN on real CUCM."""
        return sign(self.private_key, data, digest)


def sign(key: PrivateKey, data: bytes, digest: DigestAlgorithm) -> bytes:
    """RSA PKCS#1 v1.5, or deterministic ECDSA; the same input gives the same signature."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), HASHES[digest])
    return key.sign(data, ec.ECDSA(HASHES[digest], deterministic_signing=True))


@dataclass(frozen=True, slots=True)
class CertificateSummary:
    """What the lab wants to know of a certificate. Names in Cisco's form, moments in Unix seconds."""

    der: bytes = field(repr=False)
    subject: str
    issuer: str
    serial: bytes
    not_before: int
    not_after: int
    common_name: str | None
    public_key_record: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def load_certificate(der: bytes) -> x509.Certificate:
    """DecodeError if the bytes are no X.509 certificate."""
    return _known_certificate(der) if len(der) <= MAX_REMEMBERED else _load_certificate(der)


def _load_certificate(der: bytes) -> x509.Certificate:
    with _decoding(der):
        certificate = x509.load_der_x509_certificate(der)
        # read once and kept by the certificate, so that nobody who asks for a name later is warned or surprised
        _ = certificate.subject, certificate.issuer
    return certificate


_known_certificate: Final = lru_cache(maxsize=256)(_load_certificate)


def describe(der: bytes) -> CertificateSummary:
    """The fields of a certificate. DecodeError if it is none, or has a key that is neither RSA nor EC."""
    return _known_summary(der) if len(der) <= MAX_REMEMBERED else _describe(der)


def _describe(der: bytes) -> CertificateSummary:
    certificate = load_certificate(der)
    with _decoding(der):
        return CertificateSummary(
            der=der,
            subject=cisco_name(certificate.subject),
            issuer=cisco_name(certificate.issuer),
            serial=serial_bytes(certificate),
            not_before=int(certificate.not_valid_before_utc.timestamp()),
            not_after=int(certificate.not_valid_after_utc.timestamp()),
            common_name=common_name(certificate.subject),
            public_key_record=public_key_record(certificate.public_key()),
            signature=certificate.signature,
        )


_known_summary: Final = lru_cache(maxsize=512)(_describe)
"""Some 2.3 KiB each: those of clusters, and of phones as long as they are busy."""


@contextmanager
def _decoding(der: bytes) -> Iterator[None]:
    """DecodeError for what the library refuses, and silence where it only warns.

    Foreign certificates bend the rules (names too long, a serial of 0); that is no news for stderr.
    """
    if len(der) > MAX_CERTIFICATE:
        raise DecodeError(f"a certificate of {len(der)} bytes is too long", offset=MAX_CERTIFICATE, path="certificate")
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, TypeError, OverflowError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise DecodeError(f"not a usable certificate: {error}", offset=0, path="certificate") from error


def public_key_record(key: object) -> bytes:
    """PKCS#1 RSAPublicKey DER, or the uncompressed point of an EC key (facts 3.2). ValueError for other keys."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    raise ValueError("the public key is neither RSA nor EC")
