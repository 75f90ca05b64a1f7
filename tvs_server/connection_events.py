"""What a TVS server tells of its connections: events made from requests, decisions and answers."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cucm.errors import DecodeError, TrustError
from cucm.events.tvs import TvsCertificateLookedUp, TvsRefusalReason, TvsRequestReceived, TvsResponseSent
from cucm.identity import describe
from cucm.wire.tvs import (
    HEADER_BYTES,
    VERSION,
    Element,
    QueryCertificateResponse,
    TvsMessage,
    VerifyResponse,
)
from tvs_server.policy import Decision, Question, Verdict

UNREADABLE_SUBJECT: Final = "(unreadable certificate)"
_REMEMBERED_ANSWERS: Final = 256
Place = tuple[int, str, int]
"""Number of the connection, the client's address and port."""


def handshake_failure(error: Exception) -> TvsRefusalReason:
    match error:
        case TrustError():
            return TvsRefusalReason.CLIENT_CERTIFICATE
        case TimeoutError():
            return TvsRefusalReason.HANDSHAKE_TIMEOUT
        case _:
            return TvsRefusalReason.HANDSHAKE


def subject_of(certificate: bytes | None) -> str | None:
    if certificate is None:
        return None
    try:
        return describe(certificate).subject
    except DecodeError:
        return UNREADABLE_SUBJECT


def received(place: Place, request: TvsMessage, question: Question, data: bytes) -> TvsRequestReceived:
    """`data` are the bytes that came."""
    return TvsRequestReceived(
        *place,
        message_type=request.type,
        session_id=request.session_id,
        payload_length=len(data) - HEADER_BYTES,
        device_name=question.device_name,
        subject=question.subject,
        issuer=question.issuer,
        serial=question.serial,
        certificate=question.certificate,
        data=data,
    )


def looked_up(place: Place, request: TvsMessage, question: Question, decision: Decision) -> TvsCertificateLookedUp:
    finding = decision.finding
    comparable = finding.entry is not None and question.certificate is not None
    equal = decision.verdict is Verdict.FOUND if comparable else None
    return TvsCertificateLookedUp(*place, request.type, finding.key, finding.steps, equal)


def sent(place: Place, response: TvsMessage | bytes, data: bytes) -> TvsResponseSent:
    """Raw bytes (a fault) carry no fields worth telling."""
    if not isinstance(response, QueryCertificateResponse | VerifyResponse):
        return TvsResponseSent(*place, None, None, None, None, None, None, data)
    status, certificate, roles, ttl_s = _told_fields(isinstance(response, VerifyResponse), response.elements)
    return TvsResponseSent(*place, response.type, len(data) - HEADER_BYTES, status, certificate, roles, ttl_s, data)


@lru_cache(maxsize=_REMEMBERED_ANSWERS)
def _told_fields(
    is_verify: bool, elements: tuple[Element, ...]
) -> tuple[int, bytes | None, tuple[int, ...], int | None]:
    """Status, certificate, roles and time to live, read once for all answers that say the same."""
    if is_verify:
        verified = VerifyResponse(0, 0, VERSION, elements)
        return verified.status, None, verified.roles, verified.ttl_s
    found = QueryCertificateResponse(0, 0, VERSION, elements)
    return found.status, found.certificate, found.roles, found.ttl_s
