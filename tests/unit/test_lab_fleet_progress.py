from __future__ import annotations

import io
import time
from collections import Counter

import pytest

from lab.fleet.batch import PhoneFinding
from lab.fleet.display import Display, progress_text
from lab.fleet.progress import WINDOW_S, Progress


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_rate_is_that_of_the_last_seconds(at: list[float]) -> None:
    progress = Progress()
    progress.begin("act", "reset-phone", total=1000)
    for _ in range(20):
        at[0] += 0.5
        progress.add(10, Counter(), Counter())
    assert progress.per_second == pytest.approx(20.0)
    assert progress.remaining_s == pytest.approx(40.0)


def test_phones_that_all_wait_have_no_rate_and_no_end(at: list[float]) -> None:
    progress = Progress()
    progress.begin("act", "reset-phone", total=100)
    at[0] += 1
    progress.add(90, Counter(), Counter())
    at[0] += WINDOW_S * 2
    assert progress.per_second == 0
    assert progress.remaining_s is None


def test_a_batch_that_begins_anew_gives_no_rate_below_nothing(at: list[float]) -> None:
    progress = Progress()
    progress.begin("act", "reset-phone", total=100)
    at[0] += 1
    progress.add(50, Counter(), Counter())
    at[0] += 1
    progress.add(-50, Counter(), Counter())
    assert (progress.per_second, progress.remaining_s) == (0, None)


@pytest.mark.parametrize("width", [20, 40, 80, 200, None])
def test_the_line_of_progress_fits_the_terminal(at: list[float], width: int | None) -> None:
    progress = Progress()
    progress.begin("act", "reset-phone", total=1000)
    at[0] += 1
    progress.add(420, Counter({"registered": 400, "unregistered": 20}), Counter({"tvs-unreachable": 20}))
    text = progress_text(progress, width)
    assert width is None or len(text) <= width
    assert text.startswith("reset-phone  420 of")
    assert ("420.0/s" in text) is (width != 20)
    assert ("about 1 s left" in text) is (width not in (20, 40))
    assert ("trouble: tvs-unreachable 20" in text) is (width in (200, None))


def test_a_step_without_phones_is_cut_where_the_terminal_ends() -> None:
    progress = Progress()
    progress.begin("", "setting up the clusters and 600 phones")
    assert progress_text(progress, 10) == "setting up"
    assert progress_text(progress) == "setting up the clusters and 600 phones ..."


def test_trouble_is_counted_whatever_the_phone_is_called(at: list[float]) -> None:
    progress = Progress()
    for name in ("SEP000000000001", "SEP000000000002"):
        progress.phone_done(name, PhoneFinding("unregistered", detail=f"invalid file {name}.cnf.xml"))
    assert list(progress.reasons.values()) == [2]


def test_every_step_is_told_when_it_begins_however_short() -> None:
    progress, out = Progress(), io.StringIO()
    with Display(progress, out):
        progress.begin("act", "boot-phone", total=4)
        progress.begin("act", "upload-certificate")
        progress.begin("act", "upload-certificate")
    progress.begin("act", "after the end")
    assert out.getvalue().splitlines() == [
        "boot-phone  0 of 4 (0 %)  0.0/s",
        "upload-certificate ...",
        "upload-certificate ...",
    ]


class Gone(io.StringIO):
    """What nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_whom_nobody_watches_goes_on() -> None:
    progress = Progress()
    with Display(progress, Gone()):
        progress.begin("act", "boot-phone", total=4)
    assert progress.step == "boot-phone"
