"""CTL and ITL files (.tlv): header and records, lossless (facts 3.1 to 3.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal, Self, TypeVar

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.records import dataclass
from cucm.roles import TrustRole
from cucm.wire.cursor import (
    HEAD_BYTES,
    Element,
    Schema,
    as_bytes,
    element_length,
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
from cucm.wire.signature_header import (
    MODULUS_BYTES,
    DigestAlgorithm,
    Sign,
    SignedDocument,
    SignerId,
    TrustListTag,
    build_signed,
    decode_header,
    signed_bytes,
)

__all__ = [
    "CTL_FILE_NAME",
    "ITL_FILE_NAME",
    "MAX_DECODED_BYTES",
    "MAX_RECORDS",
    "MAX_TRUST_LIST",
    "MODULUS_BYTES",
    "DigestAlgorithm",
    "Element",
    "Record",
    "RecordTag",
    "SignerId",
    "TrustList",
    "TrustListTag",
    "blank_record",
    "build_trust_list",
    "decode_trust_list",
    "encode_trust_list",
    "signed_bytes",
]

VERSION: Final = (1, 2)
CTL_FILE_NAME: Final = "CTLFile.tlv"
ITL_FILE_NAME: Final = "ITLFile.tlv"
MAX_TRUST_LIST: Final = 64 * 1024
"""A phone does not load an ITL above this (facts 3.5). The decoder reads larger ones: refusing is the phone's part."""
MAX_DECODED_BYTES: Final = 2048 * 1024
"""Largest file the decoder takes: the phone's download cap (facts 3.5)."""
MAX_RECORDS: Final = 512
"""Most records in one file; a phone gives up at about 39 certificates (facts 3.5). Ours."""

T = TypeVar("T")


class RecordTag(IntEnum):
    """Record tags, named as `show ctl` prints them (facts 3.2)."""

    RECORDLENGTH = 1
    DNSNAME = 2
    SUBJECTNAME = 3
    FUNCTION = 4
    ISSUERNAME = 5
    SERIALNUMBER = 6
    PUBLICKEY = 7
    SIGNATURE = 8
    CERTIFICATE = 9
    IPADDRESS = 10
    CERTIFICATEHASH = 11
    """Tags 11 and 12 are in P-uc's parser only [peer]; their use is UNKNOWN, they are kept and not read."""
    HASHALGORITHM = 12


def _ip_address(value: bytes) -> str:
    # 16 bytes: no sample of an IPv6 record was seen, what else could it be [inferred]
    if len(value) not in (4, 16):
        raise ValueError(f"{len(value)} bytes where an IPv4 address has 4")
    return ".".join(map(str, value)) if len(value) == 4 else str(IPv6Address(value))


_u16: Final = number(2)

