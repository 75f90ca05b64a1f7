"""What TVS answers: a decoded request and what the cache holds in, a message out. No I/O.

Facts 2.6 to 2.8. What the real TVS answers when it cannot vouch is UNKNOWN; each such choice is one name here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from cucm.errors import DecodeError
from cucm.events.tvs import CacheStep
from cucm.identity import describe
from cucm.names import serial_hex
from cucm.records import dataclass
from cucm.wire.tvs import (
    RESPONSE_PAD,
    STATUS_NOT_FOUND,
    STATUS_OK,
    VERSION,
    Element,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsMessage,
    VerifyRequest,
    VerifyResponse,
)

DEFAULT_TTL_S: Final = 86_400
"""Sent when the database has none (TIMETOLIVE is NULL after an upload, facts 5.4; [inferred])."""
DIFFERENT_CERTIFICATE_STATUS: Final = STATUS_NOT_FOUND
"""UNKNOWN (facts 2.6): status when issuer and serial number match in a VERIFY but the certificates differ."""


_REMEMBERED_ANSWERS: Final = 1024


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A certificate TVS can give: DER, names in Cisco's form, raw serial, role numbers; `ttl_s` None = the default."""

    certificate: bytes
    issuer: str
    serial: bytes
    roles: tuple[int, ...]
    ttl_s: int | None = None

    @property
    def key(self) -> str:
        return map_id(self.serial, self.issuer)


class Finding(NamedTuple):
    """What the caches said: the entry, if any, and which caches were asked on the way."""

    key: str
    entry: CacheEntry | None
    steps: tuple[CacheStep, ...]


Lookup = Callable[[bytes, str], Finding]
"""Serial number and issuer -> what is known of them."""


class Verdict(StrEnum):
    FOUND = "found"
    NOT_FOUND = "not-found"
    DIFFERENT_CERTIFICATE = "different-certificate"


class Question(NamedTuple):
    """What a request asks about. For a VERIFY the names and the serial number are those of its certificate."""

    device_name: str
    subject: str
    issuer: str
    serial: bytes
    certificate: bytes | None


class Decision(NamedTuple):
    message: TvsMessage
    verdict: Verdict
    finding: Finding


def map_id(serial: bytes, issuer: str) -> str:
    """`Unique MAP ID`: upper-case hex serial number, immediately followed by the issuer (facts 2.7)."""
    return serial_hex(serial) + issuer


def question_of(request: TvsMessage) -> Question:
    """Raises DecodeError for a message that asks nothing, or a VERIFY of what is no certificate."""
    match request:
        case QueryCertificateRequest():
            return Question(*request.asked(), None)
        case VerifyRequest():
            seen = describe(request.certificate)
            return Question(request.device_name, seen.subject, seen.issuer, seen.serial, request.certificate)
        case _:
            raise DecodeError(f"{request.type.log_name} is no request", offset=2, path="header.type")


def decide(
    request: TvsMessage,
    question: Question,
    lookup: Lookup,
    *,
    default_ttl_s: int = DEFAULT_TTL_S,
    pad: int = RESPONSE_PAD,
) -> Decision:
    """The answer to `question`, which is `question_of(request)`."""
    finding = lookup(question.serial, question.issuer)
    verdict = _verdict(finding.entry, question.certificate)
    ttl_s = finding.entry.ttl_s if finding.entry and finding.entry.ttl_s is not None else default_ttl_s
    answer = _query_answer if question.certificate is None else _verify_answer
    return Decision(answer(request.session_id, verdict, finding.entry, ttl_s, pad), verdict, finding)


def _verdict(entry: CacheEntry | None, asked: bytes | None) -> Verdict:
    if entry is None:
        return Verdict.NOT_FOUND
    if asked is not None and asked != entry.certificate:
        return Verdict.DIFFERENT_CERTIFICATE
    return Verdict.FOUND


def _query_answer(
    session_id: int, verdict: Verdict, entry: CacheEntry | None, ttl_s: int, pad: int
) -> QueryCertificateResponse:
    if entry is None:
        return QueryCertificateResponse.build(session_id, _status(verdict), pad=pad)
    elements = _query_elements(verdict, entry.certificate, roles_told(entry), ttl_s)
    return QueryCertificateResponse(session_id, pad, VERSION, elements)


@lru_cache(maxsize=_REMEMBERED_ANSWERS)
def _query_elements(verdict: Verdict, certificate: bytes, roles: tuple[int, ...], ttl_s: int) -> tuple[Element, ...]:
    """The same for every phone that asks for one certificate: only the session number differs."""
    return QueryCertificateResponse.build(0, _status(verdict), certificate, roles, ttl_s).elements


def _verify_answer(session_id: int, verdict: Verdict, entry: CacheEntry | None, ttl_s: int, pad: int) -> VerifyResponse:
    """Not valid: the status alone [peer, facts 2.6]."""
    if entry is None or verdict is not Verdict.FOUND:
        return VerifyResponse.build(session_id, _status(verdict), pad=pad)
    return VerifyResponse.build(session_id, _status(verdict), roles_told(entry), ttl_s, pad=pad)


def _status(verdict: Verdict) -> int:
    match verdict:
        case Verdict.FOUND:
            return STATUS_OK
        case Verdict.NOT_FOUND:
            return STATUS_NOT_FOUND
        case Verdict.DIFFERENT_CERTIFICATE:
            return DIFFERENT_CERTIFICATE_STATUS


def roles_told(entry: CacheEntry) -> tuple[int, ...]:
    """UNKNOWN (facts 5.3, 14.4): what the real TVS answers for a certificate without roles.

    Ours: it is found, and the roles element is there and empty. The phone then sees a certificate that may sign
    nothing, which is what [inferred] a certificate in CallManager-trust alone amounts to.
    """
    return entry.roles
