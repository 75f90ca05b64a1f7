"""The report as one HTML page that needs nothing else: tables, and charts drawn by plotly, whose script is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from cucm.errors import EnvironmentProblem
from lab.fleet.report import LOAD_HEAD, PHASE_HEAD, PHASE_WORDS, load_rows, phase_rows
from lab.fleet.result import NOWHERE, FleetResult, Phase, Stage

INSTALL: Final = "pip install 'cucm-migration-lab[fleet]'"
MAX_LISTED: Final = 500
"""Stranded phones with a row of their own; fleet.json has all."""
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { padding: .2rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr:nth-child(even) { background: #f3f6f9; }
.bad { color: #a4262c; } .good { color: #0b6a3b; } .note { color: #5a6775; }
"""
_COLOURS: Final = ("#2f6fab", "#e08a2c", "#3d9970", "#b0413e", "#7a5ea8", "#6b7785")


def page(result: FleetResult) -> str:
    """The whole document. Raises EnvironmentProblem without plotly."""
    try:
        from plotly.io import to_html
    except ImportError:
        raise EnvironmentProblem("the page's charts are drawn by plotly, which is not there", mend=INSTALL) from None
    script: str | bool = True

    def chart(figure: dict[str, Any]) -> str:
        nonlocal script
        drawn = to_html(figure, full_html=False, include_plotlyjs=script, validate=False, config={"displaylogo": False})
        script = False  # once is enough for all charts of a page
        return str(drawn)

    parts = [_verdict(result), chart(_ends_chart(result)), _stranded(result)]
    for number, stage in enumerate(result.stages):
        parts += [f"<h2>{escape(stage.title)}</h2>", _stage_text(stage), chart(_rate_chart(stage))]
        parts += [chart(_latency_chart(stage, number)), _table(PHASE_HEAD, phase_rows(stage))]
    if result.loads:
        parts += ["<h2>Load of each node</h2>", chart(_load_chart(result)), _table(LOAD_HEAD, load_rows(result))]
    parts += ["<h2>What it cost</h2>", _cost(result)]
    if result.times_floor is not None:
        parts.append(chart(_cost_chart(result)))
    title = f"{result.request.phones} phones: {escape(result.request.story)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "".join(parts)
    return f"<!doctype html>\n<html lang=en><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n"


# --- words and tables ----------------------------------------------------------------------------------------------


def _verdict(result: FleetResult) -> str:
    request = result.request
    kind = "good" if result.is_good else "bad"
    notes = [
        f"<p>{result.stayed} stayed where the story leaves them.</p>" if result.stayed else "",
        f"<p class=bad>The story broke off: {escape(result.trouble)}</p>" if result.trouble else "",
        "<p class=bad>Interrupted: this is how far it came.</p>" if result.interrupted else "",
        "<p class=note>Simulated: no socket was opened, latencies are modelled.</p>"
        if result.mode != "sockets"
        else "",
    ]
    return (
        f"<h1>{escape(request.story)}, {request.phones} phones</h1>"
        f"<p class={kind}><b>{result.arrived} of {request.phones}</b> are registered at "
        f"<b>{escape(result.target)}</b>.</p>{''.join(notes)}"
    )


def _stranded(result: FleetResult) -> str:
    stranded = result.first_stranded(MAX_LISTED)
    if not stranded:
        return ""
    rows = [
        (name, end.registered, end.ctl, end.itl, end.configuration, ", ".join(end.reasons), end.detail)
        for name, end in stranded
    ]
    rest = result.stranded - len(rows)
    note = f"<p class=note>... and {rest} more in fleet.json</p>" if rest else ""
    head = ("phone", "registered", "CTL", "ITL", "configuration", "reasons", "last trouble")
    by_reason = _table(("why", "phones"), [(why, f"{count}") for why, count in result.reasons().most_common()])
    each = f"<details><summary>each of them</summary>{_table(head, rows)}{note}</details>"
    return f"<h2>Stranded</h2>{by_reason}{each}"


