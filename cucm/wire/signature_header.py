"""The signed header that CTL, ITL and `.sgn` files share (facts 3.1, 3.3).

A document is its header elements, in order and with unknown tags kept, and a body. Containers (SIGNERID,
SIGNATUREINFO, SIGNATUREALGOINFO) keep their raw value, so that any order inside them survives re-encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from cucm.errors import DecodeError, EncodeError
from cucm.records import dataclass
from cucm.wire.cursor import (
    HEAD_BYTES,
    Element,
    Known,
    Schema,
    as_bytes,
    element_head,
    element_length,
    element_path,
    find_field,
    need_field,
    number,
    number_bytes,
    read_elements,
    text,
    text_bytes,
    text_end,
    write_elements,
)

T = TypeVar("T")


class TrustListTag(IntEnum):
    """Header tags, named as `show ctl` prints them, misspellings included (facts 3.1, 4.1)."""

    VERSION = 1
    HEADERLENGTH = 2
    SIGNERID = 3
    SIGNERNAME = 4
    SERIALNUMBER = 5
    CANAME = 6
    SIGNATUREINFO = 7
    DIGESTALGORTITHM = 8
    SIGNATUREALGOINFO = 9
    SIGNATUREALGORTITHM = 10
    SIGNATUREMODULUS = 11
    SIGNATURE = 12
    PAD = 13
    FILENAME = 14
    TIMESTAMP = 15
    SIGNERVERSION = 28
    """Version of the server's advanced algorithms, in newer ITLs; its print name is UNKNOWN, this one is ours."""


class DigestAlgorithm(IntEnum):
    """Values of DIGESTALGORTITHM (facts 3.1). SHA256 is [inferred]: 1 and 3 were seen."""

    SHA1 = 1
    SHA256 = 2
    SHA512 = 3

    @property
    def hashlib_name(self) -> str:
        """The name that `hashlib.new` takes."""
        return self.name.lower()


PAD_BYTE: Final = bytes((TrustListTag.PAD,))
PAD_MULTIPLE: Final = 4
"""Header is padded to a multiple of this. Every sample needed three pad bytes, so none at all is [inferred]."""
MODULUS_BYTES: Final = (64, 128, 256, 512)
"""SIGNATUREMODULUS is an index into these signature lengths. How an EC signature is announced is UNKNOWN."""
SIGNATURE_RSA: Final = 0
"""SIGNATUREALGORTITHM of RSA PKCS#1 v1.5, the only one seen."""

MIN_HEADER_BYTES: Final = 10
"""VERSION and HEADERLENGTH."""

Sign = Callable[[bytes, DigestAlgorithm], bytes]
"""Signs the bytes it is given (not their hash)."""


@dataclass(frozen=True, slots=True)
class SignerId:
    """Who signed: certificate subject and issuer as `;`-separated text, serial number as raw bytes."""

    subject: str
    serial: bytes
    issuer: str


def version_pair(value: bytes) -> tuple[int, int]:
    """Parser for two bytes, major and minor."""
    if len(value) != 2:
        raise ValueError(f"{len(value)} bytes where 2 are needed")
    return value[0], value[1]


def _digest(value: bytes) -> DigestAlgorithm:
    return DigestAlgorithm(_u8(value))


_u8: Final = number(1)
_u16: Final = number(2)
_u32: Final = number(4)

