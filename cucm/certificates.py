"""The lab's PKI: node, phone and CA certificates, issued the same way every time.

Everything about a certificate comes from the caller's arguments (names, moments, seed), so a lab that starts again
issues byte-identical ones from its cached keys. Each carries a comment that says it is a toy; the names keep
Cisco's forms (facts 3.4, 7.7). Certificates broken on purpose: `cucm.broken_certificates`.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from cucm.errors import DecodeError, UsageError
from cucm.key_store import KeyKind, KeyStore, PrivateKey, load_private_key, private_key_der
from cucm.names import cisco_name, common_name, parse_name, serial_bytes
from cucm.roles import CertificateUnit

if TYPE_CHECKING:
    from cucm.wire.trust_list import DigestAlgorithm

WATERMARK: Final = "Lab toy by cucm-migration-lab. Trust it nowhere."
WATERMARK_OID: Final = ObjectIdentifier("2.16.840.1.113730.1.13")
"""Netscape comment: OpenSSL prints it, nothing decides on it."""
NODE_LIFETIME_DAYS: Final = 5 * 365
"""CUCM's self-signed certificates run five years [recall]; an LSC up to five (facts 7.7)."""
ITLRECOVERY_LIFETIME_DAYS: Final = 20 * 365
CA_LIFETIME_DAYS: Final = 30 * 365
MAX_CERTIFICATE: Final = 0xFFFF
"""What a two-byte length on the wire can hold."""
_DAY_S: Final = 86_400
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PADDING_ATTEMPTS: Final = 6


class Purpose(Enum):
    """What a certificate's extensions allow it to do."""

    SERVICE = "service"
    CA = "ca"
    PHONE = "phone"
    SIGNER = "signer"


@dataclass(frozen=True, slots=True)
class Organisation:
    """The organisation fields of a node, as its installer asked for them. Defaults: the seed's destination."""

    unit: str = "IST"
    company: str = "Stormin"
    locality: str = "Brisbane"
    state: str = "QLD"
    country: str = "AU"

    def node_subject(self, host_name: str) -> str:
        """`CN=..;OU=..;O=..;L=..;ST=..;C=..`: facts 3.4."""
        return f"CN={host_name};OU={self.unit};O={self.company};L={self.locality};ST={self.state};C={self.country}"

    def capf_subject(self, name: str) -> str:
        """`C=..;O=..;OU=..;CN=CAPF-xxxxxxxx;ST=..;L=..`: the order of the seed's LSC issuer (facts 7.7)."""
        return f"C={self.country};O={self.company};OU={self.unit};CN={name};ST={self.state};L={self.locality}"


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
    def chain_der(self) -> tuple[bytes, ...]:
        """Own certificate first, then the issuers'."""
        return tuple(item.public_bytes(Encoding.DER) for item in (self.certificate, *self.issuers))

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
        return sign(self.private_key, data, digest.hashlib_name)


HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha512": hashes.SHA512(),
}
"""By hashlib's name."""


def sign(key: PrivateKey, data: bytes, hash_name: str) -> bytes:
    """RSA PKCS#1 v1.5, or deterministic ECDSA; the same input gives the same signature."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), HASHES[hash_name])
    return key.sign(data, ec.ECDSA(HASHES[hash_name], deterministic_signing=True))


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
    if len(der) > MAX_CERTIFICATE:
        raise DecodeError(f"a certificate of {len(der)} bytes is too long", offset=MAX_CERTIFICATE, path="certificate")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise DecodeError(f"not an X.509 certificate: {error}", offset=0, path="certificate") from error


def describe(der: bytes) -> CertificateSummary:
    """The fields of a certificate. DecodeError if it is none, or has a key that is neither RSA nor EC."""
    certificate = load_certificate(der)
    try:
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
    except (ValueError, OverflowError, UnsupportedAlgorithm) as error:
        raise DecodeError(f"not a usable certificate: {error}", offset=0, path="certificate") from error


def public_key_record(key: object) -> bytes:
    """PKCS#1 RSAPublicKey DER, or the uncompressed point of an EC key (facts 3.2). ValueError for other keys."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    raise ValueError("the public key is neither RSA nor EC")