def _stage_text(stage: Stage) -> str:
    rate = f", {stage.phones / stage.wall_s:.1f} a second" if stage.wall_s else ""
    return f"<p>{stage.phones} phones in {stage.wall_s:.1f} s{rate}</p>"


def _cost(result: FleetResult) -> str:
    rows = [("wall time, s", f"{result.wall_s:.1f}"), ("of this setting up, s", f"{result.setup_s:.1f}")]
    if result.cpu_ms_per_phone:
        rows.append(("CPU per phone, both ends, all boots and resets, ms", f"{result.cpu_ms_per_phone:.2f}"))
    if result.times_floor is not None:
        rows.append(("crypto floor per phone in the same run, ms", f"{result.floor_ms_per_phone:.2f}"))
        rows.append(("times the floor", f"{result.times_floor:.2f}"))
    if result.other_cpu_s:
        rows.append(("CPU of the other steps, which is not in it, s", f"{result.other_cpu_s:.2f}"))
    if result.memory is not None:
        rows.append(("memory per registered phone, both ends", result.memory.as_text()))
    return _table(("", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{lines}</table>"


# --- charts: plotly's figures as plain values ------------------------------------------------------------------------


def _figure(title: str, traces: list[dict[str, Any]], **layout: Any) -> dict[str, Any]:
    return {
        "data": traces,
        "layout": {
            "title": {"text": title},
            "height": 340,
            "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
            "colorway": list(_COLOURS),
            **layout,
        },
    }


def _ends_chart(result: FleetResult) -> dict[str, Any]:
    places = sorted(result.where().items(), key=lambda item: (item[0] != result.target, -item[1]))
    names = ["registered nowhere" if place == NOWHERE else f"registered at {place}" for place, _ in places]
    bars = {"type": "bar", "orientation": "h", "y": names, "x": [count for _, count in places]}
    return _figure(
        "Where the phones ended", [bars], height=120 + 50 * len(names), margin={"l": 180, "r": 20, "t": 50, "b": 40}
    )


def _rate_chart(stage: Stage) -> dict[str, Any]:
    seconds = range(max(stage.per_second, default=0) + 1)
    bars = {"type": "bar", "x": list(seconds), "y": [stage.per_second[one] for one in seconds]}
    axis = {"title": {"text": "s"}, "rangemode": "tozero"}
    return _figure("Phones done in each second", [bars], xaxis=axis, bargap=0.05, height=260)


def _latency_chart(stage: Stage, number: int) -> dict[str, Any]:
    phases = list(_phases(stage))
    traces = [
        {
            "type": "bar",
            "name": f"p{share}",
            "x": [PHASE_WORDS[phase] for phase, _ in phases],
            "y": [round(1000 * known.percentile(share), 2) for _, known in phases],
        }
        for share in (50, 90, 99)
    ]
    axis = {"title": {"text": "ms"}, "type": "log"}
    return _figure("Latency by phase", traces, barmode="group", yaxis=axis, uirevision=number)


def _load_chart(result: FleetResult) -> dict[str, Any]:
    services = dict.fromkeys(load.service for load in result.loads)
    traces = [
        {
            "type": "bar",
            "name": service,
            "x": [f"{load.cluster}/{load.node}" for load in result.loads if load.service == service],
            "y": [load.requests for load in result.loads if load.service == service],
        }
        for service in services
    ]
    return _figure("Requests by node", traces, barmode="group")


def _cost_chart(result: FleetResult) -> dict[str, Any]:
    floor = result.floor_ms_per_phone
    rest = max(result.cpu_ms_per_phone - floor, 0.0)
    traces = [
        {"type": "bar", "orientation": "h", "name": name, "y": ["a phone"], "x": [round(value, 3)]}
        for name, value in (("cryptography (floor)", floor), ("everything else", rest))
    ]
    return _figure("CPU per phone, ms", traces, barmode="stack", height=200)


def _phases(stage: Stage) -> Iterator[tuple[Phase, Any]]:
    return ((phase, stage.latencies[phase]) for phase in Phase if phase in stage.latencies)
