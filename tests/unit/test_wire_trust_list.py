from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.roles import TrustRole
from cucm.wire.cursor import MAX_ELEMENTS
from cucm.wire.trust_list import (
    MAX_DECODED_BYTES,
    MAX_RECORDS,
    DigestAlgorithm,
    Element,
    Record,
    RecordTag,
    SignerId,
    TrustList,
    TrustListTag,
    blank_record,
    build_trust_list,
    decode_trust_list,
    encode_trust_list,
    signed_bytes,
)

VECTORS = Path(__file__).parent.parent / "vectors"
PUBLISHED = json.loads((VECTORS / "vectors.json").read_text())["trust_list_lengths"]
SHAPES = json.loads((VECTORS / "trust_list_shapes.json").read_text())["files"]
TEXTS = ("dns_name", "subject", "issuer")
SIGNER = SignerId("CN=ucm11pub;OU=IST;C=AU", b"\x70\xca\xf6", "CN=stormin-WIN2012-CA")


def sized_record(shape: dict[str, int]) -> Record:
    """A record whose parts have the sizes of `shape`, NUL included."""
    values = {n: "n" * (size - 1) if n in TEXTS else bytes(size) for n, size in shape.items()}
    values |= {"function": shape["function"], "ip_address": "10.48.47.153"}  # type: ignore[dict-item]
    values.pop("length")
    return Record.build(**values)  # type: ignore[arg-type]


def sized_file(shape: dict, digest: DigestAlgorithm = DigestAlgorithm.SHA1) -> bytes:
    signer = shape["signer"]
    return build_trust_list(
        signer=SignerId("n" * (signer["subject"] - 1), bytes(signer["serial"]), "i" * (signer["issuer"] - 1)),
        records=[sized_record(record) for record in shape["records"]],
        digest=digest,
        sign=lambda _data, _digest: b"\x55" * shape["signature"],
        signature_length=shape["signature"],
        file_name="CTLFile.tlv",
        timestamp=1425667513,
    )


def full_record(function: int = TrustRole.SAST) -> Record:
    return Record.build(
        function=function,
        dns_name="ucm11pub",
        subject=SIGNER.subject,
        issuer=SIGNER.issuer,
        serial=SIGNER.serial,
        public_key=b"\x30key",
        signature=b"sig",
        certificate=b"\x30certificate",
        ip_address="192.168.11.51",
    )


def small_file(
    *records: Record, sign: Callable[[bytes, DigestAlgorithm], bytes] | None = None, **changes: object
) -> bytes:
    arguments: dict[str, object] = {
        "signer": SIGNER,
        "records": records,
        "digest": DigestAlgorithm.SHA1,
        "sign": sign or (lambda _data, _digest: bytes(128)),
        "signature_length": 128,
        "file_name": "ITLFile.tlv",
        "timestamp": 1417242840,
    }
    return build_trust_list(**(arguments | changes))  # type: ignore[arg-type]


def tlv(tag: int, value: bytes) -> bytes:
    """An element put together without the codec."""
    return bytes([tag]) + len(value).to_bytes(2, "big") + value


