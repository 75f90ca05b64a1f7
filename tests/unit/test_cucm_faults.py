"""What a fault is, when it fires, and what is told of it."""

from __future__ import annotations

import pytest

from cucm.errors import FaultIdTaken, LimitExceeded, UsageError
from cucm.events import EventLog
from cucm.faults import NO_FAULTS, FaultBoard, fault_of
from cucm.faults.board import MAX_FAULTS
from cucm.faults.catalogue import POINTS, fault_point
from cucm.faults.catalogue.tcp import TCP_ACCEPT
from cucm.faults.catalogue.tvs import TVS_RESPONSE, Delay, Drop, Truncate
from cucm.faults.points import MAX_DELAY_S


def a_fault(**changes: object) -> dict[str, object]:
    return {"point": "tvs.response", "action": "drop", **changes}


def hits(board: FaultBoard, count: int, **request: str) -> list[bool]:
    return [board.fire(TVS_RESPONSE, **request) is not None for _ in range(count)]


def test_nothing_goes_wrong_without_a_rule() -> None:
    board = FaultBoard()
    assert board.fire(TVS_RESPONSE, peer="127.0.0.1") is None
    assert not board.watches(TVS_RESPONSE)
    assert NO_FAULTS.fire(TVS_RESPONSE) is None
    assert NO_FAULTS.at(node="x").watches(TVS_RESPONSE) is False


def test_the_action_comes_with_its_attributes_checked() -> None:
    board = FaultBoard()
    board.set(fault_of(a_fault(action="delay", attributes={"seconds": "2.5"})))
    assert board.fire(TVS_RESPONSE) == Delay(seconds=2.5)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"point": "tvs.respons"}, "did you mean tvs.response"),
        ({"point": "zzz"}, "there are: tcp.accept"),
        ({"action": "explode"}, "drop, "),
        ({"action": "delay", "attributes": {"seconds": -1}}, "seconds"),
        ({"action": "delay", "attributes": {"seconds": MAX_DELAY_S + 1}}, "seconds"),
        ({"action": "delay", "attributes": {"seconds": float("nan")}}, "seconds"),
        ({"action": "truncate", "attributes": {"bytes": 1.5}}, "bytes"),
        ({"action": "truncate", "attributes": {"octets": 1}}, "octets"),
        ({"attributes": {"bytes": 1}}, "takes no attributes"),
        ({"match": {"colour": "red"}}, "colour"),
        ({"match": {"node": ""}}, "match.node"),
        ({"skip": -1}, "skip"),
        ({"times": 0}, "times"),
        ({"every": 0}, "every"),
        ({"probability": 0.5}, "seed"),
        ({"seed": 1}, "probability"),
        ({"probability": 1.5, "seed": 1}, "probability"),
        ({"id": "with space"}, "id"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_refused_and_named(changes: dict[str, object], names: str) -> None:
    with pytest.raises(UsageError) as refused:
        fault_of(a_fault(**changes))
    assert names in f"{refused.value} {refused.value.mend}"


def test_a_state_takes_no_counts() -> None:
    states = [point for point in POINTS.values() if point.is_state]
    for point in states:
        with pytest.raises(UsageError, match="is a state"):
            fault_of({"point": point.name, "action": point.actions[0].name, "times": 1})


def test_match_is_by_text_or_pattern_and_all_fields_must_fit() -> None:
    board = FaultBoard()
    board.set(fault_of(a_fault(match={"node": "ucm1*", "peer": "127.0.11.50"})))
    assert hits(board, 1, node="ucm105pub", peer="127.0.11.50") == [True]
    assert hits(board, 1, node="other", peer="127.0.11.50") == [False]
    assert hits(board, 1, node="ucm105pub", peer="127.0.11.51") == [False]
    assert hits(board, 1, node="ucm105pub") == [False]


def test_numbers_match_as_their_text() -> None:
    board = FaultBoard()
    board.set(fault_of({"point": "tcp.accept", "action": "stall", "match": {"port": 2445}}))
    assert board.fire(TCP_ACCEPT, port=2445) is not None
    assert board.fire(TCP_ACCEPT, port=24450) is None


def test_the_phone_behind_an_address_is_known() -> None:
    board = FaultBoard(phones={"127.0.11.50": "SEPB000B4BA0AEE"})
    board.set(fault_of(a_fault(match={"phone": "SEPB*"})))
    assert hits(board, 1, peer="127.0.11.50") == [True]
    assert hits(board, 1, peer="127.0.11.51") == [False]
    assert hits(board, 1, peer="127.0.11.50", phone="SEP000000000001") == [False], "what the request says counts more"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"skip": 2}, [False, False, True, True, True, True]),
        ({"times": 2}, [True, True, False, False, False, False]),
        ({"every": 3}, [False, False, True, False, False, True]),
        ({"skip": 1, "every": 2, "times": 1}, [False, False, True, False, False, False]),
    ],
)
def test_counts_choose_among_matching_requests(counts: dict[str, int], expected: list[bool]) -> None:
    board = FaultBoard()
    board.set(fault_of(a_fault(match={"node": "a"}, **counts)))
    hits(board, 5, node="b")
    assert hits(board, 6, node="a") == expected


