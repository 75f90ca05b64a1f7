"""What can be done to a file so that a phone should notice: cut, changed, unsigned, signed by another, too large.

All functions raise NotAlterable where a file does not have what they would change, DecodeError or LimitExceeded where
it claims to be a trust list or signed file and is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from cucm.faults import Action
from cucm.faults.catalogue.files import Oversized, Tampered, Truncated, Unsigned
from cucm.identity import sign
from cucm.issuing import serial_from_seed
from cucm.roles import TrustRole
from cucm.wire.cursor import HEAD_BYTES, Element, write_elements
from cucm.wire.signature_header import (
    PAD_BYTE,
    PAD_MULTIPLE,
    SignedDocument,
    SignerId,
    TrustListTag,
    has_signature_header,
)
from cucm.wire.signed_file import build_signed_file, decode_signed_file, is_signed_file
from cucm.wire.trust_list import Record, RecordTag, build_trust_list, decode_trust_list

MAX_ALTERED: Final = 16
"""Altered files kept, so that transfers of the same one share it."""
PADDING_BYTES: Final = 60_000
"""What one record that pads a list holds; its length has to fit 16 bits."""


class NotAlterable(Exception):
    """Why an action cannot be done to a file."""


@lru_cache(maxsize=MAX_ALTERED)
def altered(data: bytes, action: Action) -> bytes:
    """`data` after an action that needs nothing but it."""
    match action:
        case Truncated(bytes=kept):
            return _truncated(data, kept)
        case Tampered(offset=offset):
            return _tampered(data, offset)
        case Unsigned():
            return _unsigned(data)
        case Oversized(bytes=size):
            return _oversized(data, size)
    raise NotAlterable(f"nothing is known of {action.name}")


@lru_cache(maxsize=MAX_ALTERED)
def signed_by(data: bytes, key: RSAPrivateKey) -> bytes:
    """The same list or signed file with a signature of `key`: the signer's names as before, another serial number."""
    build: Callable[..., bytes]
    if is_signed_file(data):
        file = decode_signed_file(data)
        known: SignedDocument = file
        build = partial(build_signed_file, file.content)
    else:
        _require_signature(data)
        trust_list = decode_trust_list(data)
        known = trust_list
        build = partial(build_trust_list, records=trust_list.records, signer_version=trust_list.signer_version)
    right = known.signer
    return build(
        signer=SignerId(right.subject, serial_from_seed(right.serial.hex(), "impostor"), right.issuer),
        digest=known.digest,
        sign=partial(sign, key),
        signature_length=key.key_size // 8,
        file_name=known.file_name,
        timestamp=known.timestamp,
    )


def _truncated(data: bytes, kept: int) -> bytes:
    if kept >= len(data):
        raise NotAlterable(f"it has {len(data)} bytes only")
    return data[:kept]


def _tampered(data: bytes, offset: int) -> bytes:
    if not -len(data) <= offset < len(data):
        raise NotAlterable(f"it has no byte {offset}, but {len(data)} bytes")
    changed = bytearray(data)
    changed[offset] ^= 0x01
    return bytes(changed)


def _unsigned(data: bytes) -> bytes:
    if is_signed_file(data):
        return decode_signed_file(data).content
    _require_signature(data)
    known = decode_trust_list(data)
    return _header_without_signature(known.header) + data[known.header_length :]


def _require_signature(data: bytes) -> None:
    if not has_signature_header(data):
        raise NotAlterable("it has no signature")


def _header_without_signature(header: tuple[Element, ...]) -> bytes:
    """As if it never had one: length and padding are right."""
    kept = [item for item in header if item.tag not in (TrustListTag.SIGNATURE, TrustListTag.PAD)]
    length = len(write_elements(kept))
    padding = PAD_BYTE * (-length % PAD_MULTIPLE)
    said = (length + len(padding)).to_bytes(2, "big")
    written = [Element(item.tag, said) if item.tag == TrustListTag.HEADERLENGTH else item for item in kept]
    return write_elements(written) + padding


def _oversized(data: bytes, size: int) -> bytes:
    if len(data) >= size:
        raise NotAlterable(f"it has {len(data)} bytes already")
    if is_signed_file(data) or not has_signature_header(data):
        return data + b"\n" * (size - len(data))
    decode_trust_list(data)  # records behind anything but a list would not be read as such
    padded = bytearray(data)
    while len(padded) < size:
        padded += _padding_record(size - len(padded))
    return bytes(padded)


def _padding_record(wanted: int) -> bytes:
    """A record of about `wanted` bytes that says nothing: a function, and filler whose tag phones keep unread."""
    bare = Record.build(function=TrustRole.CALLMANAGER_TFTP)
    room = max(0, wanted - bare.length - HEAD_BYTES)
    filler = Element(RecordTag.CERTIFICATEHASH, bytes(min(room, PADDING_BYTES)))
    length = bare.length + HEAD_BYTES + len(filler.value)
    head = Element(RecordTag.RECORDLENGTH, length.to_bytes(2, "big"))
    return write_elements((head, *bare.elements[1:], filler))