def serial_from_seed(seed: int | str, label: str) -> bytes:
    """16 bytes, as CUCM's own certificates have (facts 3.1); the same seed and label give the same serial."""
    digest = hashlib.sha256(f"serial\0{seed}\0{label}".encode()).digest()[:16]
    return bytes([0x40 | digest[0] & 0x3F]) + digest[1:]


def self_signed(request: CertificateRequest, key: PrivateKey) -> Identity:
    """A certificate signed with its own key. UsageError for a request X.509 cannot express."""
    return Identity(_certify(request, key, None), key)


def issue(request: CertificateRequest, key: PrivateKey, issuer: Identity) -> Identity:
    """A certificate signed by `issuer`. UsageError for a request X.509 cannot express."""
    return Identity(_certify(request, key, issuer), key, (issuer.certificate, *issuer.issuers))


def _certify(request: CertificateRequest, key: PrivateKey, issuer: Identity | None) -> x509.Certificate:
    signing_key = issuer.private_key if issuer else key
    try:
        builder = _builder(request, key, issuer)
        if request.der_length is None:
            return _seal(builder, signing_key, 0)
        return _seal_to_length(builder, signing_key, request.der_length)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"no certificate can be made so: {error}", where=request.subject) from error


def _builder(request: CertificateRequest, key: PrivateKey, issuer: Identity | None) -> x509.CertificateBuilder:
    subject = parse_name(request.subject)
    start = datetime.datetime.fromtimestamp(int(request.not_before), datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(request.serial, "big"))
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(seconds=int(request.lifetime_days * _DAY_S)))
    )
    for extension, critical in _extensions(request, is_self_signed=issuer is None):
        builder = builder.add_extension(extension, critical)
    return builder


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


class CertificateAuthority:
    """A CA in two verbs: `self_signed` makes it, `issue` certifies with it."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    @classmethod
    def self_signed(
        cls,
        keys: KeyStore,
        subject: str,
        *,
        seed: int | str,
        not_before: float,
        lifetime_days: float = CA_LIFETIME_DAYS,
        kind: KeyKind = 2048,
    ) -> CertificateAuthority:
        """For instance `CN=stormin-WIN2012-CA`, the issuer of the seed's destination certificate."""
        request = CertificateRequest(
            subject=subject,
            serial=serial_from_seed(seed, f"CA {subject} {int(not_before)}"),
            not_before=not_before,
            lifetime_days=lifetime_days,
            purpose=Purpose.CA,
        )
        return cls(self_signed(request, keys.key(f"CA {subject}", kind)))

    def issue(self, request: CertificateRequest, key: PrivateKey) -> Identity:
        return issue(request, key, self.identity)


def node_certificate(
    keys: KeyStore,
    unit: CertificateUnit,
    host_name: str,
    *,
    seed: int | str,
    not_before: float,
    subject: str | None = None,
    serial: bytes | None = None,
    lifetime_days: float | None = None,
    issuer: Identity | None = None,
    kind: KeyKind = 2048,
    key_label: str | None = None,
    der_length: int | None = None,
) -> Identity:
    """A node's own CallManager, TVS, tomcat, ipsec or ITLRecovery certificate, self-signed unless `issuer` is given.

    `subject` defaults to Organisation().node_subject(host_name). The key belongs to unit and host name; pass another
    `key_label` to regenerate a certificate with a fresh key.
    """
    label = key_label or f"{unit} {host_name}"
    is_recovery = unit is CertificateUnit.ITLRECOVERY
    default_days = ITLRECOVERY_LIFETIME_DAYS if is_recovery else NODE_LIFETIME_DAYS
    request = CertificateRequest(
        subject=subject or Organisation().node_subject(host_name),
        serial=serial if serial is not None else serial_from_seed(seed, f"{label} {int(not_before)}"),
        not_before=not_before,
        lifetime_days=default_days if lifetime_days is None else lifetime_days,
        purpose=Purpose.SIGNER if is_recovery else Purpose.SERVICE,
        host_name=None if is_recovery else host_name,
        der_length=der_length,
    )
    key = keys.key(label, kind)
    return issue(request, key, issuer) if issuer else self_signed(request, key)


