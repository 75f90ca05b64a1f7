from __future__ import annotations

from collections import Counter

from lab.fleet.report import report_lines
from lab.fleet.request import FleetRequest
from lab.fleet.result import OTHERWISE_WELL, FleetResult, Phase, PhoneEnd, Stage, merge_stages


def result(**ends: PhoneEnd) -> FleetResult:
    return FleetResult(FleetRequest(len(ends)), "sockets", "destination", ends=ends)


HOME = PhoneEnd(registered="destination")
AWAY = PhoneEnd(registered="source", reasons=("tvs-unreachable", "signer-unknown"), detail="CTL: tvs-unreachable")


def test_good_is_every_phone_at_the_target() -> None:
    assert result(a=HOME, b=HOME).is_good
    assert not result(a=HOME, b=AWAY).is_good


def test_a_phone_that_nobody_told_of_is_lost() -> None:
    lost = result(a=HOME)
    lost.request = FleetRequest(2)
    assert not lost.is_good


def test_registered_twice_is_not_arrived() -> None:
    assert result(a=PhoneEnd(registered="source and destination")).arrived == 0


def test_stranded_are_grouped_by_their_first_reason() -> None:
    ends = result(a=HOME, b=AWAY, c=PhoneEnd(detail="File Not Found"), d=PhoneEnd(state="off"), e=PhoneEnd("source"))
    assert ends.reasons() == Counter({"tvs-unreachable": 1, "File Not Found": 1, "it is off": 1, OTHERWISE_WELL: 1})
    assert ends.where() == Counter({"destination": 1, "source": 2, "nowhere": 2})
    assert (ends.stranded, [name for name, _ in ends.first_stranded(2)]) == (4, ["b", "c"])


def test_who_stayed_where_the_story_leaves_him_is_not_stranded() -> None:
    stayed, astray = PhoneEnd("source", stays_at="source"), PhoneEnd("nowhere", detail="no answer", stays_at="source")
    ends = result(a=HOME, b=stayed)
    assert (ends.arrived, ends.stayed, ends.stranded, ends.is_good, ends.reasons()) == (1, 1, 0, True, Counter())
    assert next(iter(ends.first_stranded(1)), None) is None
    assert "1 stayed where the story leaves them, 0 are stranded" in list(report_lines(ends))
    worse = result(a=HOME, b=stayed, c=astray)
    assert (worse.stayed, worse.stranded, worse.is_good, worse.reasons()) == (1, 1, False, Counter({"no answer": 1}))
    assert worse.as_json()["stayed"] == 1


def test_the_same_trouble_of_many_phones_is_one_reason() -> None:
    names = ("SEPB000B4000001", "SEPB000B4BA0AEE")
    ends = result(**{name: PhoneEnd(detail=f"invalid file {name}.cnf.xml") for name in names})
    assert ends.reasons() == Counter({"invalid file SEP....cnf.xml": 2})


def test_an_interrupted_run_is_not_good() -> None:
    early = result(a=HOME)
    early.interrupted = True
    assert not early.is_good


def test_cost_is_per_phone_and_over_all_stages() -> None:
    told = result(a=HOME, b=HOME)
    told.stages = [Stage("boot", 2, phone_cpu_s=0.01, server_cpu_s=0.02, floor_s=0.02), Stage("reset", 2, floor_s=0.01)]
    assert round(told.cpu_ms_per_phone, 6) == 15.0
    assert told.times_floor is not None
    assert round(told.times_floor, 6) == 1.0


def test_parts_of_a_stage_become_one() -> None:
    parts = [Stage("boot", 2, wall_s=1.0, phone_cpu_s=0.5), Stage("boot", 3, wall_s=2.0, phone_cpu_s=0.25)]
    parts[0].latency(Phase.CTL).add(0.1)
    parts[1].latency(Phase.CTL).add(0.3)
    parts[1].per_second[1] = 3
    whole = merge_stages(parts)
    assert (whole.title, whole.phones, whole.wall_s, whole.phone_cpu_s) == ("boot", 5, 2.0, 0.75)
    assert len(whole.latencies[Phase.CTL]) == 2
    assert whole.per_second == Counter({1: 3})


def test_half_a_run_has_no_cost_per_phone() -> None:
    told = result(a=HOME, b=HOME)
    told.stages = [Stage("boot", 1, server_cpu_s=0.02, floor_s=0.02)]
    told.interrupted = True
    assert (told.cpu_ms_per_phone, told.floor_ms_per_phone, told.times_floor) == (0, 0, None)


def test_who_stays_at_the_target_is_counted_once() -> None:
    result = FleetResult(FleetRequest(2), "sockets", "destination")
    result.ends = {
        "SEP000000000001": PhoneEnd("destination", stays_at="destination"),
        "SEP000000000002": PhoneEnd("source", stays_at="source"),
    }
    assert (result.arrived, result.stayed, result.stranded, result.is_good) == (1, 1, 0, True)
