"""`python -m tftp_server DIRECTORY`: CUCM's file service alone, for the files of one folder."""

from __future__ import annotations

if __name__ == "__main__":
    from cucm import quiet_start

    quiet_start.begin()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cucm.arguments import whole_number
from cucm.errors import EXIT_OK
from cucm.faults.catalogue import files, http, tcp, tftp
from cucm.key_store import KeyStore
from cucm.machine import raise_descriptor_limit
from cucm.net.addresses import detect_ports, require_loopback
from cucm.program import (
    add_faults,
    add_output_styles,
    end_faults,
    event_log,
    exit_code_of,
    fault_board,
    run,
    serve_until_stopped,
)
from cucm.render.tftp_trace import TftpTrace
from cucm.render.trace_writer import each
from tftp_server.content_faults import FaultyStore
from tftp_server.file_store import FolderStore
from tftp_server.server import HTTP_PORT, TFTP_PORT, FileServer

POINTS: Final = (*tcp.POINTS, *tftp.POINTS, *http.POINTS, *files.POINTS)
"""Where `--fault` can let something go wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code (0, 1 a fault that must fire has not, 2 wrong arguments or
    folder, 3 the machine's fault).
    """
    options = _parser().parse_args(arguments)
    return exit_code_of("tftp_server", lambda: _serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tftp_server",
        description="Serve the files of one folder as CUCM does: TFTP, and HTTP on 6970. Read-only, for labs.",
        epilog="exit codes: 0 stopped by a signal, 1 a fault that must fire has not, 2 wrong arguments or folder, "
        "3 the machine lacks a port or a right",
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="files directly in it are served")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--tftp-port", type=whole_number(0, 65535), help=f"default: {TFTP_PORT}, or 6969 where {TFTP_PORT} is forbidden"
    )
    parser.add_argument("--http-port", type=whole_number(0, 65535), default=HTTP_PORT, help="default: %(default)s")
    parser.add_argument("--expose", action="store_true", help="allow an address that other machines can reach")
    add_faults(parser, POINTS)
    add_output_styles(parser, "--trace", "print events like CUCM's TFTP trace")
    return parser


def _serve(options: argparse.Namespace) -> int:
    warning = require_loopback(options.address, options.expose)
    if warning is not None:
        print(warning, file=sys.stderr)
    raise_descriptor_limit()
    log = event_log(each(TftpTrace().lines) if options.trace else None, as_json=options.json)
    emit = log.emitter(f"tftp:{options.address}")
    board = fault_board(options.fault, POINTS, log.emitter("faults"))
    server = FileServer(
        options.address,
        FaultyStore(FolderStore(options.directory), board, KeyStore(), emit=emit),
        tftp_port=_tftp_port(options),
        http_port=options.http_port,
        emit=emit,
        faults=board,
    )
    run(serve_until_stopped(server))
    end_faults(board)
    return EXIT_OK


def _tftp_port(options: argparse.Namespace) -> int:
    if options.tftp_port is not None:
        return int(options.tftp_port)
    port = detect_ports(options.address).tftp
    if port != TFTP_PORT:
        print(f"tftp_server: port {TFTP_PORT} is forbidden here, TFTP listens on {port}", file=sys.stderr)
    return port


if __name__ == "__main__":
    sys.exit(main())
