"""The tables about files: TFTP and HTTP 6970 next to the C servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from bench import servers
from bench.file_load import DEFAULT_BLOCK_BYTES, TftpFile, load_http, load_tftp
from bench.load import Bounds, LoadResult
from bench.machine import pinned
from bench.material import LARGE_FILE, SMALL_FILE
from bench.measurements import Bench
from bench.rounds import Contender, Group, Table, run_rounds
from bench.servers import Server

TFTP_CASES: Final = ((SMALL_FILE, DEFAULT_BLOCK_BYTES), (SMALL_FILE, 1428), (LARGE_FILE, 1428))


def file_tables(bench: Bench) -> Iterator[Table]:
    """TFTP by size and block size, then HTTP."""
    material, placement = bench.material, bench.placement
    with ExitStack() as ending, pinned(placement.load):
        ours = [
            ending.enter_context(servers.our_files(material, placement)),
            ending.enter_context(servers.our_files(material, placement, silent=True)),
        ]
        peers = (
            bench.start(ending, "in.tftpd", servers.in_tftpd(material, placement)),
            bench.start(ending, "dnsmasq", servers.dnsmasq(material, placement)),
        )
        for name, block_bytes in TFTP_CASES:
            yield _tftp(bench, name, block_bytes, [*ours, *(peer for peer in peers if peer)])
        nginx = bench.start(ending, "nginx", servers.nginx(material, (), placement))
        yield _http(bench, [*ours, *([nginx] if nginx else [])])


def _tftp(bench: Bench, name: str, block_bytes: int, contenders: list[Server]) -> Group:
    content = bench.material.files[name]
    group = Group(f"TFTP, {len(content) // 1024} KB, blksize {block_bytes}", "file")
    bench.report(group.title)
    file = TftpFile.of(name, content, block_bytes)
    # the children in.tftpd forks for each transfer are gone, unaccounted, before anyone can look at them
    loaded = [
        Contender(server, _tftp_load(server, file), counts_cpu=server.name != "in.tftpd") for server in contenders
    ]
    run_rounds(group, loaded, bench.plan.rounds, bench.plan.file_run, bench.plan.warm_up_s)
    return group


def _http(bench: Bench, contenders: list[Server]) -> Group:
    content = bench.material.files[SMALL_FILE]
    group = Group(f"HTTP 6970, {len(content) // 1024} KB", "file")
    bench.report(group.title)
    loaded = [Contender(server, _http_load(server, content)) for server in contenders]
    run_rounds(group, loaded, bench.plan.rounds, bench.plan.file_run, bench.plan.warm_up_s)
    return group


def _tftp_load(server: Server, file: TftpFile) -> Callable[[Bounds], LoadResult]:
    return lambda bounds: load_tftp(server.address, server.ports["tftp"], file, bounds)


def _http_load(server: Server, content: bytes) -> Callable[[Bounds], LoadResult]:
    return lambda bounds: load_http(server.address, server.ports["http"], SMALL_FILE, content, bounds)
