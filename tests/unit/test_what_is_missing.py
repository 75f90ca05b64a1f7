"""A missing tool is seen: skipped where people work, a failure in CI."""

from __future__ import annotations

import pytest
from what_is_missing import lacking


@pytest.mark.parametrize(
    ("ci", "ending"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception), ("1", pytest.skip.Exception)]
)
def test_what_is_lacking(monkeypatch, ci, ending):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(ending, match="needs gcc"):
        lacking("needs gcc")
