from __future__ import annotations

import socket
from pathlib import Path

import pytest
from lab_on_sockets import PHONE, network_of

from cucm.errors import AddressBusy, StoryError, TrustReason, UsageError
from cucm.events.administration import StoryEnded
from lab.runtime import LabOptions
from lab.scenario import ExpectedPhone, Story, load_story, play
from lab.topology import packaged
from lab.truth import PhoneTruth

BOOT = {"do": "boot-phone", "phone": PHONE}


def story(*acts: dict[str, object], **more: object) -> Story:
    table = {"schema": 1, "title": "t", "teaches": "t", "topology": "two-clusters", "acts": acts}
    return Story.model_validate(table | more)


def act(*steps: dict[str, object], **more: object) -> dict[str, object]:
    return {"title": "an act", "steps": steps} | more


FAILURE = {"cause": "c", "repair": "r"}


@pytest.fixture
def options(tmp_path, loopback) -> LabOptions:
    return LabOptions(tmp_path / "lab", network_of(loopback))


@pytest.mark.parametrize(
    ("acts", "failure"),
    [
        ((act(BOOT), act(BOOT)), FAILURE),
        ((act(BOOT, repairs=True), act(BOOT)), FAILURE),
        ((act(BOOT), act(BOOT, repairs=True)), None),
        ((act(),), None),
        ((), None),
    ],
)
def test_stories_that_make_no_sense(acts, failure):
    with pytest.raises(ValueError):
        story(*acts, failure=failure)


def test_a_failure_story_repairs_in_its_last_act():
    assert story(act(BOOT), act(BOOT, repairs=True), failure=FAILURE).failure


@pytest.mark.parametrize("name", packaged("scenarios"))
def test_packaged_stories_can_be_read_and_failures_have_evidence(name):
    loaded = load_story(name)[1]
    assert loaded.failure is None or loaded.failure.evidence


def test_a_story_of_ones_own_names_a_topology_beside_it(tmp_path, monkeypatch):
    text = packaged("scenarios")["migrate"].read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('"two-clusters"', '"./lab.toml"'), encoding="utf-8")
    monkeypatch.chdir(tmp_path.parent)
    name, loaded = load_story(f"{tmp_path.name}/mine.toml")
    assert name == "mine"
    assert Path(loaded.topology) == tmp_path / "lab.toml"


def test_differences_name_what_is_not_as_expected():
    truth = PhoneTruth("nowhere", "source", "none", "unknown", (TrustReason.UNSIGNED,), ())
    expected = ExpectedPhone(registered="source", ctl="source", reasons=(TrustReason.MALFORMED, TrustReason.UNSIGNED))
    assert expected.differences(truth) == [
        "registered should be source, is nowhere",
        "reason malformed should be met, met: unsigned",
    ]
    assert ExpectedPhone().differences(truth) == []


async def test_an_end_that_is_not_as_expected_is_told(options):
    wrong = act(BOOT, expect={PHONE: {"registered": "destination"}})
    result, _, _ = await play("x", story(wrong), options)
    assert not result.ended_as_expected
    assert result.differences == [f"after “an act”: {PHONE}: registered should be destination, is source"]
    assert result.as_json()["acts"][0]["phones"][PHONE]["registered"] == "source"


async def test_evidence_must_appear_in_the_act_before_the_repair(options):
    """The line is in the log, but of the act in which all was well."""
    evidence = [{"log": f"phone-{PHONE}", "line": "leap of faith"}]
    failure = FAILURE | {"evidence": evidence}
    healthy, failing, repair = act(BOOT), act({"do": "power-off-phone", "phone": PHONE}), act(BOOT, repairs=True)
    result, _, book = await play("x", story(healthy, failing, repair, failure=failure), options)
    assert book.contains(f"phone-{PHONE}", "leap of faith", {})
    assert result.missing_evidence == [f"phone-{PHONE}.log: leap of faith"]
    assert not result.ended_as_expected


