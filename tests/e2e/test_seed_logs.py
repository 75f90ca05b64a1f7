"""The log extracts that Cisco published, found line by line and in order in the logs of our own migration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

VECTORS = Path(__file__).parent.parent / "vectors"
MASKS = (
    (re.compile(r"^(\d+ )?(NOT|INF|DEB|WRN|ERR) [A-Z][a-z]{2} +\d+ "), r"N \2 DATE "),
    (re.compile(r"\d{2}:\d{2}:\d{2}\.\d+"), "TIME"),
    (re.compile(r"\d+\.\d+\.\d+\.\d+"), "ADDRESS"),
    (re.compile(r"\b0x[0-9a-f]+"), "HEX"),
    (re.compile(r"\b[0-9A-F]{38}(?=CN=|$)"), "SERIAL"),
    (re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])"), "N"),
    (re.compile(r"\b(GT|L)\d+"), r"\1N"),
)
DUMP = re.compile(r"debug ((?:[0-9a-f]{2} )*[0-9a-f]{2})$")


def masked(line: str) -> str:
    """Without times, numbers and addresses. Bytes of a dump stay: they are what the wire format is about."""
    dump = DUMP.search(line)
    if dump:
        return f"dump {dump.group(1)}"
    for pattern, replacement in MASKS:
        line = pattern.sub(replacement, line)
    return line.rstrip()


def published(name: str) -> list[str]:
    lines = (VECTORS / name).read_text(encoding="utf-8").splitlines()
    return [masked(line) for line in lines if line.strip() and not line.startswith("#")]


def first_missing(expected: list[str], log: list[str]) -> str | None:
    """The first expected line that does not follow those before it in the log."""
    rest = iter(log)
    return next((line for line in expected if line not in rest), None)


@pytest.mark.parametrize(
    ("vector", "log"),
    [("seed_phone_console.txt", "phone-SEPB000B4BA0AEE.log"), ("seed_tvs_trace.txt", "tvs-ucm105pub.log")],
)
def test_every_published_line_is_in_the_log_in_order(vector: str, log: str, migrate_folder: Path) -> None:
    ours = [masked(line) for line in (migrate_folder / log).read_text(encoding="utf-8").splitlines()]
    expected = published(vector)
    assert len(expected) > 40
    assert first_missing(expected, ours) is None


def test_the_search_notices_a_missing_line_and_a_wrong_order() -> None:
    assert first_missing(["a", "b"], ["a", "x", "b"]) is None
    assert first_missing(["a", "b"], ["a", "x"]) == "b"
    assert first_missing(["a", "b"], ["b", "a"]) == "b"
