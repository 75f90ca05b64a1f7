"""`python -m tftp_server DIRECTORY`: CUCM's file service alone, for the files of one folder."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cucm.clock import SystemClock
from cucm.errors import EXIT_OK, LabError
from cucm.events import EventLog, EventRecord
from cucm.net.addresses import detect_ports, require_loopback
from cucm.render.tftp_trace import TftpTrace
from tftp_server.file_store import FolderStore
from tftp_server.server import HTTP_PORT, TFTP_PORT, FileServer, raise_descriptor_limit

_RETENTION: Final = 1000
"""Events kept in memory; standalone nobody asks for older ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code (0, 2 wrong arguments or folder, 3 the machine's fault)."""
    options = _parser().parse_args(arguments)
    try:
        warning = require_loopback(options.address, options.expose)
        if warning is not None:
            print(warning, file=sys.stderr)
        store = FolderStore(options.directory)
        log = EventLog(SystemClock(), retention=_RETENTION)
        log.subscribe(_printer(options))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, store, log))
    except LabError as error:
        print(f"tftp_server: {error}", file=sys.stderr)
        if error.mend:
            print(f"  mend: {error.mend}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tftp_server",
        description="Serve the files of one folder as CUCM does: TFTP, and HTTP on 6970. Read-only, for labs.",
        epilog="exit codes: 0 stopped by a signal, 2 wrong arguments or folder, 3 the machine lacks a port or a right",
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="files directly in it are served")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--tftp-port", type=_port, help=f"default: {TFTP_PORT}, or 6969 where {TFTP_PORT} is forbidden")
    parser.add_argument("--http-port", type=_port, default=HTTP_PORT, help="default: %(default)s")
    parser.add_argument("--expose", action="store_true", help="allow an address that other machines can reach")
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--json", action="store_true", help="print events as JSON, one per line")
    style.add_argument("--trace", action="store_true", help="print events like CUCM's TFTP trace")
    return parser


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def _printer(options: argparse.Namespace) -> Callable[[EventRecord], None]:
    if options.trace:
        trace = TftpTrace()
        return lambda record: print(*trace.lines(record), sep="\n", flush=True)
    if options.json:
        return lambda record: print(json.dumps(record.as_json()), flush=True)
    return lambda record: print(_plain_line(record), flush=True)


def _plain_line(record: EventRecord) -> str:
    values = record.as_json()
    shown = (
        f"{name}={value}"
        for name, value in values.items()
        if name not in {"schema", "sequence", "time", "source", "kind", "request"} and value not in ("", [], None)
    )
    text = f"{record.event.kind} {' '.join(shown)}"
    return "".join(character if character.isprintable() else "?" for character in text)


async def _serve(options: argparse.Namespace, store: FolderStore, log: EventLog) -> None:
    raise_descriptor_limit()
    tftp_port = options.tftp_port
    if tftp_port is None:
        tftp_port = detect_ports(options.address).tftp
        if tftp_port != TFTP_PORT:
            print(f"tftp_server: port {TFTP_PORT} is forbidden here, TFTP listens on {tftp_port}", file=sys.stderr)
    server = FileServer(
        options.address,
        store,
        tftp_port=tftp_port,
        http_port=options.http_port,
        emit=log.emitter(f"tftp:{options.address}"),
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    await stop.wait()
    await server.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop where it is installed; it serves more files per second."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
