from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cucm.errors import UsageError
from lab.toml_files import read_toml
from lab.topology import Topology, load_topology, packaged, packaged_file

SEED = packaged("topologies")["two-clusters"].read_text(encoding="utf-8")


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = SEED
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as refused:
        read_toml(path, Topology)
    assert refused.value.where == str(path)
    assert refused.value.mend
    return refused.value


def test_the_seeds_topology():
    topology = load_topology("two-clusters")
    nodes = {node.name: node.host for cluster in topology.clusters.values() for node in cluster.nodes}
    assert nodes == {"ucm105pub": 32, "ucm11pub": 51}
    assert [phone.name for phone in topology.phones] == ["SEPB000B4BA0AEE"]


def test_a_topology_by_path(tmp_path):
    path = changed(tmp_path, ("host = 100", "host = 101"))
    assert load_topology(str(path)).phones[0].host == 101


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("host = 100", "host = 255", "phones[1].host (line "),
        ("host = 100", "hots = 100", "is no word that is known here; did you mean host?"),
        ('"B000B4BA0AEE"', '"b000b4ba0aee"', "phones[1].mac (line "),
        ("schema = 1", "schema = 2", "schema (line 3): "),
        ('country = "AU"', 'country = "au"', "clusters.source.organization.country (line 9): "),
        ("host = 51", "host = 32", "host number used twice: 32"),
        ("host = 51", "host = 100", "host number used twice: 100"),
        ('"ucm11pub"', '"ucm105pub"', "node name used twice: ucm105pub"),
        ('lsc_from = "source"', 'lsc_from = "sauce"', "phone SEPB000B4BA0AEE names the cluster 'sauce'"),
        ('option_150 = "source"', 'option_150 = "sauce"', "option_150 names the cluster 'sauce'"),
        ("24000000179479", "2400000017947", "clusters.destination.nodes[1].certificate.CallManager.serial (line "),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, old, new, place):
    assert place in refusal(changed(tmp_path, (old, new))).what


def test_an_unknown_word_is_told_before_what_is_missing(tmp_path):
    what = refusal(changed(tmp_path, ("mac = ", "mak = "))).what
    assert what.index("phones[1].mak") < what.index("phones[1].mac")


def test_a_list_of_wrong_items_is_not_also_too_short(tmp_path):
    what = refusal(changed(tmp_path, ("host = 32", "host = 0"))).what
    assert what == "clusters.source.nodes[1].host (line 12): 0 is too little; the least is 1"


def test_of_many_problems_the_first_are_told(tmp_path):
    path = tmp_path / "many.toml"
    path.write_text("".join(f"unknown{number} = 1\n" for number in range(9)))
    what = refusal(path).what
    assert what.count("is no word") == 4
    assert what.endswith("; and 9 more")  # 5 unknown words, and schema, title, option_150 and clusters


@pytest.mark.parametrize("content", [b"a = [", b"\xff\xfe", b"a = " + b"[" * 100_000])
def test_what_is_no_toml(tmp_path, content):
    path = tmp_path / "no.toml"
    path.write_bytes(content)
    assert refusal(path).what.startswith("is not TOML: ")


def test_a_file_too_large_is_not_read_whole():
    assert "is larger than" in refusal(Path("/dev/zero")).what


def test_files_that_cannot_be_read(tmp_path):
    assert refusal(tmp_path / "none.toml").what == "cannot be read: No such file or directory"
    assert refusal(tmp_path).what == "cannot be read: Is a directory"


def test_an_unknown_name_suggests_the_nearest_or_lists_all():
    with pytest.raises(UsageError, match="no scenario 'stale-ilt'") as near:
        packaged_file("scenarios", "stale-ilt")
    assert "did you mean stale-itl?" in (near.value.mend or "")
    with pytest.raises(UsageError, match="no topology 'xyz'") as far:
        load_topology("xyz")
    assert "two-clusters" in (far.value.mend or "")


# --- precedence, ranges, references


def _given(**changes: Any) -> dict[str, Any]:
    organization = {"unit": "U", "company": "C", "locality": "L", "state": "S", "country": "NO"}
    cluster = {"organization": organization, "nodes": [{"name": "pub", "host": 10}, {"name": "sub", "host": 11}]}
    return {
        "schema": 1,
        "title": "of a test",
        "option_150": "here",
        "defaults": {
            "cluster": {"version": "11.5", "capf_name": "CAPF-00000001", "security_mode": "non-secure"},
            "node": {"domain": "default.local"},
            "phone": {"model": "CP-7821", "provisioned_in": ["here"], "serial_number": "X"},
        },
        "clusters": {"here": cluster},
        "phones": [{"mac": "00A1B2000001", "host": 100}],
    } | changes


def test_defaults_hold_where_a_table_says_nothing() -> None:
    given = _given()
    given["clusters"]["here"]["version"] = "12.5"
    given["clusters"]["here"]["nodes"][1]["domain"] = "own.local"
    given["phones"].append({"mac": "00A1B2000002", "host": 101, "model": "CP-8861"})
    topology = Topology.model_validate(given)
    here = topology.clusters["here"]
    assert (here.version, here.security_mode) == ("12.5", "non-secure")
    assert [node.domain for node in here.nodes] == ["default.local", "own.local"]
    assert [phone.model for phone in topology.phones] == ["CP-7821", "CP-8861"]
    assert [here.services_of(node) for node in here.nodes] == [
        ("CallManager", "TVS", "TFTP", "CAPF"),
        ("CallManager", "TVS", "TFTP"),
    ]


