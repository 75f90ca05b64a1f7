"""The groups that are measured: TVS over TLS, files by TFTP, files by HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

from bench import servers
from bench.file_load import DEFAULT_BLOCK_BYTES, TftpFile, load_http, load_tftp
from bench.floor import handshake_cost, rsa_sign_per_s
from bench.load import Bounds, LoadResult
from bench.machine import Placement, pinned
from bench.material import LARGE_FILE, NGINX_BODY_BYTES, SMALL_FILE, TLS_CASES, Material, TlsCase
from bench.rounds import Contender, Group, Plan, run_rounds
from bench.servers import Server, Unavailable
from bench.tls_load import Exchange, http_exchange, load_context, load_tls, tvs_exchange

SIGN_FLOOR = "RSA-2048 signature"
SERVER_FLOOR = "TLS in memory, server's end"
BOTH_FLOOR = "TLS in memory, both ends"
TFTP_CASES = ((SMALL_FILE, DEFAULT_BLOCK_BYTES), (SMALL_FILE, 1428), (LARGE_FILE, 1428))

Report = Callable[[str], None]


class Bench:
    """One run: the material, where it runs, and which yardsticks were missing."""

    def __init__(self, material: Material, placement: Placement, plan: Plan, report: Report) -> None:
        self.material = material
        self.placement = placement
        self.plan = plan
        self.report = report
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def groups(self) -> Iterator[Group]:
        """Measure everything; each group as soon as it is done."""
        with ExitStack() as ending, pinned(self.placement.load):
            nginx = self._start(ending, "nginx", servers.nginx(self.material, TLS_CASES, self.placement))
            for case in TLS_CASES:
                yield self._tvs(case, nginx)
            with ExitStack() as files:
                ours = [
                    files.enter_context(servers.our_files(self.material, self.placement)),
                    files.enter_context(servers.our_files(self.material, self.placement, silent=True)),
                ]
                peers = (
                    self._start(files, "in.tftpd", servers.in_tftpd(self.material, self.placement)),
                    self._start(files, "dnsmasq", servers.dnsmasq(self.material, self.placement)),
                )
                for name, block_bytes in TFTP_CASES:
                    yield self._tftp(name, block_bytes, [*ours, *(peer for peer in peers if peer)])
                yield self._http([*ours, *([nginx] if nginx else [])])

    def _start(self, ending: ExitStack, name: str, server: AbstractContextManager[Server]) -> Server | None:
        try:
            started = ending.enter_context(server)
        except Unavailable as reason:
            self.missing[name] = str(reason)
            self.report(f"without {name}: {reason}")
            return None
        self.versions[name] = started.version
        return started

    def _tvs(self, case: TlsCase, nginx: Server | None) -> Group:
        material, placement, plan = self.material, self.placement, self.plan
        group = Group(f"TVS, {case.title}", "connection with one query")
        self.report(group.title)
        negotiated: dict[str, str] = {}
        group_names = set()

        def floors() -> dict[str, float]:
            with pinned(placement.server):
                cost = handshake_cost(material, case, plan.floor_s)
                group_names.add(cost.group)
                sign_ms = 1000 / rsa_sign_per_s(material, plan.floor_s)
            return {SIGN_FLOOR: sign_ms, SERVER_FLOOR: cost.server_ms, BOTH_FLOOR: cost.both_ms}

        with (
            servers.our_tvs(material, case, placement) as ours,
            servers.our_tvs(material, case, placement, silent=True) as silent,
        ):
            asking = tvs_exchange(material)
            contenders = [
                _tls_contender(server, server.ports["tls"], material, case, asking, negotiated)
                for server in (ours, silent)
            ]
            if nginx:
                exchange = http_exchange(NGINX_BODY_BYTES)
                contenders.append(_tls_contender(nginx, nginx.ports[case.title], material, case, exchange, negotiated))
            run_rounds(group, contenders, plan.rounds, plan.run, plan.warm_up_s, floors)
        group.notes += _negotiated_note(negotiated, group_names)
        return group

    def _tftp(self, name: str, block_bytes: int, contenders: list[Server]) -> Group:
        content = self.material.files[name]
        group = Group(f"TFTP, {len(content) // 1024} KB, blksize {block_bytes}", "file")
        self.report(group.title)
        file = TftpFile.of(name, content, block_bytes)
        # the children in.tftpd forks for each transfer are gone, unaccounted, before anyone can look at them
        loaded = [
            Contender(server, _tftp_load(server, file), counts_cpu=server.name != "in.tftpd") for server in contenders
        ]
        run_rounds(group, loaded, self.plan.rounds, self.plan.file_run, self.plan.warm_up_s)
        return group

    def _http(self, contenders: list[Server]) -> Group:
        content = self.material.files[SMALL_FILE]
        group = Group(f"HTTP 6970, {len(content) // 1024} KB", "file")
        self.report(group.title)
        loaded = [Contender(server, _http_load(server, content)) for server in contenders]
        run_rounds(group, loaded, self.plan.rounds, self.plan.file_run, self.plan.warm_up_s)
        return group


def _tls_contender(
    server: Server, port: int, material: Material, case: TlsCase, exchange: Exchange, negotiated: dict[str, str]
) -> Contender:
    context = load_context(material, case)

    def load(bounds: Bounds) -> LoadResult:
        outcome = load_tls(server.address, port, context, exchange, bounds)
        negotiated[server.name] = outcome.negotiated
        return outcome.result

    return Contender(server, load)


def _negotiated_note(negotiated: dict[str, str], groups: set[str]) -> list[str]:
    agreed = set(negotiated.values())
    text = agreed.pop() if len(agreed) == 1 else "; ".join(f"{name}: {what}" for name, what in negotiated.items())
    return [f"Negotiated: {text}. Key exchange of our two ends (the floor's): {', '.join(sorted(groups))}."]


def _tftp_load(server: Server, file: TftpFile) -> Callable[[Bounds], LoadResult]:
    return lambda bounds: load_tftp(server.address, server.ports["tftp"], file, bounds)


def _http_load(server: Server, content: bytes) -> Callable[[Bounds], LoadResult]:
    return lambda bounds: load_http(server.address, server.ports["http"], SMALL_FILE, content, bounds)
