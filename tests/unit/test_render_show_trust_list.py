from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cucm.errors import DecodeError
from cucm.key_store import KeyStore
from cucm.names import parse_name
from cucm.render.show_trust_list import TrustListKind, missing_file_lines, show_lines
from cucm.render.text import printable
from cucm.roles import TrustRole
from cucm.wire.cursor import element_head
from cucm.wire.trust_list import (
    DigestAlgorithm,
    Element,
    Record,
    SignerId,
    TrustList,
    TrustListTag,
    blank_record,
    build_trust_list,
    decode_trust_list,
    encode_trust_list,
)

SAMPLE = Path(__file__).parent.parent / "vectors" / "show_ctl_sample.txt"
SUBJECT = "CN=cucm-1051-a-pub;OU=TAC;O=Cisco;L=Krakow;ST=Malopolska;C=PL"
SERIAL = bytes.fromhex("70caf64e") + bytes(range(0xA0, 0xAC))
MODIFIED_AT = datetime(2015, 3, 6, 18, 45, 13, tzinfo=UTC).timestamp()


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    key = KeyStore().key("show ctl sample", 1024)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@pytest.fixture(scope="module")
def certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    """Self-signed, filled up to the published 694 bytes."""
    filling = 0
    while True:
        builder = x509.CertificateBuilder(
            parse_name(SUBJECT),
            parse_name(SUBJECT),
            key.public_key(),
            int.from_bytes(SERIAL),
            datetime(2015, 1, 1, tzinfo=UTC),
            datetime(2035, 1, 1, tzinfo=UTC),
        )
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.13"), bytes(filling))
        made = builder.add_extension(extension, critical=False).sign(key, hashes.SHA256())
        missing = 694 - len(made.public_bytes(Encoding.DER))
        if not missing:
            return made
        filling += missing


@pytest.fixture(scope="module")
def signer_record(certificate: x509.Certificate) -> Record:
    return record_of(certificate, TrustRole.SAST)


def record_of(certificate: x509.Certificate, function: int) -> Record:
    public_key = certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    return Record.build(
        dns_name="cucm-1051-a-pub",
        subject=SUBJECT,
        function=function,
        issuer=SUBJECT,
        serial=SERIAL,
        public_key=public_key.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        signature=certificate.signature,
        certificate=certificate.public_bytes(Encoding.DER),
        ip_address="10.48.47.153",
    )


def build(
    key: rsa.RSAPrivateKey, records: list[Record], file_name: str = "CTLFile.tlv", serial: bytes = SERIAL
) -> bytes:
    return build_trust_list(
        signer=SignerId(SUBJECT, serial, SUBJECT),
        records=records,
        digest=DigestAlgorithm.SHA1,
        sign=lambda data, _digest: key.sign(data, padding.PKCS1v15(), hashes.SHA1()),
        signature_length=128,
        file_name=file_name,
        timestamp=int(MODIFIED_AT),
    )


def other_record(function: int, dns_name: str, name_length: int, certificate_length: int) -> Record:
    name = "CN=".ljust(name_length - 1, "x")
    return Record.build(
        dns_name=dns_name,
        subject=name,
        function=function,
        issuer=name,
        serial=bytes(16),
        public_key=bytes(140),
        signature=bytes(128),
        certificate=bytes(certificate_length),
        ip_address="10.48.47.154",
    )


@pytest.fixture(scope="module")
def published_shape(key: rsa.RSAPrivateKey, certificate: x509.Certificate, signer_record: Record) -> bytes:
    records = [
        signer_record,
        record_of(certificate, TrustRole.CALLMANAGER_TFTP),
        other_record(TrustRole.CAPF, "cucm-1051-a-pub", 60, 680),
        other_record(TrustRole.CALLMANAGER_TFTP, "cucm-1051-a-sub1", 63, 696),
    ]
    data = build(key, records)
    assert len(data) == 4947
    return data


