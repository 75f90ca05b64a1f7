"""TVS messages: VERIFY and QUERY_CERT, requests and responses (facts 2).

A message is its header fields and its elements, in order and with unknown tags kept: decoding and encoding again gives
the same bytes. The properties read the elements; `build` makes Cisco's order. A decoded message's properties never
fail; those of one put together from raw elements raise DecodeError when the element is absent or malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import ClassVar, Final, Self, TypeVar

from cucm.errors import DecodeError, EncodeError
from cucm.records import dataclass
from cucm.wire.cursor import (
    Element,
    Schema,
    as_bytes,
    find_field,
    need_field,
    number,
    number_bytes,
    plain_text_bytes,
    read_elements,
    text,
    text_bytes,
    text_end,
    write_elements,
)

PORT: Final = 2445
HEADER_BYTES: Final = 10
MAX_PAYLOAD: Final = 0xFFFF
MAX_MESSAGE: Final = HEADER_BYTES + MAX_PAYLOAD
PROTOCOL_DISCRIMINATOR: Final = 0x57
VERSION: Final = 1
REQUEST_PAD: Final = 0x00
RESPONSE_PAD: Final = 0xF7
"""What the published response carries in the pad byte: uninitialised memory, ignored by every reader (facts 2.1)."""

STATUS_OK: Final = 0
STATUS_NOT_FOUND: Final = 1
"""UNKNOWN on real CUCM (facts 2.8): status of "no such certificate"; 1 alone is what P-uc sends [peer]."""

T = TypeVar("T")


class MessageType(IntEnum):
    """Message types (facts 2.2); no other was seen."""

    VERIFY_REQUEST = 1
    VERIFY_RESPONSE = 2
    QUERY_CERTIFICATE_REQUEST = 3
    QUERY_CERTIFICATE_RESPONSE = 4

    @property
    def log_name(self) -> str:
        """The name in CUCM's TVS log."""
        return _LOG_NAMES[self]


_LOG_NAMES: Final = MappingProxyType(
    {
        MessageType.VERIFY_REQUEST: "TVS_MSG_CERT_VERIFICATION_REQ",
        MessageType.VERIFY_RESPONSE: "TVS_MSG_CERT_VERIFICATION_RES",
        MessageType.QUERY_CERTIFICATE_REQUEST: "TVS_MSG_QUERY_CERT_REQ",
        MessageType.QUERY_CERTIFICATE_RESPONSE: "TVS_MSG_QUERY_CERT_RES",
    }
)


class TvsTag(IntEnum):
    """Element tags (facts 2.3).

    The tags of issuer and serial number are UNKNOWN: no dump shows them, 4, 5 and 6 are left. Sent: 4 and 5, the plain
    sequence. Read: any of the three, told apart by what they hold.
    """

    DEVICE_NAME = 1
    CERTIFICATE = 2
    SUBJECT = 3
    ISSUER = 4
    SERIAL = 5
    STATUS = 7
    ROLES = 8
    TTL = 9


_USUAL_TAGS: Final = (1, 3, 4, 5)
"""What `build` sends, as plain integers."""
ISSUER_OR_SERIAL_TAGS: Final = frozenset({4, 5, 6})
"""UNKNOWN which two of these carry issuer and serial number (facts 2.3, 2.4)."""

DEVICE_NAME_MARK: Final = b"\x01"
"""First byte of the device name in the published request; its meaning is UNKNOWN, readers skip it."""


def _device_name(value: bytes) -> str:
    if not value:
        raise ValueError("empty, without the byte that comes before the name")
    return text(value[1:])


def _roles(value: bytes) -> tuple[int, ...]:
    return tuple(value)


_u8: Final = number(1)
_u32: Final = number(4)


@dataclass(frozen=True, slots=True)
class TvsMessage:
    """What all four messages share. `pad` is kept for lossless re-encoding and means nothing."""

    session_id: int
    pad: int
    version: int
    elements: tuple[Element, ...]

    type: ClassVar[MessageType]
    schema: ClassVar[Schema]

    def _optional(self, tag: int, parse: Callable[[bytes], T]) -> T | None:
        return find_field(self.elements, tag, parse, self.type.name, self.schema, HEADER_BYTES)

    def _required(self, tag: int, parse: Callable[[bytes], T]) -> T:
        return need_field(self.elements, tag, parse, self.type.name, self.schema, HEADER_BYTES)


