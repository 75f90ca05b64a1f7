"""What a run found: tables for people, JSON for machines, the page in docs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.fleet_run import FleetTable
from bench.goals import GOALS, Judgement, judge
from bench.machine import Placement
from bench.migration import Migration, Run
from bench.resets import Resets
from bench.rounds import NOISY_CORES, OURS, Figures, Group, Plan, Sample, Spread, Table, ratios
from bench.tls_load import TIMEOUT_S
from bench.tvs_measurements import CROWD, SIGN_FLOOR

SCHEMA_VERSION: Final = 3
_HEAD: Final = (
    "",
    "per s",
    "server CPU ms",
    "our rate ÷ its",
    "our CPU ÷ its",
    "p50 / p99 ms",
    "server busy",
    "load CPU ms",
    "failed",
    "sent again",
)
_NO_LOAD: Final = ("",) * 5
_TAIL_HEAD: Final = ("per s, to the last", "our rate ÷ its, to the last")
TAIL: Final = 0.1
"""A table has these columns where a contender's rate to the last is lower than that in time by this share."""


@dataclass(slots=True)
class Findings:
    """Everything of one run."""

    moment: str
    minutes: float
    quick: bool
    plan: Plan
    placement: Placement
    machine: dict[str, str | int]
    versions: dict[str, str]
    missing: dict[str, str]
    tables: list[Table]
    migration: Migration
    resets: list[Resets]
    broken: list[str] = field(default_factory=list)
    """Sections that did not come to their end."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        tables = {"tables": [table.as_json() for table in self.tables]}
        judged = [{**asdict(one), "met": one.is_met, "missed_by": one.missed_by} for one in self.judgements()]
        return {"schema": SCHEMA_VERSION, **asdict(self), **tables, "goals": judged}

    def judgements(self) -> list[Judgement]:
        """Every goal next to what was measured."""
        return judge(GOALS, self.tables)

    def failures(self) -> int:
        """Our operations that went wrong in all tables; a yardstick's failures are its own result."""
        return sum(_our_failures(table) for table in self.tables)


def _our_failures(table: Table) -> int:
    if not isinstance(table, Group):
        return table.failures().total()
    rows = (samples for name, samples in table.samples.items() if name.startswith(OURS))
    return sum(sum(sample.failures.values()) for samples in rows for sample in samples)


def table(one: Table) -> str:
    """One table in Markdown: medians with their range, ratios per round and then their median."""
    if isinstance(one, FleetTable):
        return _markdown(one.rows())
    return _figures_table(one) if isinstance(one, Figures) else _group_table(one)


def _figures_table(figures: Figures) -> str:
    ours = figures.series(OURS)
    rows = [("", figures.unit, "ours ÷ its")]
    for name, values in figures.values.items():
        ratio = "" if name == OURS or len(values) != len(ours) else _show(ratios(ours, values), 2)
        rows.append((name, _show(Spread.of(values), figures.digits), ratio))
    return _markdown(rows)


def goals_table(judgements: Sequence[Judgement]) -> str:
    """What was wanted, what was measured, and whether that is enough."""
    rows = [("goal", "measured", "wanted", "")]
    for one in judgements:
        goal = one.goal
        digits = 2 if goal.against or goal.bound % 1 or goal.unit == "s" else 0
        measured = _show(one.measured, digits) + f" {goal.unit}" * bool(goal.unit)
        rows.append((f"{goal.area}: {goal.measure}", measured, f"{goal.direction.value} {goal.bound:g}", one.verdict))
    return _markdown(rows)


def _reasons(judgements: Sequence[Judgement]) -> str:
    """Why a goal is missed and what was tried: each text once, with the goals it is about."""
    about: dict[str, list[str]] = {}
    for one in judgements:
        if one.is_met is False and one.goal.why:
            about.setdefault(one.goal.why, []).append(f"{one.goal.area}: {one.goal.measure}")
    return "\n\n".join(f"**{'; '.join(measures)}.** {why}" for why, measures in about.items())


def _group_table(group: Group) -> str:
    ours = group.samples[OURS]
    rows: list[tuple[str, ...]] = [_HEAD]
    rows += [_contender_row(name, samples, ours) for name, samples in group.samples.items()]
    rows += [_floor_row(name, costs, ours) for name, costs in group.floors.items()]
    if any(_has_tail(samples) for samples in group.samples.values()):
        tails = [_TAIL_HEAD, *(_tail(samples, ours) for samples in group.samples.values())]
        tails += [("", "")] * len(group.floors)
        rows = [(*row, *tail) for row, tail in zip(rows, tails, strict=True)]
    return _markdown(rows)


def _has_tail(samples: Sequence[Sample]) -> bool:
    return _median(samples, "to_last_per_s") < (1 - TAIL) * _median(samples, "per_s")


