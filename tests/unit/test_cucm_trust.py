from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cucm.broken_certificates import expired, not_yet_valid, wrong_key
from cucm.certificates import CertificateAuthority, Identity, describe, node_certificate
from cucm.errors import TrustError, TrustReason
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import (
    Anchor,
    anchors_of,
    anchors_of_certificate,
    check_anchor,
    find_signer,
    verify_signature,
    verify_signed_file,
    verify_trust_list,
)
from cucm.wire.signature_header import TrustListTag, signature_info
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import (
    DigestAlgorithm,
    Element,
    Record,
    SignerId,
    blank_record,
    build_trust_list,
    decode_trust_list,
    encode_trust_list,
)

BEGIN = 1_480_000_000
NOW = BEGIN + 86_400


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture(scope="module")
def node(keys: KeyStore) -> Identity:
    return node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm105pub", seed=7, not_before=BEGIN)


@pytest.fixture(scope="module")
def stranger(keys: KeyStore) -> Identity:
    return node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm11pub", seed=7, not_before=BEGIN)


def record(identity: Identity, role: int = TrustRole.SAST, **changes: object) -> Record:
    fields = {
        "function": role,
        "dns_name": "ucm105pub",
        "subject": identity.subject,
        "issuer": identity.issuer,
        "serial": identity.serial,
        "public_key": identity.public_key_record,
        "signature": identity.certificate_signature,
        "certificate": identity.certificate_der,
        "ip_address": "127.0.11.32",
    }
    return Record.build(**(fields | changes))  # type: ignore[arg-type]


def trust_list(
    signer: Identity,
    records: tuple[Record, ...] = (),
    *,
    digest: DigestAlgorithm = DigestAlgorithm.SHA1,
    name: SignerId | None = None,
) -> bytes:
    return build_trust_list(
        signer=name or signer.signer_id,
        records=records or (record(signer),),
        digest=digest,
        sign=signer.sign,
        signature_length=signer.signature_length,
        file_name="CTLFile.tlv",
        timestamp=BEGIN,
    )


def signed_file(signer: Identity, content: bytes = b"<device/>") -> bytes:
    return build_signed_file(
        content,
        signer=signer.signer_id,
        file_name="SEPB000B4BA0AEE.cnf.xml.sgn",
        digest=DigestAlgorithm.SHA1,
        sign=signer.sign,
        signature_length=signer.signature_length,
        timestamp=BEGIN,
    )


def anchors(identity: Identity, *roles: int, **changes: object) -> tuple[Anchor, ...]:
    found = anchors_of_certificate(identity.certificate_der, roles or (TrustRole.SAST,), "test")
    return tuple(replace(anchor, **changes) for anchor in found)  # type: ignore[arg-type]


def reason_of(call: Callable[[], object]) -> TrustReason:
    with pytest.raises(TrustError) as caught:
        call()
    assert str(caught.value)
    return caught.value.reason


def test_the_signer_may_be_in_the_list_itself(node: Identity) -> None:
    data = trust_list(node)
    own = anchors_of(decode_trust_list(data), "CTL")
    verified, anchor = verify_trust_list(data, own)
    assert verified == decode_trust_list(data)
    assert anchor.origin == "CTL record 1"
    assert anchor.certificate == node.certificate_der


@pytest.mark.parametrize("digest", list(DigestAlgorithm))
@pytest.mark.parametrize("bits", [1024, 2048, 4096])
def test_digests_and_key_sizes(keys: KeyStore, digest: DigestAlgorithm, bits: int) -> None:
    signer = node_certificate(keys, CertificateUnit.CALLMANAGER, "sized", seed=7, not_before=BEGIN, kind=bits)
    data = trust_list(signer, digest=digest)
    assert verify_trust_list(data, anchors(signer))[0].digest is digest


def test_a_stranger_is_unknown(node: Identity, stranger: Identity) -> None:
    data = trust_list(stranger)
    assert reason_of(lambda: verify_trust_list(data, anchors(node))) is TrustReason.SIGNER_UNKNOWN
    assert reason_of(lambda: verify_trust_list(data, ())) is TrustReason.SIGNER_UNKNOWN


@pytest.mark.parametrize("role", [role for role in TrustRole if role is not TrustRole.SAST])
def test_only_sast_signs_trust_lists(node: Identity, role: TrustRole) -> None:
    data = trust_list(node)
    with pytest.raises(TrustError) as caught:
        verify_trust_list(data, anchors(node, role))
    assert caught.value.reason is TrustReason.SIGNER_ROLE
    assert f"role {int(role)}" in caught.value.what