_SIGNER: Final = Schema(
    TrustListTag,
    {TrustListTag.SIGNERNAME: text_end, TrustListTag.SERIALNUMBER: None, TrustListTag.CANAME: text_end},
    required=(TrustListTag.SIGNERNAME, TrustListTag.SERIALNUMBER, TrustListTag.CANAME),
    pad_tag=TrustListTag.PAD,
)
_ALGORITHM: Final = Schema(
    TrustListTag,
    {TrustListTag.SIGNATUREALGORTITHM: _u8, TrustListTag.SIGNATUREMODULUS: _u8},
    required=(TrustListTag.SIGNATUREALGORTITHM, TrustListTag.SIGNATUREMODULUS),
    pad_tag=TrustListTag.PAD,
)
_INFO: Final = Schema(
    TrustListTag,
    {TrustListTag.DIGESTALGORTITHM: _digest, TrustListTag.SIGNATUREALGOINFO: _ALGORITHM},
    required=(TrustListTag.DIGESTALGORTITHM, TrustListTag.SIGNATUREALGOINFO),
    pad_tag=TrustListTag.PAD,
)
_HEADER: Final = Schema(
    TrustListTag,
    {
        TrustListTag.VERSION: version_pair,
        TrustListTag.HEADERLENGTH: _u16,
        TrustListTag.SIGNERID: _SIGNER,
        TrustListTag.SIGNATUREINFO: _INFO,
        TrustListTag.SIGNATURE: None,
        TrustListTag.FILENAME: text_end,
        TrustListTag.TIMESTAMP: _u32,
        TrustListTag.SIGNERVERSION: version_pair,
    },
    required=(
        TrustListTag.VERSION,
        TrustListTag.HEADERLENGTH,
        TrustListTag.SIGNERID,
        TrustListTag.SIGNATUREINFO,
        TrustListTag.SIGNATURE,
        TrustListTag.FILENAME,
        TrustListTag.TIMESTAMP,
    ),
    pad_tag=TrustListTag.PAD,
)
_STRUCTURE: Final = Schema(
    TrustListTag, {TrustListTag.SIGNATURE: None}, required=(TrustListTag.SIGNATURE,), pad_tag=TrustListTag.PAD
)
"""Enough to find the signature."""


# what containers say that stand alike in file after file
_SIGNERS: Final = Known[SignerId]()
_DIGESTS: Final = Known[DigestAlgorithm]()
_ALGORITHMS: Final = Known[int]()