_RECORD: Final = Schema(
    RecordTag,
    {
        RecordTag.RECORDLENGTH: None,  # was read before, to find the record's end
        RecordTag.DNSNAME: text_end,
        RecordTag.SUBJECTNAME: text_end,
        RecordTag.FUNCTION: _u16,
        RecordTag.ISSUERNAME: text_end,
        RecordTag.SERIALNUMBER: None,
        RecordTag.PUBLICKEY: None,
        RecordTag.SIGNATURE: None,
        RecordTag.CERTIFICATE: None,
        RecordTag.IPADDRESS: _ip_address,
    },
    required=(RecordTag.FUNCTION,),
    pad_tag=TrustListTag.PAD,
)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its elements in order, RECORDLENGTH included, unknown tags kept.

    Properties are None when the element is absent. In a decoded record they never fail; in one put together from raw
    elements they raise DecodeError when the element is malformed.
    """

    elements: tuple[Element, ...]

    @classmethod
    def build(
        cls,
        *,
        function: int,
        dns_name: str | None = None,
        subject: str | None = None,
        issuer: str | None = None,
        serial: bytes | None = None,
        public_key: bytes | None = None,
        signature: bytes | None = None,
        certificate: bytes | None = None,
        ip_address: str | None = None,
    ) -> Self:
        """A record in Cisco's order (by tag), without what is None.

        `function` is a `TrustRole` number, `public_key` PKCS#1 RSAPublicKey DER or an uncompressed EC point,
        `signature` that of the certificate, `certificate` DER, `ip_address` dotted. Raises EncodeError.
        """
        values = {
            RecordTag.DNSNAME: None if dns_name is None else text_bytes(dns_name, "DNSNAME"),
            RecordTag.SUBJECTNAME: None if subject is None else text_bytes(subject, "SUBJECTNAME"),
            RecordTag.FUNCTION: number_bytes(function, 2, "FUNCTION"),
            RecordTag.ISSUERNAME: None if issuer is None else text_bytes(issuer, "ISSUERNAME"),
            RecordTag.SERIALNUMBER: serial,
            RecordTag.PUBLICKEY: public_key,
            RecordTag.SIGNATURE: signature,
            RecordTag.CERTIFICATE: certificate,
            RecordTag.IPADDRESS: None if ip_address is None else _ip_address_bytes(ip_address),
        }
        elements = tuple(Element(tag, value) for tag, value in values.items() if value is not None)
        length = HEAD_BYTES + 2 + sum(map(element_length, elements))
        return cls((Element(RecordTag.RECORDLENGTH, number_bytes(length, 2, "RECORDLENGTH")), *elements))

    def _optional(self, tag: RecordTag, parse: Callable[[bytes], T]) -> T | None:
        return find_field(self.elements, tag, parse, "record", _RECORD)

    @property
    def length(self) -> int:
        """Bytes the record takes in the file (whatever its RECORDLENGTH says)."""
        return sum(element_length(element, pad_tag=TrustListTag.PAD) for element in self.elements)

    @property
    def is_blank(self) -> bool:
        """Whether it names a node but carries neither certificate nor key (facts 3.2: 33-byte records)."""
        return self.certificate is None and self.public_key is None

    @property
    def function(self) -> int:
        """The number of a `TrustRole`, or another one. Raises DecodeError in a raw record that has none."""
        return need_field(self.elements, RecordTag.FUNCTION, _u16, "record", _RECORD)

    @property
    def dns_name(self) -> str | None:
        """Host name or IP address as text; empty for eTokens."""
        return self._optional(RecordTag.DNSNAME, text)

    @property
    def subject(self) -> str | None:
        return self._optional(RecordTag.SUBJECTNAME, text)

    @property
    def issuer(self) -> str | None:
        return self._optional(RecordTag.ISSUERNAME, text)

    @property
    def serial(self) -> bytes | None:
        """Raw big-endian bytes."""
        return self._optional(RecordTag.SERIALNUMBER, as_bytes)

    @property
    def public_key(self) -> bytes | None:
        """PKCS#1 RSAPublicKey DER, or an uncompressed EC point [peer]."""
        return self._optional(RecordTag.PUBLICKEY, as_bytes)

    @property
    def signature(self) -> bytes | None:
        """Signature of the certificate; absent in files of the CTL client."""
        return self._optional(RecordTag.SIGNATURE, as_bytes)

    @property
    def certificate(self) -> bytes | None:
        """DER, unchecked."""
        return self._optional(RecordTag.CERTIFICATE, as_bytes)

    @property
    def ip_address(self) -> str | None:
        return self._optional(RecordTag.IPADDRESS, _ip_address)


def _ip_address_bytes(value: str) -> bytes:
    try:
        return IPv4Address(value).packed
    except AddressValueError:
        raise EncodeError(
            f"{value!r} is no IPv4 address", where="IPADDRESS", mend="write it as 192.0.2.1; IPv6 records are UNKNOWN"
        ) from None


PLACEHOLDER_ADDRESS: Final = "198.51.100.1"
"""As long as the addresses of the published blank records, so that a blank record has their 33 bytes."""