def _tail(samples: Sequence[Sample], ours: Sequence[Sample]) -> tuple[str, str]:
    rates = [sample.to_last_per_s for sample in samples]
    ratio = "" if samples is ours else _show(ratios([sample.to_last_per_s for sample in ours], rates), 2)
    return _show(Spread.of(rates), 0), ratio


def _contender_row(name: str, samples: Sequence[Sample], ours: Sequence[Sample]) -> tuple[str, ...]:
    cpu = [sample.server_cpu_ms for sample in samples]
    is_ours = samples is ours
    return (
        name,
        _show(Spread.of([sample.per_s for sample in samples]), 0),
        _show(Spread.of(cpu), 3),
        "" if is_ours else _show(ratios([s.per_s for s in ours], [s.per_s for s in samples]), 2),
        "" if is_ours else _show(ratios([s.server_cpu_ms for s in ours], cpu), 2),
        f"{_median(samples, 'p50_ms'):.1f} / {_median(samples, 'p99_ms'):.1f}",
        _busy(samples),
        f"{_median(samples, 'load_cpu_ms'):.3f}",
        str(sum(sum(sample.failures.values()) for sample in samples)),
        str(sum(sample.retransmissions + sample.repeats for sample in samples)),
    )


def _floor_row(name: str, costs_ms: Sequence[float], ours: Sequence[Sample]) -> tuple[str, ...]:
    rates = [1000 / cost for cost in costs_ms]
    rate_ratio = _show(ratios([sample.per_s for sample in ours], rates), 2) if name == SIGN_FLOOR else ""
    cpu_ratio = _show(ratios([sample.server_cpu_ms for sample in ours], costs_ms), 2)
    return (
        f"floor: {name}",
        _show(Spread.of(rates), 0),
        _show(Spread.of(costs_ms), 3),
        rate_ratio,
        cpu_ratio,
        *_NO_LOAD,
    )


def migration_table(migration: Migration) -> str:
    """The story next to the interpreter and the floor; a sentence if it could not be measured."""
    if migration.trouble is not None:
        return f"Not measured: {migration.trouble}."
    runs = migration.migrations
    rows = [("", "wall s", "CPU s", "migration's CPU ÷ its")]
    for name, others in (
        ("`cucm-lab run migrate`", runs),
        ("`cucm-lab --help`", migration.helps),
        ("bare interpreter", migration.interpreters),
    ):
        ratio = "" if others is runs else _show(ratios([a.cpu_s for a in runs], [b.cpu_s for b in others]), 1)
        walls, used = Spread.of([run.wall_s for run in others]), Spread.of([run.cpu_s for run in others])
        rows.append((name, _show(walls, 2), _show(used, 2), ratio))
    rows.append(("of it, first to last event", _show(Spread.of([run.story_s for run in runs]), 3), "", ""))
    floor_ratio = _show(ratios([run.cpu_s for run in runs], migration.floors_s), 1)
    rows.append(("floor: its cryptography", "", _show(Spread.of(migration.floors_s), 4), floor_ratio))
    return _markdown(rows) + f"\n\nCounted in the story's events: {_operations(migration.operations)}."


def resets_table(resets: Sequence[Resets]) -> str:
    """How long a lab takes to start, and to go back to there."""
    rows = [("", "nodes", "phones", "start s", "reset s")]
    for one in resets:
        starts, back = Spread.of(one.starts_s), Spread.of(one.resets_s)
        rows.append((one.topology, str(one.nodes), str(one.phones), _show(starts, 2), _show(back, 3)))
    troubles = [f"\n\nNot as it should be: {one.trouble}" for one in resets if one.trouble]
    return _markdown(rows) + "".join(troubles)


def _operations(operations: dict[str, int]) -> str:
    return ", ".join(
        f"{count} × {name if name in ('signature', 'verification') else f'TLS handshake ({name})'}"
        for name, count in sorted(operations.items())
    )


def page(findings: Findings) -> str:
    """The whole of docs/benchmarks.md."""
    judgements = findings.judgements()
    parts = [
        _INTRODUCTION.format(moment=findings.moment, minutes=findings.minutes),
        f"## Goals\n\n{goals_table(judgements)}",
    ]
    parts += [text for text in (_reasons(judgements),) if text]
    parts += [_how(findings), _machine(findings)]
    parts += [_section(one) for one in findings.tables]
    parts.append(f"## One phone's migration\n\n{_MIGRATION}\n\n{migration_table(findings.migration)}")
    parts.append(f"## A lab that stays\n\n{_RESETS}\n\n{resets_table(findings.resets)}")
    return "\n\n".join(parts) + "\n"


def _section(one: Table) -> str:
    head = f"Per {one.operation}." if isinstance(one, Group) else ""
    words = " ".join(part for part in (head, *one.notes) if part)
    return f"## {one.title}\n\n{words}\n\n{table(one)}"


