"""What is wanted (issue 5 A), as data: each goal names a table of the run, two of its rows and a bound.

The page's table "goal / measured / met or missed by how much" is made from these and the run, so nothing on the page
can say other than what was measured. `why` is shown only while a goal is missed: what the profile says and what was
tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bench import start
from bench.fleet_run import row_name
from bench.rounds import OURS, Spread, Table, ratios


class Direction(StrEnum):
    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True, slots=True)
class Goal:
    """`of` ÷ `against` (its value alone if None) in `table`, round by round, then the median.

    `quantity`: a field of `bench.rounds.Sample`, "failures" (summed over all rounds), or "value" in a table of figures.
    """

    area: str
    measure: str
    table: str
    of: str
    quantity: str
    against: str | None
    direction: Direction
    bound: float
    unit: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`measured` is None where the run has no such rows (a yardstick that is not installed)."""

    goal: Goal
    measured: Spread | None

    @property
    def is_met(self) -> bool | None:
        if self.measured is None:
            return None
        if self.goal.direction is Direction.AT_MOST:
            return self.measured.median <= self.goal.bound
        return self.measured.median >= self.goal.bound

    @property
    def missed_by(self) -> float | None:
        """By which share of the bound; None where it is met or not measured, or the bound is 0."""
        if self.measured is None or self.is_met or not self.goal.bound:
            return None
        return abs(self.measured.median / self.goal.bound - 1)

    @property
    def verdict(self) -> str:
        if self.is_met is None:
            return "not measured"
        if self.is_met:
            return "met"
        return "**missed**" if self.missed_by is None else f"**missed by {self.missed_by:.0%}**"


def judge(goals: Sequence[Goal], tables: Sequence[Table]) -> list[Judgement]:
    """Every goal next to what the run says of it."""
    by_title = {table.title: table for table in tables}
    return [Judgement(goal, _measured(goal, by_title.get(goal.table))) for goal in goals]


def _measured(goal: Goal, table: Table | None) -> Spread | None:
    if table is None:
        return None
    ours = table.series(goal.of, goal.quantity)
    if goal.quantity == "failures" and ours:
        total = sum(value or 0.0 for value in ours)
        return Spread(total, total, total)
    if goal.against is None:
        return Spread.of(ours)
    others = table.series(goal.against, goal.quantity)
    return ratios(ours, others) if ours and len(ours) == len(others) else None


# --- TVS -----------------------------------------------------------------------------------------------------------

NGINX: Final = "nginx"
SILENT: Final = "ours, silent"
DAEMON: Final = "threaded daemon"
STALLED: Final = "ours, 100 stalled clients beside"
ONE: Final = "ours, 1 process"
TWO_TABLE: Final = "TVS, TLS 1.2 ECDHE, two processes"
_TLS: Final = ("TLS 1.2 RSA", "TLS 1.2 ECDHE", "TLS 1.3")
IDLE_TABLE: Final = "TVS, memory of an idle TLS connection"
STALLED_TABLE: Final = "TVS, TLS 1.2 ECDHE, with stalled clients"
MOST, LEAST = Direction.AT_MOST, Direction.AT_LEAST


def tls_table(kind: str, *, client_certificate: bool) -> str:
    return f"TVS, {kind}, {'with' if client_certificate else 'no'} client certificate"


def clients_table(clients: int) -> str:
    return f"TVS, TLS 1.2 ECDHE, {clients} clients"


_WHY_NGINX: Final = (
    "A profile (perf) gives OpenSSL and the kernel about what nginx needs in all; what is above it is the "
    "interpreter: two hundred Python functions for each connection, and some fifty more to tell and render its "
    "events (tests/operation_bounds.py counts them). They are spread over all that makes it more than a socket: "
    "limits, deadlines, faults, orderly ends, events, decoding. A script without any of it, which calls OpenSSL "
    "and the kernel from Python and gives one remembered answer, needed 1.03 of nginx. Tried and kept: "
    "connections behind one epoll set with a transport of our own instead of the loop's, OpenSSL's functions "
    "called without pyOpenSSL's exceptions and buffers, requests answered without a task, those of a turn "
    "together after one look whether the database has changed, one timer for all deadlines of a kind, answers, "
    "trace texts and CA signatures remembered, no ring for the garbage collector. Tried without effect: other "
    "settings of malloc; OpenSSL on the socket itself instead of in memory (the same script: 1.01 instead of 1.03 "
    "with TLS 1.2, 1.04 instead of 1.04 with TLS 1.3). Not done: C of our own. The cheaper a signature is (the "
    "floor says what it costs here; on the machine that the goals were measured on it was three quarters of a "
    "millisecond), the larger is the share of the same Python."
)
_WHY_TRACING: Final = (
    "Seven events a connection are made, dated, weighed, kept and rendered into fifty lines of trace, each event "
    "by one format string, those of a turn of the loop in one loop; parts that come again are remembered. Of what "
    "is left about two fifths is dating, weighing and keeping events, between a third and a half rendering them, the "
    "rest putting the text together and giving it to the kernel. Warm it is 13 to 18 microseconds; between "
    "handshakes, which leave nothing of it in the processor's caches, two to three times that. Events weighed "
    "sixty-four at a time cost the same. Its share is the larger the less the handshake beside it costs."
)
_WHY_FEW: Final = (
    "With 4 clients nobody waits in the daemon's queue: this is CPU against CPU, and both are busy all the time. With "
    "so few clients a turn of our loop reads four times, with 32 clients thirty times (counted with strace): what is "
    "done once a turn falls on fewer connections. Kept: the trace of busy turns rendered and written together (2 to "
    "5 % of the CPU). Without effect: looking for more packets before the loop's turn ends. The goal was set with a "
    "prototype that told of nothing; `ours, silent` in the table is the server without its trace. The public daemon "
    "took 1.9 times nginx's CPU where the goal was set; what the stand-in takes is in the table."
)
_WHY_QUEUE: Final = (
    "What the daemon loses, it loses to its queue of five: a connection that finds it full is tried again by the "
    "client's kernel. Where the goals were set that was after 1, 3 and 7 s (p99 7.6 s at 32 clients); Linux since 6.5 "
    "tries four times a second apart (net.ipv4.tcp_syn_linear_timeouts), and the last of 32 clients has its answer "
    "after two or three. For those whom it lets in the daemon does half of what our server does: the rates in time."
)


