"""The lab's PKI in a few verbs: node, CAPF, phone and CA certificates, issued the same way every time.

Everything about a certificate comes from the caller's arguments (names, moments, seed), so a lab that starts again
issues byte-identical ones from its cached keys. The names keep Cisco's forms (facts 3.4, 7.7). How they are made:
`cucm.issuing`; broken ones: `cucm.broken_certificates`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.x509.oid import NameOID

from cucm.errors import UsageError
from cucm.identity import (
    CertificateSummary,
    Identity,
    describe,
    load_certificate,
    public_key_record,
    sign,
)
from cucm.issuing import (
    NODE_LIFETIME_DAYS,
    WATERMARK,
    CertificateRequest,
    Purpose,
    issue,
    self_signed,
    serial_from_seed,
)
from cucm.key_store import KeyKind, KeySource, PrivateKey
from cucm.records import dataclass
from cucm.roles import CertificateUnit

__all__ = [
    "CA_LIFETIME_DAYS",
    "EMULATED_MANUFACTURER",
    "ITLRECOVERY_LIFETIME_DAYS",
    "NODE_LIFETIME_DAYS",
    "WATERMARK",
    "CertificateAuthority",
    "CertificateRequest",
    "CertificateSummary",
    "Identity",
    "Organisation",
    "Purpose",
    "ca_key_label",
    "capf_certificate",
    "capf_name",
    "describe",
    "issue",
    "load_certificate",
    "lsc",
    "manufacturing_ca",
    "mic",
    "node_certificate",
    "phone_key_label",
    "public_key_record",
    "security_token",
    "security_token_keys",
    "security_token_serial",
    "self_signed",
    "serial_from_seed",
    "sign",
]

ITLRECOVERY_LIFETIME_DAYS: Final = 20 * 365
CA_LIFETIME_DAYS: Final = 30 * 365
_MANUFACTURING_CA: Final = "CN=Emulated Manufacturing CA (lab toy);O=cucm-migration-lab"
EMULATED_MANUFACTURER: Final = "cn=Emulated Manufacturing CA (lab toy);o=cucm-migration-lab"
"""How lists made with tokens write the issuer of a token: types in small letters (facts 2.7, 3.4)."""
TOKEN_RSA_BITS: Final = 1024
"""As the tokens of the published lists: keys of 140 and signatures of 128 bytes (facts 3.2 [calc])."""
TOKEN_SERIAL_BYTES: Final = 10
"""As in the one published serial number of that issuer (facts 2.7)."""
MAX_TOKEN_NUMBER: Final = 9999


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


class CertificateAuthority:
    """A CA in two verbs: `self_signed` makes it, `issue` certifies with it."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    @classmethod
    def self_signed(
        cls,
        keys: KeySource,
        subject: str,
        *,
        seed: int | str,
        not_before: float,
        lifetime_days: float = CA_LIFETIME_DAYS,
        kind: KeyKind = 2048,
        key_label: str | None = None,
    ) -> CertificateAuthority:
        """For instance `CN=stormin-WIN2012-CA`, the issuer of the seed's destination certificate.

        Its key is its own, unless `key_label` names another.
        """
        request = CertificateRequest(
            subject=subject,
            serial=serial_from_seed(seed, f"CA {subject} {int(not_before)}"),
            not_before=not_before,
            lifetime_days=lifetime_days,
            purpose=Purpose.CA,
        )
        return cls(self_signed(request, keys.key(key_label or ca_key_label(subject), kind)))

    def issue(self, request: CertificateRequest, key: PrivateKey) -> Identity:
        return issue(request, key, self.identity)


def ca_key_label(subject: str = _MANUFACTURING_CA) -> str:
    """The label of a CA's key; by default the emulated manufacturer's."""
    return f"CA {subject}"


def node_certificate(
    keys: KeySource,
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
    keys: KeySource,
    host_name: str,
    *,
    seed: int | str,
    not_before: float,
    organisation: Organisation | None = None,
    name: str | None = None,
    lifetime_days: float = NODE_LIFETIME_DAYS,
    kind: KeyKind = 2048,
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
    return self_signed(request, keys.key(label, kind))


def manufacturing_ca(keys: KeySource, *, seed: int | str, not_before: float) -> Identity:
    """Stands for `CN=Cisco Manufacturing CA;O=Cisco Systems`, and is named so that nobody takes it for that."""
    return CertificateAuthority.self_signed(keys, _MANUFACTURING_CA, seed=seed, not_before=not_before).identity


def security_token(keys: KeySource, number: int, *, seed: int | str, not_before: float) -> Identity:
    """The certificate on USB token `number` (1 to MAX_TOKEN_NUMBER), which signs CTLs; a lab toy like all others.

    The name has the form of the published tokens' (facts 3.4): a CN padded to 24 characters, an organisation with a
    comma in it. Key size and length of the serial are theirs too. UsageError for another number.
    """
    common_name = f"SAST-LAB{number:08d}"
    request = CertificateRequest(
        subject=f'CN="{common_name:24}";OU=IPCBU;O="cucm-migration-lab, a toy"',
        serial=security_token_serial(number, seed=seed, not_before=not_before),
        not_before=not_before,
        lifetime_days=CA_LIFETIME_DAYS,
        purpose=Purpose.SIGNER,
    )
    issuer = manufacturing_ca(keys, seed=seed, not_before=not_before)
    return issue(request, keys.key(_token_label(number), TOKEN_RSA_BITS), issuer)


def security_token_serial(number: int, *, seed: int | str, not_before: float) -> bytes:
    """That of `security_token`'s certificate, for which no key need be made. UsageError for another number."""
    return serial_from_seed(seed, f"{_token_label(number)} {int(not_before)}")[:TOKEN_SERIAL_BYTES]


def security_token_keys(number: int) -> tuple[tuple[str, KeyKind], ...]:
    """Labels and kinds of the keys that `security_token` takes. UsageError for another number."""
    return (ca_key_label(), 2048), (_token_label(number), TOKEN_RSA_BITS)


def _token_label(number: int) -> str:
    if not 1 <= number <= MAX_TOKEN_NUMBER:
        raise UsageError(f"no security token {number}", mend=f"number them from 1 to {MAX_TOKEN_NUMBER}")
    return f"security token {number}"


def lsc(
    capf: Identity,
    keys: KeySource,
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
    key = keys.key(key_label or phone_key_label("lsc", model, mac))
    serial = serial_from_seed(seed, f"LSC {model} {mac} {capf.subject} {int(not_before)}")
    return issue(_phone_request(subject, serial, not_before, lifetime_days), key, capf)


def mic(
    ca: Identity,
    keys: KeySource,
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
    key = keys.key(key_label or phone_key_label("mic", model, mac))
    serial = serial_from_seed(seed, f"MIC {model} {mac} {int(not_before)}")
    return issue(_phone_request(subject, serial, not_before, lifetime_days), key, ca)


def phone_key_label(kind: str, model: str, mac: str) -> str:
    """The label of the key that a phone's `lsc` or `mic` has unless it shares one."""
    return f"{kind.upper()} {model}-SEP{mac}"


def _phone_subject(model: str, mac: str, serial_number: str, **fields: str | None) -> str:
    middle = "".join(f"{kind}={value};" for kind, value in fields.items() if value)
    return f"serialNumber=PID:{model} SN:{serial_number};{middle}CN={model}-SEP{mac}"


def _phone_request(subject: str, serial: bytes, not_before: float, lifetime_days: float) -> CertificateRequest:
    return CertificateRequest(
        subject=subject, serial=serial, not_before=not_before, lifetime_days=lifetime_days, purpose=Purpose.PHONE
    )
