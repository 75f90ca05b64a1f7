from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from cucm.net.descriptors import raise_descriptor_limit


@pytest.fixture
def low_limit() -> Iterator[int]:
    """The soft limit is below the hard one; the hard one is given, and both are put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_is_raised_as_far_as_it_goes(low_limit: int) -> None:
    assert raise_descriptor_limit() == low_limit
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low_limit, low_limit)
    assert raise_descriptor_limit() == low_limit
