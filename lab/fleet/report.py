"""The report as text: where the phones ended and why, how long it took, what each node had to do, what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Final

from lab.fleet.result import FleetResult, Phase, Stage

SHOWN_STRANDED: Final = 10
SHOWN_REASONS: Final = 12
_GAP: Final = "  "
PHASE_WORDS: Final = {
    Phase.ADDRESS: "address (DHCP)",
    Phase.CTL: "CTL",
    Phase.ITL: "ITL",
    Phase.CONFIGURATION: "configuration",
    Phase.TVS: "of these, TVS",
    Phase.REGISTRATION: "registration",
    Phase.BOOT: "whole boot",
}


def report_lines(result: FleetResult, width: int | None = None) -> Iterator[str]:
    """No longer than `width`, that of a terminal; None: as long as they are."""
    yield from _wrapped(_verdict(result), width)
    for stage in result.stages:
        yield ""
        yield from _wrapped([_stage_text(stage)], width)
        yield from table(PHASE_HEAD, phase_rows(stage), width)
    if result.loads:
        yield ""
        yield from table(LOAD_HEAD, load_rows(result), width)
    yield ""
    yield from _wrapped(_cost(result), width)


def _verdict(result: FleetResult) -> Iterator[str]:
    request = result.request
    where = f"{result.arrived} of {request.phones} phones are registered at {result.target}"
    yield f"{where} (story {request.story}, {result.mode})"
    if result.stayed:
        yield f"{result.stayed} stayed where the story leaves them, {result.stranded} are stranded"
    if result.interrupted:
        yield "interrupted: this is how far it came"
    if result.reruns:
        yield f"{result.reruns} batches were run again: their worker was lost"
    if result.trouble:
        yield f"the story broke off: {result.trouble}"
    others = {place: count for place, count in result.where().items() if place != result.target}
    for place, count in sorted(others.items(), key=lambda item: -item[1]):
        yield f"  {count} registered at {place}" if place != "nowhere" else f"  {count} registered nowhere"
    reasons = result.reasons().most_common()
    for reason, count in reasons[:SHOWN_REASONS]:
        yield f"  {count} stranded: {reason}"
    if len(reasons) > SHOWN_REASONS:
        rest = [count for _, count in reasons[SHOWN_REASONS:]]
        yield f"  {sum(rest)} stranded: {len(rest)} other reasons"
    for name, end in result.first_stranded(SHOWN_STRANDED):
        held = f"CTL {end.ctl}, ITL {end.itl}, configuration {end.configuration}"
        yield f"    {name}: at {end.registered}, {held}; {end.detail or end.why}"
    if result.stranded > SHOWN_STRANDED:
        yield f"    ... and {result.stranded - SHOWN_STRANDED} more: --out DIR tells of all"


def _stage_text(stage: Stage) -> str:
    rate = f", {stage.phones / stage.wall_s:.1f} phones/s" if stage.wall_s else ""
    return f"{stage.title}: {stage.phones} phones in {stage.wall_s:.1f} s{rate}"


PHASE_HEAD: Final = ("ms", "count", "p50", "p90", "p99", "longest")
LOAD_HEAD: Final = ("node", "service", "requests", "busiest second", "MB", "failures")


def phase_rows(stage: Stage) -> list[tuple[str, ...]]:
    """A line for each phase that was measured, under `PHASE_HEAD`."""
    rows = []
    for phase in Phase:
        known = stage.latencies.get(phase)
        if known is not None:
            seconds = (known.percentile(50), known.percentile(90), known.percentile(99), known.longest_s)
            rows.append((PHASE_WORDS[phase], f"{len(known)}", *(f"{1000 * one:.1f}" for one in seconds)))
    return rows


def load_rows(result: FleetResult) -> list[tuple[str, ...]]:
    """A line for each service of a node, under `LOAD_HEAD`."""
    return [
        (
            f"{load.cluster}/{load.node}",
            load.service,
            f"{load.requests}",
            f"{load.busiest}/s",
            f"{load.bytes / 1e6:.1f}",
            f"{load.failures}",
        )
        for load in result.loads
    ]


def _cost(result: FleetResult) -> Iterator[str]:
    if result.cpu_ms_per_phone:
        ratio = (
            f", {result.times_floor:.2f} x the crypto floor ({result.floor_ms_per_phone:.2f} ms)"
            if result.times_floor
            else ""
        )
        yield f"CPU per phone, both ends, all boots and resets: {result.cpu_ms_per_phone:.2f} ms{ratio}"
    if result.other_cpu_s:
        yield f"CPU of the other steps, which is not in it: {result.other_cpu_s:.2f} s"
    if result.memory is not None:
        yield f"memory per registered phone, both ends: {result.memory.as_text()}"
    if result.computed_s:
        yield f"this would take {result.wall_s:.1f} s; it was simulated in {result.computed_s:.1f} s"
        return
    yield f"set up in {result.setup_s:.1f} s ({result.setup_cpu_s:.1f} s of CPU); {result.wall_s:.1f} s in all"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> Iterator[str]:
    """Columns: the first to the left, numbers to the right. Where they do not fit, the first with all others below."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        for first, *others in rows:
            values = ", ".join(f"{name} {value}" for name, value in zip(head[1:], others, strict=True))
            yield from _wrapped([first, f"  {values}"], width)
        return
    for row in (head, *rows):
        first, *others = (
            text.ljust(size) if not place else text.rjust(size)
            for place, (text, size) in enumerate(zip(row, widths, strict=True))
        )
        yield _GAP.join((first, *others)).rstrip()


def _wrapped(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """Parts of a line that follow the first are indented a little more."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()))
        yield from wrap(
            line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
        )
