"""`python -m tvs_server` as a process."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from cucm.certificates import Identity, node_certificate
from cucm.database import NodeDatabase
from cucm.key_store import KeyStore
from cucm.net.tls import TlsProfile, client_context
from cucm.roles import CertificateUnit
from cucm.wire.tvs import QueryCertificateRequest, QueryCertificateResponse, decode_message, encode_message
from tvs_server import __main__ as command

NOT_BEFORE = 1_700_000_000.0
DEADLINE_S = 20

Draw = Callable[[], str]


@pytest.fixture(scope="module")
def foreign() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOT_BEFORE)


@pytest.fixture
def folder(tmp_path: Path, foreign: Identity) -> Path:
    path = tmp_path / "certificates"
    path.mkdir()
    (path / "ucm11pub.pem").write_bytes(foreign.certificate_pem)
    return path


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tvs_server", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def finished(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tvs_server", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def event(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next event of that kind; its absence ends the wait with the process."""
    assert process.stdout is not None
    for line in process.stdout:
        record: dict[str, Any] = json.loads(line)
        if record["kind"] == kind:
            return record
    raise AssertionError(kind)


def ask(address: str, port: int, identity: Identity, profile: TlsProfile = TlsProfile.MODERN) -> Any:
    request = QueryCertificateRequest.build(1, "CP-1", identity.subject, identity.issuer, identity.serial)
    with socket.create_connection((address, port), DEADLINE_S, (address, 0)) as plain:
        plain.settimeout(None)
        connection = SSL.Connection(client_context(profile=profile), plain)
        connection.set_connect_state()
        connection.sendall(encode_message(request))
        answer = connection.recv(65_545)
        while len(answer) < 10 + int.from_bytes(answer[8:10], "big"):
            answer += connection.recv(65_545)
        return decode_message(answer)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_folder_of_certificates_is_served(
    loopback: Draw, folder: Path, foreign: Identity, stop: signal.Signals
) -> None:
    address = loopback()
    options = ("--address", address, "--port", 0, "--roles", "sast,2", "--ttl", 60, "--json")
    with running("--pem-folder", folder, *options) as process:
        port = event(process, "tvs_server.started")["port"]
        answer = ask(address, port, foreign)
        assert answer == QueryCertificateResponse.build(1, 0, foreign.certificate_der, (0, 2), 60)
        assert event(process, "tvs.request_received")["issuer"] == foreign.issuer
        with socket.create_connection((address, port)):  # one that is still open does not keep it
            process.send_signal(stop)
            out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        assert err == ""
        assert json.loads(out.splitlines()[-1])["kind"] == "tvs_server.stopped"


def test_several_processes_share_a_port(loopback: Draw, folder: Path, foreign: Identity) -> None:
    address = loopback()
    with running("--pem-folder", folder, "--address", address, "--port", 0, "--processes", 2, "--json") as process:
        started = [event(process, "tvs_server.started") for _ in range(2)]
        (port,) = {record["port"] for record in started}
        assert {record["source"] for record in started} == {f"tvs:{address}/1", f"tvs:{address}/2"}
        # the kernel deals them out by a hash of addresses and ports: 64 on one side would be a 2 ** -63 chance
        served = set()
        for _ in range(64):
            assert ask(address, port, foreign).status == 0
            served.add(event(process, "tvs.request_received")["source"])
        assert len(served) == 2
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, err) == (0, "")
        assert out.count('"kind": "tvs_server.stopped"') == 2


def test_readiness_is_one_write_so_that_no_other_process_gets_between(loopback: Draw, folder: Path) -> None:
    address = loopback()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # a write of theirs is a datagram of ours
    with ours, theirs:
        ours.settimeout(DEADLINE_S)
        words = ["-m", "tvs_server", "--pem-folder", str(folder), "--address", address, "--port", "0", "--trace"]
        with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=theirs) as process:
            try:
                told = ours.recv(1000).decode()
            finally:
                process.kill()
    assert re.fullmatch(rf"tvs_server: listening on {re.escape(address)} port \d+\n", told)