class _Inside(NamedTuple):
    """Elements of a header or of a container in it, the offset of the first one and the path to them."""

    elements: tuple[Element, ...]
    schema: Schema
    base: int
    path: str

    def field(self, tag: TrustListTag, parse: Callable[[bytes], T]) -> T:
        return need_field(self.elements, tag, parse, self.path, self.schema, self.base)

    def container(self, tag: TrustListTag, schema: Schema) -> _Inside:
        """The inside of a container. Raises DecodeError, its offset counted from the start of the file."""
        value, path = self.field(tag, as_bytes), element_path(self.path, TrustListTag, tag)
        base = self.base + HEAD_BYTES
        for element in self.elements:
            if element.tag == tag:
                break
            base += element_length(element, pad_tag=TrustListTag.PAD)
        try:
            return _Inside(read_elements(value, 0, len(value), path, schema), schema, base, path)
        except DecodeError as error:
            raise DecodeError(error.what, offset=base + error.offset, path=error.path) from None


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """Base of `TrustList` and `SignedFile`: the header and what is in it.

    Properties of a decoded document never fail; those of one put together from raw elements raise DecodeError when
    the element is absent or malformed.
    """

    header: tuple[Element, ...]

    def _header(self) -> _Inside:
        return _Inside(self.header, _HEADER, 0, "header")

    def _algorithm(self) -> _Inside:
        info = self._header().container(TrustListTag.SIGNATUREINFO, _INFO)
        return info.container(TrustListTag.SIGNATUREALGOINFO, _ALGORITHM)

    def _signer(self) -> SignerId:
        inside = self._header().container(TrustListTag.SIGNERID, _SIGNER)
        return SignerId(
            inside.field(TrustListTag.SIGNERNAME, text),
            inside.field(TrustListTag.SERIALNUMBER, as_bytes),
            inside.field(TrustListTag.CANAME, text),
        )

    def _digest(self) -> DigestAlgorithm:
        info = self._header().container(TrustListTag.SIGNATUREINFO, _INFO)
        return info.field(TrustListTag.DIGESTALGORTITHM, _digest)

    def _required(self, tag: TrustListTag, parse: Callable[[bytes], T]) -> T:
        return need_field(self.header, tag, parse, "header", _HEADER)

    def signed_part(self, data: bytes) -> bytes:
        """As `signed_bytes`, of the very bytes this was decoded from."""
        start = 0
        for element in self.header:
            if element.tag == TrustListTag.SIGNATURE:
                break
            start += element_length(element, pad_tag=TrustListTag.PAD)
        return data[:start] + data[start + element_length(element) :]

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor: (1, 2) in .tlv files, (1, 0) in .sgn files [peer]."""
        return self._required(TrustListTag.VERSION, version_pair)

    @property
    def header_length(self) -> int:
        """What HEADERLENGTH says: bytes up to the first record or the content, pad and signature included."""
        return self._required(TrustListTag.HEADERLENGTH, _u16)

    @property
    def signer(self) -> SignerId:
        value = self._required(TrustListTag.SIGNERID, as_bytes)
        return _SIGNERS.get(value) or _SIGNERS.keep(value, self._signer())

    @property
    def digest(self) -> DigestAlgorithm:
        value = self._required(TrustListTag.SIGNATUREINFO, as_bytes)
        return _DIGESTS.get(value) or _DIGESTS.keep(value, self._digest())

    @property
    def signature_algorithm(self) -> int:
        """0 is RSA PKCS#1 v1.5; any other number is UNKNOWN."""
        value = self._required(TrustListTag.SIGNATUREINFO, as_bytes)
        known = _ALGORITHMS.get(value)
        if known is not None:
            return known
        return _ALGORITHMS.keep(value, self._algorithm().field(TrustListTag.SIGNATUREALGORTITHM, _u8))

    @property
    def signature_modulus(self) -> int:
        """Index of the signature's length in MODULUS_BYTES, as the file says (not compared with the signature)."""
        return self._algorithm().field(TrustListTag.SIGNATUREMODULUS, _u8)

    @property
    def signature(self) -> bytes:
        return self._required(TrustListTag.SIGNATURE, as_bytes)

    @property
    def file_name(self) -> str:
        """`CTLFile.tlv` even in a file that was fetched as `CTLSEP<mac>.tlv`."""
        return self._required(TrustListTag.FILENAME, text)

    @property
    def timestamp(self) -> int:
        """Unix time in seconds."""
        return self._required(TrustListTag.TIMESTAMP, _u32)

    @property
    def signer_version(self) -> tuple[int, int] | None:
        """Tag 28, major and minor; from 1.1 on the server supports advanced algorithms (facts 3.1). None if absent."""
        return find_field(self.header, TrustListTag.SIGNERVERSION, version_pair, "header", _HEADER)


def has_signature_header(data: bytes) -> bool:
    """Whether `data` starts like a signed header: VERSION and HEADERLENGTH, two bytes each."""
    return data[:3] == b"\x01\x00\x02" and data[5:8] == b"\x02\x00\x02"


def decode_header(data: bytes) -> tuple[tuple[Element, ...], int]:
    """Header elements, all checked, and the header's length in bytes.

    Raises DecodeError when it is malformed or lacks what every signed file has, LimitExceeded for too many elements.
    """
    end = _header_end(data)
    return read_elements(data, 0, end, "header", _HEADER), end


def _header_end(data: bytes) -> int:
    if not has_signature_header(data):
        what = "does not start with VERSION and HEADERLENGTH: no trust list and no signed file"
        raise DecodeError(what, offset=0, path="header")
    end = int.from_bytes(data[8:10], "big")
    if not MIN_HEADER_BYTES <= end <= len(data):
        what = f"header of {end} bytes in a file of {len(data)}"
        raise DecodeError(what, offset=8, path="header.HEADERLENGTH")
    return end


def signature_span(data: bytes) -> tuple[int, int]:
    """First byte and end of the SIGNATURE element, tag and length included. Raises DecodeError, LimitExceeded."""
    offset = 0
    for element in read_elements(data, 0, _header_end(data), "header", _STRUCTURE):
        end = offset + element_length(element, pad_tag=TrustListTag.PAD)
        if element.tag == TrustListTag.SIGNATURE:
            break
        offset = end
    return offset, end


