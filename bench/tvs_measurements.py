"""The tables about TVS over TLS: every kind of handshake, numbers of clients, stalled ones, idle ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from bench import goals, servers
from bench.floor import handshake_cost, rsa_sign_per_s
from bench.load import Bounds, LoadResult
from bench.machine import Placement, pinned, private_memory_bytes
from bench.material import IDLE_CASE, TLS_CASES, TlsCase
from bench.measurements import Bench
from bench.rounds import Contender, Figures, Group, Table, run_rounds
from bench.servers import Server, Unavailable
from bench.tls_load import TlsClient, stalled_clients

SIGN_FLOOR: Final = "RSA-2048 signature"
SERVER_FLOOR: Final = "TLS in memory, server's end"
BOTH_FLOOR: Final = "TLS in memory, both ends"
CLIENTS: Final = (4, 32, 200, 1000)
CROWD: Final = 1.25
"""Times the plan's seconds: in a whole run 1.5 s, for which the goals against the daemon were set."""
STALLED: Final = 100
IDLE: Final = 5000
DAEMON_CLIENTS: Final = 200
"""Above it, the daemon's own queue of 5 is all that would be measured."""
_OPERATION: Final = "connection with one query"


def tvs_tables(bench: Bench) -> Iterator[Table]:
    """Everything about TVS; nothing but a word of it where there is no compiler for the load client."""
    try:
        client = TlsClient.build(bench.material)
    except Unavailable as reason:
        bench.lacks("TVS", reason)
        return
    run = _TvsRun(bench, client)
    with ExitStack() as ending, pinned(bench.placement.load):
        nginx = bench.start(ending, "nginx", servers.nginx(bench.material, TLS_CASES, bench.placement))
        for case in TLS_CASES:
            yield run.handshakes(case, nginx)
        yield from run.crowds(nginx)
        yield run.stalled()
        yield run.idle()
    yield run.two_processes()


