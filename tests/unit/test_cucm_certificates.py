from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cucm.broken_certificates import expired, not_yet_valid, tampered, wrong_hash, wrong_key
from cucm.certificates import (
    EMULATED_MANUFACTURER,
    WATERMARK,
    CertificateAuthority,
    CertificateRequest,
    Identity,
    Organisation,
    Purpose,
    capf_certificate,
    capf_name,
    describe,
    issue,
    lsc,
    manufacturing_ca,
    mic,
    node_certificate,
    public_key_record,
    security_token,
    self_signed,
    serial_from_seed,
)
from cucm.errors import DecodeError, UsageError
from cucm.issuing import WATERMARK_OID
from cucm.key_store import KeyStore, private_key_der
from cucm.names import name_key, openssl_oneline
from cucm.roles import CertificateUnit
from cucm.wire.signature_header import DigestAlgorithm, SignerId

BEGIN = 1_480_000_000.9
DAY = 86_400
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())
RESPONSE = VECTORS["tvs_query_certificate_response_first_50_bytes"]
REQUEST = VECTORS["tvs_query_certificate_request_first_50_bytes"]
# the whole published head of the certificate, from the seed's second dump (HEX_DUMP: Len = 1451)
SEED_CERTIFICATE_HEAD = bytes.fromhex(
    "30 82 05 a7 30 82 04 8f a0 03 02 01 02 02 13 24 00 00 00 17 94 79 b8 f1"
    "24 ac 3f 3b 00 00 00 00 00 17 30 0d 06 09 2a 86 48 86 f7 0d 01 01 0b 05 00 30"
)


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture(scope="module")
def node(keys: KeyStore) -> Identity:
    return node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm105pub", seed=7, not_before=BEGIN)


@pytest.fixture(scope="module")
def capf(keys: KeyStore) -> Identity:
    place = Organisation(company="stormin", state="NSQ", locality="Sydney")
    return capf_certificate(keys, "ucm105pub", seed=7, not_before=BEGIN, organisation=place, name="CAPF-a7fb32bf")


@pytest.fixture(scope="module")
def phone(keys: KeyStore, capf: Identity) -> Identity:
    return lsc(capf, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="FCH18198CNQ", seed=7, not_before=BEGIN)


def seed_destination(keys: KeyStore) -> Identity:
    ca = CertificateAuthority.self_signed(keys, REQUEST["issuer"], seed=7, not_before=BEGIN)
    return node_certificate(
        keys,
        CertificateUnit.CALLMANAGER,
        "ucm11pub.stormin.local",
        seed=7,
        not_before=BEGIN,
        serial=bytes.fromhex(REQUEST["serial"]),
        issuer=ca.identity,
        der_length=RESPONSE["certificate_length"],
    )


def test_the_seeds_destination_certificate_byte_for_byte(keys: KeyStore) -> None:
    identity = seed_destination(keys)
    assert (identity.subject, identity.issuer) == (REQUEST["subject"], REQUEST["issuer"])
    assert len(identity.certificate_der) == 1451
    published = bytes.fromhex(RESPONSE["hex"])[17:]
    assert identity.certificate_der.startswith(published)
    assert identity.certificate_der.startswith(SEED_CERTIFICATE_HEAD)
    assert identity.serial == bytes.fromhex("24000000179479b8f124ac3f3b000000000017")


def test_a_second_start_issues_the_same_bytes(keys: KeyStore) -> None:
    assert seed_destination(KeyStore(keys.directory)).certificate_der == seed_destination(keys).certificate_der


def test_ec_certificates_are_repeatable_too(keys: KeyStore) -> None:
    def make() -> bytes:
        return node_certificate(
            keys, CertificateUnit.CALLMANAGER, "ec", seed=1, not_before=BEGIN, kind="secp256r1"
        ).certificate_der

    assert make() == make()


def test_the_seeds_lsc(phone: Identity, capf: Identity) -> None:
    assert openssl_oneline(phone.certificate.subject) == (
        "/serialNumber=PID:CP-8861 SN:FCH18198CNQ/C=AU/O=stormin/OU=IST/CN=CP-8861-SEPB000B4BA0AEE"
    )
    assert openssl_oneline(phone.certificate.issuer) == "/C=AU/O=stormin/OU=IST/CN=CAPF-a7fb32bf/ST=NSQ/L=Sydney"
    phone.certificate.verify_directly_issued_by(capf.certificate)
    assert phone.issuers == (capf.certificate,)