def blank_record(
    function: int = TrustRole.CALLMANAGER_TFTP,
    *,
    dns_name: str = PLACEHOLDER_ADDRESS,
    ip_address: str = PLACEHOLDER_ADDRESS,
) -> Record:
    """A record without certificate, as a cluster back in non-secure mode has them: tags 2, 4 and 10 only.

    The published ones have 33 bytes, which makes their DNSNAME a text of 12 characters; another one changes the length.
    """
    return Record.build(function=function, dns_name=dns_name, ip_address=ip_address)


@dataclass(frozen=True, slots=True)
class TrustList(SignedDocument):
    """A CTL or ITL: header elements (pad included), records, and whatever bytes follow the last record."""

    records: tuple[Record, ...]
    trailing: bytes = b""


def decode_trust_list(data: bytes) -> TrustList:
    """The file as values; `encode_trust_list` gives the same bytes back.

    Raises DecodeError with offset and path, LimitExceeded above MAX_DECODED_BYTES, MAX_RECORDS or MAX_ELEMENTS.
    """
    if len(data) > MAX_DECODED_BYTES:
        raise LimitExceeded(f"trust list of {len(data)} bytes, {MAX_DECODED_BYTES} are allowed")
    header, position = decode_header(data)
    records: list[Record] = []
    while position < len(data) and data[position] == RecordTag.RECORDLENGTH:
        if len(records) == MAX_RECORDS:
            raise LimitExceeded(f"more than {MAX_RECORDS} records", where=f"offset {position}")
        record, position = _decode_record(data, position, f"record[{len(records) + 1}]")
        records.append(record)
    return TrustList(header, tuple(records), data[position:])


def _decode_record(data: bytes, start: int, path: str) -> tuple[Record, int]:
    end = start + _record_length(data, start, path)
    return Record(read_elements(data, start, end, path, _RECORD)), end


def _record_length(data: bytes, start: int, path: str) -> int:
    path = f"{path}.RECORDLENGTH"
    value_start = start + HEAD_BYTES
    if len(data) < value_start + 2:
        raise DecodeError(f"{len(data) - start} bytes left where it needs 5", offset=start, path=path)
    if data[start + 1 : value_start] != b"\x00\x02":
        raise DecodeError("is not 2 bytes long", offset=start + 1, path=path)
    length = data[value_start] << 8 | data[value_start + 1]
    if not HEAD_BYTES + 2 <= length <= len(data) - start:
        raise DecodeError(f"record of {length} bytes where {len(data) - start} are left", offset=value_start, path=path)
    return length


def encode_trust_list(trust_list: TrustList) -> bytes:
    """The bytes of header, records and trailing bytes as they are, right or wrong. Raises EncodeError."""
    parts = [write_elements(trust_list.header, pad_tag=TrustListTag.PAD)]
    parts += [write_elements(record.elements, pad_tag=TrustListTag.PAD) for record in trust_list.records]
    parts.append(trust_list.trailing)
    return b"".join(parts)


def build_trust_list(
    *,
    signer: SignerId,
    records: Sequence[Record],
    digest: DigestAlgorithm,
    sign: Sign,
    signature_length: int,
    file_name: Literal["CTLFile.tlv", "ITLFile.tlv"] | str,
    timestamp: int,
    signer_version: tuple[int, int] | None = None,
) -> bytes:
    """A signed .tlv file, version 1.2, elements in Cisco's order.

    `sign` gets the file without its SIGNATURE element; `signature_length` is what it will return, in bytes (an RSA
    key's size). `timestamp` is Unix seconds, `signer_version` tag 28 of newer ITLs. Raises EncodeError.
    """
    return build_signed(
        b"".join(write_elements(record.elements, pad_tag=TrustListTag.PAD) for record in records),
        version=VERSION,
        signer=signer,
        digest=digest,
        sign=sign,
        signature_length=signature_length,
        file_name=file_name,
        timestamp=timestamp,
        signer_version=signer_version,
    )
