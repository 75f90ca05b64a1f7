"""A server of ours in its own process: `python -m bench.serve`, told by one line of JSON what to be.

Prints one line of JSON with its ports when it is bound, and ends when its standard input closes. Events are on and
rendered into a file as the lab does it, unless `silent`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cucm.events import Emit, EventLog, ignore
from cucm.net.listener import Limits
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.program import collect_seldom, run
from cucm.render.tftp_trace import TftpTrace
from cucm.render.trace_writer import TraceWriter, each
from cucm.render.tvs_trace import TvsTrace
from tftp_server.file_store import FolderStore
from tftp_server.server import FileServer
from tvs_server.certificate_cache import CertificateCache
from tvs_server.server import TvsServer

RETAINED_EVENTS = 1000


def main() -> int:
    order = json.loads(sys.stdin.readline())
    run(_serve(order))
    return 0


async def _serve(order: dict[str, Any]) -> None:
    with Path(order["log"]).open("w", encoding="utf-8") as log:
        server, ports = await (_start_tvs if order["kind"] == "tvs" else _start_files)(
            order, _emitter(order, log.write)
        )
        print(json.dumps(ports), flush=True)
        collect_seldom()
        await _until_told_to_end()
        await server.stop()
        await asyncio.sleep(0)  # what is told of the end is written at the end of a turn


async def _start_tvs(order: dict[str, Any], emit: Emit) -> tuple[TvsServer, dict[str, int]]:
    server = TvsServer(
        order["address"],
        0,
        certificate_der=bytes.fromhex(order["certificate"]),
        private_key_der=bytes.fromhex(order["private_key"]),
        cache=CertificateCache(Path(order["database"]), emit=emit),
        emit=emit,
        policy=ClientCertificatePolicy(order["policy"]),
        client_cas=[bytes.fromhex(text) for text in order["client_cas"]],
        profile=TlsProfile(order["profile"]),
        limits=Limits(order["connections"], order["connections"], idle_timeout_s=600.0),
    )
    await server.start()
    return server, {"tls": server.port}


async def _start_files(order: dict[str, Any], emit: Emit) -> tuple[FileServer, dict[str, int]]:
    store = FolderStore(Path(order["folder"]))
    server = FileServer(order["address"], store, tftp_port=0, http_port=0, emit=emit)
    await server.start()
    return server, {"tftp": server.tftp_port, "http": server.http_port, "buffer": server.receive_buffer_bytes}


def _emitter(order: dict[str, Any], write: Callable[[str], int]) -> Emit:
    if order["silent"]:
        return ignore
    events = EventLog(retention=RETAINED_EVENTS)
    render = TvsTrace().texts if order["kind"] == "tvs" else each(TftpTrace().lines)
    events.subscribe(TraceWriter(render, lambda lines: write("\n".join([*lines, ""]))).add)
    return events.emitter(f"{'tvs' if order['kind'] == 'tvs' else 'tftp'}:bench")


async def _until_told_to_end() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            ended.set()

    loop.add_reader(sys.stdin.fileno(), readable)
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    sys.exit(main())
