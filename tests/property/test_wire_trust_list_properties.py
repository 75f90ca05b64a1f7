from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.cursor import Element, write_elements
from cucm.wire.signature_header import SignedDocument
from cucm.wire.signed_file import build_signed_file, decode_signed_file, encode_signed_file
from cucm.wire.trust_list import (
    DigestAlgorithm,
    Record,
    SignerId,
    TrustList,
    TrustListTag,
    build_trust_list,
    decode_trust_list,
    encode_trust_list,
    signed_bytes,
)

FEW = settings(max_examples=80, derandomize=True)
HEADER_PROPERTIES = [name for name, value in vars(SignedDocument).items() if isinstance(value, property)]
RECORD_PROPERTIES = [name for name, value in vars(Record).items() if isinstance(value, property)]

texts = st.text(st.characters(codec="latin-1", exclude_characters="\0"), max_size=30)
blobs = st.binary(max_size=60)
u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
signers = st.builds(SignerId, texts, blobs, texts)
digests = st.sampled_from(DigestAlgorithm)
signature_lengths = st.sampled_from([64, 128, 256, 512])
pairs = st.none() | st.tuples(u8, u8)
addresses = st.none() | st.ip_addresses(v=4).map(str)
optional_texts, optional_blobs = st.none() | texts, st.none() | blobs
built_records = st.builds(
    Record.build,
    function=u16,
    dns_name=optional_texts,
    subject=optional_texts,
    issuer=optional_texts,
    serial=optional_blobs,
    public_key=optional_blobs,
    signature=optional_blobs,
    certificate=optional_blobs,
    ip_address=addresses,
)
raw_elements = st.lists(st.builds(Element, u8, blobs), max_size=8)
unknown = st.builds(Element, st.integers(29, 255) | st.just(0), blobs) | st.just(Element(13, b"\r"))


def without_neighbouring_pads(elements: list[Element]) -> tuple[Element, ...]:
    """Pad bytes side by side are one run when read."""
    kept: list[Element] = []
    for element in elements:
        if not (kept and element.tag == kept[-1].tag == TrustListTag.PAD):
            kept.append(element)
    return tuple(kept)


@st.composite
def foreign_records(draw: st.DrawFn) -> Record:
    """A valid record in any order with unknown elements and padding, RECORDLENGTH first."""
    record = draw(built_records)
    others = draw(st.permutations(list(record.elements[1:]) + draw(st.lists(unknown, max_size=3))))
    elements = without_neighbouring_pads(list(others))
    length = 5 + len(write_elements(elements, pad_tag=TrustListTag.PAD))
    return Record((Element(1, length.to_bytes(2, "big")), *elements))


def fake_sign(signature_length: int) -> Callable[[bytes, DigestAlgorithm], bytes]:
    def sign(data: bytes, digest: DigestAlgorithm) -> bytes:
        return hashlib.new(digest.hashlib_name, data).digest().ljust(signature_length, b"\x5a")[:signature_length]

    return sign


@st.composite
def trust_list_files(draw: st.DrawFn) -> bytes:
    """A valid file, its header shuffled and extended behind HEADERLENGTH in half of the cases."""
    length = draw(signature_lengths)
    data = build_trust_list(
        signer=draw(signers),
        records=draw(st.lists(foreign_records(), max_size=4)),
        digest=draw(digests),
        sign=fake_sign(length),
        signature_length=length,
        file_name=draw(texts),
        timestamp=draw(u32),
        signer_version=draw(pairs),
    )
    return encode_trust_list(shuffled_header(draw, decode_trust_list(data))) if draw(st.booleans()) else data


def shuffled_header(draw: st.DrawFn, trust_list: TrustList) -> TrustList:
    rest = draw(st.permutations(list(trust_list.header[2:]) + draw(st.lists(unknown, max_size=3))))
    elements = without_neighbouring_pads(list(rest))
    length = 10 + len(write_elements(elements, pad_tag=TrustListTag.PAD))
    header = (trust_list.header[0], Element(2, length.to_bytes(2, "big")), *elements)
    return TrustList(header, trust_list.records, trust_list.trailing)


def read_everything(document: SignedDocument) -> list[object]:
    values = [getattr(document, name) for name in HEADER_PROPERTIES]
    if isinstance(document, TrustList):
        values += [getattr(record, name) for record in document.records for name in RECORD_PROPERTIES]
    return values


@FEW
@given(trust_list_files())
def test_encode_of_decode_is_the_file_and_the_other_way_round(data: bytes) -> None:
    decoded = decode_trust_list(data)
    assert encode_trust_list(decoded) == data
    assert decode_trust_list(encode_trust_list(decoded)) == decoded
    assert len(signed_bytes(data)) == len(data) - 3 - len(decoded.signature)
    assert decoded.signed_part(data) == signed_bytes(data)
    read_everything(decoded)


