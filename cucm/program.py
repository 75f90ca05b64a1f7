"""What the programs of this project share: errors in words and exit codes, signals, files, events on stdout.

`python -m tvs_server`, `tftp_server` and `phone_agent` are thin: they parse their arguments and hand over to here.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from cucm import quiet_start
from cucm.errors import LabError, UsageError
from cucm.events import Emit, EventLog, EventRecord
from cucm.faults import Fault, FaultBoard, FaultPoint, fault_of
from cucm.machine import machine_problem, raise_descriptor_limit, require_descriptors
from cucm.quiet_start import EXIT_INTERRUPTED
from cucm.render.trace_writer import RenderAll, TraceWriter, each

RETENTION: Final = 1000
"""Events a program keeps in memory; standalone nobody asks for older ones."""
MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes of a certificate, key or list given on the command line."""
MAX_FAULT_FILE: Final = 1024 * 1024
FAULT_EXAMPLE: Final = """for example '{"point": "tcp.accept", "action": "stall", "times": 1}'"""
_ENVELOPE: Final = frozenset({"schema", "sequence", "time", "source", "kind"})
_BULKY: Final = frozenset({"request", "data", "certificate", "keys", "message"})

Result = TypeVar("Result")


def exit_code_of(name: str, work: Callable[[], int]) -> int:
    """Do `work`; a LabError becomes words on stderr (what, where, mend) and its exit code, Ctrl-C 130.

    So does what the system refuses (OSError): exit code 3.
    """
    quiet_start.end()
    try:
        return work()
    except LabError as error:
        return _told(name, error)
    except OSError as error:
        return _told(name, machine_problem(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _told(name: str, error: LabError) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    if error.mend:
        print(f"  mend: {error.mend}", file=sys.stderr)
    return error.exit_code


USUAL_THRESHOLD: Final = 700
"""Of the garbage collector, as CPython begins."""


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on uvloop where it is installed (it serves more per second), else on asyncio's own loop.

    It may have as many files and sockets open as the system lets it. Raises EnvironmentProblem when those are too few.
    Where the command line has held the garbage collector back while it imported, it has its usual pace from now on, and
    leaves alone what is there already.
    """
    try:
        raise_descriptor_limit()
        require_descriptors()
    except BaseException:
        work.close()
        raise
    if gc.get_threshold()[0] > USUAL_THRESHOLD:
        gc.freeze()
        gc.set_threshold(USUAL_THRESHOLD)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Service(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def serve_until_stopped(service: Service, *, lifeline: int | None = None) -> None:
    """Start it, wait for SIGINT or SIGTERM, or for the end of what can be read from `lifeline`; stop it orderly."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    await service.start()
    collect_seldom()
    await stop.wait()
    if lifeline is not None:
        loop.remove_reader(lifeline)
    await service.stop()


def collect_seldom() -> None:
    """For a process that serves from now on: what it has made lives to the end, and requests leave no cycles.

    The collector need not look at the first again and again, and looks for the second at the pace of a busy server.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


# --- arguments -----------------------------------------------------------------------------------------------------


def add_output_styles(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    """`--json` and one flag for Cisco's form; without either, events come as plain lines."""
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--json", action="store_true", help="print events as JSON, one per line")
    style.add_argument(flag, action="store_true", help=what)


# --- faults --------------------------------------------------------------------------------------------------------


def add_faults(parser: argparse.ArgumentParser | argparse._ArgumentGroup, points: Collection[FaultPoint]) -> None:
    """`--fault`, which may be repeated; `fault_board` makes of it what a service takes."""
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="JSON_OR_FILE",
        help=f"let something go wrong at {_names(points)}: a JSON object as docs/faults.md has it, a list of "
        "them, or a file with either; may be repeated, the first that matches wins",
    )


def fault_board(given: Sequence[str], points: Collection[FaultPoint], emit: Emit) -> FaultBoard:
    """The faults of `--fault` in force. Raises UsageError for what is no fault, and at points that are not `points`."""
    board = FaultBoard(emit)
    for text in given:
        where, value = _json_of(text)
        for one in value if isinstance(value, list) else [value]:
            board.set(_fault_at(one, where, points))
    return board


def end_faults(board: FaultBoard) -> None:
    """Raises LabError (exit code 1) that names those that should have fired (`must_fire`) and have not."""
    missed = [status.fault.id for status in board.end_all() if status.is_missed]
    if missed:
        raise LabError(f"must have fired and has not: {', '.join(missed)}", where="--fault")


def _json_of(text: str) -> tuple[str, Any]:
    """Where it stands, and what it is."""
    is_json = text.lstrip().startswith(("{", "["))
    where = "--fault" if is_json else text
    written = text.encode() if is_json else read_file(Path(text), limit=MAX_FAULT_FILE)
    try:
        return where, json.loads(written)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is no JSON: {error}", where=where, mend=FAULT_EXAMPLE) from None


def _fault_at(value: Any, where: str, points: Collection[FaultPoint]) -> Fault:
    if not isinstance(value, dict):
        raise UsageError("is no JSON object", where=where, mend=FAULT_EXAMPLE)
    fault = fault_of(value)
    if fault.point not in points:
        mend = f"here something can go wrong at {_names(points)}; a lab has more"
        raise UsageError(f"{fault.point.name} is no part of this program", where=where, mend=mend)
    return fault


def _names(points: Collection[FaultPoint]) -> str:
    return ", ".join(point.name for point in points)


# --- events on stdout ----------------------------------------------------------------------------------------------


def event_log(render: RenderAll | None, *, as_json: bool, floor: int | None = None) -> EventLog:
    """A log whose events are printed: by `render`, as JSON, or (None) as plain `kind name=value` lines.

    `floor` is a file to lock while printing, where processes share stdout: lines are not to run into each other.
    """
    log = EventLog(retention=RETENTION)
    say = partial(print_lines, floor=floor)
    if as_json:
        render = each(lambda record: [json.dumps(record.as_json())])
    log.subscribe(TraceWriter(render or each(lambda record: [plain_line(record)]), say).add)
    return log


def print_lines(lines: Sequence[str], *, floor: int | None = None) -> None:
    """Print now, in one piece. When nobody reads stdout any more, the program is asked to end orderly."""
    if not lines:
        return
    try:
        with _alone(floor):
            sys.stdout.write("\n".join([*lines, ""]))
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def _alone(floor: int | None) -> Iterator[None]:
    """While no other process holds the `floor`."""
    if floor is None:
        yield
        return
    fcntl.lockf(floor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(floor, fcntl.LOCK_UN)


def plain_line(record: EventRecord) -> str:
    """`kind name=value ...` without what is empty or bulky; what a terminal might obey becomes `?`."""
    hidden = _ENVELOPE | _BULKY
    shown = (
        f"{name}={value}"
        for name, value in record.as_json().items()
        if name not in hidden and value not in ("", [], None)
    )
    text = f"{record.event.kind} {' '.join(shown)}"
    return "".join(character if character.isprintable() else "?" for character in text)


# --- files ---------------------------------------------------------------------------------------------------------


def read_file(path: Path, *, limit: int = MAX_FILE) -> bytes:
    """Raises UsageError for a file that cannot be read or is larger than `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) > limit:
        raise UsageError(f"is larger than {limit} bytes", where=str(path), mend="give the file that was meant")
    return data


def unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot be read: {error.strerror}", where=str(path), mend="check the path and its permissions")


def read_certificates(path: Path) -> list[bytes]:
    """DER of every certificate in a PEM file, at least one. Raises UsageError."""
    try:
        return [item.public_bytes(Encoding.DER) for item in x509.load_pem_x509_certificates(read_file(path))]
    except ValueError as error:
        raise UsageError("holds no certificate in PEM", where=str(path), mend="convert it with openssl x509") from error


def read_private_key(path: Path) -> bytes:
    """PKCS#8 DER of an unencrypted private key in PEM or DER. Raises UsageError."""
    data = read_file(path)
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        key = load(data, None)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "holds no unencrypted private key in PEM or DER", where=str(path), mend="decrypt it with openssl pkey"
        ) from error
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