def _tvs_goals() -> list[Goal]:
    cpu, rate = "server_cpu_ms", "per_s"
    goals = [
        Goal(
            "TVS",
            f"{kind}: server CPU ÷ nginx's",
            tls_table(kind, client_certificate=False),
            OURS,
            cpu,
            NGINX,
            MOST,
            1.10,
            why=_WHY_NGINX,
        )
        for kind in _TLS
    ]
    goals += [
        Goal("TVS", f"{kind}, client certificate: server CPU ÷ nginx's", tls_table(kind, client_certificate=True),
             OURS, cpu, NGINX, MOST, 1.05, why=_WHY_NGINX)
        for kind in _TLS
    ]  # fmt: skip
    goals += [
        Goal("TVS", f"{kind}: server CPU with tracing ÷ without", tls_table(kind, client_certificate=False),
             OURS, cpu, SILENT, MOST, 1.10, why=_WHY_TRACING)
        for kind in _TLS
    ]  # fmt: skip
    goals += [
        Goal(
            "TVS",
            f"{clients} clients: rate to the last ÷ the threaded daemon's",
            clients_table(clients),
            OURS,
            "to_last_per_s",
            DAEMON,
            LEAST,
            bound,
            why=why,
        )
        for clients, bound, why in ((4, 1.8, _WHY_FEW), (32, 8.0, _WHY_QUEUE), (200, 15.0, _WHY_QUEUE))
    ]
    goals += [
        Goal("TVS", f"{clients} clients: failed", clients_table(clients), OURS, "failures", None, MOST, 0)
        for clients in (200, 1000)
    ]
    goals.append(
        Goal("TVS", "100 stalled clients: rate ÷ the rate without", STALLED_TABLE, STALLED, rate, OURS, LEAST, 0.95)
    )
    goals.append(
        Goal("TVS", "memory per idle connection, 5000 open", IDLE_TABLE, OURS, "value", None, MOST, 26.0, "KiB")
    )
    return goals


# --- start ---------------------------------------------------------------------------------------------------------


_START_WALL: Final = (
    "Wall time counts what else ran on the machine. Where the CPU goal beside this one is met, the start was waiting "
    "for a processor or the disk, not working."
)


def _start_goals() -> list[Goal]:
    """On an idle machine wall time is CPU time and a few writes to the disk; on a shared one CPU says more."""
    wanted = ((start.KEPT, 0.35), (start.FRESH, 1.0), (start.MIGRATE, 1.5))
    goals = [
        Goal("Start", f"{row}, wall", start.WALL_TABLE, row, "value", None, MOST, bound, "s", _START_WALL)
        for row, bound in wanted
    ]
    goals += [
        Goal("Start", f"{row}, CPU", start.CPU_TABLE, row, "value", None, MOST, bound, "s")
        for row, bound in wanted
        if row != start.FRESH  # its CPU is that of all cores
    ]
    of_help = "`cucm-lab --help`: CPU ÷ a bare interpreter's"
    goals.append(Goal("Start", of_help, start.CPU_TABLE, start.HELP, "value", start.BARE, MOST, 3.0))
    return goals


# --- files ---------------------------------------------------------------------------------------------------------

HTTP_TABLE: Final = "HTTP 6970, 6 KB, 50 clients"
TFTPY: Final = "tftpy"
TFTPY_LOGGING: Final = "tftpy, logging"


def tftp_table(kilobytes: int, block_bytes: int, clients: int) -> str:
    return f"TFTP, {kilobytes} KB, blksize {block_bytes}, {clients} clients"


def herd_table(phones: int) -> str:
    return f"TFTP, {phones} phones at the same instant"