@pytest.mark.parametrize(
    ("role", "signs"),
    [(TrustRole.TFTP, True), (TrustRole.CALLMANAGER_TFTP, True), (TrustRole.SAST, False), (TrustRole.CAPF, False)],
)
def test_only_tftp_signs_files(node: Identity, role: TrustRole, signs: bool) -> None:
    data = signed_file(node)
    if signs:
        assert verify_signed_file(data, anchors(node, role))[0].content == b"<device/>"
    else:
        assert reason_of(lambda: verify_signed_file(data, anchors(node, role))) is TrustReason.SIGNER_ROLE


def test_a_certificate_with_no_role_vouches_for_nothing(node: Identity) -> None:
    """CallManager-trust only: facts 5.3, F2."""
    granted = anchors_of_certificate(node.certificate_der, (), "TVS cache")
    assert reason_of(lambda: verify_trust_list(trust_list(node), granted)) is TrustReason.SIGNER_UNKNOWN


def test_the_record_with_the_right_role_is_found_among_others(node: Identity, stranger: Identity) -> None:
    mixed = (*anchors(stranger), *anchors(node, TrustRole.CALLMANAGER_TFTP, TrustRole.CAPF, TrustRole.SAST))
    assert verify_trust_list(trust_list(node), mixed)[1].role == TrustRole.SAST


@pytest.mark.parametrize(
    "spelling", [lambda n: n.replace(";", ","), lambda n: n.replace(";", ", "), lambda n: n.replace("CN=", "cn=")]
)
def test_other_softwares_spelling_of_names(node: Identity, spelling: Callable[[str], str]) -> None:
    me = node.signer_id
    name = SignerId(spelling(me.subject), b"\0" + me.serial, spelling(me.issuer))
    verify_trust_list(trust_list(node, name=name), anchors(node))
    verify_trust_list(trust_list(node), anchors(node, issuer=spelling(node.issuer)))


def test_issuer_and_serial_find_the_signer_not_the_subject(node: Identity) -> None:
    me = node.signer_id
    verify_trust_list(trust_list(node, name=SignerId("CN=cut", me.serial, me.issuer)), anchors(node))
    for name in (SignerId(me.subject, me.serial + b"\1", me.issuer), SignerId(me.subject, me.serial, "CN=other")):
        data = trust_list(node, name=name)
        assert reason_of(lambda data=data: verify_trust_list(data, anchors(node))) is TrustReason.SIGNER_UNKNOWN


def test_an_impostor_with_the_same_names_is_caught_by_the_signature(keys: KeyStore, node: Identity) -> None:
    impostor = wrong_key(node, keys.key("impostor"))
    data = trust_list(impostor)
    assert reason_of(lambda: verify_trust_list(data, anchors(node))) is TrustReason.SIGNATURE_MISMATCH


def test_a_record_whose_key_is_not_its_certificates(node: Identity, stranger: Identity) -> None:
    """The record names the genuine signer and shows its certificate, but carries another's key."""
    forged = record(node, public_key=stranger.public_key_record)
    flash = decode_trust_list(trust_list(node, (forged,)))
    data = trust_list(stranger, name=node.signer_id)
    assert reason_of(lambda: verify_trust_list(data, anchors_of(flash, "CTL"))) is TrustReason.RECORD_KEY_MISMATCH


def test_a_mismatched_record_harms_only_its_own_use(node: Identity, stranger: Identity) -> None:
    forged = record(stranger, public_key=node.public_key_record)
    flash = decode_trust_list(trust_list(node, (forged, record(node))))
    assert verify_trust_list(trust_list(node), anchors_of(flash, "CTL"))[1].origin == "CTL record 2"


def test_a_record_with_a_ruined_certificate(node: Identity) -> None:
    broken = anchors(node, certificate=node.certificate_der[:-1])
    assert reason_of(lambda: verify_trust_list(trust_list(node), broken)) is TrustReason.RECORD_KEY_MISMATCH


def test_records_without_certificate_are_used_as_they_are(node: Identity) -> None:
    flash = decode_trust_list(trust_list(node, (record(node, certificate=None, signature=None),)))
    (anchor,) = anchors_of(flash, "CTL")
    assert anchor.certificate is None
    verify_trust_list(trust_list(node), [anchor], moment=BEGIN - 1)


