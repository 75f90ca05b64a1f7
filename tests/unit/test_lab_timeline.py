from __future__ import annotations

from cucm.errors import TrustReason
from cucm.events import Event, EventLog, phone
from cucm.events.administration import ActStarted, OperationPerformed, ServiceStarted, StoryEnded
from cucm.events.dhcp import Option150Set
from lab.log_book import LogBook
from lab.scenario import ActResult, StoryResult, load_story
from lab.timeline import Timeline, log_section, verdict
from lab.topology import load_topology
from lab.truth import PhoneTruth


class Watch:
    """Times of the records, one after the other."""

    def __init__(self, *times: float) -> None:
        self._times = iter(times)

    def now(self) -> float:
        return next(self._times)


def lines_of(*told: tuple[float, str, Event]) -> list[str]:
    events = EventLog(Watch(*(moment for moment, _, _ in told)))
    timeline = Timeline(load_topology("two-clusters"))
    lines: list[str] = []
    events.subscribe(lambda record: lines.extend(timeline.lines(record)))
    for _, source, event in told:
        events.emit(source, event)
    return lines


def test_times_count_from_the_first_act_and_names_are_short():
    assert lines_of(
        (100.0, "lab:story", ActStarted(1, "one")),
        (100.5, "lab:story", OperationPerformed("x", "do it", "why")),
        (101.25, "phone:SEPB000B4BA0AEE", phone.PoweredOff()),
        (102.0, "lab:story", ActStarted(2, "two")),
        (103.0, "dhcp:lab", Option150Set(("127.0.11.51",))),
    ) == [
        "",
        "Act 1: one",
        "   0.500  administrator           do it  [why]",
        "   1.250  phone …0AEE             powered off",
        "",
        "Act 2: two",
        "   3.000  dhcp lab                option 150 is now 127.0.11.51",
    ]


def test_installing_and_ending_the_lab_are_not_told():
    started = ServiceStarted("n1", "TVS", "127.0.0.1")
    assert lines_of((1, "node:n1", started)) == []
    story = ((1.0, "lab:story", ActStarted(1, "one")), (2.0, "lab:story", StoryEnded()))
    assert lines_of(*story, (3.0, "node:n1", started)) == ["", "Act 1: one"]


def test_what_came_from_the_network_cannot_command_the_terminal():
    told = lines_of(
        (1.0, "lab:story", ActStarted(1, "one")),
        (1.0, "phone:SEPA", phone.StatusMessageShown("\x1b[2Jgone\nnext")),
    )
    assert told[-1].endswith(r"status message: \x1b[2Jgone\nnext")


def truth(registered: str, *reasons: TrustReason) -> PhoneTruth:
    return PhoneTruth(registered, "source", "source", "source", reasons, ())


def result_of(**changes: object) -> StoryResult:
    result = StoryResult(*load_story("tvs-down"))
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def test_the_verdict_of_a_failure_story_names_cause_repair_and_evidence():
    act = ActResult("two", False, {"SEPA": truth("source", TrustReason.TVS_UNREACHABLE)}, ())
    lines = verdict(result_of(acts=[act]))
    assert "registered: source" in lines[2]
    assert lines[2].endswith("refused because of tvs-unreachable")
    assert [line.split()[0] for line in lines[4:8]] == ["Cause", "Repair", "Evidence", "Evidence"]
    assert lines[-1] == "Verdict   ended as it should"


def test_the_verdict_tells_every_way_of_not_ending_as_it_should():
    wrong = ActResult("two", False, {}, ("SEPA: registered should be source, is nowhere",))
    for changes, text in (
        ({"acts": [wrong]}, "after “two”: SEPA: registered should be source, is nowhere"),
        ({"missing_evidence": ["phone-SEPA.log: a line"]}, "missing before the repair in phone-SEPA.log: a line"),
        ({"broken": "act 2: refused"}, "broken off: act 2: refused"),
    ):
        lines = verdict(result_of(**changes))
        assert lines[-2:] == ["Verdict   NOT as it should", f"  {text}"]


def test_the_log_section_has_consoles_and_tvs_traces_only():
    events = EventLog()
    book = LogBook(events)
    events.emit("phone:SEPA", phone.TvsNotUsed(TrustReason.TVS_NOT_IN_TRUST_LIST))
    events.emit("node:n1", ServiceStarted("n1", "TVS", "127.0.0.1"))
    section = log_section(book)
    assert section[:2] == ["", "----- phone-SEPA.log"]
    assert not any("TVS started" in line for line in section)