def lost_table(phones: int) -> str:
    return f"TFTP, {phones} phones at the same instant: requests lost"


_WHY_TFTPY: Final = (
    "4.4 was measured where tftpy needed 0.8 ms of CPU for a file; where this bench was written it needs 0.25, and 4.4 "
    "times its rate would be more than the kernel's part alone (0.06 ms, nine tenths of dnsmasq) leaves room for. With "
    "both telling of every transfer (`tftpy, logging`) it is met."
)


def _file_goals() -> list[Goal]:
    rate = "per_s"

    def tftp(what: str, table: str, quantity: str, peer: str | None, bound: float, why: str = "") -> Goal:
        direction = LEAST if quantity == rate else MOST
        return Goal("TFTP", what, table, OURS, quantity, peer, direction, bound, why=why)

    small, large, many = tftp_table(6, 512, 50), tftp_table(64, 1428, 50), tftp_table(6, 512, 500)
    return [
        tftp("6 KB, blksize 512, 50 clients: rate ÷ in.tftpd's", small, rate, "in.tftpd", 8.0),
        tftp("6 KB, blksize 512, 50 clients: rate ÷ dnsmasq's", small, rate, "dnsmasq", 0.85),
        tftp("6 KB, blksize 512, 50 clients: rate ÷ tftpy's", small, rate, TFTPY, 4.4, _WHY_TFTPY),
        tftp("6 KB, blksize 512, 50 clients: rate ÷ tftpy's, logging", small, rate, TFTPY_LOGGING, 4.4),
        tftp("64 KB, blksize 1428, 50 clients: rate ÷ dnsmasq's", large, rate, "dnsmasq", 0.75),
        tftp("6 KB, blksize 512, 500 clients: failed", many, "failures", None, 0),
        tftp("500 at once: requests lost", lost_table(500), "value", None, 0),
        tftp("500 at once: time ÷ dnsmasq's", herd_table(500), "value", "dnsmasq", 0.12),
        tftp("2000 at once: time ÷ dnsmasq's", herd_table(2000), "value", "dnsmasq", 0.10),
        Goal("HTTP", "6970, 6 KB: files/s on one core", HTTP_TABLE, OURS, rate, None, LEAST, 3000),
    ]


# --- fleets --------------------------------------------------------------------------------------------------------

FLEET_TABLE: Final = "Fleets on sockets"
FEW_PHONES, MANY_PHONES, MOST_PHONES = 100, 1_000, 10_000

_WHY_FLOOR: Final = (
    "The goal was set where an RSA-2048 signature took three quarters of a millisecond. Where it takes less, the floor "
    "is lower by more than the Python around it. What that is made of, and what was tried, is in [the profile of a "
    "fleet](fleet-profile.md)."
)
_WHY_RESIDENT: Final = (
    "The goal says 64 KiB for each resident phone. The phone's own end, which is the row before, is what a machine "
    "needs that runs phones only; this row has the lab's end of the same phone in it too: its connection, "
    "registration, certificate and configurations. What OpenSSL takes for each end, what the lab adds, and what was "
    "tried, is in [the profile of a fleet](fleet-profile.md)."
)
_WHY_FLAT: Final = (
    "What grows with the number of phones, and what was tried, is in [the profile of a fleet](fleet-profile.md)."
)
FLAT: Final = 1.15
"""Flat: the cost of one phone among 10,000 is not further from that of one among 100 than two runs of one size may be
from each other (limits measured for the issue: single runs differ by 15 %).
"""


def _fleet_goals() -> list[Goal]:
    def fleet(measure: str, phones: int, quantity: str, bound: float, why: str = "", unit: str = "") -> Goal:
        return Goal("Fleet", measure, FLEET_TABLE, row_name(phones), quantity, None, MOST, bound, unit, why)

    many, most = row_name(MANY_PHONES), row_name(MOST_PHONES)
    return [
        fleet(f"{many}: CPU per phone ÷ the crypto floor", MANY_PHONES, "times_floor", 1.6, _WHY_FLOOR),
        fleet(f"{most}: CPU per phone ÷ the crypto floor", MOST_PHONES, "times_floor", 1.6, _WHY_FLOOR),
        fleet(f"{most}: lost", MOST_PHONES, "lost", 0),
        fleet(f"{most}: memory for each, resident, the phone's own end", MOST_PHONES, "kib_at_phones", 64, unit="KiB"),
        fleet(f"{most}: memory for each, resident, both ends together", MOST_PHONES, "kib_per_phone", 64,
              _WHY_RESIDENT, "KiB"),
        Goal("Fleet", f"cost per phone is flat: {most} ÷ {row_name(FEW_PHONES)}", FLEET_TABLE, most, "cpu_ms_per_phone",
             row_name(FEW_PHONES), MOST, FLAT, why=_WHY_FLAT),
    ]  # fmt: skip


GOALS: Final[tuple[Goal, ...]] = (*_tvs_goals(), *_file_goals(), *_start_goals(), *_fleet_goals())