def test_a_range_of_phones() -> None:
    topology = Topology.model_validate(_given(phones=[{"mac": "00A1B20000FE", "host": 100, "count": 3, "group": "g"}]))
    assert [(phone.name, phone.host, phone.serial_number) for phone in topology.phones] == [
        ("SEP00A1B20000FE", 100, "X000"),
        ("SEP00A1B20000FF", 101, "X001"),
        ("SEP00A1B2000100", 102, "X002"),
    ]
    assert Topology.model_validate(topology.model_dump(mode="json", by_alias=True)) == topology
    assert len(topology.phones_named("g")) == len(topology.phones_named("all")) == 3
    assert [phone.host for phone in topology.phones_named("SEP00A1B20000FF")] == [101]
    with pytest.raises(UsageError, match="no phone or group of phones 'h'"):
        topology.phones_named("h")


def test_capf_is_on_the_publisher_only_from_14_on() -> None:
    given = _given()
    cluster = given["clusters"]["here"]
    cluster["nodes"][1] = {**cluster["nodes"][1], "services": ["CallManager", "CAPF"]}
    Topology.model_validate(given)
    cluster["version"] = "14"
    with pytest.raises(
        ValidationError, match=f"14 has CAPF on the publisher only, not on {cluster['nodes'][1]['name']}"
    ):
        Topology.model_validate(given)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("callmanager_groups", {"g": ["pub", "sab"]}, "CallManager group g names the node 'sab'; did you mean sub?"),
        ("device_pools", {"p": "nosuch"}, "device pool p names the CallManager group 'nosuch'; there are: Default"),
        ("version", "7.1", "unknown CUCM version '7.1'"),
        ("version", "8.6", None),
        ("installed_days_ago", 0, "greater than or equal to 1"),
        ("callmanager_groups", {"g": ["pub", "pub"]}, "CallManager group g names a node twice: pub, pub"),
        ("nodes", [{"name": "pub", "host": 10, "services": ["TVS"]}], "no node has CallManager: activate it on one"),
        ("nodes", [{"name": "pub", "host": 10, "services": ["TVS", "TVS"]}], "node pub has a service twice: TVS, TVS"),
    ],
)
def test_what_is_wrong_with_a_cluster_is_said(place: str, value: object, what: str | None) -> None:
    given = _given()
    given["clusters"]["here"][place] = value
    if what is None:
        Topology.model_validate(given)
        given["clusters"]["here"]["security_mode"] = "mixed"
        what = "8.6 has no tokenless CTL; write mixed-etoken"
    with pytest.raises(ValidationError, match=re.escape(what)):
        Topology.model_validate(given)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"phones": [{"mac": "00A1B2000001", "host": 250, "count": 9}]}, "does not fit into a /24"),
        ({"phones": [{"mac": "00A1B2000001", "host": 11}]}, "host number used twice: 11"),
        ({"sftp": {"host": 10}}, "host number used twice: 10"),
        ({"plain_servers": {"pub": {"host": 70}}}, "node name used twice: pub"),
        ({"phones": [{"mac": "00A1B2000001", "host": 100, "pool": "x"}]}, "names the device pool 'x'"),
        ({"phones": [{"mac": "00A1B2000001", "host": 100, "lsc_from": "hare"}]}, "did you mean here?"),
        (
            {
                "phones": [{"mac": "00A1B2000001", "host": 100, "group": "east"}],
                "dhcp": {"pools": {"eest": {"option_150": ["pub"]}}},
            },
            "dhcp.pools names the group of phones 'eest'; did you mean east?",
        ),
        ({"phones": [{"mac": "FFFFFFFFFFFE", "host": 100, "count": 3}]}, "no MAC address is higher than FFFFFFFFFFFF"),
        (
            {"phones": [{"mac": "00A1B2000001", "host": 100}, {"mac": "00A1B2000000", "host": 101, "count": 2}]},
            "phone used twice: 00A1B2000001",
        ),
        ({"dhcp": {"pools": {"p": {"option_150": ["pab"]}}}}, "DHCP pool p names the node 'pab'; did you mean pub?"),
    ],
)
def test_what_is_wrong_with_a_topology_is_said(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(what)):
        Topology.model_validate(_given(**changes))


def test_the_last_mac_address_there_is() -> None:
    phones = [{"mac": "FFFFFFFFFFFE", "host": 100, "count": 2}]
    assert [phone.mac for phone in Topology.model_validate(_given(phones=phones)).phones][-1] == "F" * 12


@pytest.mark.parametrize("name", sorted(packaged("topologies")))
def test_a_packaged_topology_says_itself_again(name: str) -> None:
    """What `lab.json` keeps of it is the same topology when it is read: a lab is resumed with it."""
    topology = load_topology(name)
    assert Topology.model_validate(topology.model_dump(mode="json", by_alias=True)) == topology