def test_records_that_say_little_are_completed_from_their_certificate(node: Identity) -> None:
    sparse = record(node, subject=None, issuer=None, serial=None, public_key=None, dns_name=None, ip_address=None)
    (anchor,) = anchors_of(decode_trust_list(trust_list(node, (sparse,))), "ITL")
    assert (anchor.subject, anchor.issuer, anchor.serial) == (node.subject, node.issuer, node.serial)
    assert anchor.public_key == node.public_key_record
    verify_trust_list(trust_list(node), [anchor])


def test_records_that_name_nobody_are_no_anchors(node: Identity) -> None:
    nothing = (
        blank_record(),
        record(node, issuer=None, certificate=None),
        record(node, serial=None, certificate=None),
        record(node, public_key=None, certificate=b"ruined"),
        record(node),
    )
    found = anchors_of(decode_trust_list(trust_list(node, nothing)), "CTL")
    assert [anchor.origin for anchor in found] == ["CTL record 5"]


def test_validity_counts_only_when_a_moment_is_given(node: Identity) -> None:
    data = trust_list(node)
    old, new = expired(node, NOW), not_yet_valid(node, NOW)
    for identity, expected in (
        (old, TrustReason.CERTIFICATE_EXPIRED),
        (new, TrustReason.CERTIFICATE_NOT_YET_VALID),
    ):
        verify_trust_list(data, anchors(identity))
        verify_signed_file(signed_file(node), anchors(identity, TrustRole.TFTP))
        found = anchors(identity, TrustRole.SAST, TrustRole.TFTP)
        assert reason_of(lambda found=found: verify_trust_list(data, found, moment=NOW)) is expected
        assert reason_of(lambda found=found: verify_signed_file(signed_file(node), found, moment=NOW)) is expected
    verify_trust_list(data, anchors(node), moment=NOW)


def test_both_ends_of_the_validity_belong_to_it(node: Identity) -> None:
    (anchor,) = anchors(node)
    known = describe(node.certificate_der)
    for moment in (known.not_before, known.not_after, known.not_after + 0.5):
        check_anchor(anchor, moment)
    assert reason_of(lambda: check_anchor(anchor, known.not_before - 0.1)) is TrustReason.CERTIFICATE_NOT_YET_VALID
    assert reason_of(lambda: check_anchor(anchor, known.not_after + 1)) is TrustReason.CERTIFICATE_EXPIRED


@pytest.mark.parametrize("data", [b"", b"\x01", b"<device/>", b"\x01\x00\x02\x01\x02", b"\0" * 100])
def test_bytes_that_are_no_list(node: Identity, data: bytes) -> None:
    assert reason_of(lambda: verify_trust_list(data, anchors(node))) is TrustReason.MALFORMED


def test_a_signed_file_is_no_trust_list_and_a_trust_list_no_signed_file(node: Identity) -> None:
    """Their headers differ in the version only, and the CallManager's key signs both."""
    granted = anchors(node, TrustRole.SAST, TrustRole.CALLMANAGER_TFTP)
    for content in (b"<device/>", b""):
        disguised = signed_file(node, content)
        assert reason_of(lambda disguised=disguised: verify_trust_list(disguised, granted)) is TrustReason.MALFORMED
    assert reason_of(lambda: verify_signed_file(trust_list(node), granted)) is TrustReason.UNSIGNED


def test_a_plain_file_is_unsigned_and_a_cut_one_malformed(node: Identity) -> None:
    granted = anchors(node, TrustRole.TFTP)
    for plain in (b"", b"<device/>", b"\x01\x00\x02"):
        assert reason_of(lambda plain=plain: verify_signed_file(plain, granted)) is TrustReason.UNSIGNED
    assert reason_of(lambda: verify_signed_file(signed_file(node)[:60], granted)) is TrustReason.MALFORMED


def test_content_added_to_a_signed_file_is_noticed(node: Identity) -> None:
    granted = anchors(node, TrustRole.TFTP)
    for changed in (signed_file(node) + b"\n", signed_file(node)[:-1]):
        assert reason_of(lambda changed=changed: verify_signed_file(changed, granted)) is TrustReason.SIGNATURE_MISMATCH


def test_bytes_after_the_last_record_are_signed_too(node: Identity) -> None:
    data = trust_list(node) + b"\0"
    assert reason_of(lambda: verify_trust_list(data, anchors(node))) is TrustReason.SIGNATURE_MISMATCH


