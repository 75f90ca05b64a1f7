from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

import pytest

from cucm.arguments import whole_number
from cucm.errors import EnvironmentProblem, LabError, UsageError
from cucm.events import EventLog, EventRecord, ignore, phone
from cucm.faults.catalogue import tcp, tvs
from cucm.key_store import KeyStore, private_key_der
from cucm.program import (
    add_faults,
    end_faults,
    event_log,
    exit_code_of,
    fault_board,
    plain_line,
    read_certificates,
    read_file,
    read_private_key,
    serve_until_stopped,
)


def failing() -> int:
    raise EnvironmentProblem("no right to take this port", where="127.0.0.1 UDP port 69", mend="be root")


def interrupted() -> int:
    raise KeyboardInterrupt


def test_errors_become_words_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of("program", failing) == 3
    assert capsys.readouterr().err == "program: 127.0.0.1 UDP port 69: no right to take this port\n  mend: be root\n"
    assert exit_code_of("program", interrupted) == 130
    assert exit_code_of("program", lambda: 1) == 1


def test_numbers_out_of_bounds_are_refused_not_clipped() -> None:
    port = whole_number(0, 65535)
    assert port("65535") == 65535
    with pytest.raises(argparse.ArgumentTypeError, match="between 0 and 65535"):
        port("65536")
    with pytest.raises(ValueError):
        port("sixty-nine")


def test_a_plain_line_hides_what_is_bulky_and_what_a_terminal_obeys() -> None:
    record = EventRecord(1, 0.0, "phone:x", phone.TvsRequestSent(1001, b"\x57\x01"))
    assert plain_line(record) == "phone.tvs_request_sent session_id=1001"
    record = EventRecord(1, 0.0, "phone:x", phone.StatusMessageShown("a\x1b[31mb"))
    assert plain_line(record) == "phone.status_message_shown text=a?[31mb"


def test_events_are_printed_as_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    event_log(None, as_json=True).emit("phone:x", phone.PoweredOff())
    assert '"kind": "phone.powered_off"' in capsys.readouterr().out


def test_files_are_bounded_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(UsageError, match="cannot be read") as missing:
        read_file(path)
    assert missing.value.where == str(path)
    path.write_bytes(b"x" * 11)
    with pytest.raises(UsageError, match="larger than 10 bytes"):
        read_file(path, limit=10)
    with pytest.raises(UsageError, match="no certificate in PEM"):
        read_certificates(path)
    with pytest.raises(UsageError, match="no unencrypted private key"):
        read_private_key(path)


def test_a_private_key_may_be_der(tmp_path: Path) -> None:
    key = KeyStore().key("tests/program", "secp256r1")
    path = tmp_path / "key.der"
    path.write_bytes(private_key_der(key))
    assert read_private_key(path) == private_key_der(key)


class Recorder:
    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")
        self.started.set()

    async def stop(self) -> None:
        self.calls.append("stop")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_service_orderly(number: signal.Signals) -> None:
    service = Recorder()
    async with asyncio.timeout(10):
        serving = asyncio.create_task(serve_until_stopped(service))
        await service.started.wait()
        os.kill(os.getpid(), number)
        await serving
    assert service.calls == ["start", "stop"]


# --- faults

POINTS = (*tcp.POINTS, *tvs.POINTS)
STALL = '{"id": "s", "point": "tcp.accept", "action": "stall", "must_fire": true}'


def refusal(*given: str) -> UsageError:
    with pytest.raises(UsageError) as refused:
        fault_board(given, POINTS, ignore)
    return refused.value


def test_faults_come_as_json_or_from_a_file_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('[{"id": "d", "point": "tvs.response", "action": "drop"}]')
    log = EventLog()
    board = fault_board([STALL, str(tmp_path / "faults.json")], POINTS, log.emitter("faults"))
    assert [status.fault.id for status in board] == ["s", "d"]
    assert [record.event.kind for record in log] == ["fault.set", "fault.set"]


def test_a_fault_that_must_fire_and_has_not_fails_the_program() -> None:
    board = fault_board([STALL], POINTS, ignore)
    with pytest.raises(LabError, match="must have fired and has not: s"):
        end_faults(board)
    board = fault_board([STALL], POINTS, ignore)
    board.fire(tcp.TCP_ACCEPT)
    end_faults(board)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ('{"point": "tvs.respons", "action": "drop"}', "no fault point"),
        ('{"point": "tcp.accept", "action": "stall", "times": 0}', "times"),
        ('{"point": "lab.clock", "action": "jump"}', "no part of this program"),
        ('{"point": "tftp.request", "action": "silent"}', "no part of this program"),
        ("/nowhere/at/all", "cannot be read"),
    ],
)
def test_what_is_no_fault_here_is_refused_in_words(given: str, says: str) -> None:
    error = refusal(given)
    assert says in str(error)
    assert error.mend


def test_the_option_may_be_repeated_and_names_the_points() -> None:
    parser = argparse.ArgumentParser()
    add_faults(parser, POINTS)
    assert parser.parse_args([]).fault == []
    assert parser.parse_args(["--fault", "a", "--fault", "b"]).fault == ["a", "b"]
    assert "tvs.response" in parser.format_help()
