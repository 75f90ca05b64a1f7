"""The guard of TVS's speed: operations are counted, not seconds."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import operation_bounds as bounds
import pytest
import uvloop
from OpenSSL import SSL

from cucm.certificates import Identity, node_certificate
from cucm.database import NodeDatabase
from cucm.events import Emit, EventLog, ignore
from cucm.key_store import KeyStore
from cucm.net.tls import client_context
from cucm.render.tvs_trace import TvsTrace
from cucm.roles import CertificateUnit
from cucm.wire.tvs import STATUS_OK, QueryCertificateRequest, QueryCertificateResponse, decode_message, encode_message
from tvs_server.certificate_cache import CertificateCache
from tvs_server.server import TvsServer

NOT_BEFORE = 1_700_000_000.0
WARM_UP = 10
COUNTED = 40
DEADLINE_S = 60

Draw = Callable[[], str]


@pytest.fixture(scope="module")
def foreign() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def tvs() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.TVS, "ucm105pub", seed=2, not_before=NOT_BEFORE)


@pytest.fixture
def database(tmp_path: Path, foreign: Identity) -> Path:
    with NodeDatabase(tmp_path / "node.db").create() as made:
        made.put_certificate(foreign.certificate_der, CertificateUnit.PHONE_SAST_TRUST, "ucm105pub", moment=NOT_BEFORE)
    return tmp_path / "node.db"


def ask(address: str, port: int, wanted: Identity, times: int) -> None:
    """One after the other, a new connection with a full handshake each."""
    context = client_context()
    request = QueryCertificateRequest.build(1, "CP-1", wanted.subject, wanted.issuer, wanted.serial)
    for _ in range(times):
        with socket.create_connection((address, port), DEADLINE_S) as plain:
            plain.settimeout(None)
            connection = SSL.Connection(context, plain)
            connection.set_connect_state()
            connection.sendall(encode_message(request))
            answer = connection.recv(65_545)
            while len(answer) < 10 + int.from_bytes(answer[8:10], "big"):
                answer += connection.recv(65_545)
            message = decode_message(answer)
            assert isinstance(message, QueryCertificateResponse)
            assert (message.status, message.certificate) == (STATUS_OK, wanted.certificate_der)
            connection.shutdown()


@contextmanager
def leaving_garbage_alone() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def counting(calls: Counter[str]) -> Iterator[None]:
    """Python functions called by this thread."""

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}"] += 1

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


async def calls_of_a_connection(server: TvsServer, wanted: Identity) -> Counter[str]:
    calls: Counter[str] = Counter()
    await server.start()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def clients() -> None:
        ask(server.address, server.port, wanted, COUNTED)
        loop.call_soon_threadsafe(ended.set)

    await asyncio.to_thread(ask, server.address, server.port, wanted, WARM_UP)
    client = threading.Thread(target=clients)
    with counting(calls):
        client.start()
        await ended.wait()
    client.join()
    await server.stop()
    return calls


def counted(address: str, database: Path, tvs: Identity, wanted: Identity, emit: Emit) -> Counter[str]:
    async def work() -> Counter[str]:
        server = TvsServer(
            address,
            0,
            certificate_der=tvs.certificate_der,
            private_key_der=tvs.private_key_der,
            cache=CertificateCache(database, emit=emit),
            emit=emit,
        )
        return await calls_of_a_connection(server, wanted)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def explained(calls: Counter[str]) -> str:
    return "\n".join(f"{count / COUNTED:6.2f} {name}" for name, count in calls.most_common(60))


def test_python_calls_and_events_of_a_traced_connection(
    loopback: Draw, database: Path, tvs: Identity, foreign: Identity
) -> None:
    log, trace, lines = EventLog(), TvsTrace(), []
    log.subscribe(lambda record: lines.append(trace.text(record)))
    told: list[str] = []
    log.subscribe(lambda record: told.append(record.event.kind))
    calls = counted(loopback(), database, tvs, foreign, log.emitter("tvs:x"))
    calls = Counter({name: count for name, count in calls.items() if not name.startswith("test_operations_tvs")})
    assert calls.pop("tvs_trace.py:TvsTrace._begin_millisecond")  # the slower the machine, the more of them
    kinds = Counter(told)
    assert calls.total() / COUNTED <= bounds.TVS_PYTHON_CALLS, explained(calls)
    of_connections = sum(count for kind, count in kinds.items() if count >= COUNTED)
    assert of_connections == bounds.TVS_EVENTS * (WARM_UP + COUNTED), kinds
    assert sum("convertX509ToDER" in text for text in lines) == WARM_UP + COUNTED


def test_python_calls_of_a_silent_connection(loopback: Draw, database: Path, tvs: Identity, foreign: Identity) -> None:
    calls = counted(loopback(), database, tvs, foreign, ignore)
    assert calls.total() / COUNTED <= bounds.TVS_SILENT_PYTHON_CALLS, explained(calls)


def test_a_connection_leaves_nothing_for_the_collector(
    loopback: Draw, database: Path, tvs: Identity, foreign: Identity
) -> None:
    async def work() -> int:
        server = TvsServer(
            loopback(),
            0,
            certificate_der=tvs.certificate_der,
            private_key_der=tvs.private_key_der,
            cache=CertificateCache(database),
        )
        await server.start()
        await asyncio.to_thread(ask, server.address, server.port, foreign, WARM_UP)
        with leaving_garbage_alone():
            await asyncio.to_thread(ask, server.address, server.port, foreign, COUNTED)
            while server.connections:
                await asyncio.sleep(0)
            found = gc.collect()
        await server.stop()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) / COUNTED <= bounds.TVS_GARBAGE


@pytest.mark.needs("strace")
def test_system_calls_of_a_query(loopback: Draw, database: Path, foreign: Identity, tmp_path: Path) -> None:
    address, log = loopback(), tmp_path / "strace.log"
    strace = shutil.which("strace")
    assert strace is not None
    server = [sys.executable, "-m", "tvs_server", "--database", str(database), "--address", address, "--port", "0"]
    with subprocess.Popen(
        [strace, "-f", "-o", str(log), *server, "--trace"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    ) as process:
        assert process.stderr is not None
        port = int(re.findall(r"port (\d+)", process.stderr.readline())[0])
        ask(address, port, foreign, WARM_UP + COUNTED + 1)
        server_pid = int(log.read_text().split(maxsplit=1)[0])
        os.kill(server_pid, 15)
        assert process.wait(DEADLINE_S) == 0
    names = [
        found[1] + ("" if found[2] != "-1" else "-")
        for line in log.read_text().splitlines()
        if (found := _CALL.match(line))
    ]
    accepts = [place for place, name in enumerate(names) if name == "accept4"]
    assert len(accepts) == WARM_UP + COUNTED + 1
    between = Counter(names[accepts[WARM_UP] : accepts[WARM_UP + COUNTED]])
    del between["getpid"]
    told = {name: count / COUNTED for name, count in between.most_common()}
    assert between.total() / COUNTED <= bounds.TVS_SYSTEM_CALLS, told


_CALL = re.compile(r"\d+ +(\w+)\(.*= (-?\w+)")