def test_an_unknown_signature_algorithm_is_not_guessed_at(node: Identity) -> None:
    plain = decode_trust_list(trust_list(node))
    info = signature_info(DigestAlgorithm.SHA1, 2, algorithm=1)
    header = tuple(
        Element(element.tag, info) if element.tag == TrustListTag.SIGNATUREINFO else element for element in plain.header
    )
    data = encode_trust_list(replace(plain, header=header))
    assert reason_of(lambda: verify_trust_list(data, anchors(node))) is TrustReason.ALGORITHM_UNSUPPORTED


def test_signer_certified_by_a_ca(keys: KeyStore) -> None:
    """The seed's destination: the issuer is a Windows CA that no phone knows."""
    ca = CertificateAuthority.self_signed(keys, "CN=stormin-WIN2012-CA", seed=7, not_before=BEGIN).identity
    signer = node_certificate(
        keys, CertificateUnit.CALLMANAGER, "ucm11pub.stormin.local", seed=7, not_before=BEGIN, issuer=ca
    )
    data = trust_list(signer)
    assert verify_trust_list(data, anchors(signer))[1].issuer == "CN=stormin-WIN2012-CA"
    assert reason_of(lambda: verify_trust_list(data, anchors(ca))) is TrustReason.SIGNER_UNKNOWN


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_ec_record_keys(keys: KeyStore, curve: str) -> None:
    signer = node_certificate(keys, CertificateUnit.CALLMANAGER, "ec", seed=7, not_before=BEGIN, kind=curve)
    point = signer.public_key_record
    for digest in DigestAlgorithm:
        signature = signer.sign(b"data", digest)
        verify_signature(b"data", point, digest, signature)
        for changed in (signature[:-1], signature + b"\0", b"", signer.sign(b"date", digest)):
            found = reason_of(lambda s=changed, d=digest: verify_signature(b"data", point, d, s))
            assert found is TrustReason.SIGNATURE_MISMATCH


def test_an_ec_record_among_the_anchors_harms_nobody(keys: KeyStore, node: Identity) -> None:
    other = node_certificate(keys, CertificateUnit.TVS, "ec", seed=7, not_before=BEGIN, kind="secp256r1")
    flash = decode_trust_list(trust_list(node, (record(other), record(node))))
    assert len(anchors_of(flash, "ITL")) == 2
    verify_trust_list(trust_list(node), anchors_of(flash, "ITL"))


@pytest.mark.parametrize("length", [0, 1, 255, 257, 512])
def test_rsa_signatures_of_another_length(node: Identity, length: int) -> None:
    found = reason_of(lambda: verify_signature(b"", node.public_key_record, DigestAlgorithm.SHA1, b"\1" * length))
    assert found is TrustReason.SIGNATURE_MISMATCH


def test_another_digest_than_the_one_signed_with(node: Identity) -> None:
    signature = node.sign(b"data", DigestAlgorithm.SHA1)
    found = reason_of(lambda: verify_signature(b"data", node.public_key_record, DigestAlgorithm.SHA512, signature))
    assert found is TrustReason.SIGNATURE_MISMATCH


def test_keys_that_are_not_used_here() -> None:
    too_long = rsa.RSAPublicNumbers(65537, (1 << 8191) | 1).public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    edwards = ed25519.Ed25519PrivateKey.generate().public_key()
    other = edwards.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key in (too_long, other):
        found = reason_of(lambda key=key: verify_signature(b"", key, DigestAlgorithm.SHA1, b""))
        assert found is TrustReason.ALGORITHM_UNSUPPORTED


@pytest.mark.parametrize("key", [b"", b"\x04", b"\x04" + b"\1" * 64, b"\x30\x03\x02\x01\x05", b"nonsense" * 40])
def test_keys_that_cannot_be_read(key: bytes) -> None:
    found = reason_of(lambda: verify_signature(b"", key, DigestAlgorithm.SHA1, b""))
    assert found is TrustReason.MALFORMED


def test_find_signer_prefers_the_first(node: Identity) -> None:
    first, second = anchors(node, origin="CTL record 1")[0], anchors(node, origin="ITL record 1")[0]
    assert find_signer(node.signer_id, (first, second), {TrustRole.SAST}) is first


def test_an_anchor_does_not_print_its_bytes(node: Identity) -> None:
    assert len(repr(anchors(node)[0])) < 400
