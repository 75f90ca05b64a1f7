"""Whether a trust list or signed file is to be believed, given the records that are trusted. Pure: no I/O.

Verification never answers with a bool: it returns what it verified, or raises TrustError with a reason. The signer is
looked up by issuer and serial among records with the right role (facts 3.3); TVS and files of other software write
names with other separators and spaces, so names are compared without them (facts 3.4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cucm.errors import DecodeError, TrustError, TrustReason, WireError
from cucm.identity import HASHES, CertificateSummary, describe
from cucm.key_store import PublicKey
from cucm.names import same_name, same_serial, serial_hex
from cucm.records import dataclass
from cucm.roles import SIGNS_FILES, SIGNS_TRUST_LISTS, TrustRole
from cucm.wire.signature_header import (
    SIGNATURE_RSA,
    DigestAlgorithm,
    SignedDocument,
    SignerId,
)
from cucm.wire.signed_file import SignedFile, decode_signed_file, is_signed_file
from cucm.wire.trust_list import Record, TrustList, decode_trust_list

RSA_BITS: Final = range(1024, 4096 + 1)
_POINT_CURVES: Final[dict[int, ec.EllipticCurve]] = {65: ec.SECP256R1(), 97: ec.SECP384R1(), 133: ec.SECP521R1()}
"""Curve of an uncompressed point by its length: records name no curve [peer], NIST's are assumed [inferred]."""
_UNCOMPRESSED: Final = 4
MAX_KEPT_BYTES: Final = 64 * 1024
"""Ours: larger lists are taken apart each time."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A trusted record: names in any of the accepted forms, `role` a `TrustRole` number, `public_key` in record form
    (PKCS#1 DER or uncompressed point), `origin` for people, like `CTL record 1` or `TVS cache`.
    """

    subject: str
    issuer: str
    serial: bytes
    role: int
    public_key: bytes = field(repr=False)
    certificate: bytes | None = field(repr=False)
    origin: str


def anchors_of(trust_list: TrustList, origin: str) -> tuple[Anchor, ...]:
    """What the records of a list vouch for; `origin` names the list (`CTL`). Records that name nobody are left out."""
    numbered = ((f"{origin} record {number}", record) for number, record in enumerate(trust_list.records, start=1))
    return tuple(anchor for place, record in numbered if (anchor := _anchor(record, place)) is not None)


def anchors_of_certificate(der: bytes, roles: Iterable[int], origin: str) -> tuple[Anchor, ...]:
    """One anchor per role of a certificate, as a TVS answer grants them. DecodeError if it is no certificate."""
    known = describe(der)
    return tuple(
        Anchor(known.subject, known.issuer, known.serial, role, known.public_key_record, der, origin) for role in roles
    )


def find_signer(signer: SignerId, anchors: Sequence[Anchor], roles: Collection[TrustRole]) -> Anchor:
    """The first anchor that is the signer and has one of the roles. TrustError SIGNER_UNKNOWN, SIGNER_ROLE."""
    found = [anchor for anchor in anchors if is_signer(anchor, signer)]
    if not found:
        raise TrustError(
            TrustReason.SIGNER_UNKNOWN,
            f"no trusted record has the signer's issuer {signer.issuer!r} and serial {serial_hex(signer.serial)}",
            where=signer.subject,
        )
    for anchor in found:
        if anchor.role in roles:
            return anchor
    places = ", ".join(f"{anchor.origin} with role {int(anchor.role)}" for anchor in found)
    wanted = " or ".join(f"{role.name} ({int(role)})" for role in sorted(roles))
    raise TrustError(
        TrustReason.SIGNER_ROLE, f"the signer is known ({places}), but not as {wanted}", where=signer.subject
    )


def is_signer(anchor: Anchor, signer: SignerId) -> bool:
    """Whether issuer and serial are the same, however they are written; the subject does not count (facts 3.3)."""
    return same_serial(anchor.serial, signer.serial) and same_name(anchor.issuer, signer.issuer)


def verify_signature(data: bytes, signer_key: bytes, digest: DigestAlgorithm, signature: bytes) -> None:
    """RSA PKCS#1 v1.5 with SHA-1, SHA-256 or SHA-512 (facts 3.3); for an EC key ECDSA in DER: UNKNOWN on real phones.

    `signer_key` in record form. TrustError SIGNATURE_MISMATCH, ALGORITHM_UNSUPPORTED, or MALFORMED for a bad key.
    """
    key = _public_key(signer_key)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), HASHES[digest])
        else:
            key.verify(signature, data, ec.ECDSA(HASHES[digest]))
    except InvalidSignature:
        raise TrustError(
            TrustReason.SIGNATURE_MISMATCH, f"the signature does not fit the bytes it covers ({digest.name})"
        ) from None
    except (UnsupportedAlgorithm, ValueError, KeyError) as error:
        raise TrustError(TrustReason.ALGORITHM_UNSUPPORTED, f"the signature cannot be checked: {error}") from error


def verify_trust_list(
    data: bytes,
    anchors: Sequence[Anchor],
    *,
    roles: Collection[TrustRole] = SIGNS_TRUST_LISTS,
    moment: float | None = None,
) -> tuple[TrustList, Anchor]:
    """The list and the anchor that signed it, or TrustError.

    With `moment` (Unix seconds) the signer's certificate must be valid then; whether phones check that is UNKNOWN,
    so it is off by default.
    """
    trust_list = read_trust_list(data)
    return trust_list, verify_document(trust_list, data, anchors, roles, moment)