def test_processes_end_with_the_one_that_started_them(loopback: Draw, folder: Path) -> None:
    address = loopback()
    with running("--pem-folder", folder, "--address", address, "--port", 0, "--processes", 2, "--json") as process:
        (port,) = {event(process, "tvs_server.started")["port"] for _ in range(2)}
        process.kill()
        kinds = [event(process, "tvs_server.stopped")["kind"] for _ in range(2)]
        assert len(kinds) == 2
    with pytest.raises(ConnectionRefusedError), socket.create_connection((address, port)):
        pass


def test_processes_notice_a_stranger_on_their_port(loopback: Draw, folder: Path) -> None:
    address = loopback()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind((address, 0))
        stranger.listen()
        options = ("--address", address, "--port", stranger.getsockname()[1], "--processes", 2)
        done = finished("--pem-folder", folder, *options)
    assert done.returncode == 3
    assert "another program holds this address and port" in done.stderr


def test_faults_count_for_one_process(folder: Path) -> None:
    fault = json.dumps({"point": "tvs.response", "action": "ttl"})
    done = finished("--pem-folder", folder, "--port", 0, "--processes", 2, "--fault", fault)
    assert done.returncode == 2
    assert "leave out --processes" in done.stderr


def test_faults_in_words_and_from_a_file(loopback: Draw, folder: Path, foreign: Identity, tmp_path: Path) -> None:
    address, file = loopback(), tmp_path / "faults.json"
    file.write_text(json.dumps([{"point": "tvs.response", "action": "ttl", "skip": 1}]))
    first = json.dumps({"id": "first", "point": "tvs.response", "action": "not-found", "times": 1, "must_fire": True})
    options = ("--address", address, "--port", 0, "--fault", first, "--fault", file, "--json")
    with running("--pem-folder", folder, *options) as process:
        port = event(process, "tvs_server.started")["port"]
        assert [ask(address, port, foreign).status for _ in range(2)] == [1, 0]
        assert ask(address, port, foreign).ttl_s == 0
        fired = event(process, "fault.fired")
        assert (fired["fault"], fired["request"]["subject"]) == ("first", foreign.subject)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


