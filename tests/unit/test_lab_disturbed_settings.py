from __future__ import annotations

import pytest

from cucm.errors import UsageError
from lab.disturbed_settings import DISTURBED_NAME, DisturbedSettings, LinksBefore


def test_the_file_says_how_links_were_and_goes_with_the_last_fault(tmp_path):
    settings = DisturbedSettings(tmp_path / DISTURBED_NAME)
    settings.lags.lay(("sub",), "a", 60.0, before=5.0)
    settings.pauses.lay(("sub",), "b", True, before=False)
    settings.keep()
    assert DisturbedSettings(tmp_path / DISTURBED_NAME).left_over() == LinksBefore({"sub": 5.0}, {"sub": False})
    settings.lags.take_away(("sub",), "a")
    settings.keep()
    assert settings.left_over() == LinksBefore({}, {"sub": False})
    settings.pauses.take_away(("sub",), "b")
    settings.keep()
    assert settings.left_over() == LinksBefore({}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"lags": {"a": "soon"}, "pauses": {}}', '{"lags": 1, "pauses": 2}']
)
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / DISTURBED_NAME).write_text(content)
    with pytest.raises(UsageError, match="does not tell how links were before a fault") as raised:
        DisturbedSettings(tmp_path / DISTURBED_NAME).left_over()
    assert "delete it" in (raised.value.mend or "")
