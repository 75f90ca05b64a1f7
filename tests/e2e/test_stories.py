"""Every packaged story on real sockets, and what must hold whatever the story."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Play

from cucm.events import files, phone
from lab.scenario import Story, load_story
from lab.topology import packaged

STORIES = sorted(packaged("scenarios"))
PHONE = "SEPB000B4BA0AEE"


@pytest.mark.parametrize("name", STORIES)
async def test_story_ends_as_it_should(name: str, play_story: Play) -> None:
    played = await play_story(name)
    assert played.result.broken is None
    assert played.result.differences == []
    assert played.result.missing_evidence == []
    assert len(played.result.acts) == len(played.result.story.acts)


@pytest.mark.parametrize("name", [name for name in STORIES if load_story(name)[1].failure])
async def test_a_failure_story_needs_its_repair(name: str, play_story: Play) -> None:
    """Without the operations of the last act, and with the faults of the one before, the resets alone do not help."""
    _, story = load_story(name)
    last = story.acts[-1]
    only_resets = tuple(step for step in last.steps if step.do == "reset-phone")
    unmended = last.model_copy(update={"steps": only_resets, "faults": story.acts[-2].faults})
    unrepaired = story.model_copy(update={"acts": (*story.acts[:-1], unmended)})
    played = await play_story(unrepaired)
    assert played.result.broken is None
    assert played.result.acts[-1].differences


async def test_the_query_and_answer_have_the_published_sizes_and_heads(play_story: Play) -> None:
    played = await play_story("migrate")
    sent = [record.event.message for record in played.lab.events if isinstance(record.event, phone.TvsRequestSent)]
    received = [r.event.message for r in played.lab.events if isinstance(r.event, phone.TvsResponseReceived)]
    assert [len(message) for message in sent] == [153]
    assert sent[0][:50] == PUBLISHED_REQUEST
    assert [len(message) for message in received] == [1480]
    assert received[0][:50] == PUBLISHED_RESPONSE


async def test_only_the_new_ctl_needs_tvs(play_story: Play) -> None:
    played = await play_story("migrate")
    accepted = [r.event for r in played.lab.events if isinstance(r.event, phone.TrustListAccepted)]
    assert [(event.trust_list, event.basis) for event in accepted] == [
        ("CTL", phone.TrustBasis.LEAP_OF_FAITH),
        ("ITL", phone.TrustBasis.CTL),
        ("CTL", phone.TrustBasis.TVS),
        ("ITL", phone.TrustBasis.CTL),
    ]


async def test_a_second_reset_after_the_migration_changes_nothing(play_story: Play) -> None:
    _, story = load_story("migrate")
    last = story.acts[-1]
    again = last.model_copy(update={"title": "again", "steps": last.steps[-1:]})
    played = await play_story(story.model_copy(update={"acts": (*story.acts, again)}))
    assert played.result.ended_as_expected, played.result.differences
    unchanged = [r.event for r in played.lab.events if isinstance(r.event, phone.TrustListUnchanged)]
    assert [event.trust_list for event in unchanged] == ["CTL", "ITL"]


async def test_phones_of_a_cluster_put_back_to_non_secure_register_over_tcp_and_over_tls_in_mixed_mode_again(
    play_story: Play,
) -> None:
    """Configuration and CallManager go by the same mode, whatever the device's own profile says."""
    reset = {"do": "reset-phone", "phone": PHONE}
    restarts = [{"do": "restart-service", "cluster": "source", "service": name} for name in ("TFTP", "CallManager")]
    acts = [
        {"title": "at home", "steps": [{"do": "boot-phone", "phone": PHONE}]},
        {"title": "off", "steps": [{"do": "set-cluster-non-secure-mode", "cluster": "source"}, *restarts, reset]},
        {"title": "on", "steps": [{"do": "set-cluster-mixed-mode", "cluster": "source"}, *restarts, reset]},
    ]
    for act in acts:
        act["expect"] = {PHONE: {"registered": "source", "ctl": "source", "itl": "source"}}
    table = {"schema": 1, "title": "t", "teaches": "t", "topology": "two-clusters", "acts": acts}
    played = await play_story(Story.model_validate(table))
    assert played.result.ended_as_expected, (played.result.broken, played.result.differences)
    registered = [r.event.transport for r in played.lab.events if isinstance(r.event, phone.Registered)]
    assert registered == ["tls", "tcp", "tls"]


async def test_the_same_seed_gives_the_same_certificates(play_story: Play, tmp_path: Path) -> None:
    first = await play_story("migrate")
    before = _certificates(first.lab.options.directory)
    (tmp_path / "lab").rename(tmp_path / "first")
    second = await play_story("migrate")
    assert before
    assert _certificates(second.lab.options.directory) == before


async def test_every_file_served_was_asked_for(play_story: Play) -> None:
    played = await play_story("migrate")
    served = {r.event.name for r in played.lab.events if isinstance(r.event, files.FileServed)}
    assert served == {"CTLSEPB000B4BA0AEE.tlv", "ITLSEPB000B4BA0AEE.tlv", "SEPB000B4BA0AEE.cnf.xml.sgn"}


def _certificates(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.pem"))}


PUBLISHED_REQUEST = bytes.fromhex(
    "57010300000003e9008f01001801" + b"CP-8861-SEPB000B4BA0AEE".hex() + "030042" + b"CN=ucm11pu".hex()
)
"""The first 50 bytes of the technote's request (tests/vectors/vectors.json)."""
PUBLISHED_RESPONSE = bytes.fromhex(
    "570104f7000003e905be07000100" + "0205ab308205a73082048fa003020102021324000000179479b8f124ac3f3b0000000000"
)
"""The first 50 bytes of the technote's answer: the certificate's serial included."""


def test_stories_are_packaged_for_every_failure_the_readme_promises() -> None:
    stories: list[Story] = [load_story(name)[1] for name in STORIES]
    rows = {story.catalogue for story in stories if story.failure}
    assert rows >= {f"F{number}" for number in range(1, 27)} - {"F23"}  # F23, proxy TFTP: docs/fidelity.md
