"""Certificates from requests: the X.509 side of the lab's PKI.

Everything in a certificate comes from the request, so the same request and keys give the same bytes. Each carries a
comment that says it is a toy, and can be padded to an exact size with it.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from cucm.errors import UsageError
from cucm.identity import MAX_CERTIFICATE, Identity
from cucm.key_store import PrivateKey, PublicKey
from cucm.names import parse_name
from cucm.records import dataclass

WATERMARK: Final = "Lab toy by cucm-migration-lab. Trust it nowhere."
WATERMARK_OID: Final = ObjectIdentifier("2.16.840.1.113730.1.13")
"""Netscape comment: OpenSSL prints it, nothing decides on it."""
NODE_LIFETIME_DAYS: Final = 5 * 365
"""CUCM's self-signed certificates run five years [recall]; an LSC up to five (facts 7.7)."""
_DAY_S: Final = 86_400
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PADDING_ATTEMPTS: Final = 6


class Purpose(Enum):
    """What a certificate's extensions allow it to do."""

    SERVICE = "service"
    CA = "ca"
    PHONE = "phone"
    SIGNER = "signer"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """What to certify.

    `subject` in Cisco's form, in the order wanted; `serial` big-endian; `not_before` in Unix seconds; `der_length` pads
    the watermark until the DER has exactly that many bytes (a few sizes cannot be had: DER's length fields grow too).
    """

    subject: str
    serial: bytes
    not_before: float
    lifetime_days: float = NODE_LIFETIME_DAYS
    purpose: Purpose = Purpose.SERVICE
    host_name: str | None = None
    der_length: int | None = None


def serial_from_seed(seed: int | str, label: str) -> bytes:
    """16 bytes, as CUCM's own certificates have (facts 3.1); the same seed and label give the same serial."""
    digest = hashlib.sha256(f"serial\0{seed}\0{label}".encode()).digest()[:16]
    return bytes([0x40 | digest[0] & 0x3F]) + digest[1:]


def self_signed(request: CertificateRequest, key: PrivateKey) -> Identity:
    """A certificate signed with its own key. UsageError for a request X.509 cannot express."""
    return Identity(_certify(request, key, None), key)


def issue(request: CertificateRequest, key: PrivateKey, issuer: Identity) -> Identity:
    """A certificate signed by `issuer`. UsageError for a request X.509 cannot express."""
    return Identity(_certify(request, key.public_key(), issuer), key, (issuer.certificate, *issuer.issuers))


def issue_for_key(request: CertificateRequest, public_key: PublicKey, issuer: Identity) -> x509.Certificate:
    """As `issue`, for somebody else's key, as a CA does with a signing request. UsageError."""
    return _certify(request, public_key, issuer)


def _certify(request: CertificateRequest, key: PrivateKey | PublicKey, issuer: Identity | None) -> x509.Certificate:
    """`key` is the certificate's; the private one where it signs itself."""
    try:
        signing_key = issuer.private_key if issuer else _private(key)
        builder = _builder(request, _public(key), issuer)
        if request.der_length is None:
            return _seal(builder, signing_key, 0)
        return _seal_to_length(builder, signing_key, request.der_length)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"no certificate can be made so: {error}", where=request.subject) from error


def _private(key: PrivateKey | PublicKey) -> PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    raise ValueError("a certificate that signs itself needs its private key")


def _public(key: PrivateKey | PublicKey) -> PublicKey:
    return key.public_key() if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else key


def _builder(request: CertificateRequest, key: PublicKey, issuer: Identity | None) -> x509.CertificateBuilder:
    subject = parse_name(request.subject)
    start = datetime.datetime.fromtimestamp(int(request.not_before), datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key)
        .serial_number(int.from_bytes(request.serial, "big"))
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(seconds=int(request.lifetime_days * _DAY_S)))
    )
    for extension, critical in _extensions(request, is_self_signed=issuer is None):
        builder = builder.add_extension(extension, critical)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(_issuer_key_identifier(issuer), critical=False) if issuer else builder


def _issuer_key_identifier(issuer: Identity) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.private_key.public_key())


def _extensions(request: CertificateRequest, *, is_self_signed: bool) -> list[tuple[x509.ExtensionType, bool]]:
    """Key usages as on CUCM's certificates [recall]."""
    is_ca = request.purpose is Purpose.CA
    found: list[tuple[x509.ExtensionType, bool]] = [(_key_usage(request.purpose, is_self_signed=is_self_signed), True)]
    if is_ca:
        found.append((x509.BasicConstraints(ca=True, path_length=None), True))
    if request.purpose is Purpose.SERVICE:
        found.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False))
    if request.purpose is Purpose.PHONE:
        found.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False))
    if request.host_name and _HOST_NAME.fullmatch(request.host_name):
        found.append((x509.SubjectAlternativeName([x509.DNSName(request.host_name)]), False))
    return found


def _key_usage(purpose: Purpose, *, is_self_signed: bool) -> x509.KeyUsage:
    encipherment = purpose in (Purpose.SERVICE, Purpose.PHONE)
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=encipherment,
        key_agreement=False,
        key_cert_sign=purpose is Purpose.CA or (is_self_signed and purpose is Purpose.SERVICE),
        crl_sign=purpose is Purpose.CA,
        encipher_only=False,
        decipher_only=False,
    )


def _seal(builder: x509.CertificateBuilder, key: PrivateKey, padding_bytes: int) -> x509.Certificate:
    comment = x509.UnrecognizedExtension(WATERMARK_OID, _ia5_string(WATERMARK + " " * padding_bytes))
    deterministic = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.add_extension(comment, critical=False).sign(key, hashes.SHA256(), ecdsa_deterministic=deterministic)


def _seal_to_length(builder: x509.CertificateBuilder, key: PrivateKey, wanted: int) -> x509.Certificate:
    """Longer comments make longer DER, but length fields grow too and skip a size now and then: approach it."""
    padding_bytes = 0
    for _ in range(_PADDING_ATTEMPTS):
        certificate = _seal(builder, key, padding_bytes)
        missing = wanted - len(certificate.public_bytes(Encoding.DER))
        if missing == 0:
            return certificate
        padding_bytes += missing
        if not 0 <= padding_bytes <= MAX_CERTIFICATE:
            raise ValueError(f"it needs {-padding_bytes} bytes more than the {wanted} allowed")
    raise ValueError(f"a DER length of {wanted} bytes cannot be reached, try one more or less")


def _ia5_string(text: str) -> bytes:
    """DER of an IA5String up to 65535 characters."""
    value = text.encode("ascii")
    if len(value) < 0x80:
        head = bytes([len(value)])
    elif len(value) < 0x100:
        head = bytes([0x81, len(value)])
    else:
        head = b"\x82" + len(value).to_bytes(2, "big")
    return b"\x16" + head + value
