from __future__ import annotations

import pytest
from own_block import PART

from cucm.errors import EnvironmentProblem
from lab.fleet import servers
from lab.fleet.servers import phones_network


def test_fleets_side_by_side_have_networks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "FIRST_BLOCK", PART.block)  # not those of fleets that other tests run meanwhile
    monkeypatch.setattr(servers, "LAST_BLOCK", PART.block)
    with phones_network() as first:
        assert str(first) == f"127.{PART.block}.0.0/16"
        with pytest.raises(EnvironmentProblem, match="networks for phones of fleets are in use"), phones_network():
            pass
    with phones_network() as again:
        assert again == first
