from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lab.fleet.page import MAX_LISTED, page
from lab.fleet.report import report_lines
from lab.fleet.request import FleetRequest
from lab.fleet.result import FleetResult, Memory, NodeLoad, Phase, PhoneEnd, Stage

_PLOT = re.compile(r"Plotly\.newPlot\(\s*\"[\w-]+\",\s*(\[.*?\]),\s*\{", re.DOTALL)


def sample(phones: int = 3, stranded: int = 1, detail: str = "CTL: tvs-unreachable") -> FleetResult:
    result = FleetResult(FleetRequest(phones, story="tvs-down"), "sockets", "destination")
    for number in range(phones):
        away = PhoneEnd("source", ctl="source", itl="source", reasons=("tvs-unreachable",), detail=detail)
        result.ends[f"SEP{number:012X}"] = away if number < stranded else PhoneEnd("destination")
    stage = Stage("Reset: reset-phone", phones, wall_s=2.0, server_cpu_s=0.03, floor_s=0.01)
    stage.latency(Phase.CTL).add(0.01)
    stage.latency(Phase.BOOT).add(0.5)
    stage.per_second.update({0: 1, 1: 2})
    result.stages = [stage]
    result.loads = [NodeLoad("source", "ucm105pub", "TVS", 3, 0, 1, 2)]
    result.memory = Memory(50_000.0, phones, 20_480.0)
    return result


class Reader(HTMLParser):
    """What a browser would fetch from elsewhere, and the text that is to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


def read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    return reader


def test_the_page_needs_nothing_else_and_says_what_the_result_says() -> None:
    reader = read(page(sample()))
    text = " ".join(reader.text)
    assert reader.fetched == []
    for told in (
        "2 of 3",
        "tvs-unreachable",
        "SEP000000000000",
        "source/ucm105pub",
        "Reset: reset-phone",
        "48.8 KiB (the phone's end: 20.0 KiB)",
    ):
        assert told in text


def test_every_chart_is_data_that_plotly_can_read() -> None:
    charts = [json.loads(found) for found in _PLOT.findall(page(sample()))]
    assert len(charts) == 5  # ends, rate, latency, load, cost
    assert charts[1][0]["y"] == [1, 2]
    assert [trace["name"] for trace in charts[2]] == ["p50", "p90", "p99"]


@pytest.mark.needs("chromium")
def test_a_browser_draws_every_chart_without_a_network(tmp_path: Path) -> None:
    document = tmp_path / "fleet.html"
    document.write_text(page(sample()))
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += ["--proxy-server=127.0.0.1:1", "--virtual-time-budget=10000", "--dump-dom", document.as_uri()]
    drawn = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True).stdout
    assert drawn.count('class="plot-container plotly"') == 5
    assert "Where the phones ended" in drawn
    assert "everything else" in drawn


def test_what_a_network_said_is_text_and_no_markup() -> None:
    document = page(sample(detail="<script>alert(1)</script>"))
    assert "<script>alert(1)" not in document
    assert "&lt;script&gt;alert(1)" in document


def test_a_page_about_many_stranded_phones_stays_a_page() -> None:
    reader = read(page(sample(phones=MAX_LISTED + 20, stranded=MAX_LISTED + 20)))
    assert "... and 20 more in fleet.json" in " ".join(reader.text)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_text_report_fits_the_terminal(width: int) -> None:
    stranded = sample(phones=30, stranded=30)
    lines = list(report_lines(stranded, width))
    assert max(map(len, lines)) <= width
    told, plain = (" ".join(" ".join(text).split()) for text in (lines, report_lines(stranded)))
    assert told.startswith("0 of 30 phones are registered at destination (story tvs-down, sockets)")
    if width == 200:
        assert told == plain
    words = [word.strip(",;:") for word in told.split()]
    assert {word.strip(",;:") for word in plain.split()} <= {*words, "ms", "node"}  # heads of columns that are no more


def test_the_text_report_tells_why_phones_are_stranded() -> None:
    text = "\n".join(report_lines(sample()))
    assert "2 of 3 phones are registered at destination" in text
    assert "1 stranded: tvs-unreachable" in text
    assert "SEP000000000000: at source, CTL source" in text
    assert "3.00 x the crypto floor" in text


def test_a_text_report_names_a_few_stranded_phones_and_counts_the_rest() -> None:
    text = "\n".join(report_lines(sample(phones=30, stranded=30)))
    assert "... and 20 more" in text