def capf_name(seed: int | str, host_name: str) -> str:
    """`CAPF-` and 8 hex digits (facts 7.7)."""
    return "CAPF-" + hashlib.sha256(f"capf\0{seed}\0{host_name}".encode()).hexdigest()[:8]


def capf_certificate(
    keys: KeyStore,
    host_name: str,
    *,
    seed: int | str,
    not_before: float,
    organisation: Organisation | None = None,
    name: str | None = None,
    lifetime_days: float = NODE_LIFETIME_DAYS,
    key_label: str | None = None,
) -> Identity:
    """The CAPF of a publisher, a small CA that signs LSCs. `name` defaults to `capf_name(seed, host_name)`."""
    label = key_label or f"CAPF {host_name}"
    request = CertificateRequest(
        subject=(organisation or Organisation()).capf_subject(name or capf_name(seed, host_name)),
        serial=serial_from_seed(seed, f"{label} {int(not_before)}"),
        not_before=not_before,
        lifetime_days=lifetime_days,
        purpose=Purpose.CA,
    )
    return self_signed(request, keys.key(label))


def manufacturing_ca(keys: KeyStore, *, seed: int | str, not_before: float) -> Identity:
    """Stands for `CN=Cisco Manufacturing CA;O=Cisco Systems`, and is named so that nobody takes it for that."""
    subject = "CN=Emulated Manufacturing CA (lab toy);O=cucm-migration-lab"
    return CertificateAuthority.self_signed(keys, subject, seed=seed, not_before=not_before).identity


def lsc(
    capf: Identity,
    keys: KeyStore,
    *,
    model: str,
    mac: str,
    serial_number: str,
    seed: int | str,
    not_before: float,
    lifetime_days: float = NODE_LIFETIME_DAYS,
    key_label: str | None = None,
) -> Identity:
    """A phone's locally significant certificate. `model` as `CP-8861`, `mac` as `B000B4BA0AEE`.

    Organisation fields come from the CAPF, as facts 7.7 has it. Fleets share keys by passing one `key_label` to many.
    """
    fields = {attribute.oid: str(attribute.value) for attribute in capf.certificate.subject}
    subject = _phone_subject(
        model,
        mac,
        serial_number,
        C=fields.get(NameOID.COUNTRY_NAME),
        O=fields.get(NameOID.ORGANIZATION_NAME),
        OU=fields.get(NameOID.ORGANIZATIONAL_UNIT_NAME),
    )
    key = keys.key(key_label or f"LSC {model}-SEP{mac}")
    serial = serial_from_seed(seed, f"LSC {model} {mac} {capf.subject} {int(not_before)}")
    return issue(_phone_request(subject, serial, not_before, lifetime_days), key, capf)


def mic(
    ca: Identity,
    keys: KeyStore,
    *,
    model: str,
    mac: str,
    serial_number: str,
    seed: int | str,
    not_before: float,
    lifetime_days: float = CA_LIFETIME_DAYS,
    key_label: str | None = None,
) -> Identity:
    """A phone's manufacturing-installed certificate by an emulated manufacturing CA; field order [recall]."""
    subject = _phone_subject(model, mac, serial_number, O="cucm-migration-lab", OU="emulated phone")
    key = keys.key(key_label or f"MIC {model}-SEP{mac}")
    serial = serial_from_seed(seed, f"MIC {model} {mac} {int(not_before)}")
    return issue(_phone_request(subject, serial, not_before, lifetime_days), key, ca)


def _phone_subject(model: str, mac: str, serial_number: str, **fields: str | None) -> str:
    middle = "".join(f"{kind}={value};" for kind, value in fields.items() if value)
    return f"serialNumber=PID:{model} SN:{serial_number};{middle}CN={model}-SEP{mac}"


def _phone_request(subject: str, serial: bytes, not_before: float, lifetime_days: float) -> CertificateRequest:
    return CertificateRequest(
        subject=subject, serial=serial, not_before=not_before, lifetime_days=lifetime_days, purpose=Purpose.PHONE
    )