@FEW
@given(
    signers,
    st.lists(built_records, max_size=4),
    digests,
    signature_lengths,
    texts,
    u32,
    pairs,
)
def test_a_list_says_what_it_was_built_from(
    signer: SignerId,
    records: list[Record],
    digest: DigestAlgorithm,
    length: int,
    file_name: str,
    timestamp: int,
    signer_version: tuple[int, int] | None,
) -> None:
    sign = fake_sign(length)
    data = build_trust_list(
        signer=signer,
        records=records,
        digest=digest,
        sign=sign,
        signature_length=length,
        file_name=file_name,
        timestamp=timestamp,
        signer_version=signer_version,
    )
    decoded = decode_trust_list(data)
    assert decoded.records == tuple(records)
    assert [record.length for record in records] == [
        int.from_bytes(record.elements[0].value, "big") for record in decoded.records
    ]
    assert (decoded.signer, decoded.digest, decoded.file_name) == (signer, digest, file_name)
    assert (decoded.timestamp, decoded.signer_version) == (timestamp, signer_version)
    assert decoded.signature == sign(signed_bytes(data), digest)
    assert decoded.header_length % 4 == 0


@FEW
@given(built_records, st.none() | texts, optional_blobs)
def test_records_read_back(record: Record, subject: str | None, certificate: bytes | None) -> None:
    built = Record.build(function=record.function, subject=subject, certificate=certificate)
    assert (built.function, built.subject, built.certificate) == (record.function, subject, certificate)
    assert built.is_blank == (certificate is None)


@settings(FEW, max_examples=400)
@given(trust_list_files(), st.data())
def test_any_changed_byte_gives_a_value_or_the_documented_error(data: bytes, choice: st.DataObject) -> None:
    original = decode_trust_list(data)
    changed = bytearray(data)
    changed[choice.draw(st.integers(0, len(data) - 1))] ^= choice.draw(st.integers(1, 255))
    try:
        decoded = decode_trust_list(bytes(changed))
    except (DecodeError, LimitExceeded):
        return
    assert decoded != original
    assert encode_trust_list(decoded) == bytes(changed)
    read_everything(decoded)
    # never an accepted change: what is signed, or the signature, is another
    assert (signed_bytes(bytes(changed)), decoded.signature) != (signed_bytes(data), original.signature)


def check_place(error: DecodeError, data: bytes) -> None:
    assert 0 <= error.offset <= len(data)
    assert error.path


def outcome(function: Callable[[bytes], object], data: bytes) -> object:
    """The value, or None when the documented error came; anything else goes through."""
    try:
        return function(data)
    except DecodeError as error:
        check_place(error, data)
    except LimitExceeded:
        pass
    return None


PREFIX = b"\x01\x00\x02\x01\x02\x02\x00\x02\x00"


@settings(FEW, max_examples=500)
@given(st.binary(max_size=300), st.sampled_from([b"", PREFIX]))
def test_no_bytes_raise_anything_else(data: bytes, start: bytes) -> None:
    for decode in (decode_trust_list, decode_signed_file, signed_bytes):
        outcome(decode, start + data)


@settings(FEW, max_examples=300)
@given(trust_list_files(), st.binary(max_size=120))
def test_any_bytes_instead_of_the_records(data: bytes, behind: bytes) -> None:
    header = data[: decode_trust_list(data).header_length]
    for body in (behind, b"\x01\x00\x02" + len(behind).to_bytes(2, "big") + behind):
        decoded = outcome(decode_trust_list, header + body)
        if isinstance(decoded, TrustList):
            assert encode_trust_list(decoded) == header + body
            read_everything(decoded)


@FEW
@given(trust_list_files(), st.data())
def test_cut_anywhere(data: bytes, choice: st.DataObject) -> None:
    end = choice.draw(st.integers(0, len(data)))
    decoded = outcome(decode_trust_list, data[:end])
    if isinstance(decoded, TrustList):
        assert encode_trust_list(decoded) == data[:end]


@settings(FEW, max_examples=200)
@given(
    st.lists(st.builds(Element, u8, blobs), max_size=8), st.lists(st.lists(st.builds(Element, u8, blobs)), max_size=3)
)
def test_properties_of_raw_values_raise_only_documented_errors(
    header: list[Element], records: list[list[Element]]
) -> None:
    trust_list = TrustList(tuple(header), tuple(Record(tuple(elements)) for elements in records))
    for owner, names in [(trust_list, HEADER_PROPERTIES)] + [(r, RECORD_PROPERTIES) for r in trust_list.records]:
        for name in names:
            with suppress(DecodeError, LimitExceeded):
                getattr(owner, name)
    outcome(decode_trust_list, encode_trust_list(trust_list))


@FEW
@given(blobs | st.binary(min_size=500, max_size=3000), signers, digests, signature_lengths, texts, u32)
def test_signed_files_read_back(
    content: bytes, signer: SignerId, digest: DigestAlgorithm, length: int, file_name: str, timestamp: int
) -> None:
    sign = fake_sign(length)
    data = build_signed_file(
        content,
        signer=signer,
        file_name=file_name,
        digest=digest,
        sign=sign,
        signature_length=length,
        timestamp=timestamp,
    )
    decoded = decode_signed_file(data)
    assert encode_signed_file(decoded) == data
    assert (decoded.content, decoded.signer, decoded.digest) == (content, signer, digest)
    assert (decoded.file_name, decoded.timestamp) == (file_name, timestamp)
    assert decoded.signature == sign(signed_bytes(data), digest)
