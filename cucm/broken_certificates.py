"""Certificates broken on purpose, one fault each, from an identity that is whole.

What comes back is an `Identity` again, so it can stand wherever the whole one stood: in a record, a store or a
TLS handshake.
"""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.errors import UsageError
from cucm.identity import Identity, load_certificate, sign
from cucm.key_store import PrivateKey
from cucm.wire.signature_header import DigestAlgorithm

_MARGIN: Final = datetime.timedelta(days=1)
_LIFETIME: Final = datetime.timedelta(days=365)


def expired(identity: Identity, moment: float, *, issuer: Identity | None = None) -> Identity:
    """The same names, serial and key, valid for a year that ended a day before `moment` (Unix seconds).

    `issuer` as when the certificate was issued: UsageError if it is not the one it names.
    """
    end = _date(moment) - _MARGIN
    return _reissued(identity, issuer, start=end - _LIFETIME, end=end)


def not_yet_valid(identity: Identity, moment: float, *, issuer: Identity | None = None) -> Identity:
    """The same names, serial and key, valid for a year from a day after `moment` (Unix seconds)."""
    start = _date(moment) + _MARGIN
    return _reissued(identity, issuer, start=start, end=start + _LIFETIME)


def wrong_key(identity: Identity, key: PrivateKey) -> Identity:
    """An impostor: the same names, serial and dates, but with the key `key`, which also signed the certificate."""
    certificate = identity.certificate
    builder = _copy(certificate, key).not_valid_before(certificate.not_valid_before_utc)
    return Identity(_sealed(builder.not_valid_after(certificate.not_valid_after_utc), key), key, identity.issuers)


def wrong_hash(identity: Identity, *, issuer: Identity | None = None) -> Identity:
    """The certificate says SHA-256, its signature was made over a SHA-1 hash: it does not verify.

    UsageError for other than the RSA and SHA-256 signatures the lab issues.
    """
    certificate = identity.certificate
    signer = _signer(identity, issuer)
    is_sha256 = isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    if not is_sha256 or not isinstance(signer, rsa.RSAPrivateKey):
        raise UsageError("only an RSA signature over SHA-256 can be given a wrong hash", where=identity.subject)
    signature = sign(signer, certificate.tbs_certificate_bytes, DigestAlgorithm.SHA1)
    return _with_der(identity, identity.certificate_der.removesuffix(certificate.signature) + signature)


def tampered(identity: Identity) -> Identity:
    """One signed byte was changed afterwards, the last digit of the end of its validity: the signature fits no more."""
    certificate, der = identity.certificate, identity.certificate_der
    end = certificate.not_valid_after_utc
    text = end.strftime("%y%m%d%H%M%SZ").encode()
    position = der.index(text) + len(text) - 2
    digit = ord("0") + (der[position] - ord("0") + 1) % 10
    return _with_der(identity, der[:position] + bytes([digit]) + der[position + 1 :])


def _date(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(moment), datetime.UTC)


def _reissued(
    identity: Identity, issuer: Identity | None, *, start: datetime.datetime, end: datetime.datetime
) -> Identity:
    signer = _signer(identity, issuer)
    builder = _copy(identity.certificate, identity.private_key).not_valid_before(start).not_valid_after(end)
    return Identity(_sealed(builder, signer), identity.private_key, identity.issuers)


def _signer(identity: Identity, issuer: Identity | None) -> PrivateKey:
    signer = issuer or identity
    if signer.certificate.subject != identity.certificate.issuer:
        raise UsageError(
            f"the certificate was issued by {identity.issuer}, not by {signer.subject}", mend="pass its issuer"
        )
    return signer.private_key


def _copy(certificate: x509.Certificate, key: PrivateKey) -> x509.CertificateBuilder:
    """All but the validity; extensions come along as they are."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .serial_number(certificate.serial_number)
        .public_key(key.public_key())
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder


def _sealed(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    deterministic = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=deterministic)


def _with_der(identity: Identity, der: bytes) -> Identity:
    certificate = load_certificate(der)
    if certificate.public_bytes(Encoding.DER) != der:
        raise UsageError("the certificate cannot be broken in this way", where=identity.subject)
    return Identity(certificate, identity.private_key, identity.issuers)
