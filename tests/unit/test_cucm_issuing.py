"""`issue_for_key`: what a CA makes for a key it has not. The rest of the module: test_cucm_certificates."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import AuthorityKeyIdentifier, DNSName, SubjectAlternativeName, SubjectKeyIdentifier

from cucm.certificates import CertificateAuthority
from cucm.errors import UsageError
from cucm.identity import describe
from cucm.issuing import CertificateRequest, Purpose, issue, issue_for_key
from cucm.key_store import KeyStore

NOW = 1_800_000_000.0
KEYS = KeyStore()
CA = CertificateAuthority.self_signed(KEYS, "CN=a CA", seed=0, not_before=NOW - 86_400).identity
KEY = KEYS.key("issued for", 2048)


def asked(**changes: object) -> CertificateRequest:
    fields = {"subject": "CN=n1;O=C", "serial": b"\x41\x02", "not_before": NOW, "host_name": "n1"} | changes
    return CertificateRequest(**fields)  # type: ignore[arg-type]


def test_a_certificate_for_somebody_elses_key_is_that_for_the_own_one():
    assert issue_for_key(asked(), KEY.public_key(), CA) == issue(asked(), KEY, CA).certificate


@pytest.mark.parametrize("purpose", Purpose)
def test_it_verifies_and_names_both_keys(purpose):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    made = issue_for_key(asked(purpose=purpose), key, CA)
    made.verify_directly_issued_by(CA.certificate)
    assert made.public_key() == key
    subject, issuer = (
        made.extensions.get_extension_for_class(kind).value for kind in (SubjectKeyIdentifier, AuthorityKeyIdentifier)
    )
    assert subject == SubjectKeyIdentifier.from_public_key(key)
    assert issuer == AuthorityKeyIdentifier.from_issuer_public_key(CA.private_key.public_key())
    names = made.extensions.get_extension_for_class(SubjectAlternativeName).value
    assert names.get_values_for_type(DNSName) == ["n1"]
    known = describe(made.public_bytes(Encoding.DER))
    assert (known.serial, known.issuer, known.not_before) == (b"\x41\x02", "CN=a CA", NOW)


@pytest.mark.parametrize("length", [1200, 1451])
def test_it_is_padded_to_the_length_that_was_asked_for(length):
    made = issue_for_key(asked(der_length=length), KEY.public_key(), CA)
    assert len(made.public_bytes(Encoding.DER)) == length


@pytest.mark.parametrize(
    "changes", [{"subject": "no name"}, {"serial": b"\0"}, {"serial": b"\1" * 21}, {"der_length": 600}]
)
def test_what_x509_cannot_express_is_told(changes):
    with pytest.raises(UsageError):
        issue_for_key(asked(**changes), KEY.public_key(), CA)
