"""What a test needs of the machine and does not find: a visible skip for people, a failure where all must be there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(text: str) -> NoReturn:
    """Skip the test, or the module, because of what `text` says; with CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text, allow_module_level=True)