def read_trust_list(data: bytes) -> TrustList:
    """The list, not verified yet. TrustError MALFORMED for what is none.

    That includes a header without any record behind it: so looks a `.sgn` file, and its signature may well be good.
    Taken for a list it would be an empty one, and a phone with an empty ITL accepts unsigned configurations. What real
    phones do with a `.sgn` under a list's name is UNKNOWN.
    """
    try:
        trust_list = _decoded(data)
    except WireError as error:
        raise TrustError(TrustReason.MALFORMED, f"not a trust list: {error}") from error
    if not trust_list.records:
        raise TrustError(TrustReason.MALFORMED, "not a trust list: no record follows the header")
    return trust_list


def _decoded(data: bytes) -> TrustList:
    """The lists that phones are sent are few, and sent again and again. Raises WireError."""
    return _kept(data) if len(data) <= MAX_KEPT_BYTES else decode_trust_list(data)


_kept: Final = lru_cache(maxsize=16)(decode_trust_list)


def verify_signed_file(
    data: bytes,
    anchors: Sequence[Anchor],
    *,
    roles: Collection[TrustRole] = SIGNS_FILES,
    moment: float | None = None,
) -> tuple[SignedFile, Anchor]:
    """The file and the anchor that signed it, or TrustError; UNSIGNED if there is no envelope. `moment` as above.

    A trust list is no signed file, although its header only differs in the version: UNSIGNED.
    """
    if not is_signed_file(data):
        raise TrustError(TrustReason.UNSIGNED, "the file has no signature header of a .sgn file")
    try:
        signed_file = decode_signed_file(data)
    except WireError as error:
        raise TrustError(TrustReason.MALFORMED, f"not a signed file: {error}") from error
    return signed_file, verify_document(signed_file, data, anchors, roles, moment)


def verify_document(
    document: SignedDocument,
    data: bytes,
    anchors: Sequence[Anchor],
    roles: Collection[TrustRole],
    moment: float | None = None,
) -> Anchor:
    """The anchor that signed a document already decoded from `data`, or TrustError. `moment` as above."""
    anchor = find_signer(document.signer, anchors, roles)
    check_anchor(anchor, moment)
    if document.signature_algorithm != SIGNATURE_RSA:
        raise TrustError(
            TrustReason.ALGORITHM_UNSUPPORTED, f"signature algorithm {document.signature_algorithm} is UNKNOWN here"
        )
    verify_signature(document.signed_part(data), anchor.public_key, document.digest, document.signature)
    return anchor


def check_anchor(anchor: Anchor, moment: float | None = None) -> None:
    """The record's key must be that of its certificate, and the certificate valid at `moment`, if one is given.

    TrustError RECORD_KEY_MISMATCH, CERTIFICATE_NOT_YET_VALID, CERTIFICATE_EXPIRED. A record without certificate passes.
    """
    if anchor.certificate is None:
        return
    try:
        known = describe(anchor.certificate)
    except DecodeError as error:
        raise TrustError(TrustReason.RECORD_KEY_MISMATCH, str(error), where=anchor.origin) from error
    if known.public_key_record != anchor.public_key:
        raise TrustError(
            TrustReason.RECORD_KEY_MISMATCH,
            "the public key is not the one of the certificate beside it",
            where=anchor.origin,
        )
    if moment is not None:
        check_validity(known, moment, where=anchor.origin)


def check_validity(known: CertificateSummary, moment: float, *, where: str | None = None) -> None:
    """TrustError CERTIFICATE_NOT_YET_VALID or CERTIFICATE_EXPIRED; both ends of the validity belong to it."""
    if moment < known.not_before:
        raise TrustError(TrustReason.CERTIFICATE_NOT_YET_VALID, f"{known.subject} is not valid yet", where=where)
    if moment >= known.not_after + 1:
        raise TrustError(TrustReason.CERTIFICATE_EXPIRED, f"{known.subject} has expired", where=where)


def _anchor(record: Record, origin: str) -> Anchor | None:
    """The record as an anchor; what it does not say itself is read from its certificate."""
    subject, issuer, serial, key = record.subject, record.issuer, record.serial, record.public_key
    known = None
    if record.certificate is not None and None in (subject, issuer, serial, key):
        known = _describe_or_none(record.certificate)
    if known is not None:
        subject, issuer = subject or known.subject, issuer or known.issuer
        serial, key = serial or known.serial, key or known.public_key_record
    if issuer is None or serial is None or key is None:
        return None
    return Anchor(subject or "", issuer, serial, record.function, key, record.certificate, origin)


def _describe_or_none(der: bytes) -> CertificateSummary | None:
    try:
        return describe(der)
    except DecodeError:
        return None


@lru_cache(maxsize=256)
def _public_key(record_key: bytes) -> PublicKey:
    key = _load(record_key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key
    if not isinstance(key, rsa.RSAPublicKey):
        raise TrustError(TrustReason.ALGORITHM_UNSUPPORTED, "the signer's key is neither RSA nor EC")
    if key.key_size not in RSA_BITS:
        raise TrustError(TrustReason.ALGORITHM_UNSUPPORTED, f"an RSA key of {key.key_size} bits is not used here")
    return key


def _load(record_key: bytes) -> object:
    try:
        if len(record_key) in _POINT_CURVES and record_key[0] == _UNCOMPRESSED:
            return ec.EllipticCurvePublicKey.from_encoded_point(_POINT_CURVES[len(record_key)], record_key)
        return load_der_public_key(record_key)
    except UnsupportedAlgorithm as error:
        raise TrustError(TrustReason.ALGORITHM_UNSUPPORTED, f"the signer's key cannot be used: {error}") from error
    except ValueError as error:
        raise TrustError(TrustReason.MALFORMED, f"the signer's key cannot be read: {error}") from error