def test_a_mic_comes_from_a_ca_nobody_takes_for_ciscos(keys: KeyStore) -> None:
    ca = manufacturing_ca(keys, seed=7, not_before=BEGIN)
    phone = mic(ca, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="FCH1", seed=7, not_before=BEGIN)
    phone.certificate.verify_directly_issued_by(ca.certificate)
    assert "Cisco" not in ca.subject + phone.subject
    assert phone.subject.endswith("CN=CP-8861-SEPB000B4BA0AEE")


def test_capf_names_have_eight_hex_digits() -> None:
    assert capf_name(1, "a") != capf_name(1, "b") != capf_name(2, "b")
    assert capf_name(1, "a").startswith("CAPF-")
    int(capf_name(1, "a").removeprefix("CAPF-"), 16)
    assert len(capf_name(1, "a")) == 13


def test_every_certificate_says_what_it_is(node: Identity, capf: Identity, phone: Identity) -> None:
    for identity in (node, capf, phone):
        extension = identity.certificate.extensions.get_extension_for_oid(WATERMARK_OID)
        assert not extension.critical
        assert isinstance(extension.value, x509.UnrecognizedExtension)
        assert WATERMARK.encode() in extension.value.value


def test_node_certificate_fields(node: Identity) -> None:
    assert node.subject == node.issuer == "CN=ucm105pub;OU=IST;O=Stormin;L=Brisbane;ST=QLD;C=AU"
    assert len(node.serial) == 16
    assert node.issuers == ()
    assert node.signer_id == SignerId(node.subject, node.serial, node.issuer)
    assert len(node.public_key_record) == 270  # facts 3.2
    assert len(node.certificate_signature) == node.signature_length == 256
    names = node.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ucm105pub"]


def test_itlrecovery_lasts_twenty_years(keys: KeyStore) -> None:
    identity = node_certificate(keys, CertificateUnit.ITLRECOVERY, "ITLRECOVERY_pub", seed=7, not_before=BEGIN)
    known = describe(identity.certificate_der)
    assert known.not_after - known.not_before == 20 * 365 * DAY


def test_subject_order_is_the_callers(keys: KeyStore) -> None:
    subject = "C=AU;O=x;CN=host;L=y"
    identity = node_certificate(
        keys, CertificateUnit.TVS, "host", seed=7, not_before=BEGIN, subject=subject, key_label="CallManager ucm105pub"
    )
    assert identity.subject == subject


def test_serials_follow_from_seed_unit_host_and_start(keys: KeyStore) -> None:
    def serial(unit: CertificateUnit, host: str, seed: int, start: float) -> bytes:
        return node_certificate(keys, unit, host, seed=seed, not_before=start, kind="secp256r1").serial

    cases = [
        serial(CertificateUnit.CALLMANAGER, "a", 1, BEGIN),
        serial(CertificateUnit.CALLMANAGER, "a", 2, BEGIN),
        serial(CertificateUnit.TVS, "a", 1, BEGIN),
        serial(CertificateUnit.CALLMANAGER, "b", 1, BEGIN),
        serial(CertificateUnit.CALLMANAGER, "a", 1, BEGIN + 1),
    ]
    assert len(set(cases)) == len(cases)
    assert serial(CertificateUnit.CALLMANAGER, "a", 1, BEGIN) == cases[0]
    assert all(
        len(serial_from_seed(1, str(n))) == 16 and serial_from_seed(1, str(n))[0] in range(0x40, 0x80)
        for n in range(500)
    )


def test_describe(node: Identity) -> None:
    known = describe(node.certificate_der)
    assert (known.subject, known.issuer, known.serial) == (node.subject, node.issuer, node.serial)
    assert known.common_name == "ucm105pub"
    assert (known.not_before, known.not_after) == (1_480_000_000, 1_480_000_000 + 5 * 365 * DAY)
    assert known.public_key_record == node.public_key_record
    assert known.signature == node.certificate_signature
    assert known.der == node.certificate_der


def certificate_of(key: ed25519.Ed25519PrivateKey) -> bytes:
    import datetime

    name = x509.Name([])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 5, start, start + datetime.timedelta(days=1))
    return builder.sign(key, None).public_bytes(Encoding.DER)


def test_describe_refuses_what_is_no_usable_certificate(node: Identity) -> None:
    der = node.certificate_der
    useless = [b"", b"\x30", b"\x30\x80", b"hello", der[:-1], der + b"\0", b"\0" * 70_000]
    useless.append(certificate_of(ed25519.Ed25519PrivateKey.generate()))
    useless.append(node.certificate_pem)
    for data in useless:
        with pytest.raises(DecodeError):
            describe(data)