class _TvsRun:
    def __init__(self, bench: Bench, client: TlsClient) -> None:
        self.bench = bench
        self.client = client

    def handshakes(self, case: TlsCase, nginx: Server | None) -> Group:
        """One kind of handshake, next to nginx and the floor."""
        bench = self.bench
        group = self._group(goals.tls_table(case.kind.value, client_certificate=case.client_certificate))
        negotiated: dict[str, str] = {}
        with (
            servers.our_tvs(bench.material, case, bench.placement) as ours,
            servers.our_tvs(bench.material, case, bench.placement, silent=True) as silent,
        ):
            contenders = [self._ours(server, case, negotiated) for server in (ours, silent)]
            contenders += [self._nginx(nginx, case, negotiated)] if nginx else []
            plan = bench.plan
            run_rounds(group, contenders, plan, plan.run, lambda: self._floors(case))
        group.notes.append(_negotiated_note(negotiated))
        if case.client_certificate:
            group.notes.append(
                "All clients show one certificate: our server remembers that its CA has signed it, nginx looks each "
                "time."
            )
        return group

    def crowds(self, nginx: Server | None) -> Iterator[Group]:
        """Few and many clients at once; the daemon too, as far as it goes."""
        bench, plan, case = self.bench, self.bench.plan, IDLE_CASE
        with ExitStack() as ending:
            ours = ending.enter_context(servers.our_tvs(bench.material, case, bench.placement))
            silent = ending.enter_context(servers.our_tvs(bench.material, case, bench.placement, silent=True))
            daemon = bench.start(ending, goals.DAEMON, servers.threaded_daemon(bench.material, bench.placement))
            for clients in CLIENTS:
                contenders = [self._ours(ours, case), *([self._nginx(nginx, case)] if nginx else [])]
                if daemon and clients <= DAEMON_CLIENTS:
                    contenders += [self._ours(silent, case), self._ours(daemon, case)]
                group = self._group(goals.clients_table(clients))
                # a rate in time is of what is done in the window: it is to be longer than a query takes in the crowd
                seconds = plan.run.seconds * max(CROWD, clients / 300)
                bounds = replace(plan.run, concurrency=clients, seconds=seconds)
                run_rounds(group, contenders, plan, bounds)
                yield group

    def stalled(self) -> Group:
        """The same server with and without clients that connect and say nothing."""
        bench, plan, case = self.bench, self.bench.plan, IDLE_CASE
        group = self._group(goals.STALLED_TABLE)
        with servers.our_tvs(bench.material, case, bench.placement) as server:
            plain = self._ours(server, case)

            def beside_stalled(bounds: Bounds) -> LoadResult:
                with stalled_clients(server, server.ports["tls"], STALLED):
                    return plain.load(bounds)

            contenders = [plain, Contender(server, beside_stalled, label=goals.STALLED)]
            run_rounds(group, contenders, plan, plan.run)
        return group

    def idle(self) -> Figures:
        """Private memory that connections cost which stand after their handshake.

        Every server is a new one in each round: what it gave back of former connections would pay for these.
        """
        bench, case = self.bench, IDLE_CASE
        connections = min(IDLE, bench.plan.run.operations)
        figures = Figures(goals.IDLE_TABLE, f"KiB a connection, {connections} open")
        figures.notes.append(
            "Private memory of the server after the handshakes, less than before, divided. nginx waits for a request "
            "by HTTP over the same TLS."
        )
        bench.report(figures.title)
        for _ in range(bench.plan.memory_rounds):
            with servers.our_tvs(bench.material, case, bench.placement) as ours:
                self._memory(figures, ours, ours.ports["tls"], connections)
            with ExitStack() as ending:
                if nginx := bench.start(ending, goals.NGINX, servers.nginx(bench.material, (case,), bench.placement)):
                    self._memory(figures, nginx, nginx.ports["idle"], connections)
        return figures

    def two_processes(self) -> Group:
        """SO_REUSEPORT: two processes of ours, one, and two workers of nginx; all of them wherever there is room."""
        bench, plan, case, anywhere = self.bench, self.bench.plan, IDLE_CASE, Placement(None, None)
        group = self._group(goals.TWO_TABLE)
        group.notes.append(
            "`python -m tvs_server --processes 2 --trace`, and nginx with two workers. Nothing is pinned: on two CPUs "
            "servers and load share both, so that the second process can use only what the load leaves."
        )
        with ExitStack() as ending:
            two = ending.enter_context(servers.tvs_program(bench.material, anywhere, processes=2))
            one = ending.enter_context(servers.tvs_program(bench.material, anywhere, processes=1))
            nginx = bench.start(ending, goals.NGINX, servers.nginx(bench.material, TLS_CASES, anywhere, workers=2))
            contenders = [self._ours(two, case), replace(self._ours(one, case), label=goals.ONE)]
            contenders += [self._nginx(nginx, case)] if nginx else []
            bounds = replace(plan.run, concurrency=2 * plan.run.concurrency)
            run_rounds(group, contenders, plan, bounds)
        return group

    def _memory(self, figures: Figures, server: Server, port: int, connections: int) -> None:
        before = private_memory_bytes(server.pid)
        with self.client.holding(server, port, IDLE_CASE, connections) as held:
            after = private_memory_bytes(server.pid)
        for kind, count in held.failures.items():
            figures.trouble[kind] = figures.trouble.get(kind, 0) + count
        known = before is not None and after is not None
        figures.add(server.name, (after - before) / 1024 / connections if known else None)  # type: ignore[operator]

    def _group(self, title: str) -> Group:
        self.bench.report(title)
        return Group(title, _OPERATION)

    def _ours(self, server: Server, case: TlsCase, negotiated: dict[str, str] | None = None) -> Contender:
        return Contender(server, self._load(server, server.ports["tls"], case, negotiated, asks=True))

    def _nginx(self, server: Server, case: TlsCase, negotiated: dict[str, str] | None = None) -> Contender:
        return Contender(server, self._load(server, server.ports[case.title], case, negotiated, asks=False))

    def _load(
        self, server: Server, port: int, case: TlsCase, negotiated: dict[str, str] | None, *, asks: bool
    ) -> Callable[[Bounds], LoadResult]:
        def load(bounds: Bounds) -> LoadResult:
            outcome = self.client.load(server, port, case, bounds, asks=asks)
            if negotiated is not None:
                negotiated[server.name] = outcome.negotiated
            return outcome.result

        return load

    def _floors(self, case: TlsCase) -> dict[str, float]:
        bench = self.bench
        with pinned(bench.placement.server):
            cost = handshake_cost(bench.material, case, bench.plan.floor_s)
            sign_ms = 1000 / rsa_sign_per_s(bench.material, bench.plan.floor_s)
        return {SIGN_FLOOR: sign_ms, SERVER_FLOOR: cost.server_ms, BOTH_FLOOR: cost.both_ms}


def _negotiated_note(negotiated: dict[str, str]) -> str:
    agreed = set(negotiated.values())
    text = agreed.pop() if len(agreed) == 1 else "; ".join(f"{name}: {what}" for name, what in negotiated.items())
    return f"Negotiated by all: {text}." if not agreed else f"Negotiated: {text}."
