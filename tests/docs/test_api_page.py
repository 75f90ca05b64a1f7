"""The page of the API is the one that its description makes, and names every resource."""

from __future__ import annotations

from pathlib import Path

from lab.api.page import document, page_of

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_of(document()), "mend: python -m lab.api.page > docs/api.md"


def test_the_page_names_every_resource_and_explains_every_type() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path, methods in document()["paths"].items():
        assert all(f"`{method.upper()} {path}`" in text for method in methods)
    linked = {part.partition(")")[0] for part in text.split("](#")[1:]}
    assert linked <= {line[4:].lower() for line in text.splitlines() if line.startswith("### ")}
