"""Signed files (.sgn): the signed header of facts 3.1, directly followed by any content (facts 3.3 [peer])."""

from __future__ import annotations

from typing import Final

from cucm.errors import LimitExceeded
from cucm.records import dataclass
from cucm.wire.cursor import write_elements
from cucm.wire.signature_header import (
    DigestAlgorithm,
    Sign,
    SignedDocument,
    SignerId,
    TrustListTag,
    build_signed,
    decode_header,
    has_signature_header,
    signed_bytes,
)

__all__ = [
    "MAX_SIGNED_FILE",
    "VERSION",
    "SignedFile",
    "build_signed_file",
    "decode_signed_file",
    "encode_signed_file",
    "is_signed_file",
    "signed_bytes",
]

VERSION: Final = (1, 0)
"""Header version of .sgn files [peer]; trust lists have 1.2."""
MAX_SIGNED_FILE: Final = 64 * 1024 * 1024
"""Largest file the decoder takes, content included. Ours; what a phone downloads is the phone's part."""


@dataclass(frozen=True, slots=True)
class SignedFile(SignedDocument):
    """A signed envelope: header elements (pad included) and the content as it was."""

    content: bytes


def is_signed_file(data: bytes) -> bool:
    """Whether `data` starts like a .sgn file: a signed header of version 1.0 (a trust list has 1.2)."""
    return has_signature_header(data) and (data[3], data[4]) == VERSION


def decode_signed_file(data: bytes) -> SignedFile:
    """The file as values; `encode_signed_file` gives the same bytes back. Any header version is read.

    Raises DecodeError with offset and path, LimitExceeded above MAX_SIGNED_FILE or MAX_ELEMENTS.
    """
    if len(data) > MAX_SIGNED_FILE:
        raise LimitExceeded(f"signed file of {len(data)} bytes, {MAX_SIGNED_FILE} are allowed")
    header, end = decode_header(data)
    return SignedFile(header, data[end:])


def encode_signed_file(signed_file: SignedFile) -> bytes:
    """The bytes of header and content as they are, right or wrong. Raises EncodeError."""
    return write_elements(signed_file.header, pad_tag=TrustListTag.PAD) + signed_file.content


def build_signed_file(
    content: bytes,
    *,
    signer: SignerId,
    file_name: str,
    digest: DigestAlgorithm,
    sign: Sign,
    signature_length: int,
    timestamp: int,
) -> bytes:
    """A .sgn file around `content`. The arguments are those of `build_trust_list`. Raises EncodeError."""
    return build_signed(
        content,
        version=VERSION,
        signer=signer,
        digest=digest,
        sign=sign,
        signature_length=signature_length,
        file_name=file_name,
        timestamp=timestamp,
        signer_version=None,
    )
