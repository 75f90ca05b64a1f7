from __future__ import annotations

import hashlib

import pytest

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.wire.cursor import Element
from cucm.wire.signed_file import (
    MAX_SIGNED_FILE,
    SignedFile,
    build_signed_file,
    decode_signed_file,
    encode_signed_file,
    is_signed_file,
    signed_bytes,
)
from cucm.wire.trust_list import DigestAlgorithm, SignerId, build_trust_list

SIGNER = SignerId("CN=ucm11pub;OU=IST;C=AU", b"\x70\xca", "CN=ucm11pub;OU=IST;C=AU")
CONFIGURATION = b"<?xml version='1.0'?>\n<device/>\n"


def sign(data: bytes, digest: DigestAlgorithm) -> bytes:
    return hashlib.new(digest.hashlib_name, data).digest().ljust(256, b"\xff")


def build(content: bytes = CONFIGURATION, digest: DigestAlgorithm = DigestAlgorithm.SHA512) -> bytes:
    return build_signed_file(
        content,
        signer=SIGNER,
        file_name="SEPB000B4BA0AEE.cnf.xml",
        digest=digest,
        sign=sign,
        signature_length=256,
        timestamp=1417242840,
    )


@pytest.mark.parametrize("content", [b"", b"\r\r\r", b"\x01\x00\x02\x00\x05", CONFIGURATION, bytes(70000)], ids=len)
def test_any_content_survives(content: bytes) -> None:
    data = build(content)
    decoded = decode_signed_file(data)
    assert decoded.content == content
    assert data.endswith(content)
    assert encode_signed_file(decoded) == data


@pytest.mark.parametrize("digest", DigestAlgorithm)
def test_properties(digest: DigestAlgorithm) -> None:
    data = build(digest=digest)
    decoded = decode_signed_file(data)
    assert decoded.version == (1, 0)
    assert decoded.header_length == len(data) - len(CONFIGURATION)
    assert decoded.header_length % 4 == 0
    assert (decoded.signer, decoded.digest) == (SIGNER, digest)
    assert (decoded.file_name, decoded.timestamp) == ("SEPB000B4BA0AEE.cnf.xml", 1417242840)
    assert decoded.signature == sign(signed_bytes(data), digest)
    assert len(signed_bytes(data)) == len(data) - 259


def test_is_signed_file() -> None:
    trust_list = build_trust_list(
        signer=SIGNER,
        records=[],
        digest=DigestAlgorithm.SHA1,
        sign=sign,
        signature_length=256,
        file_name="CTLFile.tlv",
        timestamp=0,
    )
    assert is_signed_file(build())
    assert is_signed_file(build(b""))
    for other in (trust_list, CONFIGURATION, b"", b"\x01", build()[:7]):
        assert not is_signed_file(other)


def test_other_header_versions_are_read() -> None:
    decoded = decode_signed_file(build())
    other = SignedFile((Element(1, b"\x01\x02"), *decoded.header[1:]), decoded.content)
    assert decode_signed_file(encode_signed_file(other)).version == (1, 2)


def test_cut_in_the_header() -> None:
    data = build()
    for end in range(len(data) - len(CONFIGURATION)):
        with pytest.raises(DecodeError) as caught:
            decode_signed_file(data[:end])
        assert caught.value.offset in (0, 8)


def test_cut_in_the_content_is_for_the_signature_to_notice() -> None:
    data = build()
    decoded = decode_signed_file(data[:-1])
    assert decoded.content == CONFIGURATION[:-1]
    assert sign(signed_bytes(data[:-1]), decoded.digest) != decoded.signature


def test_the_largest_file_passes_and_a_larger_one_does_not() -> None:
    data = build(b"")
    largest = data.ljust(MAX_SIGNED_FILE, b"\0")
    assert len(decode_signed_file(largest).content) == MAX_SIGNED_FILE - len(data)
    with pytest.raises(LimitExceeded, match="signed file of"):
        decode_signed_file(largest + b"\0")


def test_plain_content_is_no_signed_file() -> None:
    with pytest.raises(DecodeError, match="no signed file"):
        decode_signed_file(CONFIGURATION)


def test_names_that_do_not_fit() -> None:
    with pytest.raises(EncodeError):
        build_signed_file(
            b"",
            signer=SIGNER,
            file_name="a\0b",
            digest=DigestAlgorithm.SHA1,
            sign=sign,
            signature_length=256,
            timestamp=0,
        )