def test_a_fault_that_must_fire_and_has_not(loopback: Draw, folder: Path) -> None:
    fault = json.dumps({"id": "never", "point": "tls.handshake", "action": "alert", "must_fire": True})
    options = ("--address", loopback(), "--port", 0, "--json", "--fault", fault)
    with running("--pem-folder", folder, *options) as process:
        event(process, "tvs_server.started")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert "never" in err


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("{", "no JSON"),
        ('{"point": "tvs.response", "action": "explode"}', "explode"),
        ('{"point": "dhcp.request", "action": "nak"}', "no part of this program"),
        ("/nonexistent/faults.json", "/nonexistent/faults.json"),
    ],
)
def test_what_is_no_fault_here_is_refused(folder: Path, fault: str, says: str) -> None:
    done = finished("--pem-folder", folder, "--port", 0, "--fault", fault)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_with_own_identity_old_profile_and_trace(loopback: Draw, tmp_path: Path, foreign: Identity) -> None:
    address, database = loopback(), tmp_path / "node.db"
    with NodeDatabase(database).create() as node:
        node.put_certificate(
            foreign.certificate_der, CertificateUnit.PHONE_SAST_TRUST, "ucm11pub", moment=NOT_BEFORE + 1
        )
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    certificate.write_bytes(foreign.certificate_pem)
    key.write_bytes(foreign.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with running(
        *("--database", database, "--certificate", certificate, "--private-key", key),
        *("--tls-profile", "aes256-sha", "--address", address, "--port", 0, "--trace"),
    ) as process:
        assert process.stderr is not None
        ready = process.stderr.readline()
        assert ready.startswith(f"tvs_server: listening on {address} port "), ready
        answer = ask(address, int(ready.split()[-1]), foreign, TlsProfile.AES256_SHA)
        assert answer.roles == (0, 3)
        assert process.stdout is not None
        lines = [line.rstrip("\n").partition(" | debug ")[2] for line in until(process, "ipAddrStr (Phone)", 3)]
        assert "Accepted TCP connection" in lines[0]
        assert f"{address}: tvsSSLHandShake Session ciphers - AES256-SHA" in lines
        assert lines[-1] == f"ipAddrStr (Phone) {address}"


def until(process: subprocess.Popen[str], text: str, times: int) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        times -= text in line
        if not times:
            return


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a limit of another process")
def test_it_takes_as_many_descriptors_as_it_may_have(loopback: Draw, folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        with running("--pem-folder", folder, "--address", loopback(), "--port", 0, "--json") as process:
            event(process, "tvs_server.started")
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_when_nobody_reads_the_output_it_stops(loopback: Draw, folder: Path, foreign: Identity) -> None:
    address = loopback()
    with running("--pem-folder", folder, "--address", address, "--port", 0, "--json") as process:
        port = event(process, "tvs_server.started")["port"]
        assert process.stdout is not None
        process.stdout.close()
        with socket.create_connection((address, port)):
            assert process.wait(DEADLINE_S) == 0
        process.stdout = None


def test_a_busy_address_is_exit_code_3(loopback: Draw, folder: Path) -> None:
    address = loopback()
    with socket.create_server((address, 0)) as taken:
        port = taken.getsockname()[1]
        done = finished("--pem-folder", folder, "--address", address, "--port", port)
    assert (done.returncode, f"{address} TCP port {port}" in done.stderr, "mend:" in done.stderr) == (3, True, True)
    assert "Traceback" not in done.stderr


def test_other_addresses_need_expose(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--pem-folder", str(folder), "--address", "192.0.2.1"]) == 2
    assert "--expose" in capsys.readouterr().err
    assert command.main(["--pem-folder", str(folder), "--address", "192.0.2.1", "--expose"]) == 3
    told = capsys.readouterr().err
    assert told.startswith("WARNING: listening on 192.0.2.1")
    assert "no such address" in told


def test_help_tells_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        command.main(["--help"])
    assert done.value.code == 0
    told = capsys.readouterr().out
    for option in ("--pem-folder", "--database", "--ctl-file", "--tls-profile", "--client-certificate", "--expose"):
        assert option in told


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--pem-folder", "x", "--database", "y"],
        ["--pem-folder", "x", "--roles", "boss"],
        ["--pem-folder", "x", "--roles", "256"],
        ["--pem-folder", "x", "--port", "65536"],
        ["--pem-folder", "x", "--port", "many"],
        ["--pem-folder", "x", "--ttl", "-1"],
        ["--pem-folder", "x", "--tls-profile", "ssl3"],
        ["--pem-folder", "x", "--max-connections", "0"],
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        command.main(arguments)
    assert wrong.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_unusable_files_are_exit_code_2(
    folder: Path, tmp_path: Path, foreign: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    rubbish, empty, locked, missing = (tmp_path / name for name in ("rubbish", "empty", "locked.pem", "missing"))
    rubbish.write_bytes(b"\x00\x01rubbish")
    empty.mkdir()
    encryption = BestAvailableEncryption(b"secret")
    locked.write_bytes(foreign.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pem = str(folder / "ucm11pub.pem")
    own = ["--pem-folder", str(folder), "--port", "0"]
    cases: list[tuple[list[str], str]] = [
        (["--pem-folder", str(missing)], "cannot be read"),
        (["--pem-folder", str(empty)], "holds no certificate"),
        (["--database", str(missing)], "cannot be used"),
        (["--database", str(rubbish)], str(rubbish)),
        ([*own, "--ctl-file", str(rubbish)], "is no CTL file"),
        ([*own, "--ctl-file", str(missing)], "cannot be read"),
        ([*own, "--certificate", pem], "needs its private key"),
        ([*own, "--certificate", str(rubbish), "--private-key", str(rubbish)], "holds no certificate"),
        ([*own, "--certificate", pem, "--private-key", str(locked)], "no unencrypted private key"),
        ([*own, "--certificate", pem, "--private-key", str(missing)], "cannot be read"),
        ([*own, "--client-ca", str(rubbish)], "holds no certificate"),
    ]
    for arguments, expected in cases:
        assert command.main(arguments) == 2, arguments
        told = capsys.readouterr().err
        assert told.startswith("tvs_server: "), arguments
        assert expected in told, arguments
        assert "mend:" in told, arguments
