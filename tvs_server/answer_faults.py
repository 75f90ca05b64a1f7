"""What the faults of `tvs.response` make of an answer. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cucm.faults.catalogue.tvs import (
    CorruptByte,
    CorruptField,
    ErrorStatus,
    FieldName,
    NotFound,
    OtherCertificate,
    TimeToLive,
    Truncate,
    UnknownTag,
    WrongLength,
    WrongRoles,
    WrongSessionId,
)
from cucm.faults.points import Action
from cucm.names import serial_hex
from cucm.wire.cursor import Element, element_length, number_bytes
from cucm.wire.tvs import (
    HEADER_BYTES,
    STATUS_NOT_FOUND,
    QueryCertificateResponse,
    TvsMessage,
    TvsTag,
    encode_message,
)
from tvs_server.policy import DIFFERENT_CERTIFICATE_STATUS, Question

_UNKNOWN_VALUE: Final = b"\x2a"
_WRONG_VALUE: Final = b"\xff"
_LAST_BYTE_OF: Final[dict[FieldName, int]] = {
    "discriminator": 0,
    "version": 1,
    "type": 2,
    "pad": 3,
    "session-id": 7,
    "length": 9,
}
_TAG_OF: Final[dict[FieldName, TvsTag]] = {
    "status": TvsTag.STATUS,
    "certificate": TvsTag.CERTIFICATE,
    "roles": TvsTag.ROLES,
    "ttl": TvsTag.TTL,
}


def request_fields(question: Question) -> dict[str, str]:
    """What a rule may look at (`match` of the points of TVS)."""
    return {
        "phone": _phone(question.device_name),
        "message": "query" if question.certificate is None else "verify",
        "subject": question.subject,
        "issuer": question.issuer,
        "serial": serial_hex(question.serial),
    }


def spoilt(answer: TvsMessage, action: Action, other_certificate: bytes) -> TvsMessage | bytes:
    """What goes out instead: a message where it is one still, else raw bytes. Other actions change nothing."""
    match action:
        case NotFound():
            return _status_alone(answer, STATUS_NOT_FOUND)
        case ErrorStatus(status=status):
            return _status_alone(answer, status)
        case WrongRoles(roles=roles):
            return _with(answer, TvsTag.ROLES, bytes(roles))
        case TimeToLive(ttl_s=ttl_s):
            return _with(answer, TvsTag.TTL, number_bytes(ttl_s, 4, "ttl_s"))
        case OtherCertificate() if isinstance(answer, QueryCertificateResponse):
            return _with(answer, TvsTag.CERTIFICATE, other_certificate)
        case OtherCertificate():
            return _status_alone(answer, DIFFERENT_CERTIFICATE_STATUS)
        case WrongSessionId(difference=difference):
            return replace(answer, session_id=(answer.session_id + difference) % 2**32)
        case UnknownTag():
            return _with_unknown(answer, action)
        case _:
            return _spoilt_bytes(answer, action)


def _spoilt_bytes(answer: TvsMessage, action: Action) -> TvsMessage | bytes:
    whole = encode_message(answer)
    match action:
        case Truncate(bytes=count):
            return whole[:count]
        case CorruptByte(offset=offset, xor=mask):
            return _changed(whole, offset % len(whole), mask)
        case CorruptField(field=name):
            return _corrupt_field(answer, name)
        case WrongLength(difference=difference):
            length = (len(whole) - HEADER_BYTES + difference) % 2**16
            return whole[:8] + length.to_bytes(2, "big") + whole[HEADER_BYTES:]
        case _:
            return answer


def _phone(device_name: str) -> str:
    """`SEPB000B4BA0AEE` of `CP-8861-SEPB000B4BA0AEE`."""
    _, mark, rest = device_name.rpartition("-SEP")
    return f"SEP{rest}" if mark else device_name


def _status_alone(answer: TvsMessage, status: int) -> TvsMessage:
    return replace(answer, elements=(Element(TvsTag.STATUS, bytes((status,))),))


def _with(answer: TvsMessage, tag: TvsTag, value: bytes) -> TvsMessage:
    """With that value where the element is, or behind the others where it is not."""
    changed = Element(tag, value)
    if any(element.tag == tag for element in answer.elements):
        return replace(answer, elements=tuple(changed if one.tag == tag else one for one in answer.elements))
    return replace(answer, elements=(*answer.elements, changed))


def _with_unknown(answer: TvsMessage, action: UnknownTag) -> TvsMessage:
    unknown = Element(action.tag, _UNKNOWN_VALUE * action.bytes)
    others = answer.elements
    return replace(answer, elements=(unknown, *others) if action.first else (*others, unknown))


def _corrupt_field(answer: TvsMessage, name: FieldName) -> bytes:
    if name in _LAST_BYTE_OF:
        return _changed(encode_message(answer), _LAST_BYTE_OF[name], 0xFF)
    end = HEADER_BYTES
    for element in answer.elements:
        end += element_length(element)
        if element.tag == _TAG_OF[name] and element.value:
            return _changed(encode_message(answer), end - 1, 0xFF)
    return encode_message(_with(answer, _TAG_OF[name], _WRONG_VALUE))


def _changed(data: bytes, offset: int, mask: int) -> bytes:
    return data[:offset] + bytes((data[offset] ^ mask,)) + data[offset + 1 :]