@dataclass(frozen=True, slots=True)
class QueryCertificateRequest(TvsMessage):
    """Asks for the certificate of an issuer and serial number (facts 2.4)."""

    type: ClassVar[MessageType] = MessageType.QUERY_CERTIFICATE_REQUEST
    schema: ClassVar[Schema] = Schema(
        TvsTag,
        {TvsTag.DEVICE_NAME: _device_name, TvsTag.SUBJECT: text, **dict.fromkeys(ISSUER_OR_SERIAL_TAGS)},
        required=(TvsTag.DEVICE_NAME, TvsTag.SUBJECT),
    )

    @classmethod
    def build(cls, session_id: int, device_name: str, subject: str, issuer: str, serial: bytes) -> Self:
        """Names are `;`-separated text, `serial` raw big-endian bytes without a sign byte.

        Raises EncodeError for names that do not fit.
        """
        elements = (
            _device_name_element(device_name),
            Element(TvsTag.SUBJECT, text_bytes(subject, "subject")),
            Element(TvsTag.ISSUER, text_bytes(issuer, "issuer")),
            Element(TvsTag.SERIAL, serial),
        )
        return cls(session_id, REQUEST_PAD, VERSION, elements)

    @property
    def device_name(self) -> str:
        """For example `CP-8861-SEPB000B4BA0AEE`."""
        return self._required(TvsTag.DEVICE_NAME, _device_name)

    @property
    def subject(self) -> str:
        return self._required(TvsTag.SUBJECT, text)

    @property
    def issuer(self) -> str:
        return self._issuer_and_serial()[0]

    @property
    def serial(self) -> bytes:
        return self._issuer_and_serial()[1]

    def check_asked(self) -> None:
        """Raises DecodeError when issuer or serial number is missing, or the issuer is no text."""
        if self._in_usual_order() is not None:
            return
        try:
            text_end(self._sort_candidates()[0][1])
        except ValueError:
            self.issuer  # noqa: B018 (says what is wrong, and where)

    def asked(self) -> tuple[str, str, str, bytes]:
        """Device name, subject, issuer and serial number, for less than the four properties cost one by one."""
        values = self._in_usual_order()
        if values is not None:
            device, subject, issuer, serial = values
            try:
                return _device_name(device), text(subject), issuer[:-1].decode("latin-1"), serial
            except ValueError:  # put together from raw elements: the properties say what is wrong
                pass
        return self.device_name, self.subject, self.issuer, self.serial

    def _in_usual_order(self) -> tuple[bytes, bytes, bytes, bytes] | None:
        """The values of device name, subject, issuer and serial number, if there are just these, as nearly all have it;
        the issuer is text then.
        """
        if len(self.elements) != 4:
            return None
        (a, device), (b, subject), (c, issuer), (d, serial) = self.elements
        return (device, subject, issuer, serial) if (a, b, c, d) == _USUAL_TAGS and _is_name(issuer) else None

    def _issuer_and_serial(self) -> tuple[str, bytes]:
        issuer, serial = self._sort_candidates()
        return self._required(issuer.tag, text), serial.value

    def _sort_candidates(self) -> tuple[Element, Element]:
        """The elements of issuer and serial number; the lower tag is the issuer where the values do not tell."""
        candidates = sorted(e for e in self.elements if e.tag in ISSUER_OR_SERIAL_TAGS)
        if len(candidates) < 2:
            tag = TvsTag.SERIAL if any(_is_name(e.value) for e in candidates) else TvsTag.ISSUER
            raise DecodeError("is missing", offset=HEADER_BYTES, path=f"{self.type.name}.{tag.name}")
        issuer = next((e for e in candidates if _is_name(e.value)), candidates[0])
        others = [e for e in candidates if e is not issuer]
        return issuer, next((e for e in others if e.tag > issuer.tag), others[0])


def _is_name(value: bytes) -> bool:
    """Whether this is text and NUL rather than a serial number (advice of facts 2.3)."""
    # the NUL is the only control character: deleting them all tells in one call
    return value.endswith(b"\0") and len(value.translate(None, _CONTROLS)) == len(value) - 1


_CONTROLS: Final = bytes(range(0x20))


