"""The reference of faults is the one that the code and its examples make."""

from __future__ import annotations

from pathlib import Path

from cucm.faults.catalogue import POINTS
from lab.fault_examples import fault_examples
from lab.fault_page import faults_page

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_is_fresh() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == faults_page(POINTS, fault_examples()), "mend: cucm-lab fault --markdown > docs/faults.md"


def test_the_page_names_every_point_and_action() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for point in POINTS.values():
        section = text.partition(f"### {point.name}\n")[2].partition("\n### ")[0]
        assert all(f"**`{action.name}`**" in section for action in point.actions), point.name
