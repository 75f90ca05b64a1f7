from __future__ import annotations

from typing import Any

from lab.operations import BootPhone, SetOption150, UpdateCtlFile, UploadCertificate
from lab.scenario import Story, load_story
from lab.story_page import scenarios_page, step_words
from lab.topology import packaged

PHONE = "SEPB000B4BA0AEE"


def story(**more: Any) -> Story:
    acts = [{"title": "Up", "steps": [{"do": "boot-phone", "phone": PHONE}], "expect": {PHONE: {}}}]
    return Story.model_validate(
        {"schema": 1, "title": "t", "teaches": "why", "topology": "two-clusters", "acts": acts} | more
    )


def failing(row: str) -> Story:
    act = {
        "title": "Mend",
        "repairs": True,
        "steps": [{"do": "reset-phone", "phone": PHONE}],
        "expect": {PHONE: {"registered": "source", "ctl": "none", "reasons": ["tvs-unreachable"]}},
    }
    evidence = [{"log": "tvs-ucm105pub", "line": "a `b` <c>"}]
    return story(catalogue=row, acts=[act], failure={"cause": "c*s*", "repair": "r", "evidence": evidence})


def test_steps_in_words_of_their_fields() -> None:
    upload = {
        "do": "upload-certificate",
        "certificate": "CallManager",
        "from": "destination",
        "to": "source",
        "stores": ["CallManager-trust", "Phone-SAST-trust"],
        "note": "step <1>",
    }
    assert step_words(UploadCertificate.model_validate(upload)) == (
        "upload certificate `CallManager`, from `destination`, to `source`, "
        r"stores `CallManager-trust` and `Phone-SAST-trust` – step \<1\>"
    )
    assert step_words(BootPhone(do="boot-phone", phone=PHONE)) == f"boot phone `{PHONE}`"
    assert step_words(SetOption150(do="set-option-150", cluster="source")) == "set option 150, cluster `source`"
    update = UpdateCtlFile.model_validate(
        {"do": "update-ctl-file", "cluster": "source", "refused": "not in mixed mode"}
    )
    assert step_words(update) == "update CTL file, cluster `source`; refused: not in mixed mode"


def test_the_table_has_successes_first_and_rows_in_order() -> None:
    stories = {"ten": failing("F10"), "two": failing("F2"), "good": story(title="a | b")}
    table = [line for line in scenarios_page(stories).splitlines() if line.startswith("| [")]
    assert table == [r"| [good](#good) |  | a \| b |", "| [two](#two) | F2 | t |", "| [ten](#ten) | F10 | t |"]


def test_a_failure_story_tells_everything() -> None:
    page = scenarios_page({"bad": failing("F2")})
    assert page.endswith("\n")
    for line in (
        "## bad",
        "Topology: `two-clusters`. Failure catalogue: F2.",
        "1. Mend (the repair)",
        f"   - reset phone `{PHONE}`",
        f"   - expected of `{PHONE}`: registered `source`, CTL `none`, meets `tvs-unreachable`",
        r"Cause: c\*s\*",
        "Repair: r",
        "- `tvs-ucm105pub`: ``a `b` <c>``",
    ):
        assert line in page.splitlines()


def test_every_packaged_story_has_its_section() -> None:
    stories = {name: load_story(name)[1] for name in packaged("scenarios")}
    page = scenarios_page(stories).splitlines()
    assert [f"## {name}" for name in stories if f"## {name}" not in page] == []