def _device_name_element(device_name: str) -> Element:
    return Element(TvsTag.DEVICE_NAME, DEVICE_NAME_MARK + plain_text_bytes(device_name, "device name"))


@dataclass(frozen=True, slots=True)
class VerifyRequest(TvsMessage):
    """Asks whether a certificate is good (facts 2.6)."""

    type: ClassVar[MessageType] = MessageType.VERIFY_REQUEST
    schema: ClassVar[Schema] = Schema(
        TvsTag,
        {TvsTag.DEVICE_NAME: _device_name, TvsTag.CERTIFICATE: None},
        required=(TvsTag.DEVICE_NAME, TvsTag.CERTIFICATE),
    )

    @classmethod
    def build(cls, session_id: int, device_name: str, certificate: bytes) -> Self:
        """`certificate` is DER. Raises EncodeError for a name that does not fit."""
        elements = (_device_name_element(device_name), Element(TvsTag.CERTIFICATE, certificate))
        return cls(session_id, REQUEST_PAD, VERSION, elements)

    @property
    def device_name(self) -> str:
        return self._required(TvsTag.DEVICE_NAME, _device_name)

    @property
    def certificate(self) -> bytes:
        """DER, unchecked."""
        return self._required(TvsTag.CERTIFICATE, as_bytes)


@dataclass(frozen=True, slots=True)
class VerifyResponse(TvsMessage):
    """Status, and when it is 0 the roles and the time to live (facts 2.6, [peer])."""

    type: ClassVar[MessageType] = MessageType.VERIFY_RESPONSE
    schema: ClassVar[Schema] = Schema(
        TvsTag, {TvsTag.STATUS: _u8, TvsTag.ROLES: None, TvsTag.TTL: _u32}, required=(TvsTag.STATUS,)
    )

    @classmethod
    def build(
        cls,
        session_id: int,
        status: int,
        roles: Sequence[int] | None = None,
        ttl_s: int | None = None,
        pad: int = RESPONSE_PAD,
    ) -> Self:
        """Leaves out what is None. Raises EncodeError for numbers that do not fit."""
        return cls(session_id, pad, VERSION, _response_elements(status, None, roles, ttl_s))

    @property
    def status(self) -> int:
        return self._required(TvsTag.STATUS, _u8)

    @property
    def roles(self) -> tuple[int, ...]:
        """Empty when the element is absent or empty."""
        return self._optional(TvsTag.ROLES, _roles) or ()

    @property
    def ttl_s(self) -> int | None:
        return self._optional(TvsTag.TTL, _u32)


@dataclass(frozen=True, slots=True)
class QueryCertificateResponse(TvsMessage):
    """Status, certificate, roles and time to live, in this order (facts 2.5; roles before TTL is [inferred])."""

    type: ClassVar[MessageType] = MessageType.QUERY_CERTIFICATE_RESPONSE
    schema: ClassVar[Schema] = Schema(
        TvsTag,
        {TvsTag.STATUS: _u8, TvsTag.CERTIFICATE: None, TvsTag.ROLES: None, TvsTag.TTL: _u32},
        required=(TvsTag.STATUS,),
    )

    @classmethod
    def build(
        cls,
        session_id: int,
        status: int,
        certificate: bytes | None = None,
        roles: Sequence[int] | None = None,
        ttl_s: int | None = None,
        pad: int = RESPONSE_PAD,
    ) -> Self:
        """Leaves out what is None. Raises EncodeError for numbers that do not fit."""
        return cls(session_id, pad, VERSION, _response_elements(status, certificate, roles, ttl_s))

    @property
    def status(self) -> int:
        return self._required(TvsTag.STATUS, _u8)

    @property
    def certificate(self) -> bytes | None:
        """DER, unchecked."""
        return self._optional(TvsTag.CERTIFICATE, as_bytes)

    @property
    def roles(self) -> tuple[int, ...]:
        """Empty when the element is absent or empty."""
        return self._optional(TvsTag.ROLES, _roles) or ()

    @property
    def ttl_s(self) -> int | None:
        return self._optional(TvsTag.TTL, _u32)


