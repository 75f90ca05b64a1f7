"""Faults of TVS as a client meets them: what is on the wire, what is told, and what the phone makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from both_loops import on_both_loops
from phone_script import MAC, NEW, NOW, OLD

from cucm.errors import DecodeError, UsageError
from cucm.events import EventLog
from cucm.events.faults import FaultFired
from cucm.events.tvs import TvsCertificateLookedUp, TvsRequestReceived, TvsRequestRefused, TvsResponseSent
from cucm.faults import FaultBoard, fault_of
from cucm.faults.catalogue.tvs import TVS_RESPONSE, Delay, Drop, NotFound
from cucm.net.listener import Limits
from cucm.net.stream import Stream
from cucm.net.tls import client_context, open_stream
from cucm.wire.cursor import Element
from cucm.wire.tvs import (
    HEADER_BYTES,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsMessage,
    TvsTag,
    VerifyRequest,
    VerifyResponse,
    decode_message,
    encode_message,
)
from tvs_server.answer_faults import request_fields, spoilt
from tvs_server.certificate_cache import CertificateCache, PemFolderSource
from tvs_server.policy import question_of
from tvs_server.server import TvsServer

DEADLINE_S = 20
DEVICE = f"CP-8861-SEP{MAC}"
SIGNER = NEW.call_manager
QUERY = QueryCertificateRequest.build(1001, DEVICE, SIGNER.subject, SIGNER.issuer, SIGNER.serial)
VERIFY = VerifyRequest.build(1002, DEVICE, SIGNER.certificate_der)
ANSWER = QueryCertificateResponse.build(1001, 0, SIGNER.certificate_der, (0, 3), 86_400)
VERIFIED = VerifyResponse.build(1002, 0, (0, 3), 86_400)
OTHER = OLD.tvs.certificate_der
Draw = Callable[[], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "destination.pem").write_bytes(SIGNER.certificate_pem)
    return tmp_path


@asynccontextmanager
async def serving(
    draw: Draw, folder: Path, action: str, *, point: str = "tvs.response", limits: Limits | None = None, **rule: Any
) -> AsyncIterator[tuple[TvsServer, EventLog]]:
    log = EventLog()
    board = FaultBoard(log.emitter("lab:faults"))
    board.set(fault_of({"point": point, "action": action, "times": 1, **rule}))
    emit = log.emitter("tvs:ucm105pub")
    server = TvsServer(
        draw(),
        0,
        certificate_der=OLD.tvs.certificate_der,
        private_key_der=OLD.tvs.private_key_der,
        cache=CertificateCache(PemFolderSource(folder, (0, 3)), emit=emit),
        emit=emit,
        limits=limits,
        faults=board.at(cluster="source", node="ucm105pub"),
        now=lambda: NOW,
    )
    await server.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server, log
    finally:
        await server.stop()


async def connect(server: TvsServer) -> Stream:
    return await open_stream(server.address, server.port, context=client_context())


async def ask(stream: Stream, request: TvsMessage) -> bytes:
    """All bytes of one message, or as many as come before the end."""
    stream.write(encode_message(request))
    got = b""
    while len(got) < HEADER_BYTES or len(got) < HEADER_BYTES + int.from_bytes(got[8:10], "big"):
        data = await stream.read()
        if not data:
            break
        got += data
    return got


def told(log: EventLog, kind: type) -> list[Any]:
    return [record.event for record in log if isinstance(record.event, kind)]


def action_of(name: str, **attributes: Any) -> Any:
    return fault_of({"point": "tvs.response", "action": name, "attributes": attributes}).action


def spoil(answer: TvsMessage, name: str, **attributes: Any) -> TvsMessage | bytes:
    return spoilt(answer, action_of(name, **attributes), OTHER)


# -- before the request is looked up -------------------------------------------------------------------------------


@on_both_loops
async def test_a_request_that_is_lost_is_not_looked_up(loopback: Draw, folder: Path) -> None:
    async with serving(loopback, folder, "drop", point="tvs.request") as (server, log), await connect(server) as stream:
        stream.write(encode_message(QUERY))
        assert await ask(stream, VERIFY) == encode_message(VERIFIED), "the first answer is that of the second request"
        assert len(told(log, TvsRequestReceived)) == 2
        assert len(told(log, TvsCertificateLookedUp)) == len(told(log, TvsResponseSent)) == 1
        (fired,) = told(log, FaultFired)
        assert fired.request == {
            "cluster": "source",
            "node": "ucm105pub",
            "service": "TVS",
            "peer": stream.local_address[0],
            "phone": f"SEP{MAC}",
            "message": "query",
            "subject": SIGNER.subject,
            "issuer": SIGNER.issuer,
            "serial": SIGNER.serial.hex().upper(),
        }


@on_both_loops
async def test_a_request_that_ends_the_connection(loopback: Draw, folder: Path) -> None:
    async with serving(loopback, folder, "close", point="tvs.request") as (server, log):
        async with await connect(server) as stream:
            assert await ask(stream, QUERY) == b""
        assert told(log, TvsCertificateLookedUp) == told(log, TvsRequestRefused) == []


@pytest.mark.parametrize("point", ["tvs.request", "tvs.response"])
@on_both_loops
async def test_a_delay_is_longer_than_the_servers_own_deadline(loopback: Draw, folder: Path, point: str) -> None:
    limits = Limits(request_timeout_s=0.2)
    late = {"point": point, "attributes": {"seconds": 0.6}}
    loop = asyncio.get_running_loop()
    async with (
        serving(loopback, folder, "delay", limits=limits, **late) as (server, log),
        await connect(server) as stream,
    ):
        began = loop.time()
        assert await ask(stream, QUERY) == encode_message(ANSWER)
        assert round(loop.time() - began, 3) >= 0.6  # uvloop counts milliseconds: 0.5999999999994543 is just that
        assert await ask(stream, QUERY) == encode_message(ANSWER)
        assert told(log, TvsRequestRefused) == []


@on_both_loops
async def test_stopping_does_not_wait_for_a_delay(loopback: Draw, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    async with serving(loopback, folder, "delay", attributes={"seconds": 60}) as (server, log):
        stream = await connect(server)
        stream.write(encode_message(QUERY))
        while not told(log, FaultFired):
            await asyncio.sleep(0)
        began = loop.time()
        await server.stop()
        assert loop.time() - began < 5
        await stream.close()


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"phone": f"SEP{MAC}"}, True),
        ({"phone": "SEP0*"}, False),
        ({"message": "query"}, True),
        ({"message": "verify"}, False),
        ({"subject": "CN=*"}, True),
        ({"serial": SIGNER.serial.hex().upper(), "node": "ucm105*"}, True),
        ({"serial": "00"}, False),
    ],
)
async def test_a_rule_may_name_who_asks_for_what(
    loopback: Draw, folder: Path, match: dict[str, str], hit: bool
) -> None:
    async with serving(loopback, folder, "not-found", match=match) as (server, _), await connect(server) as stream:
        answer = decode_message(await ask(stream, QUERY))
        assert isinstance(answer, QueryCertificateResponse)
        assert answer.status == (1 if hit else 0)


# -- the answer on the wire ----------------------------------------------------------------------------------------


@on_both_loops
async def test_an_answer_that_is_dropped_was_looked_up(loopback: Draw, folder: Path) -> None:
    async with serving(loopback, folder, "drop") as (server, log), await connect(server) as stream:
        stream.write(encode_message(QUERY))
        assert await ask(stream, VERIFY) == encode_message(VERIFIED)
        assert len(told(log, TvsCertificateLookedUp)) == 2
        assert len(told(log, TvsResponseSent)) == 1


@pytest.mark.parametrize("count", [0, 1, 10, 700])
@on_both_loops
async def test_a_truncated_answer_ends_the_connection(loopback: Draw, folder: Path, count: int) -> None:
    async with serving(loopback, folder, "truncate", attributes={"bytes": count}) as (server, log):
        async with await connect(server) as stream:
            assert await ask(stream, QUERY) == encode_message(ANSWER)[:count]
        assert [(event.message_type, event.data) for event in told(log, TvsResponseSent)] == (
            [(None, encode_message(ANSWER)[:count])] if count else []
        )


@on_both_loops
async def test_a_spoilt_message_is_told_as_it_was_sent(loopback: Draw, folder: Path) -> None:
    async with serving(loopback, folder, "ttl") as (server, log), await connect(server) as stream:
        data = await ask(stream, QUERY)
        (sent,) = told(log, TvsResponseSent)
        assert (sent.data, sent.ttl_s, sent.status) == (data, 0, 0)
        assert await ask(stream, QUERY) == encode_message(ANSWER), "the connection goes on"


@on_both_loops
async def test_an_answer_with_a_wrong_length_is_sent_whole(loopback: Draw, folder: Path) -> None:
    async with serving(loopback, folder, "wrong-length", attributes={"difference": 5}) as (server, log):
        stream = await connect(server)
        stream.write(encode_message(QUERY))
        got = b""
        while len(got) < len(encode_message(ANSWER)):
            got += await stream.read()
        assert got[8:10] == (len(got) - HEADER_BYTES + 5).to_bytes(2, "big")
        assert told(log, TvsResponseSent)[0].data == got
        await stream.close()


# -- what each makes of an answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("not-found", {}, QueryCertificateResponse.build(1001, 1)),
        ("error-status", {"status": 7}, QueryCertificateResponse.build(1001, 7)),
        ("wrong-roles", {}, QueryCertificateResponse.build(1001, 0, SIGNER.certificate_der, (4,), 86_400)),
        ("wrong-roles", {"roles": []}, QueryCertificateResponse.build(1001, 0, SIGNER.certificate_der, (), 86_400)),
        ("ttl", {}, QueryCertificateResponse.build(1001, 0, SIGNER.certificate_der, (0, 3), 0)),
        (
            "ttl",
            {"ttl_s": 2**32 - 1},
            QueryCertificateResponse.build(1001, 0, SIGNER.certificate_der, (0, 3), 2**32 - 1),
        ),
        ("other-certificate", {}, QueryCertificateResponse.build(1001, 0, OTHER, (0, 3), 86_400)),
        ("wrong-session-id", {}, QueryCertificateResponse.build(1002, 0, SIGNER.certificate_der, (0, 3), 86_400)),
        (
            "wrong-session-id",
            {"difference": -1002},
            QueryCertificateResponse.build(2**32 - 1, 0, SIGNER.certificate_der, (0, 3), 86_400),
        ),
    ],
)
def test_messages_of_a_query(name: str, attributes: dict[str, Any], expected: TvsMessage) -> None:
    assert spoil(ANSWER, name, **attributes) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("not-found", VerifyResponse.build(1002, 1)),
        ("error-status", VerifyResponse.build(1002, 255)),
        ("wrong-roles", VerifyResponse.build(1002, 0, (4,), 86_400)),
        ("ttl", VerifyResponse.build(1002, 0, (0, 3), 0)),
        ("other-certificate", VerifyResponse.build(1002, 1)),
    ],
)
def test_messages_of_a_verification(name: str, expected: TvsMessage) -> None:
    assert spoil(VERIFIED, name) == expected


def test_what_a_not_found_lacks_is_added() -> None:
    lacking = QueryCertificateResponse.build(1001, 1)
    assert spoil(lacking, "wrong-roles", roles=[0]) == QueryCertificateResponse.build(1001, 1, roles=(0,))
    assert spoil(lacking, "ttl", ttl_s=5) == QueryCertificateResponse.build(1001, 1, ttl_s=5)
    assert spoil(lacking, "corrupt-field", field="roles") == encode_message(
        QueryCertificateResponse.build(1001, 1, roles=(255,))
    )


@pytest.mark.parametrize("first", [False, True])
def test_an_unknown_tag_breaks_nothing_for_who_reads_on(first: bool) -> None:
    answer = spoil(ANSWER, "unknown-tag", first=first, bytes=7)
    assert isinstance(answer, QueryCertificateResponse)
    read = decode_message(encode_message(answer))
    assert isinstance(read, QueryCertificateResponse)
    assert (read.status, read.certificate, read.roles) == (0, SIGNER.certificate_der, (0, 3))
    assert read.elements[0 if first else -1] == Element(29, b"*******")


@pytest.mark.parametrize("offset", [0, 100, 10_000])
def test_one_byte(offset: int) -> None:
    whole = encode_message(ANSWER)
    data = spoil(ANSWER, "corrupt-byte", offset=offset, xor=1)
    assert isinstance(data, bytes)
    assert [i for i in range(len(whole)) if data[i] != whole[i]] == [offset % len(whole)]


@pytest.mark.parametrize("answer", [ANSWER, VERIFIED])
@pytest.mark.parametrize(
    "field",
    ["discriminator", "version", "type", "pad", "session-id", "length", "status", "certificate", "roles", "ttl"],
)
def test_one_field(answer: TvsMessage, field: str) -> None:
    data = spoil(answer, "corrupt-field", field=field)
    whole = encode_message(answer)
    assert isinstance(data, bytes)
    assert data != whole
    if field in {"discriminator", "version", "type", "length"}:
        with pytest.raises(DecodeError):
            decode_message(data)
    elif field == "certificate" and answer is VERIFIED:
        assert decode_message(data).elements[-1] == Element(TvsTag.CERTIFICATE, b"\xff")
    else:
        assert sum(a != b for a, b in zip(data, whole, strict=True)) == 1
        decode_message(data)


@pytest.mark.parametrize(("difference", "length"), [(1, 1), (-1, -1), (-65_535, 1)])
def test_wrong_lengths(difference: int, length: int) -> None:
    whole = encode_message(ANSWER)
    data = spoil(ANSWER, "wrong-length", difference=difference)
    assert isinstance(data, bytes)
    assert int.from_bytes(data[8:10], "big") == len(whole) - HEADER_BYTES + length
    assert data[:8] + data[10:] == whole[:8] + whole[10:]


@pytest.mark.parametrize("name", ["wrong-session-id", "wrong-length"])
def test_what_would_be_right_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="would be right"):
        action_of(name, difference=0)


@pytest.mark.parametrize("tag", range(10))
def test_a_tag_that_is_known_is_refused(tag: int) -> None:
    with pytest.raises(UsageError, match="tag"):
        action_of("unknown-tag", tag=tag)


@pytest.mark.parametrize(
    ("device_name", "phone"),
    [(DEVICE, f"SEP{MAC}"), (f"SEP{MAC}", f"SEP{MAC}"), ("someone", "someone"), ("CP-1-SEP-SEP1", "SEP1")],
)
def test_the_phone_is_named_without_its_model(device_name: str, phone: str) -> None:
    request = QueryCertificateRequest.build(1, device_name, SIGNER.subject, SIGNER.issuer, SIGNER.serial)
    assert request_fields(question_of(request))["phone"] == phone


SPOILING = [action.name for action in TVS_RESPONSE.actions if action not in (Drop, Delay, NotFound)]


@pytest.mark.parametrize("answer", [ANSWER, VERIFIED, QueryCertificateResponse.build(1001, 1)])
@pytest.mark.parametrize("name", SPOILING)
def test_every_action_changes_every_answer(answer: TvsMessage, name: str) -> None:
    changed = spoil(answer, name, **({"bytes": 1} if name == "truncate" else {}))
    data = changed if isinstance(changed, bytes) else encode_message(changed)
    assert data != encode_message(answer)