def test_bent_rules_are_no_news(keys: KeyStore) -> None:
    """A country of three letters, a serial of 0 or below: found in the wild, and warned about by the library."""
    key = keys.key("bent", 1024)
    der = self_signed(CertificateRequest(subject="O=AUS;CN=bent", serial=b"\1", not_before=BEGIN), key).certificate_der
    organisation, country = b"\x06\x03\x55\x04\x0a\x0c\x03", b"\x06\x03\x55\x04\x06\x0c\x03"
    assert describe(der.replace(organisation, country)).subject == "C=AUS;CN=bent"
    assert describe(der.replace(b"\x02\x01\x01", b"\x02\x01\x00", 1)).serial == b"\0"
    with pytest.raises(DecodeError):
        describe(der.replace(b"\x02\x01\x01", b"\x02\x01\x81", 1))


def test_public_keys_in_record_form(keys: KeyStore) -> None:
    rsa_key, ec_key = keys.key("record", 1024), keys.key("record", "secp256r1")
    assert len(public_key_record(rsa_key.public_key())) == 140  # facts 3.2
    point = public_key_record(ec_key.public_key())
    assert (len(point), point[0]) == (65, 4)


@pytest.mark.parametrize("digest", list(DigestAlgorithm))
def test_signatures_are_repeatable(node: Identity, keys: KeyStore, digest: DigestAlgorithm) -> None:
    assert node.sign(b"data", digest) == node.sign(b"data", digest)
    assert len(node.sign(b"data", digest)) == 256
    ec_node = node_certificate(keys, CertificateUnit.TVS, "ec", seed=1, not_before=BEGIN, kind="secp256r1")
    assert ec_node.sign(b"data", digest) == ec_node.sign(b"data", digest)


def test_an_identity_shows_no_private_key(node: Identity) -> None:
    assert isinstance(node.private_key, rsa.RSAPrivateKey)
    numbers = node.private_key.private_numbers()
    text = f"{node!r} {node} {CertificateAuthority(node)!r}"
    assert "private_key" not in text
    assert str(numbers.d) not in text
    assert node.private_key_der.hex()[100:140] not in text


def test_identities_come_back_from_their_files(node: Identity, phone: Identity) -> None:
    loaded = Identity.load(node.certificate_der, node.private_key_der, ours=True)
    assert loaded.sign(b"x", DigestAlgorithm.SHA1) == node.sign(b"x", DigestAlgorithm.SHA1)
    with pytest.raises(UsageError, match="does not belong"):
        Identity.load(node.certificate_der, phone.private_key_der)
    with pytest.raises(DecodeError):
        Identity.load(b"nothing", node.private_key_der)
    with pytest.raises(UsageError):
        Identity.load(node.certificate_der, b"nothing")


@pytest.mark.parametrize("length", [1060, 1100, 1300, 1451, 2000, 5000, 60_000])
def test_der_length_is_met_exactly(keys: KeyStore, length: int) -> None:
    identity = node_certificate(
        keys, CertificateUnit.CALLMANAGER, "ucm105pub", seed=7, not_before=BEGIN, der_length=length
    )
    assert len(identity.certificate_der) == length
    assert describe(identity.certificate_der).subject == identity.subject


@pytest.mark.parametrize("length", [-1, 0, 10, 500, 10**7])
def test_der_lengths_that_cannot_be(keys: KeyStore, length: int) -> None:
    with pytest.raises(UsageError, match="no certificate can be made so"):
        node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm105pub", seed=7, not_before=BEGIN, der_length=length)


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "C=Australia"},
        {"subject": "nonsense"},
        {"serial": b"\0"},
        {"serial": b"\xff" * 21},
        {"not_before": -1e12},
        {"not_before": 1e15},
        {"lifetime_days": -1},
        {"lifetime_days": 1e9},
    ],
)
def test_requests_that_x509_cannot_express(keys: KeyStore, change: dict[str, object]) -> None:
    wanted: dict[str, object] = {"subject": "CN=a", "serial": b"\1", "not_before": BEGIN}
    with pytest.raises(UsageError):
        self_signed(CertificateRequest(**(wanted | change)), keys.key("a", "secp256r1"))  # type: ignore[arg-type]


def test_purposes(keys: KeyStore, node: Identity, capf: Identity, phone: Identity) -> None:
    def usage(identity: Identity) -> x509.KeyUsage:
        return identity.certificate.extensions.get_extension_for_class(x509.KeyUsage).value

    assert usage(capf).key_cert_sign
    assert capf.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not usage(phone).key_cert_sign
    assert usage(node).key_encipherment  # AES256-SHA is RSA key exchange
    request = CertificateRequest(subject="CN=signer", serial=b"\1", not_before=BEGIN, purpose=Purpose.SIGNER)
    assert not usage(self_signed(request, keys.key("a", "secp256r1"))).key_encipherment


