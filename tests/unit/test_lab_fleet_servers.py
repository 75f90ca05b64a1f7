from __future__ import annotations

import pytest

from cucm.errors import EnvironmentProblem
from lab.fleet import servers
from lab.fleet.servers import phones_network


def test_fleets_side_by_side_have_networks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "FIRST_BLOCK", 252)  # not those of fleets that other tests run meanwhile
    monkeypatch.setattr(servers, "LAST_BLOCK", 253)
    with phones_network() as first:
        with (
            phones_network() as second,
            pytest.raises(EnvironmentProblem, match="networks for phones of fleets are in use"),
            phones_network(),
        ):
            pass
        with phones_network() as third:
            assert {str(first), str(second)} == {"127.252.0.0/16", "127.253.0.0/16"}
            assert third == second