def _response_elements(
    status: int, certificate: bytes | None, roles: Sequence[int] | None, ttl_s: int | None
) -> tuple[Element, ...]:
    elements = [Element(TvsTag.STATUS, number_bytes(status, 1, "status"))]
    if certificate is not None:
        elements.append(Element(TvsTag.CERTIFICATE, certificate))
    if roles is not None:
        elements.append(Element(TvsTag.ROLES, b"".join(number_bytes(role, 1, "role") for role in roles)))
    if ttl_s is not None:
        elements.append(Element(TvsTag.TTL, number_bytes(ttl_s, 4, "ttl_s")))
    return tuple(elements)


MESSAGE_CLASSES: Final[Mapping[int, type[TvsMessage]]] = MappingProxyType(
    {cls.type: cls for cls in (VerifyRequest, VerifyResponse, QueryCertificateRequest, QueryCertificateResponse)}
)


def encode_message(message: TvsMessage) -> bytes:
    """Header and elements. Raises EncodeError when a number or the payload does not fit its field."""
    payload = payload_bytes(message.elements)
    return header_bytes(message, len(payload)) + payload


def payload_bytes(elements: tuple[Element, ...]) -> bytes:
    """What stands behind the header. Raises EncodeError when it is too long for its length field."""
    payload = write_elements(elements)
    if len(payload) > MAX_PAYLOAD:
        raise EncodeError(f"payload of {len(payload)} bytes", mend=f"at most {MAX_PAYLOAD} bytes fit a TVS message")
    return payload


_HEADER: Final = struct.Struct(">BBBBIH")


def header_bytes(message: TvsMessage, payload_length: int) -> bytes:
    """The header before a payload of so many bytes, at most MAX_PAYLOAD. Raises EncodeError."""
    version, pad, session_id = message.version, message.pad, message.session_id
    try:
        return _HEADER.pack(PROTOCOL_DISCRIMINATOR, version, message.type, pad, session_id, payload_length)
    except struct.error:  # here is said which of them does not fit
        return b"".join(
            (
                bytes((PROTOCOL_DISCRIMINATOR,)),
                number_bytes(version, 1, "version"),
                bytes((message.type,)),
                number_bytes(pad, 1, "pad"),
                number_bytes(session_id, 4, "session id"),
                number_bytes(payload_length, 2, "payload length"),
            )
        )


def decode_message(data: bytes) -> TvsMessage:
    """The one message that `data` holds.

    Raises DecodeError when it is malformed, cut short or followed by other bytes, LimitExceeded for too many elements.
    """
    check_header(data)
    if len(data) < HEADER_BYTES:
        raise DecodeError(f"cut off after {len(data)} of {HEADER_BYTES} bytes", offset=len(data), path="header")
    end = HEADER_BYTES + int.from_bytes(data[8:10], "big")
    if end > len(data):
        what = f"payload of {end - HEADER_BYTES} bytes, but only {len(data) - HEADER_BYTES} are there"
        raise DecodeError(what, offset=len(data), path="payload")
    if end < len(data):
        raise DecodeError(f"{len(data) - end} bytes behind the message", offset=end, path="payload")
    return decode_body(data)


_TYPE_NAMES: Final = {int(kind): kind.name for kind in MessageType}


def decode_body(data: bytes) -> TvsMessage:
    """The message of `data`, whose header is checked and whose length is right. Raises DecodeError, LimitExceeded."""
    cls = MESSAGE_CLASSES[data[2]]
    elements = read_elements(data, HEADER_BYTES, len(data), _TYPE_NAMES[data[2]], cls.schema)
    message = cls(int.from_bytes(data[4:8], "big"), data[3], data[1], elements)
    if isinstance(message, QueryCertificateRequest):
        # which element is which depends on what they hold, so the schema cannot check these two
        message.check_asked()
    return message


def check_header(data: bytes | bytearray) -> None:
    """Raises DecodeError as soon as a byte of a (possibly still incomplete) header cannot begin a message."""
    if data[:1] and data[0] != PROTOCOL_DISCRIMINATOR:
        what = f"protocol discriminator {data[0]:#04x} instead of {PROTOCOL_DISCRIMINATOR:#04x}"
        raise DecodeError(what, offset=0, path="header.discriminator")
    if len(data) > 1 and data[1] != VERSION:
        raise DecodeError(f"version {data[1]} instead of {VERSION}", offset=1, path="header.version")
    if len(data) > 2 and data[2] not in MESSAGE_CLASSES:
        raise DecodeError(f"message type {data[2]} is unknown", offset=2, path="header.type")
