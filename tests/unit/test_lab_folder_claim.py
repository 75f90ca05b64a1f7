from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from cucm.errors import EnvironmentProblem, UsageError
from lab.folder_claim import claim_folder
from lab.topology import load_topology

HERE, THERE = IPv4Network("127.0.11.0/24"), IPv4Network("127.0.12.0/24")
SEED = load_topology("two-clusters")


def test_a_folder_is_claimed_once_and_resumed_by_its_like_only(tmp_path):
    folder = tmp_path / "a" / "lab"
    claim_folder(folder, SEED, HERE, 0)
    (folder / ".new-half").write_bytes(b"half")
    claim_folder(folder, SEED, HERE, 0)
    assert [path.name for path in folder.iterdir()] == ["lab.json"]
    assert folder.stat().st_mode & 0o777 == 0o700
    other = load_topology("campus")
    for wrong, what in (
        ((SEED, THERE, 0), "another network"),
        ((SEED, HERE, 1), "another seed"),
        ((other, HERE, 0), "another topology"),
        ((other, THERE, 7), "another network and seed and topology"),
    ):
        with pytest.raises(UsageError, match=what) as refused:
            claim_folder(folder, *wrong)
        assert refused.value.where == str(folder)


@pytest.mark.parametrize("name", ["campus", "large-cluster", "model-mix", "eight-to-twelve", "old-phones"])
def test_every_kind_of_topology_is_recognised_again(tmp_path, name):
    for _ in range(2):
        claim_folder(tmp_path, load_topology(name), HERE, 2**70)


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"{", "cannot be read"), (b"[" * 100_000, "cannot be read"), (b"[]", "of a lab with another"), (b"\xff", "read")],
)
def test_a_folder_that_does_not_tell_what_it_is(tmp_path, content, what):
    (tmp_path / "lab.json").write_bytes(content)
    (tmp_path / ".new-of-others").write_bytes(b"")
    with pytest.raises(UsageError, match=what):
        claim_folder(tmp_path, SEED, HERE, 0)
    assert (tmp_path / ".new-of-others").exists()


def test_what_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in ("file", "file/below"):
        with pytest.raises(EnvironmentProblem, match="cannot be made"):
            claim_folder(tmp_path / place, SEED, HERE, 0)
