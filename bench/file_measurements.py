"""The tables about files: TFTP and HTTP 6970 next to the servers of others, and herds of phones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from bench import servers
from bench.file_load import DEFAULT_BLOCK_BYTES, FileCase, FileClient
from bench.goals import HTTP_TABLE, TFTPY, TFTPY_LOGGING, herd_table, lost_table, tftp_table
from bench.load import Bounds, LoadResult
from bench.machine import Placement, pinned
from bench.material import LARGE_FILE, SMALL_FILE, Material
from bench.measurements import Bench
from bench.rounds import Contender, Figures, Group, Table, run_rounds
from bench.servers import Server, Unavailable

TFTP_CASES: Final = (
    (SMALL_FILE, DEFAULT_BLOCK_BYTES, 50),
    (SMALL_FILE, 1428, 50),
    (LARGE_FILE, 1428, 50),
    (LARGE_FILE, DEFAULT_BLOCK_BYTES, 50),
    (SMALL_FILE, DEFAULT_BLOCK_BYTES, 500),
    (SMALL_FILE, 1428, 500),
    (LARGE_FILE, 1428, 500),
)
"""File, block size, clients."""
HERDS: Final = ((500, ("ours", "in.tftpd", "atftpd", "dnsmasq", "tftpy")), (2000, ("ours", "dnsmasq")))
"""Phones, and who serves them. With the others 2000 take up to half a minute, nearly all of it the phones' waits."""
HERD_S: Final = 60.0


def file_tables(bench: Bench) -> Iterator[Table]:
    """TFTP by size, block size and clients; herds; HTTP."""
    material, placement = bench.material, bench.placement
    try:
        client = FileClient.build(material.folder)
    except Unavailable as reason:
        bench.lacks("TFTP and HTTP tables", reason)
        return
    with ExitStack() as ending, pinned(placement.load):
        ours = ending.enter_context(servers.our_files(material, placement))
        silent = ending.enter_context(servers.our_files(material, placement, silent=True))
        peers: dict[str, Callable[[Material, Placement], AbstractContextManager[Server]]] = {
            "in.tftpd": servers.in_tftpd,
            "atftpd": servers.atftpd,
            "dnsmasq": servers.dnsmasq,
            TFTPY: servers.tftpy,
            TFTPY_LOGGING: partial(servers.tftpy, logs=True),
        }
        started = [bench.start(ending, name, server(material, placement)) for name, server in peers.items()]
        everybody = [ours, silent, *(server for server in started if server)]
        for name, block_bytes, clients in TFTP_CASES:
            case = FileCase(name, material.file_folder / name, block_bytes)
            size = len(material.files[name]) // 1024
            yield _group(bench, client, tftp_table(size, block_bytes, clients), case, everybody, clients)
        for phones, names in HERDS:
            yield from _herd(bench, client, phones, [server for server in everybody if server.name in names])
        nginx = bench.start(ending, "nginx", servers.nginx(material, (), placement))
        case = FileCase(SMALL_FILE, material.file_folder / SMALL_FILE, None)
        yield _group(bench, client, HTTP_TABLE, case, [ours, silent, *([nginx] if nginx else [])], 50)


def _group(
    bench: Bench, client: FileClient, title: str, case: FileCase, contenders: list[Server], clients: int
) -> Group:
    group = Group(title, "file")
    bench.report(title)
    # the children in.tftpd forks for each transfer are gone, unaccounted, before anyone can look at them
    loaded = [
        Contender(server, _load(client, server, case), counts_cpu=server.name != "in.tftpd") for server in contenders
    ]
    bounds = replace(bench.plan.file_run, concurrency=min(clients, bench.plan.file_run.operations))
    run_rounds(group, loaded, bench.plan, bounds)
    return group


def _load(client: FileClient, server: Server, case: FileCase) -> Callable[[Bounds], LoadResult]:
    return lambda bounds: client.load(server, case, bounds)


def _herd(bench: Bench, client: FileClient, phones: int, contenders: list[Server]) -> Iterator[Figures]:
    """All ask for the same file at the same instant, and ask again after 1, 2, 4, ... s of silence."""
    times = Figures(herd_table(phones), "s", digits=3, notes=["Seconds until the last phone has its file."])
    lost = Figures(lost_table(phones), "requests", digits=0, notes=["Sent again by phones that heard nothing."])
    bench.report(times.title)
    case = FileCase(SMALL_FILE, bench.material.file_folder / SMALL_FILE)
    phones = min(phones, bench.plan.file_run.operations)
    for number in range(bench.plan.herd_rounds):
        first = number % len(contenders)
        for server in (*contenders[first:], *contenders[:first]):
            result = client.load(server, case, Bounds(HERD_S, phones, phones))
            times.add(server.name, result.wall_s)
            lost.add(server.name, result.lost_requests)
            for kind, count in result.failures.items():
                what = f"{server.name}: {kind}"
                times.trouble[what] = times.trouble.get(what, 0) + count
    yield times
    yield lost
