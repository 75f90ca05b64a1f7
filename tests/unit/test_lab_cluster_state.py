from __future__ import annotations

import json

import pytest

from cucm.errors import EnvironmentProblem, UsageError
from cucm.roles import CertificateUnit
from lab.cluster_state import ClusterState

UNIT = CertificateUnit.CALLMANAGER


def test_what_is_remembered_is_there_for_the_next_one(tmp_path):
    path = tmp_path / "cluster.json"
    state = ClusterState(path)
    assert (state.is_installed, state.generation(UNIT, "pub"), state.tvs_cache) == (False, 0, None)
    assert [state.begin_generation(UNIT, "pub") for _ in range(2)] == [1, 2]
    state.mark_installed()
    state.set_tvs_cache("stale-until-restart")
    again = ClusterState(path)
    assert (again.is_installed, again.generation(UNIT, "pub"), again.generation(UNIT, "sub")) == (True, 2, 0)
    assert again.tvs_cache == "stale-until-restart"


@pytest.mark.parametrize("broken", [b"", b"[]", b"{", b'{"generations": 1}', b"[" * 100_000, b"\xff"])
def test_what_is_no_state_is_told(tmp_path, broken):
    (tmp_path / "cluster.json").write_bytes(broken)
    with pytest.raises(UsageError, match="state") as refused:
        ClusterState(tmp_path / "cluster.json")
    assert refused.value.where == str(tmp_path / "cluster.json")
    assert refused.value.mend


def test_more_than_a_state_is_not_read_whole(tmp_path):
    text = json.dumps({"installed": True, "generations": {}, "more": "x" * 2_000_000})
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(UsageError, match="cannot be read as a lab's state"):
        ClusterState(tmp_path / "cluster.json")


def test_a_generation_that_cannot_be_written_down_is_told(tmp_path):
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        ClusterState(tmp_path / "nowhere" / "cluster.json").begin_generation(UNIT, "pub")