def test_chances_are_the_same_in_every_run() -> None:
    def run() -> list[bool]:
        board = FaultBoard()
        board.set(fault_of(a_fault(probability=0.5, seed=7)))
        return hits(board, 40)

    first = run()
    assert first == run()
    assert True in first
    assert False in first


def test_the_first_rule_that_matches_and_is_due_wins() -> None:
    board = FaultBoard()
    board.set(fault_of(a_fault(id="once", times=1)))
    board.set(fault_of(a_fault(id="then", action="truncate")))
    assert [type(board.fire(TVS_RESPONSE)) for _ in range(2)] == [Drop, Truncate]
    assert [(status.fault.id, status.hits) for status in board] == [("once", 1), ("then", 1)]


def test_every_firing_names_the_rule_and_the_request() -> None:
    log = EventLog()
    board = FaultBoard(log.emitter("lab:faults"))
    board.set(fault_of(a_fault(id="quiet", match={"node": "a"})))
    board.at(cluster="source", node="a").fire(TVS_RESPONSE, peer="127.0.11.50")
    board.end("quiet")
    told = [record.as_json() for record in log]
    assert [one["kind"] for one in told] == ["fault.set", "fault.fired", "fault.ended"]
    assert told[1]["fault"] == "quiet"
    assert told[1]["hit"] == 1
    assert told[1]["request"] == {"cluster": "source", "node": "a", "peer": "127.0.11.50"}
    assert told[2]["hits"] == 1
    assert told[2]["missed"] is False


def test_one_that_must_fire_and_did_not_is_told_as_missed() -> None:
    board = FaultBoard()
    board.set(fault_of(a_fault(id="must", must_fire=True)))
    assert board.end("must").is_missed
    board.set(fault_of(a_fault(id="must", must_fire=True)))
    board.fire(TVS_RESPONSE)
    assert not board.end("must").is_missed


def test_ids_are_made_up_and_never_taken_twice() -> None:
    board = FaultBoard()
    board.set(fault_of(a_fault(id="fault-1")))
    assert board.set(fault_of(a_fault())).id == "fault-2"
    with pytest.raises(FaultIdTaken):
        board.set(fault_of(a_fault(id="fault-1")))
    assert [status.fault.id for status in board.end_all()] == ["fault-2", "fault-1"]
    assert not board.watches(TVS_RESPONSE)
    with pytest.raises(UsageError, match="fault-1"):
        board.end("fault-1")


def test_their_number_is_bounded() -> None:
    board = FaultBoard()
    for _ in range(MAX_FAULTS):
        board.set(fault_of(a_fault()))
    with pytest.raises(LimitExceeded):
        board.set(fault_of(a_fault()))


def test_a_fault_read_back_from_its_json_is_the_same() -> None:
    fault = fault_of(a_fault(id="x", action="truncate", match={"node": "a"}, skip=1, attributes={"bytes": 3}))
    assert fault_of(fault.as_json()) == fault_of(fault.as_json())
    assert fault_of(fault.as_json()).action == Truncate(bytes=3)


@pytest.mark.parametrize(
    ("point", "action", "mend"),
    [
        ("tvs.response", "dorp", "did you mean drop?"),
        ("tvs.response", "xyzzy", "there are: " + ", ".join(action.name for action in TVS_RESPONSE.actions)),
        ("tvs.reponse", "drop", "did you mean tvs.response?"),
        ("xyzzy", "drop", "there are: " + ", ".join(POINTS)),
    ],
)
def test_a_point_or_action_that_is_none_has_the_nearest(point: str, action: str, mend: str) -> None:
    with pytest.raises(UsageError) as refused:
        fault_of({"point": point, "action": action})
    assert refused.value.mend == mend


def test_every_point_and_action_explains_itself() -> None:
    for name, point in POINTS.items():
        assert fault_point(name) is point
        assert point.description.endswith(".")
        assert point.actions
        names = [action.name for action in point.actions]
        assert len(set(names)) == len(names)
        for action in point.actions:
            assert action.describe().endswith((".", ".)")), action
            for attribute in action.model_fields.values():
                assert attribute.description, (name, action.name)
            action.of({})  # every attribute has a default
        assert {"name", "description", "kind", "match", "actions"} == set(point.as_json())
