"""A company's certification authorities, which sign what the nodes of any cluster of the lab request."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cucm.certificates import CertificateAuthority
from cucm.errors import UsageError
from cucm.identity import Identity
from cucm.issuing import CertificateRequest, Purpose, issue_for_key, serial_from_seed
from cucm.key_store import KeyKind, KeyStore
from cucm.names import cisco_name, parse_name

AUTHORITIES_BEGAN: Final = 1_262_304_000.0
"""2010-01-01: one CA of a name has one certificate, on whatever day it is asked; a clock may be moved by years."""
AUTHORITY_DAYS: Final = 200 * 365.0
AUTHORITY_KEYS: Final = 8
"""CAs share so many keys: their names come over the API, and a key is a file in the user's cache that stays there."""


def company_authority(keys: KeyStore, name: str, *, seed: int) -> Identity:
    """The CA of that name, for instance `CN=stormin-WIN2012-CA`: the same for the whole lab. Raises UsageError."""
    parse_name(name)
    label, kind = authority_key(name)
    return CertificateAuthority.self_signed(
        keys,
        name,
        seed=seed,
        not_before=AUTHORITIES_BEGAN,
        lifetime_days=AUTHORITY_DAYS,
        kind=kind,
        key_label=label,
    ).identity


def authority_key(name: str) -> tuple[str, KeyKind]:
    """Label and kind of the key of the CA of that name."""
    number = hashlib.sha256(name.encode()).digest()[0] % AUTHORITY_KEYS
    return f"company CA {number}", 2048


def sign_request(pem: bytes, authority: Identity, *, seed: int, moment: float) -> bytes:
    """What the CA makes of a CSR (PEM): a DER certificate that begins now. Raises UsageError for what is no CSR."""
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise UsageError("not a certificate signing request in PEM") from error
    if not request.is_signature_valid:
        raise UsageError("the request's own signature does not hold", mend="make the request again")
    key = request.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise UsageError("a key of this kind is of no use here", mend="use RSA or an elliptic curve")
    subject = cisco_name(request.subject)
    # units of one node have one subject, and are often signed at once: the key tells them apart
    print_of_key = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    asked = CertificateRequest(
        subject=subject,
        serial=serial_from_seed(seed, f"signed {subject} {int(moment)} {print_of_key}"),
        not_before=moment,
        purpose=Purpose.SERVICE,
    )
    return issue_for_key(asked, key, authority).public_bytes(Encoding.DER)