def signed_bytes(data: bytes) -> bytes:
    """What the signature of a .tlv or .sgn covers: the file without its SIGNATURE element (facts 3.3).

    Raises DecodeError, LimitExceeded.
    """
    start, end = signature_span(data)
    return data[:start] + data[end:]


def build_signed(
    body: bytes,
    *,
    version: tuple[int, int],
    signer: SignerId,
    digest: DigestAlgorithm,
    sign: Sign,
    signature_length: int,
    file_name: str,
    timestamp: int,
    signer_version: tuple[int, int] | None,
) -> bytes:
    """A whole file: header in Cisco's order, padded and signed, then `body`. Raises EncodeError."""
    before = _elements_before_signature(signer, digest, signature_length, signer_version)
    after = write_elements(
        (
            Element(TrustListTag.FILENAME, text_bytes(file_name, "file name")),
            Element(TrustListTag.TIMESTAMP, number_bytes(timestamp, 4, "timestamp")),
        )
    )
    length = MIN_HEADER_BYTES + len(before) + HEAD_BYTES + signature_length + len(after)
    padding = PAD_BYTE * (-length % PAD_MULTIPLE)
    prefix = write_elements(
        (
            Element(TrustListTag.VERSION, _version_bytes(version)),
            Element(TrustListTag.HEADERLENGTH, number_bytes(length + len(padding), 2, "header length")),
        )
    )
    head, tail = prefix + before, after + padding + body
    signature = sign(head + tail, digest)
    if len(signature) != signature_length:
        raise EncodeError(f"signature of {len(signature)} bytes where {signature_length} were announced")
    return b"".join((head, element_head(TrustListTag.SIGNATURE, signature_length), signature, tail))


def _elements_before_signature(
    signer: SignerId, digest: DigestAlgorithm, signature_length: int, signer_version: tuple[int, int] | None
) -> bytes:
    elements = [Element(TrustListTag.SIGNERID, signer_container(signer))]
    elements.append(Element(TrustListTag.SIGNATUREINFO, signature_info(digest, modulus_index(signature_length))))
    if signer_version is not None:
        # right behind HEADERLENGTH, as P-uc writes it [peer]; Cisco's place for it is UNKNOWN
        elements.insert(0, Element(TrustListTag.SIGNERVERSION, _version_bytes(signer_version)))
    return write_elements(elements)


def _version_bytes(version: tuple[int, int]) -> bytes:
    return b"".join(number_bytes(part, 1, "version") for part in version)


def modulus_index(signature_length: int) -> int:
    """SIGNATUREMODULUS for a signature of so many bytes. Raises EncodeError for a length that has no index."""
    if signature_length not in MODULUS_BYTES:
        lengths = ", ".join(map(str, MODULUS_BYTES))
        raise EncodeError(
            f"no SIGNATUREMODULUS stands for a signature of {signature_length} bytes",
            mend=f"sign with RSA ({lengths} bytes); how EC signatures are written is UNKNOWN",
        )
    return MODULUS_BYTES.index(signature_length)


def signer_container(signer: SignerId) -> bytes:
    """Value of SIGNERID in Cisco's order 4, 5, 6. Raises EncodeError."""
    return write_elements(
        (
            Element(TrustListTag.SIGNERNAME, text_bytes(signer.subject, "signer name")),
            Element(TrustListTag.SERIALNUMBER, signer.serial),
            Element(TrustListTag.CANAME, text_bytes(signer.issuer, "signer's issuer")),
        )
    )


def signature_info(digest: int, modulus: int, algorithm: int = SIGNATURE_RSA) -> bytes:
    """Value of SIGNATUREINFO. Raises EncodeError."""
    algorithm_info = write_elements(
        (
            Element(TrustListTag.SIGNATUREALGORTITHM, number_bytes(algorithm, 1, "signature algorithm")),
            Element(TrustListTag.SIGNATUREMODULUS, number_bytes(modulus, 1, "signature modulus")),
        )
    )
    return write_elements(
        (
            Element(TrustListTag.DIGESTALGORTITHM, number_bytes(digest, 1, "digest")),
            Element(TrustListTag.SIGNATUREALGOINFO, algorithm_info),
        )
    )