async def test_evidence_in_the_failing_act_is_found(options):
    failure = FAILURE | {"evidence": [{"log": f"phone-{PHONE}", "line": "leap of faith"}]}
    result, _, _ = await play("x", story(act(BOOT), act(BOOT, repairs=True), failure=failure), options)
    assert result.missing_evidence == []


async def test_an_operation_that_is_refused_breaks_the_story_off(options):
    refused = {"do": "alter-ctl-file", "cluster": "source", "from_end": 1_000_000}
    result, lab, _ = await play("x", story(act(BOOT), act(refused), act(BOOT)), options)
    assert [one.title for one in result.acts] == ["an act"]
    assert result.broken is not None
    assert result.broken.startswith("act 2, “ucm105pub: one byte of CTLFile.tlv changes on the disk”: ")
    assert "bytes only" in result.broken
    assert "give a smaller number" in result.broken
    assert not result.ended_as_expected
    ended = [record.sequence for record in lab.events if isinstance(record.event, StoryEnded)]
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (act({"do": "boot-phone", "phone": "SEP000000000000"}), "no phone 'SEP000000000000'"),
        (act({"do": "update-ctl-file", "cluster": "sauce"}), "no cluster 'sauce'"),
        (act(BOOT, expect={"SEP000000000000": {}}), "no phone or group of phones 'SEP000000000000'"),
    ],
)
async def test_names_are_checked_before_anything_happens(options, wrong, what):
    acts: list[int] = []
    with pytest.raises(StoryError, match=what) as refused:
        await play("mine", story(act(BOOT), wrong), options, after_act=lambda _lab, number: acts.append(number))
    assert refused.value.where == "mine, act 2 “an act”"
    assert refused.value.mend
    assert acts == []


async def test_a_lab_that_cannot_start_is_no_result(options):
    with socket.socket() as taken:
        taken.bind((str(options.network[51]), 2445))
        taken.listen()
        with pytest.raises(AddressBusy):
            await play("x", story(act(BOOT)), options)
    result, _, _ = await play("x", story(act(BOOT)), LabOptions(options.directory / "again", options.network))
    assert result.broken is None


async def test_an_unknown_topology(options):
    with pytest.raises(UsageError, match="no topology 'nosuch'"):
        await play("x", story(act(BOOT), topology="nosuch"), options)


# -- faults ----------------------------------------------------------------------------------------------------------


def faulty(**changes: object) -> dict[str, object]:
    return {"id": "it", "point": "dhcp.request", "action": "no-answer", **changes}


async def test_a_fault_lasts_as_long_as_its_act(options):
    played = story(act(BOOT, faults=[faulty()]), act({"do": "reset-phone", "phone": PHONE}))
    result, lab, _ = await play("x", played, options)
    assert result.ended_as_expected
    assert [act.truths[PHONE].registered for act in result.acts] == ["nowhere", "source"]
    assert list(lab.faults) == []


@pytest.mark.parametrize(("match", "ended_well"), [({"phone": PHONE}, True), ({"phone": "SEP0"}, False)])
async def test_a_fault_that_must_fire_and_does_not_fails_the_story(options, match, ended_well):
    played = story(act(BOOT, faults=[faulty(match=match, must_fire=True)]))
    result, _, _ = await play("x", played, options)
    assert result.ended_as_expected is ended_well
    assert result.differences == (
        [] if ended_well else ["after “an act”: fault it (dhcp.request) should have hit, and did not"]
    )


def test_a_fault_that_cannot_be_is_told_where_it_stands():
    with pytest.raises(ValueError, match=r"did you mean dhcp\.request") as refused:
        story(act(BOOT, faults=[faulty(point="dhcp.requests")]))
    assert "acts.0.faults.0" in str(refused.value)


async def test_a_state_that_fits_nothing_breaks_the_story_in_words(options):
    played = story(act(BOOT, faults=[{"point": "node.machine", "action": "crash", "match": {"node": "zz"}}]))
    result, _, _ = await play("x", played, options)
    assert result.broken is not None
    assert "act 1, “fault crash at node.machine”" in result.broken
