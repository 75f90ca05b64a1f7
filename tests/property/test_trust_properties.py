"""No change to a signed file is ever accepted, and no input makes verification fail in an undocumented way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cucm.certificates import Identity, describe, node_certificate
from cucm.errors import DecodeError, TrustError, TrustReason
from cucm.key_store import KeyStore
from cucm.names import name_key, same_name
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import (
    Anchor,
    anchors_of,
    anchors_of_certificate,
    verify_signature,
    verify_signed_file,
    verify_trust_list,
)
from cucm.wire.signature_header import signature_span
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import DigestAlgorithm, Record, build_trust_list, decode_trust_list

MANY = settings(max_examples=300, derandomize=True)
ROLES = (TrustRole.SAST, TrustRole.TFTP)


def make_signer() -> Identity:
    return node_certificate(
        KeyStore(), CertificateUnit.CALLMANAGER, "ucm105pub", seed=1, not_before=1_480_000_000, kind=1024
    )


SIGNER = make_signer()
ANCHORS = anchors_of_certificate(SIGNER.certificate_der, ROLES, "test")


def make_trust_list(digest: DigestAlgorithm) -> bytes:
    record = Record.build(
        function=TrustRole.SAST,
        dns_name="ucm105pub",
        subject=SIGNER.subject,
        issuer=SIGNER.issuer,
        serial=SIGNER.serial,
        public_key=SIGNER.public_key_record,
        signature=SIGNER.certificate_signature,
        certificate=SIGNER.certificate_der,
        ip_address="127.0.11.32",
    )
    return build_trust_list(
        signer=SIGNER.signer_id,
        records=(record,),
        digest=digest,
        sign=SIGNER.sign,
        signature_length=SIGNER.signature_length,
        file_name="CTLFile.tlv",
        timestamp=1_480_000_000,
    )


def make_signed_file(digest: DigestAlgorithm) -> bytes:
    return build_signed_file(
        b"<device><member priority='0'/></device>",
        signer=SIGNER.signer_id,
        file_name="SEPB000B4BA0AEE.cnf.xml.sgn",
        digest=digest,
        sign=SIGNER.sign,
        signature_length=SIGNER.signature_length,
        timestamp=1_480_000_000,
    )


LISTS = {digest: make_trust_list(digest) for digest in DigestAlgorithm}
FILES = {digest: make_signed_file(digest) for digest in DigestAlgorithm}
REFUSALS = {
    TrustReason.MALFORMED,
    TrustReason.UNSIGNED,
    TrustReason.SIGNER_UNKNOWN,
    TrustReason.SIGNATURE_MISMATCH,
    TrustReason.ALGORITHM_UNSUPPORTED,
}


def refusal(data: bytes, verify: object = verify_trust_list) -> TrustReason | None:
    try:
        verify(data, ANCHORS)  # type: ignore[operator]
    except TrustError as error:
        return error.reason
    return None


@pytest.mark.parametrize("verify", [verify_trust_list, verify_signed_file])
@pytest.mark.parametrize("digest", list(DigestAlgorithm))
def test_the_untouched_file_is_accepted(verify: object, digest: DigestAlgorithm) -> None:
    data = (LISTS if verify is verify_trust_list else FILES)[digest]
    assert refusal(data, verify) is None


@pytest.mark.parametrize("verify", [verify_trust_list, verify_signed_file])
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flip_of_any_byte_is_refused(verify: object, mask: int) -> None:
    """All of them, one by one: not one position may slip through."""
    data = (LISTS if verify is verify_trust_list else FILES)[DigestAlgorithm.SHA1]
    accepted, odd = [], []
    for position in range(len(data)):
        reason = refusal(data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :], verify)
        if reason is None:
            accepted.append(position)
        elif reason not in REFUSALS:
            odd.append((position, reason))
    assert (accepted, odd) == ([], [])


def test_a_flip_inside_the_signature_is_a_signature_mismatch() -> None:
    data = LISTS[DigestAlgorithm.SHA1]
    start, end = signature_span(data)
    for position in range(start + 3, end):
        flipped = data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        assert refusal(flipped) is TrustReason.SIGNATURE_MISMATCH


@MANY
@given(data=st.data(), digest=st.sampled_from(DigestAlgorithm))
def test_any_edit_is_refused(data: st.DataObject, digest: DigestAlgorithm) -> None:
    """Cut, insert, replace, anywhere and of any size."""
    whole = LISTS[digest]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 300)))
    edited = whole[:start] + data.draw(st.binary(max_size=300)) + whole[end:]
    if edited != whole:
        assert refusal(edited) in REFUSALS


@MANY
@given(data=st.data())
def test_a_moved_signature_does_not_change_what_is_said(data: st.DataObject) -> None:
    """Where the signature stands is the one thing it cannot cover; the decoded meaning must stay the same."""
    whole = LISTS[DigestAlgorithm.SHA1]
    start, end = signature_span(whole)
    rest = whole[:start] + whole[end:]
    place = data.draw(st.integers(0, len(rest)))
    moved = rest[:place] + whole[start:end] + rest[place:]
    if refusal(moved) is None:
        ours, theirs = decode_trust_list(whole), decode_trust_list(moved)
        assert theirs.records == ours.records
        assert (theirs.signer, theirs.digest, theirs.timestamp) == (ours.signer, ours.digest, ours.timestamp)
        assert (theirs.file_name, theirs.version, theirs.trailing) == (ours.file_name, ours.version, ours.trailing)


@MANY
@given(st.binary(max_size=600))
def test_garbage_is_refused_with_a_reason(data: bytes) -> None:
    assert refusal(data) is TrustReason.MALFORMED
    assert refusal(data, verify_signed_file) in (TrustReason.MALFORMED, TrustReason.UNSIGNED)


@MANY
@given(key=st.binary(max_size=200), digest=st.sampled_from(DigestAlgorithm), signature=st.binary(max_size=200))
def test_any_record_key_gives_a_trust_error(key: bytes, digest: DigestAlgorithm, signature: bytes) -> None:
    with pytest.raises(TrustError):
        verify_signature(b"data", key, digest, signature)


@MANY
@given(data=st.data())
def test_damaged_record_keys_give_a_trust_error(data: st.DataObject) -> None:
    key = bytearray(SIGNER.public_key_record)
    key[data.draw(st.integers(0, len(key) - 1))] ^= data.draw(st.integers(1, 255))
    signature = SIGNER.sign(b"data", DigestAlgorithm.SHA1)
    with pytest.raises(TrustError):
        verify_signature(b"data", bytes(key), DigestAlgorithm.SHA1, signature)


@MANY
@given(data=st.data())
def test_damaged_certificates_are_described_or_refused(data: st.DataObject) -> None:
    der = bytearray(SIGNER.certificate_der)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        known = describe(bytes(der))
    except DecodeError:
        return
    assert known.der == bytes(der)


@pytest.mark.parametrize("mask", [0x01, 0x04, 0x20, 0x80, 0xFF])
def test_a_flip_of_any_byte_of_a_certificate_is_described_or_refused(mask: int) -> None:
    der = SIGNER.certificate_der
    refused = 0
    for position in range(len(der)):
        try:
            describe(der[:position] + bytes([der[position] ^ mask]) + der[position + 1 :])
        except DecodeError:
            refused += 1
    assert 0 < refused < len(der)


@MANY
@given(certificate=st.binary(max_size=300), key=st.binary(max_size=100), serial=st.binary(max_size=20))
def test_lists_with_nonsense_in_their_records_still_give_anchors(certificate: bytes, key: bytes, serial: bytes) -> None:
    nonsense = Record.build(
        function=0, subject="?", issuer=SIGNER.issuer, serial=serial, public_key=key, certificate=certificate
    )
    data = build_trust_list(
        signer=SIGNER.signer_id,
        records=(nonsense,),
        digest=DigestAlgorithm.SHA1,
        sign=SIGNER.sign,
        signature_length=SIGNER.signature_length,
        file_name="CTLFile.tlv",
        timestamp=0,
    )
    granted: tuple[Anchor, ...] = anchors_of(decode_trust_list(data), "CTL")
    with pytest.raises(TrustError):
        verify_trust_list(data, granted)


@MANY
@given(a=st.text(max_size=60), b=st.text(max_size=60))
def test_sameness_of_names_is_an_equivalence(a: str, b: str) -> None:
    assert same_name(a, a)
    assert same_name(a, b) == same_name(b, a)
    if same_name(a, b):
        assert name_key(a) == name_key(b)