def test_chains_grow_from_the_leaf_up(keys: KeyStore) -> None:
    root = CertificateAuthority.self_signed(keys, "CN=root", seed=1, not_before=BEGIN, kind="secp256r1")
    key = keys.key("middle", "secp256r1")
    request = CertificateRequest(subject="CN=middle", serial=b"\2", not_before=BEGIN, purpose=Purpose.CA)
    middle = root.issue(request, key)
    leaf = issue(CertificateRequest(subject="CN=leaf", serial=b"\3", not_before=BEGIN), key, middle)
    assert leaf.issuers == (middle.certificate, root.identity.certificate)


def is_signed_by(identity: Identity, issuer: Identity) -> bool:
    try:
        identity.certificate.verify_directly_issued_by(issuer.certificate)
    except InvalidSignature:
        return False
    return True


def test_expired_and_not_yet_valid_are_whole_otherwise(node: Identity, capf: Identity, phone: Identity) -> None:
    now = BEGIN + 10 * DAY
    for whole, issuer in ((node, None), (phone, capf)):
        old, new = expired(whole, now, issuer=issuer), not_yet_valid(whole, now, issuer=issuer)
        assert describe(old.certificate_der).not_after < now < describe(new.certificate_der).not_before
        for broken in (old, new):
            assert (broken.subject, broken.issuer, broken.serial) == (whole.subject, whole.issuer, whole.serial)
            assert broken.public_key_record == whole.public_key_record
            assert is_signed_by(broken, issuer or whole)


def test_breaking_needs_the_right_issuer(node: Identity, phone: Identity) -> None:
    for issuer in (None, node):
        with pytest.raises(UsageError, match="was issued by C=AU"):
            expired(phone, BEGIN, issuer=issuer)


def test_an_impostor_has_the_names_but_not_the_key(node: Identity, keys: KeyStore) -> None:
    impostor = wrong_key(node, keys.key("impostor"))
    assert impostor.signer_id == node.signer_id
    assert impostor.public_key_record != node.public_key_record
    assert private_key_der(impostor.private_key) != node.private_key_der
    assert not is_signed_by(impostor, node)


def test_a_wrong_hash_does_not_verify(node: Identity, capf: Identity, phone: Identity) -> None:
    for whole, issuer in ((node, None), (phone, capf)):
        broken = wrong_hash(whole, issuer=issuer)
        assert broken.certificate.tbs_certificate_bytes == whole.certificate.tbs_certificate_bytes
        assert not is_signed_by(broken, issuer or whole)
        assert is_signed_by(whole, issuer or whole)


def test_only_rsa_can_have_a_wrong_hash(keys: KeyStore) -> None:
    identity = node_certificate(keys, CertificateUnit.TVS, "ec", seed=1, not_before=BEGIN, kind="secp256r1")
    with pytest.raises(UsageError, match="only an RSA signature"):
        wrong_hash(identity)


@pytest.mark.parametrize("begin", [BEGIN, 2_600_000_000])  # after 2050 X.509 writes dates in another way
def test_tampering_changes_one_byte_and_breaks_the_signature(keys: KeyStore, begin: float) -> None:
    whole = node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm105pub", seed=7, not_before=begin)
    broken = tampered(whole)
    differing = [
        n for n, (a, b) in enumerate(zip(whole.certificate_der, broken.certificate_der, strict=True)) if a != b
    ]
    assert len(differing) == 1
    assert not is_signed_by(broken, whole)
    assert broken.signer_id == whole.signer_id


def test_ec_records_load_as_points(keys: KeyStore) -> None:
    key = keys.key("record", "secp384r1")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    expected = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert public_key_record(key.public_key()) == expected


def test_a_security_token_has_the_form_of_the_published_ones_and_says_that_it_is_a_toy(keys: KeyStore) -> None:
    token = security_token(keys, 7, seed=1, not_before=BEGIN)
    assert token.subject.startswith('CN="SAST-LAB00000007        ";')
    assert name_key(token.issuer) == name_key(EMULATED_MANUFACTURER)
    assert len(token.serial) == 10
    assert len(token.public_key_record) == 140
    assert token.signature_length == 128
    assert WATERMARK.encode() in token.certificate_der
    assert token == security_token(keys, 7, seed=1, not_before=BEGIN)
    assert token.serial != security_token(keys, 8, seed=1, not_before=BEGIN).serial


@pytest.mark.parametrize("number", [0, -1, 10_000])
def test_security_tokens_are_numbered_from_one(keys: KeyStore, number: int) -> None:
    with pytest.raises(UsageError):
        security_token(keys, number, seed=1, not_before=BEGIN)
