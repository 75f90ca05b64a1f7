from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.errors import UsageError
from cucm.identity import describe, load_certificate
from cucm.key_store import KeyStore
from cucm.names import parse_name
from lab.company_authority import AUTHORITY_KEYS, company_authority, sign_request

KEYS = KeyStore()
NAME = "CN=stormin-WIN2012-CA"
SUBJECT = "CN=pub;OU=IST;O=Stormin;C=AU"
NOW = 1_800_000_000.0


def csr(key, algorithm=None) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(parse_name(SUBJECT))
    return request.sign(key, algorithm).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_it_certifies_the_key_and_name_of_the_request(kind):
    key = KEYS.key("csr of a test", 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    authority = company_authority(KEYS, NAME, seed=1)
    der = sign_request(csr(key, hashes.SHA256()), authority, seed=1, moment=NOW)
    known = describe(der)
    assert (known.subject, known.issuer, known.not_before) == (SUBJECT, NAME, NOW)
    made = load_certificate(der)
    assert made.public_key() == key.public_key()
    made.verify_directly_issued_by(authority.certificate)


def test_serials_follow_from_seed_name_moment_and_key():
    authority = company_authority(KEYS, NAME, seed=1)
    one, two = (csr(KEYS.key(f"csr of a test {number}", 2048), hashes.SHA256()) for number in (1, 2))
    given = [(one, 1, NOW), (one, 1, NOW), (two, 1, NOW), (one, 2, NOW), (one, 1, NOW + 1)]
    serials = [describe(sign_request(pem, authority, seed=seed, moment=at)).serial for pem, seed, at in given]
    assert serials[0] == serials[1]
    assert len(set(serials)) == 4


def test_a_ca_of_a_name_is_one_and_outlives_any_story():
    first, again = (company_authority(KEYS, NAME, seed=1).certificate_der for _ in range(2))
    assert first == again != company_authority(KEYS, NAME, seed=2).certificate_der
    assert describe(first).not_before < 1_418_538_512.0  # December 2014, the seed's own date
    assert describe(first).not_after > NOW + 36_500 * 86_400  # the furthest that a story may move its clock
    with pytest.raises(UsageError):
        company_authority(KEYS, "no name at all", seed=1)


def test_requests_that_are_none():
    authority = company_authority(KEYS, NAME, seed=1)
    good = csr(KEYS.key("csr of a test", 2048), hashes.SHA256())
    der = x509.load_pem_x509_csr(good).public_bytes(Encoding.DER)
    tampered = bytearray(der)
    tampered[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(tampered)).public_bytes(Encoding.PEM)
    for wrong, what in (
        (b"", "not a certificate signing request"),
        (der, "not a certificate signing request"),
        (pem, "own signature does not hold"),
        (csr(ed25519.Ed25519PrivateKey.generate()), "a key of this kind"),
    ):
        with pytest.raises(UsageError, match=what):
            sign_request(wrong, authority, seed=1, moment=NOW)


def test_names_leave_no_files_of_their_own(tmp_path):
    """They come over the API: neither how many there are nor what they say is to be seen in the user's cache."""
    keys = KeyStore(tmp_path)
    for number in range(3 * AUTHORITY_KEYS):
        assert describe(company_authority(keys, f"CN=evil {number}", seed=1).certificate_der).subject
    for wrong in ("evil", "CN=" + "evil" * 1000):
        with pytest.raises(UsageError):
            company_authority(keys, wrong, seed=1)
    assert keys.generated <= AUTHORITY_KEYS
    assert not [path for path in tmp_path.iterdir() if "evil" in path.name]
