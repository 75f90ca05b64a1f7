from __future__ import annotations

import pytest

from cucm.certificates import Identity, node_certificate
from cucm.errors import DecodeError
from cucm.events.tvs import CacheName, CacheStep
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from cucm.wire.tvs import (
    RESPONSE_PAD,
    STATUS_NOT_FOUND,
    STATUS_OK,
    QueryCertificateRequest,
    QueryCertificateResponse,
    VerifyRequest,
    VerifyResponse,
    encode_message,
)
from tvs_server.policy import DIFFERENT_CERTIFICATE_STATUS, CacheEntry, Finding, Verdict, decide, map_id, question_of

DEVICE = "CP-8861-SEPB000B4BA0AEE"


@pytest.fixture(scope="module")
def known() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=1.7e9)


def entry(identity: Identity, roles: tuple[int, ...] = (0, 3), ttl_s: int | None = None) -> CacheEntry:
    return CacheEntry(identity.certificate_der, identity.issuer, identity.serial, roles, ttl_s)


class Asked:
    """A lookup that knows one entry, and what it was asked for."""

    def __init__(self, known: CacheEntry | None) -> None:
        self.known = known
        self.questions: list[tuple[bytes, str]] = []

    def __call__(self, serial: bytes, issuer: str) -> Finding:
        self.questions.append((serial, issuer))
        step = CacheStep(CacheName.DATABASE, self.known is not None, self.known.roles if self.known else ())
        return Finding(map_id(serial, issuer), self.known, (step,))


def query(identity: Identity) -> QueryCertificateRequest:
    return QueryCertificateRequest.build(1001, DEVICE, identity.subject, identity.issuer, identity.serial)


def test_a_known_certificate_comes_with_roles_and_time_to_live(known: Identity) -> None:
    request, lookup = query(known), Asked(entry(known))
    decision = decide(request, question_of(request), lookup)
    message = decision.message
    assert lookup.questions == [(known.serial, known.issuer)]
    assert isinstance(message, QueryCertificateResponse)
    assert decision.verdict is Verdict.FOUND
    assert (message.session_id, message.pad, message.status) == (1001, RESPONSE_PAD, STATUS_OK)
    assert (message.certificate, message.roles, message.ttl_s) == (known.certificate_der, (0, 3), 86_400)
    assert encode_message(message).endswith(bytes.fromhex("08 00 02 00 03 09 00 04 00 01 51 80"))


def test_the_time_to_live_of_the_database_wins_over_the_default(known: Identity) -> None:
    request = query(known)
    for ttl_s, default_ttl_s, expected in [(None, 60, 60), (7, 60, 7), (0, 60, 0)]:
        decision = decide(request, question_of(request), Asked(entry(known, ttl_s=ttl_s)), default_ttl_s=default_ttl_s)
        assert isinstance(decision.message, QueryCertificateResponse)
        assert decision.message.ttl_s == expected


def test_not_found_is_the_status_alone(known: Identity) -> None:
    request = query(known)
    decision = decide(request, question_of(request), Asked(None))
    assert decision.verdict is Verdict.NOT_FOUND
    assert decision.message == QueryCertificateResponse.build(1001, STATUS_NOT_FOUND)


def test_a_certificate_without_roles_is_found_and_may_do_nothing(known: Identity) -> None:
    request = query(known)
    message = decide(request, question_of(request), Asked(entry(known, roles=()))).message
    assert isinstance(message, QueryCertificateResponse)
    assert (message.status, message.certificate, message.roles) == (STATUS_OK, known.certificate_der, ())
    assert any(element.tag == 8 and element.value == b"" for element in message.elements)


def test_verify_takes_issuer_and_serial_from_the_certificate(known: Identity) -> None:
    request, lookup = VerifyRequest.build(1002, DEVICE, known.certificate_der), Asked(entry(known, roles=(7,)))
    decision = decide(request, question_of(request), lookup)
    assert lookup.questions == [(known.serial, known.issuer)]
    assert decision.verdict is Verdict.FOUND
    assert decision.message == VerifyResponse.build(1002, STATUS_OK, (7,), 86_400)


def test_verify_of_a_certificate_that_differs(known: Identity) -> None:
    request = VerifyRequest.build(1002, DEVICE, known.certificate_der)
    der = known.certificate_der
    other = CacheEntry(der[:-1] + bytes([der[-1] ^ 1]), known.issuer, known.serial, (7,))
    decision = decide(request, question_of(request), Asked(other))
    assert decision.verdict is Verdict.DIFFERENT_CERTIFICATE
    assert decision.message == VerifyResponse.build(1002, DIFFERENT_CERTIFICATE_STATUS)


def test_verify_of_an_unknown_certificate(known: Identity) -> None:
    request = VerifyRequest.build(1002, DEVICE, known.certificate_der)
    decision = decide(request, question_of(request), Asked(None))
    assert decision.message == VerifyResponse.build(1002, STATUS_NOT_FOUND)


def test_what_asks_nothing_is_refused(known: Identity) -> None:
    with pytest.raises(DecodeError, match="is no request"):
        question_of(VerifyResponse.build(1, STATUS_OK))
    with pytest.raises(DecodeError, match="certificate"):
        question_of(VerifyRequest.build(1, DEVICE, b"\x30\x03\x02\x01\x00"))


def test_the_map_id_is_serial_and_issuer_with_nothing_between() -> None:
    serial = bytes.fromhex("83e9080000005545af31")
    key = map_id(serial, "cn=Cisco Manufacturing CA;o=Cisco Systems")
    assert key == "83E9080000005545AF31cn=Cisco Manufacturing CA;o=Cisco Systems"
    assert len(key) == 61