_RESETS: Final = (
    "In one process, with kept keys: from nothing until every phone is registered, and from any state back to there "
    "(`reset`: every file as it was then, every service anew, every phone registered again)."
)

_INTRODUCTION: Final = """# Benchmarks

Written by `make bench` on {moment}, which took {minutes:.0f} minutes; do not edit.
Absolute figures belong to one machine on one day: read the ratios."""

_MIGRATION: Final = (
    "The whole process, both clusters, the phone's first boot, the administrator's steps and the migration, with kept "
    "keys. The floor is the CPU of the TLS handshakes (both ends), signatures and verifications that the story's own "
    "events tell of, as the libraries do them with nothing around; issuing the lab's certificates is not in it."
)


def _how(findings: Findings) -> str:
    plan, placement = findings.plan, findings.placement
    pinned = "server and load pinned to a CPU each" if placement.is_pinned else "nothing pinned"
    groups = [one for one in findings.tables if isinstance(one, Group)]
    noisy = sum(group.noisy_runs() for group in groups)
    kept = sum(len(samples) for group in groups for samples in group.samples.values())
    lines = [
        f"- {plan.rounds} rounds in turn, contenders in rotating order, {pinned}, loopback only. Figures are medians "
        "of the rounds with [least–most]; ratios are taken in each round, then their median.",
        f"- TVS: {plan.run.concurrency} clients unless said otherwise, a new connection, full handshake and one query "
        f"each, for {plan.run.seconds:g} s; the load client is in C and compares every byte. nginx is its stream "
        "module with the same certificate, protocol, cipher and key exchange, which says as many bytes as a TVS answer "
        "and reads no request.",
        '- Rates count what was done before the time was up. "To the last" divides all that was done by the time until '
        f"the last operation begun was done or given up; the column is there where that is less by {TAIL:.0%} or more. "
        "The goals against the threaded daemon are rated so, because they were set so, and because its rate in time is "
        "that of the few who were let in: the others' connections are dropped for want of room in its queue, and wait "
        "for their kernel's next try. That ratio is no property of the daemon alone: it depends on how long "
        f"connections are begun ({plan.run.seconds * CROWD:g} s here, 1.5 s where the goals were set), on when the "
        f"client gives up ({TIMEOUT_S:g} s here as there), and on when the kernel tries again. What the daemon does "
        "for those whom it lets in is in its rate in time and its CPU.",
        '- "threaded daemon" is bench/threaded_daemon.py, a stand-in of ours with the structure of the public threaded '
        "Python TVS daemon (backlog 5, handshake inside accept, a thread per connection, SQLite opened for each query, "
        "six log lines); that program itself was not at hand.",
        f"- Files: {plan.file_run.concurrency} clients for {plan.file_run.seconds:g} s, every byte compared; "
        '"sent again" counts datagrams repeated by either side.',
        '- "ours" is the server with its events rendered into a trace file; "ours, silent" tells nobody anything.',
        '- "load CPU" is what the load client needed. Where "server busy" is less than 1.00 of a CPU, the load was the '
        "slower side: compare CPU there, not rates. The CPU of in.tftpd's short-lived children cannot be read.",
        f"- The machine was shared: a run beside which more than {NOISY_CORES:g} cores were busy with something else "
        f"was made up to {plan.attempts} times; {noisy} of {kept} runs had to be kept all the same. Their rates say "
        "little, their CPU more.",
    ]
    if findings.quick:
        lines.append("- This was a quick run: a look, not a result.")
    return "## How\n\n" + "\n".join(lines)


def _machine(findings: Findings) -> str:
    facts = {**findings.machine, **findings.versions}
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- {name}: not compared, {reason}" for name, reason in findings.missing.items()]
    return "## Machine\n\n" + "\n".join(lines)


def write(findings: Findings, page_path: Path, json_path: Path) -> None:
    """Both files; the page first."""
    page_path.parent.mkdir(parents=True, exist_ok=True)
    page_path.write_text(page(findings), encoding="utf-8")
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(findings.as_json(), indent=1) + "\n", encoding="utf-8")


def _median(samples: Sequence[Sample] | Sequence[Run], name: str) -> float:
    spread = Spread.of([getattr(sample, name) for sample in samples])
    return spread.median if spread else 0.0


def _busy(samples: Sequence[Sample]) -> str:
    spread = Spread.of([sample.server_busy for sample in samples])
    return f"{spread.median:.2f}" if spread else "–"


def _show(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "–"
    if spread.lowest == spread.highest:
        return f"{spread.median:.{digits}f}"
    return f"{spread.median:.{digits}f} [{spread.lowest:.{digits}f}–{spread.highest:.{digits}f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded, so that the table reads on a terminal too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
