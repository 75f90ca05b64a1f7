"""The page of all stories is the one their files make."""

from __future__ import annotations

from pathlib import Path

from lab.scenario import load_story
from lab.story_page import scenarios_page
from lab.topology import packaged

PAGE = Path(__file__).parents[2] / "docs" / "scenarios.md"


def test_the_page_is_fresh() -> None:
    stories = {name: load_story(name)[1] for name in packaged("scenarios")}
    text = PAGE.read_text(encoding="utf-8")
    assert text == scenarios_page(stories), "mend: cucm-lab scenarios --markdown > docs/scenarios.md"