def pattern_of_sample() -> str:
    lines = [line for line in SAMPLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    parts = [r"(?:[^\n]*\n)*?" if line == "…" else re.escape(line).replace("…", r"[^\n]+") + "\n" for line in lines]
    return "".join(parts)


def test_the_published_sample_line_by_line(published_shape):
    shown = "\n".join(show_lines(published_shape, TrustListKind.CTL, modified_at=MODIFIED_AT)) + "\n"
    assert re.fullmatch(pattern_of_sample(), shown), shown


def test_the_sample_pattern_can_fail(published_shape):
    shown = "\n".join(show_lines(published_shape, TrustListKind.CTL, modified_at=MODIFIED_AT)) + "\n"
    assert not re.fullmatch(pattern_of_sample(), shown.replace("SIGNERID        2", "SIGNERID       2"))


def test_signature_bytes_sixteen_a_line_without_leading_zeros(published_shape):
    lines = show_lines(published_shape, TrustListKind.CTL, modified_at=MODIFIED_AT)
    first = lines.index("12      SIGNATURE       128") + 1
    assert [len(line.split()) for line in lines[first : first + 8]] == [16] * 8
    words = " ".join(lines[first : first + 8]).split()
    assert bytes(int(word, 16) for word in words) == decode_trust_list(published_shape).signature
    assert not [word for word in words if word.startswith("0") and word != "0"]


def test_an_itl_in_its_own_words(key, signer_record):
    data = build(key, [signer_record, other_record(TrustRole.TVS, "cucm-1051-a-pub", 62, 680)], "ITLFile.tlv")
    lines = show_lines(data, TrustListKind.ITL, modified_at=MODIFIED_AT)
    assert lines[0] == "The checksum value of the ITL file:"
    assert "ITL Record #:2" in lines
    assert "4       FUNCTION        2       TVS" in lines
    assert "This etoken was used to sign the ITL file." in lines
    assert lines[-1] == "The ITL file was verified successfully."


def test_another_security_token_did_not_sign(key, signer_record):
    data = build(key, [other_record(TrustRole.SAST, "host", 62, 694), signer_record])
    lines = show_lines(data, TrustListKind.CTL, modified_at=0)
    assert [line for line in lines if line.startswith("This etoken")] == [
        "This etoken was not used to sign the CTL file.",
        "This etoken was used to sign the CTL file.",
    ]


def test_blank_records_have_three_elements(key, signer_record):
    lines = show_lines(build(key, [signer_record, blank_record()]), TrustListKind.CTL, modified_at=0)
    start = lines.index("CTL Record #:2")
    assert lines[start + 4 : start + 8] == [
        "1       RECORDLENGTH    2       33",
        "2       DNSNAME         13      198.51.100.1",
        "4       FUNCTION        2       CCM+TFTP",
        "10      IPADDRESS       4",
    ]


def test_a_changed_byte_is_told_in_a_line_of_ours(published_shape):
    changed = bytearray(published_shape)
    changed[-1] ^= 1
    lines = show_lines(bytes(changed), TrustListKind.CTL, modified_at=0)
    assert lines[-1].startswith("[cucm-lab] The CTL file was NOT verified: signature-mismatch: ")


def test_a_signer_without_record_is_told(key, signer_record):
    lines = show_lines(build(key, [signer_record], serial=b"\x01"), TrustListKind.CTL, modified_at=0)
    assert lines[-1].startswith("[cucm-lab] The CTL file was NOT verified: signer-unknown: ")


def test_files_of_others_are_shown_as_they_are(key, signer_record):
    """Other separators and order in names, no DNSNAME and IPADDRESS, tags nobody knows, bytes behind the end."""
    plain = decode_trust_list(build(key, [signer_record]))
    record = plain.records[0]
    kept = tuple(item for item in record.elements if item.tag not in (1, 2, 10))
    commas = tuple(
        Element(tag, value.replace(b";", b",")) if tag in (3, 5) else Element(tag, value) for tag, value in kept
    )
    odd = (*commas, Element(77, b"??"))
    length = 5 + sum(3 + len(item.value) for item in odd)
    changed = TrustList(plain.header, (Record((Element(1, length.to_bytes(2)), *odd)),), b"tail")
    lines = show_lines(encode_trust_list(changed), TrustListKind.CTL, modified_at=0)
    assert "77      UNKNOWN         2" in lines
    assert f"3       SUBJECTNAME     62      {SUBJECT.replace(';', ',')}" in lines
    assert "[cucm-lab] 4 bytes follow the last record" in lines
    assert "This etoken was used to sign the CTL file." in lines


def test_names_cannot_command_the_terminal(key, signer_record):
    evil = Record.build(dns_name="\x1b[2J\nverified", function=99)
    lines = show_lines(build(key, [signer_record, evil]), TrustListKind.CTL, modified_at=0)
    assert r"2       DNSNAME         14      \x1b[2J\nverified" in lines
    assert "4       FUNCTION        2       99" in lines
    assert printable("Müller") == "Müller"


def test_no_file_in_ciscos_words():
    assert missing_file_lines(TrustListKind.CTL) == [
        "Length of CTL file: 0",
        "CTL File not found . Please run CTLClient plugin or run the CLI - utils ctl.. to generate the CTL file.",
        "Error parsing the CTL File.",
    ]
    assert any(line.startswith("[cucm-lab]") for line in missing_file_lines(TrustListKind.ITL))


def test_half_a_file_is_no_list(published_shape):
    with pytest.raises(DecodeError) as caught:
        show_lines(published_shape[: len(published_shape) // 2], TrustListKind.CTL, modified_at=0)
    assert caught.value.path.startswith("record[2]")


def nested(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = element_head(TrustListTag.SIGNERID, len(value)) + value
    return value


@pytest.mark.parametrize("inner", [nested(20_000), b"\x03\x00\x02??", b"\x07\x00\x01\x09"], ids=["deep", "3", "7"])
def test_containers_where_none_belong_are_not_opened(key, signer_record, inner):
    """The decoder keeps an unknown element unread: what it holds may be no elements, or elements without end."""
    plain = decode_trust_list(build(key, [signer_record]))
    header = {tag: value for tag, value in plain.header if tag != TrustListTag.PAD}
    header[TrustListTag.SIGNERID] += inner
    length = sum(3 + len(value) for value in header.values())
    header[TrustListTag.HEADERLENGTH] = length.to_bytes(2)
    data = encode_trust_list(replace(plain, header=tuple(Element(*item) for item in header.items())))
    lines = show_lines(data, TrustListKind.CTL, modified_at=0)
    name = {3: "SIGNERID       ", 7: "SIGNATUREINFO  "}[inner[0]]
    assert f"{inner[0]}       {name} {len(inner) - 3}" in lines
    assert "NOT verified: signature-mismatch" in lines[-1]