def foreign_record(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return tlv(1, (len(body) + 5).to_bytes(2, "big")) + body


KEY = rsa.generate_private_key(65537, 1024)


def foreign_file(*, signature: bytes = bytes(128), with_signature: bool = True) -> bytes:
    """As others write it: commas in names, 4 6 5 in SIGNERID, tag 28 behind 2, unknown tags, no DNSNAME/IPADDRESS."""
    signer = tlv(4, b"CN=gateway, O=Example\0") + tlv(6, b"CN=CA, O=Example\0") + tlv(5, b"\x01\x02\x03")
    info = tlv(8, b"\x01") + tlv(9, tlv(10, b"\0") + tlv(11, b"\x01"))
    before = tlv(28, b"\x01\x01") + tlv(3, signer) + tlv(7, info)
    after = tlv(14, b"ITLFile.tlv\0") + tlv(15, b"\x54\x79\x00\x00") + tlv(77, b"??") + b"\r\r"
    header = 5 + 5 + len(before) + 3 + 128 + len(after)
    record = foreign_record(
        tlv(3, b"CN=gateway, O=Example\0"),
        tlv(4, b"\0\0"),
        tlv(5, b"CN=CA, O=Example\0"),
        tlv(6, b"\x01\x02\x03"),
        tlv(7, b"key"),
        tlv(9, b"certificate"),
        tlv(11, b"hash"),
        tlv(12, b"\x01"),
        tlv(99, b""),
        tlv(99, b"twice"),
    )
    shuffled = foreign_record(tlv(9, b"c"), tlv(4, b"\0\x15"), tlv(200, b"x"))
    start = tlv(1, b"\x01\x02") + tlv(2, header.to_bytes(2, "big")) + before
    return start + (tlv(12, signature) if with_signature else b"") + after + record + shuffled


def error_of(data: bytes) -> tuple[int, str]:
    with pytest.raises(DecodeError) as caught:
        decode_trust_list(data)
    return caught.value.offset, caught.value.path


def replaced(data: bytes, tag_path: tuple[int, bytes], new: bytes) -> bytes:
    """`data` with the value of the first element of this tag and value replaced by one of the same length."""
    old = tlv(*tag_path)
    assert len(new) == len(tag_path[1])
    assert old in data
    return data.replace(old, tlv(tag_path[0], new), 1)


@pytest.mark.parametrize("name", SHAPES)
def test_published_lengths(name: str) -> None:
    shape = SHAPES[name]
    data = sized_file(shape)
    decoded = decode_trust_list(data)
    published = PUBLISHED.get(name)
    if published is not None:
        assert len(data) == published["file"]
        assert decoded.header_length == published["header"]
        assert [record.length for record in decoded.records] == published["records"]
    assert len(data) == shape["file_length"]
    assert decoded.header_length == shape["header_length"]
    assert [record.length for record in decoded.records] == [record["length"] for record in shape["records"]]
    assert encode_trust_list(decoded) == data


def test_a_blank_record_has_33_bytes_and_three_tags() -> None:
    record = blank_record()
    assert record.length == 33
    assert [element.tag for element in record.elements] == [1, 2, 4, 10]
    assert record.function == TrustRole.CALLMANAGER_TFTP
    assert record.is_blank
    named = blank_record(TrustRole.TVS, dns_name="ucm11pub", ip_address="192.168.11.51")
    assert (named.function, named.dns_name, named.ip_address) == (TrustRole.TVS, "ucm11pub", "192.168.11.51")


def test_header_in_ciscos_order_without_tag_28() -> None:
    decoded = decode_trust_list(small_file(full_record()))
    assert [element.tag for element in decoded.header if element.tag != TrustListTag.PAD] == [1, 2, 3, 7, 12, 14, 15]
    assert decoded.signer_version is None
    container = next(e.value for e in decoded.header if e.tag == TrustListTag.SIGNERID)
    assert (container[0], container[3 + len(SIGNER.subject) + 1]) == (4, 5)


def test_properties_of_the_header() -> None:
    decoded = decode_trust_list(small_file(full_record(), digest=DigestAlgorithm.SHA512, signer_version=(1, 1)))
    assert decoded.version == (1, 2)
    assert decoded.signer == SIGNER
    assert decoded.digest is DigestAlgorithm.SHA512
    assert (decoded.signature_algorithm, decoded.signature_modulus) == (0, 1)
    assert decoded.signature == bytes(128)
    assert decoded.file_name == "ITLFile.tlv"
    assert decoded.timestamp == 1417242840
    assert decoded.signer_version == (1, 1)
    assert [element.tag for element in decoded.header][:3] == [1, 2, 28]


def test_properties_of_a_record() -> None:
    [record] = decode_trust_list(small_file(full_record(TrustRole.TVS))).records
    assert [element.tag for element in record.elements] == list(range(1, 11))
    assert record.function == TrustRole.TVS
    assert (record.dns_name, record.ip_address) == ("ucm11pub", "192.168.11.51")
    assert (record.subject, record.issuer, record.serial) == (SIGNER.subject, SIGNER.issuer, SIGNER.serial)
    assert (record.public_key, record.signature, record.certificate) == (b"\x30key", b"sig", b"\x30certificate")
    assert not record.is_blank


def test_absent_elements_are_none() -> None:
    record = Record.build(function=0)
    values = (record.dns_name, record.subject, record.issuer, record.serial, record.public_key, record.signature)
    assert values == (None,) * 6
    assert (record.certificate, record.ip_address, record.length) == (None, None, 10)


def test_an_etoken_has_an_empty_dns_name() -> None:
    record = Record.build(function=0, dns_name="")
    assert record.elements[1] == Element(RecordTag.DNSNAME, b"\0")
    assert record.dns_name == ""


@pytest.mark.parametrize("length", range(8))
def test_the_header_is_padded_to_a_multiple_of_four(length: int) -> None:
    data = small_file(full_record(), signer=SignerId("n" * length, b"", ""))
    decoded = decode_trust_list(data)
    assert decoded.header_length % 4 == 0
    pad = decoded.header[-1].value if decoded.header[-1].tag == TrustListTag.PAD else b""
    assert pad == b"\r" * len(pad)
    assert len(pad) < 4
    assert data[decoded.header_length] == RecordTag.RECORDLENGTH


@pytest.mark.parametrize(("bits", "modulus"), [(512, 0), (1024, 1), (2048, 2), (4096, 3)])
def test_rsa_signature_sizes(bits: int, modulus: int) -> None:
    data = small_file(sign=lambda _data, _digest: b"\x01" * (bits // 8), signature_length=bits // 8)
    decoded = decode_trust_list(data)
    assert (decoded.signature_modulus, len(decoded.signature)) == (modulus, bits // 8)
    assert encode_trust_list(decoded) == data


@pytest.mark.parametrize("length", [71, 72, 103, 139, 384])
def test_signatures_without_a_modulus_index_are_refused(length: int) -> None:
    with pytest.raises(EncodeError, match=f"{length} bytes") as caught:
        small_file(sign=lambda _data, _digest: bytes(length), signature_length=length)
    assert caught.value.mend is not None
    assert "UNKNOWN" in caught.value.mend


def test_an_ec_signature_can_be_written_on_purpose_and_read() -> None:
    decoded = decode_trust_list(small_file(full_record()))
    header = tuple(e._replace(value=b"\x30" * 71) if e.tag == TrustListTag.SIGNATURE else e for e in decoded.header)
    header = (header[0], Element(2, (decoded.header_length - 57).to_bytes(2, "big")), *header[2:])
    data = encode_trust_list(TrustList(header, decoded.records))
    assert decode_trust_list(data).signature == b"\x30" * 71


@pytest.mark.parametrize("size", [65, 97, 133])
def test_ec_points_as_record_keys(size: int) -> None:
    point = b"\x04" + bytes(size - 1)
    [record] = decode_trust_list(small_file(Record.build(function=0, public_key=point, signature=bytes(71)))).records
    assert record.public_key == point


@pytest.mark.parametrize("digest", DigestAlgorithm)
def test_sign_gets_the_file_without_its_signature(digest: DigestAlgorithm) -> None:
    seen: list[tuple[bytes, DigestAlgorithm]] = []

    def sign(data: bytes, algorithm: DigestAlgorithm) -> bytes:
        seen.append((data, algorithm))
        return hashlib.new(algorithm.hashlib_name, data).digest().ljust(128, b"\xff")

    data = small_file(full_record(), digest=digest, sign=sign)
    assert seen == [(signed_bytes(data), digest)]
    signature = decode_trust_list(data).signature
    assert len(signed_bytes(data)) == len(data) - 131
    assert data.replace(tlv(12, signature), b"") == signed_bytes(data)


def test_a_signature_of_another_length_than_announced_is_refused() -> None:
    with pytest.raises(EncodeError, match="64 bytes where 128"):
        small_file(sign=lambda _data, _digest: bytes(64))


def test_a_foreign_file_decodes_and_encodes_unchanged() -> None:
    data = foreign_file()
    decoded = decode_trust_list(data)
    assert encode_trust_list(decoded) == data
    assert decoded.signer == SignerId("CN=gateway, O=Example", b"\x01\x02\x03", "CN=CA, O=Example")
    assert (decoded.signer_version, decoded.file_name) == ((1, 1), "ITLFile.tlv")
    first, second = decoded.records
    assert (first.dns_name, first.ip_address, first.serial) == (None, None, b"\x01\x02\x03")
    assert first.elements[-2:] == (Element(99, b""), Element(99, b"twice"))
    assert (second.function, second.certificate, second.subject) == (21, b"c", None)


def test_a_foreign_signature_verifies() -> None:
    unsigned = foreign_file(with_signature=False)
    data = foreign_file(signature=KEY.sign(unsigned, padding.PKCS1v15(), hashes.SHA1()))
    decoded = decode_trust_list(data)
    KEY.public_key().verify(decoded.signature, signed_bytes(data), padding.PKCS1v15(), hashes.SHA1())
    changed = data[:-1] + b"y"
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(decoded.signature, signed_bytes(changed), padding.PKCS1v15(), hashes.SHA1())


@pytest.mark.parametrize("trailing", [b"\r", b"\0\0", b"\x02\x00\x01x"])
def test_bytes_behind_the_last_record_are_kept(trailing: bytes) -> None:
    data = small_file(full_record()) + trailing
    decoded = decode_trust_list(data)
    assert decoded.trailing == trailing
    assert len(decoded.records) == 1
    assert encode_trust_list(decoded) == data


def test_trailing_bytes_that_begin_a_record_must_be_one() -> None:
    data = small_file(full_record())
    assert error_of(data + b"\x01") == (len(data), "record[2].RECORDLENGTH")


@pytest.mark.parametrize("data", [small_file(full_record(), full_record(TrustRole.TVS)), foreign_file()])
def test_cut_anywhere(data: bytes) -> None:
    decoded = decode_trust_list(data)
    ends = [decoded.header_length]
    for record in decoded.records:
        ends.append(ends[-1] + record.length)
    for end in range(len(data)):
        if end in ends:
            assert len(decode_trust_list(data[:end]).records) == ends.index(end)
        else:
            assert error_of(data[:end])[0] <= end


def test_a_file_is_read_the_same_from_pieces() -> None:
    data = foreign_file()
    assembled = bytearray()
    for byte in data:
        assembled.append(byte)
    assert decode_trust_list(bytes(assembled)) == decode_trust_list(data)


GOOD = small_file(full_record(), full_record(TrustRole.TVS), blank_record())
HEADER = decode_trust_list(GOOD).header_length
HEADER_LENGTH = (2, HEADER.to_bytes(2, "big"))
RECORD = full_record().length
SECOND = HEADER + RECORD
BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 0, "header"),
    "no trust list": (b"<?xml version='1.0'?>", 0, "header"),
    "header length beyond the file": (
        replaced(GOOD, HEADER_LENGTH, b"\xff\xff"),
        8,
        "header.HEADERLENGTH",
    ),
    "header length too small": (replaced(GOOD, HEADER_LENGTH, b"\0\x09"), 8, "header.HEADERLENGTH"),
    "header length cuts an element": (
        replaced(GOOD, HEADER_LENGTH, b"\0\x0c"),
        10,
        "header.SIGNERID",
    ),
    "header without a signer": (replaced(GOOD, HEADER_LENGTH, b"\0\x0a"), 0, "header.SIGNERID"),
    "unknown digest": (
        replaced(GOOD, (8, b"\1"), b"\4"),
        GOOD.index(tlv(8, b"\1")) + 3,
        "header.SIGNATUREINFO.DIGESTALGORTITHM",
    ),
    "NUL in the file name": (
        replaced(GOOD, (14, b"ITLFile.tlv\0"), b"ITL\0ile.tlv\0"),
        GOOD.index(b"ITLFile"),
        "header.FILENAME",
    ),
    "record longer than the file": (
        GOOD[: SECOND + 3] + b"\xff\xff" + GOOD[SECOND + 5 :],
        SECOND + 3,
        "record[2].RECORDLENGTH",
    ),
    "record shorter than its own element": (
        GOOD[: SECOND + 3] + b"\0\4" + GOOD[SECOND + 5 :],
        SECOND + 3,
        "record[2].RECORDLENGTH",
    ),
    "RECORDLENGTH of three bytes": (
        GOOD[: SECOND + 1] + b"\0\3" + GOOD[SECOND + 3 :],
        SECOND + 1,
        "record[2].RECORDLENGTH",
    ),
    "record without FUNCTION": (GOOD[:HEADER] + foreign_record(tlv(2, b"x\0")), HEADER, "record[1].FUNCTION"),
    "FUNCTION of one byte": (GOOD[:HEADER] + foreign_record(tlv(4, b"\0")), HEADER + 8, "record[1].FUNCTION"),
    "serial number twice": (
        GOOD[:SECOND] + foreign_record(tlv(4, b"\0\0"), tlv(6, b"a"), tlv(6, b"b")),
        SECOND + 14,
        "record[2].SERIALNUMBER",
    ),
    "serial number beyond the record": (
        GOOD[:SECOND] + foreign_record(tlv(4, b"\0\0"), b"\6\0\2a") + b"b" * 9,
        SECOND + 11,
        "record[2].SERIALNUMBER",
    ),
    "address of five bytes": (
        GOOD[:HEADER] + foreign_record(tlv(4, b"\0\0"), tlv(10, b"12345")),
        HEADER + 13,
        "record[1].IPADDRESS",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_carry_offset_and_path(name: str) -> None:
    data, offset, path = BAD[name]
    assert error_of(data) == (offset, path)


@pytest.mark.parametrize(
    ("tag", "value"), [(1, b"\1\2"), (3, b"x"), (7, b"x"), (12, b"x"), (14, b"x\0"), (15, bytes(4)), (28, b"\1\1")]
)
def test_a_known_header_element_may_not_come_twice(tag: int, value: bytes) -> None:
    decoded = decode_trust_list(small_file(full_record(), signer_version=(1, 1)))
    length = decoded.header_length + 3 + len(value)
    header = (decoded.header[0], Element(2, length.to_bytes(2, "big")), *decoded.header[2:], Element(tag, value))
    data = encode_trust_list(TrustList(header, decoded.records))
    assert error_of(data) == (decoded.header_length, f"header.{TrustListTag(tag).name}")


def test_a_second_signature_leaves_nothing_to_verify() -> None:
    data = GOOD[:HEADER]
    length = (HEADER + 131).to_bytes(2, "big")
    with pytest.raises(DecodeError) as caught:
        signed_bytes(replaced(data, HEADER_LENGTH, length) + tlv(12, bytes(128)))
    assert (caught.value.offset, caught.value.path) == (HEADER, "header.SIGNATURE")


def test_no_signature_leaves_nothing_to_verify() -> None:
    header = tlv(1, b"\1\2") + tlv(2, b"\0\x0a")
    with pytest.raises(DecodeError) as caught:
        signed_bytes(header)
    assert caught.value.path == "header.SIGNATURE"


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="trust list of"):
        decode_trust_list(GOOD.ljust(MAX_DECODED_BYTES + 1, b"\r"))
    assert len(decode_trust_list(GOOD.ljust(MAX_DECODED_BYTES, b"\r")).records) == 3
    most = small_file(*[Record.build(function=0)] * MAX_RECORDS)
    assert len(decode_trust_list(most).records) == MAX_RECORDS
    with pytest.raises(LimitExceeded, match="512 records"):
        decode_trust_list(most + foreign_record(tlv(4, b"\0\0")))
    with pytest.raises(LimitExceeded, match="64 elements"):
        decode_trust_list(GOOD[:HEADER] + foreign_record(tlv(4, b"\0\0"), b"\x63\0\0" * MAX_ELEMENTS))


ALLOWED_MULTIPLE = 40
"""Bytes allocated per byte of the worst input: elements of no or two bytes, and records of one element."""


@pytest.mark.parametrize(
    "record",
    [
        foreign_record(tlv(4, b"\0\0")),
        foreign_record(tlv(4, b"\0\0"), b"\x63\0\0" * 62),
        foreign_record(tlv(4, b"\0\0"), b"\x63\0\2ab" * 62),
        foreign_record(tlv(4, b"\0\0"), b"\x63\0\0\r" * 31),
    ],
    ids=["smallest records", "empty elements", "small elements", "padding between"],
)
def test_memory_stays_a_small_multiple_of_the_input(record: bytes) -> None:
    data = small_file() + record * MAX_RECORDS
    tracemalloc.start()
    try:
        decoded = decode_trust_list(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(decoded.records) == MAX_RECORDS
    assert peak < ALLOWED_MULTIPLE * len(data)


def test_addresses() -> None:
    sixteen = foreign_record(tlv(4, b"\0\0"), tlv(10, bytes(15) + b"\1"))
    assert [record.ip_address for record in decode_trust_list(GOOD[:HEADER] + sixteen).records] == ["::1"]
    with pytest.raises(DecodeError, match="5 bytes where an IPv4 address has 4"):
        decode_trust_list(GOOD[:HEADER] + foreign_record(tlv(4, b"\0\0"), tlv(10, b"12345")))


def test_wrong_lists_can_be_encoded_on_purpose() -> None:
    lying = Record((Element(1, b"\xff\xff"), Element(4, b"")))
    wrong = TrustList((Element(2, b"x"), Element(13, b"no pad"), Element(13, b"")), (lying,), b"end")
    assert encode_trust_list(wrong) == b"\x02\0\x01x" + b"no pad" + b"\x01\0\x02\xff\xff\x04\0\0" + b"end"


def test_properties_of_raw_values_raise_only_decode_errors() -> None:
    record = Record((Element(2, b"a\0b"), Element(10, b"")))
    for name, offset in (("dns_name", 3), ("ip_address", 9), ("function", 0)):
        with pytest.raises(DecodeError) as caught:
            getattr(record, name)
        assert caught.value.offset == offset
    info = tlv(8, b"\1") + tlv(9, tlv(10, b"\0"))
    trust_list = TrustList((Element(13, b"\r\r"), Element(3, tlv(4, b"a\0") + b"\5"), Element(7, info)), ())
    errors = {"signer": (10, "header.SIGNERID.SERIALNUMBER"), "version": (0, "header.VERSION")}
    errors["signature_modulus"] = (21, "header.SIGNATUREINFO.SIGNATUREALGOINFO.SIGNATUREMODULUS")
    errors["digest"] = (21, "header.SIGNATUREINFO.SIGNATUREALGOINFO.SIGNATUREMODULUS")
    for name, where in errors.items():
        with pytest.raises(DecodeError) as caught:
            getattr(trust_list, name)
        assert (caught.value.offset, caught.value.path) == where


@pytest.mark.parametrize(
    "values",
    [
        {"dns_name": "a\0"},
        {"subject": "Ł"},
        {"issuer": "a\0b"},
        {"function": -1},
        {"function": 1 << 16},
        {"ip_address": "300.1.1.1"},
        {"ip_address": "::1"},
        {"certificate": bytes(65536)},
        {"certificate": bytes(65530)},
    ],
)
def test_records_that_do_not_fit(values: dict[str, object]) -> None:
    with pytest.raises(EncodeError) as caught:
        small_file(Record.build(**({"function": 0} | values)))  # type: ignore[arg-type]
    assert caught.value.mend


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": -1},
        {"timestamp": 1 << 32},
        {"file_name": "a\0b"},
        {"signer": SignerId("a\0b", b"", "")},
        {"signer": SignerId("", b"", "Ł")},
        {"signer": SignerId("s" * 40000, b"", "i" * 40000)},
        {"signer": SignerId("s" * 65400, b"", "")},
        {"signer_version": (1, 256)},
    ],
)
def test_headers_that_do_not_fit(changes: dict[str, object]) -> None:
    with pytest.raises(EncodeError):
        small_file(**changes)
