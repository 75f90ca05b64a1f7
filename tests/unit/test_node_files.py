from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_on_disk import ADDRESSES, INSTALLED, MAC, MORE, NOW, PHONE, PUBLISHER, SUBSCRIBER, ClusterOnDisk
from defusedxml.ElementTree import fromstring

from cucm.certificates import node_certificate
from cucm.clock import MovableClock
from cucm.database import Device
from cucm.errors import DatabaseError, DecodeError, EnvironmentProblem, UsageError
from cucm.events import Event
from cucm.events.trust_lists import (
    FileNotSigned,
    FileSigned,
    TrustListKept,
    TrustListOutgrown,
    TrustListRefused,
    TrustListReset,
    TrustListSigned,
)
from cucm.roles import CertificateUnit
from cucm.trust import anchors_of, verify_signed_file, verify_trust_list
from cucm.versions import profile_of
from cucm.wire.trust_list import MAX_TRUST_LIST, DigestAlgorithm, decode_trust_list
from tftp_server.file_store import NotServed, NotServedReason
from tftp_server.node_files import NodeFileStore, write_ctl, write_itl
from tftp_server.trust_list_builder import KeyFolder, build_ctl, build_itl

VIRTUAL_DEVICE_NAMES = ("CTL{}.tlv", "ITL{}.tlv", "{}.cnf.xml", "{}.cnf.xml.sgn")


class Scene:
    def __init__(self, cluster: ClusterOnDisk) -> None:
        self.cluster = cluster
        self.clock = MovableClock(NOW, frozen=True)
        self.events: list[Event] = []
        self._open: list[NodeFileStore] = []
        self.store = self.start()

    def start(self) -> NodeFileStore:
        store = NodeFileStore(self.cluster.directory, PUBLISHER, self.cluster.profile, self.clock, self.events.append)
        self._open.append(store)
        return store

    def update_ctl(self) -> bytes:
        keys = KeyFolder(self.cluster.directory / "security")
        data = build_ctl(self.cluster.database, keys, self.cluster.profile, self.clock.now())
        write_ctl(self.cluster.directory, data)
        return data

    def reset_itl(self) -> bytes:
        """What `utils itl reset localkey` makes."""
        keys, profile = KeyFolder(self.cluster.directory / "security"), self.cluster.profile
        moment, unit = self.clock.now(), profile.itl_reset_signer
        return build_itl(self.cluster.database, keys, profile, PUBLISHER, moment, signer_unit=unit)

    def told(self, kind: type[Event]) -> list[Event]:
        found = [event for event in self.events if isinstance(event, kind)]
        self.events.clear()
        return found

    def close(self) -> None:
        for store in self._open:
            store.close()
        self.cluster.database.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make_scene(**options: object) -> Scene:
        made.append(Scene(ClusterOnDisk(tmp_path / f"node-{len(made)}", **options)))  # type: ignore[arg-type]
        return made[-1]

    yield make_scene
    for scene in made:
        scene.close()


@pytest.fixture
def scene(make: Callable[..., Scene]) -> Scene:
    return make(nodes=(PUBLISHER, SUBSCRIBER))


def refusal(store: NodeFileStore, name: str) -> NotServedReason:
    with pytest.raises(NotServed) as caught:
        store.read(name)
    return caught.value.reason


def test_a_device_of_the_cluster_gets_the_common_lists_under_its_own_names(scene: Scene) -> None:
    ctl = scene.update_ctl()
    assert scene.store.read(f"CTL{PHONE}.tlv") == ctl
    assert scene.store.read("CTLFile.tlv") == ctl
    itl = scene.store.read(f"ITL{PHONE}.tlv")
    assert itl == scene.store.read("ITLFile.tlv")
    verify_trust_list(itl, anchors_of(decode_trust_list(ctl), "CTL"))
    assert decode_trust_list(itl).file_name == "ITLFile.tlv"


@pytest.mark.parametrize("form", VIRTUAL_DEVICE_NAMES)
def test_a_device_the_cluster_does_not_know_gets_nothing(scene: Scene, form: str) -> None:
    scene.update_ctl()
    (scene.cluster.directory / "tftp" / form.format("SEP000000000000")).write_bytes(b"left over")
    assert refusal(scene.store, form.format("SEP000000000000")) is NotServedReason.NOT_FOUND
    assert scene.store.read(form.format(PHONE))
    scene.cluster.database.delete_device(PHONE)
    assert refusal(scene.store, form.format(PHONE)) is NotServedReason.NOT_FOUND
    scene.cluster.database.put_device(Device(PHONE, "CP-8861", "Desk", 3, "Default"))
    assert scene.store.read(form.format(PHONE))


@pytest.mark.parametrize("form", VIRTUAL_DEVICE_NAMES)
def test_a_mac_address_in_small_letters_is_the_same_device(scene: Scene, form: str) -> None:
    scene.update_ctl()
    for spelling in (f"SEP{MAC.lower()}", f"sep{MAC.lower()}"):
        assert scene.store.read(form.format(spelling)) == scene.store.read(form.format(PHONE))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "SEP.cnf.xml",
        f"{PHONE}.tlv",
        f"CTL{PHONE}.cnf.xml",
        f"CTL{PHONE}.tlv.sgn",
        "ITLFile.tlv.sgn",
        "CTLFile.tlv.sgn",
        f"{PHONE}.cnf.xml.sgn.sgn",
        f"{PHONE}.cnf.xml\n",
        f"{PHONE}0.cnf.xml",
        f"../{PHONE}.cnf.xml",
        "../node.db",
        "../security/CallManager.key",
        "ctlfile.tlv",
        "nothing",
        "nothing.sgn",
        "x" * 5000,
        "\0",
        "\ud800",
    ],
)
def test_other_names_are_not_found(scene: Scene, name: str) -> None:
    scene.update_ctl()
    assert refusal(scene.store, name) is NotServedReason.NOT_FOUND


def test_no_ctl_before_the_cluster_is_in_mixed_mode(make: Callable[..., Scene]) -> None:
    scene = make(mixed=False)
    assert refusal(scene.store, f"CTL{PHONE}.tlv") is NotServedReason.NOT_FOUND
    assert refusal(scene.store, "CTLFile.tlv") is NotServedReason.NOT_FOUND
    assert scene.store.read(f"ITL{PHONE}.tlv")


def test_an_updated_ctl_is_served_at_once_and_as_it_lies_on_the_disk(scene: Scene) -> None:
    first = scene.update_ctl()
    assert scene.store.read("CTLFile.tlv") == first
    scene.clock.move(60)
    second = scene.update_ctl()
    assert second != first
    assert scene.store.read("CTLFile.tlv") == second
    altered = second[:-1] + bytes([second[-1] ^ 1])
    (scene.cluster.directory / "tftp" / "CTLFile.tlv").write_bytes(altered)
    assert scene.store.read("CTLFile.tlv") == altered
    assert [path.name for path in (scene.cluster.directory / "tftp").glob(".new-*")] == []


def test_a_ctl_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_ctl(tmp_path / "nowhere", b"x")


def test_the_itl_is_signed_anew_only_when_it_has_something_new_to_say(scene: Scene) -> None:
    first = scene.store.read("ITLFile.tlv")
    assert len(scene.told(TrustListSigned)) == 1
    scene.clock.move(60)
    scene.cluster.database.put_device(Device("SEP001122334455", "CP-8861", "Another", 1, "Default"))
    assert scene.store.read("ITLFile.tlv") is first
    scene.store.reload()
    assert scene.store.read("ITLFile.tlv") == first
    assert scene.told(TrustListSigned) == []
    scene.cluster.install(CertificateUnit.TVS, SUBSCRIBER, label="new", not_before=NOW)
    second = scene.store.read("ITLFile.tlv")
    assert decode_trust_list(second).timestamp == int(NOW) + 60
    assert decode_trust_list(second).records != decode_trust_list(first).records
    assert len(scene.told(TrustListSigned)) == 1


def test_a_new_callmanager_certificate_signs_itl_and_configurations_from_then_on(scene: Scene) -> None:
    name = f"{PHONE}.cnf.xml.sgn"
    before = scene.store.read("ITLFile.tlv"), scene.store.read(name)
    identity = scene.cluster.install(CertificateUnit.CALLMANAGER, PUBLISHER, label="new", not_before=NOW)
    after = scene.store.read("ITLFile.tlv"), scene.store.read(name)
    assert decode_trust_list(after[0]).signer.serial == identity.serial != decode_trust_list(before[0]).signer.serial
    anchors = anchors_of(decode_trust_list(after[0]), "ITL")
    assert verify_signed_file(after[1], anchors)[1].serial == identity.serial
    assert after[1] != before[1]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("Prepare Cluster for Rollback to pre 8.0", "True"),
        ("TFTP File Signature Algorithm", "SHA-512"),
        ("ClusterSecurityMode", "0"),
    ],
)
def test_parameters_that_change_the_itl_are_followed(scene: Scene, parameter: str, value: str) -> None:
    first = scene.store.read("ITLFile.tlv")
    scene.cluster.database.set_parameter(parameter, value)
    second = scene.store.read("ITLFile.tlv")
    assert second != first
    verify_trust_list(second, anchors_of(decode_trust_list(first), "ITL"))


def test_another_start_takes_the_list_on_disk_if_it_says_the_same(scene: Scene) -> None:
    first = scene.store.read("ITLFile.tlv")
    scene.clock.move(60)
    scene.events.clear()
    assert scene.start().read("ITLFile.tlv") == first
    assert len(scene.told(TrustListKept)) == 1


@pytest.mark.parametrize("damage", [b"", b"\1\0\2", None])
def test_a_damaged_or_missing_list_on_disk_is_replaced_at_start(scene: Scene, damage: bytes | None) -> None:
    path = scene.cluster.directory / "tftp" / "ITLFile.tlv"
    first = scene.store.read("ITLFile.tlv")
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert scene.store.read("ITLFile.tlv") is first, "a running service has it in memory"
    scene.events.clear()
    scene.store.reload()
    assert path.read_bytes() == scene.store.read("ITLFile.tlv") == first
    assert len(scene.told(TrustListSigned)) == 1


def test_a_list_changed_on_disk_is_signed_anew_at_start(scene: Scene) -> None:
    path = scene.cluster.directory / "tftp" / "ITLFile.tlv"
    first = path.read_bytes()
    signature = decode_trust_list(first).signature
    path.write_bytes(first.replace(signature, bytes(len(signature))))
    assert scene.start().read("ITLFile.tlv") == first


def test_while_the_itl_cannot_be_built_the_one_before_is_served_and_building_is_tried_again(scene: Scene) -> None:
    first = scene.store.read("ITLFile.tlv")
    scene.events.clear()
    key = scene.cluster.directory / "security" / "CallManager.key"
    good = key.read_bytes()
    key.unlink()
    scene.cluster.database.set_parameter("TFTP File Signature Algorithm", "SHA-512")
    assert scene.store.read("ITLFile.tlv") is first
    assert scene.store.read("ITLFile.tlv") is first
    assert len(scene.told(TrustListRefused)) == 1, "told once, not at every request"
    key.write_bytes(good)
    assert decode_trust_list(scene.store.read("ITLFile.tlv")).digest is DigestAlgorithm.SHA512


def test_a_node_without_certificate_serves_everything_but_what_needs_one(scene: Scene) -> None:
    scene.cluster.database.delete_certificate(CertificateUnit.CALLMANAGER, PUBLISHER)
    (scene.cluster.directory / "tftp" / "ITLFile.tlv").unlink()
    scene.events.clear()
    store = scene.start()
    assert refusal(store, "ITLFile.tlv") is NotServedReason.BUSY
    assert refusal(store, f"{PHONE}.cnf.xml.sgn") is NotServedReason.BUSY
    assert store.read(f"{PHONE}.cnf.xml").startswith(b"<?xml")
    assert len(scene.told(TrustListRefused)) == 1


def test_the_configuration_is_what_the_database_says(scene: Scene) -> None:
    root = fromstring(scene.store.read(f"{PHONE}.cnf.xml").decode())
    group = root.find("devicePool/callManagerGroup")
    assert group is not None
    both = [ADDRESSES[SUBSCRIBER], ADDRESSES[PUBLISHER]]
    assert [element.text for element in group.findall("members/member/callManager/processNodeName")] == both
    assert [element.text for element in root.findall("TVS/members/member/address")] == both
    assert [element.text for element in root.findall("capfList/capf/processNodeName")] == [ADDRESSES[PUBLISHER]]
    assert root.findtext("deviceSecurityMode") == "3"
    assert root.findtext("loadInformation") == "sip88xx.10-3-1-20"


def test_only_nodes_whose_service_is_active_are_named(scene: Scene) -> None:
    scene.cluster.database.add_node(SUBSCRIBER, ADDRESSES[SUBSCRIBER], services=["CallManager"])
    scene.cluster.database.add_node(PUBLISHER, ADDRESSES[PUBLISHER], services=["TFTP", "TVS", "CAPF"])
    root = fromstring(scene.store.read(f"{PHONE}.cnf.xml").decode())
    callmanagers = root.findall("devicePool/callManagerGroup/members/member/callManager/processNodeName")
    assert [element.text for element in callmanagers] == [ADDRESSES[SUBSCRIBER]]
    assert [element.text for element in root.findall("TVS/members/member/address")] == [ADDRESSES[PUBLISHER]]


def test_in_a_non_secure_cluster_no_device_is_told_to_be_secure(make: Callable[..., Scene]) -> None:
    root = fromstring(make(mixed=False).store.read(f"{PHONE}.cnf.xml").decode())
    assert root.findtext("deviceSecurityMode") == "1"
    assert root.findtext("transportLayerProtocol") == "1"


def test_a_configuration_is_signed_once_until_its_content_changes(scene: Scene) -> None:
    name = f"{PHONE}.cnf.xml.sgn"
    first = scene.store.read(name)
    anchors = anchors_of(decode_trust_list(scene.store.read("ITLFile.tlv")), "ITL")
    assert verify_signed_file(first, anchors)[0].content == scene.store.read(f"{PHONE}.cnf.xml")
    assert verify_signed_file(first, anchors)[0].file_name == name
    scene.clock.move(60)
    scene.cluster.database.put_device(Device("SEP001122334455", "CP-8861", "Another", 1, "Default"))
    scene.store.reload()
    assert scene.store.read(name) is first
    assert len(scene.told(FileSigned)) == 1
    scene.cluster.database.put_device(Device(PHONE, "CP-8861", "Another desk", 3, "Default"))
    second = scene.store.read(name)
    assert verify_signed_file(second, anchors)[0].timestamp == int(NOW) + 60
    assert len(scene.told(FileSigned)) == 1


def test_what_is_kept_in_memory_is_bounded_and_the_oldest_goes_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tftp_server.node_files.MAX_KEPT", 2)
    names = [f"SEP00112233445{digit}" for digit in range(3)]
    for name in names:
        scene.cluster.database.put_device(Device(name, "CP-8861", "", 1, "Default"))
    files = {name: scene.store.read(f"{name}.cnf.xml.sgn") for name in names}
    assert len(scene.told(FileSigned)) == 3
    assert [scene.store.read(f"{name}.cnf.xml.sgn") is files[name] for name in names[1:]] == [True, True]
    assert scene.told(FileSigned) == []
    assert scene.store.read(f"{names[0]}.cnf.xml.sgn") is not files[names[0]]
    assert len(scene.told(FileSigned)) == 1


def test_the_default_configuration_is_there_for_everybody_plain_and_signed(scene: Scene) -> None:
    plain = scene.store.read("XMLDefault.cnf.xml")
    assert fromstring(plain.decode()).tag == "Default"
    anchors = anchors_of(decode_trust_list(scene.store.read("ITLFile.tlv")), "ITL")
    assert verify_signed_file(scene.store.read("XMLDefault.cnf.xml.sgn"), anchors)[0].content == plain


def test_static_files_are_served_and_in_mixed_mode_signed_as_well(scene: Scene) -> None:
    folder = scene.cluster.directory / "tftp"
    (folder / "ringlist.xml").write_bytes(b"<rings/>")
    assert scene.store.read("ringlist.xml") == b"<rings/>"
    anchors = anchors_of(decode_trust_list(scene.store.read("ITLFile.tlv")), "ITL")
    signed = scene.store.read("ringlist.xml.sgn")
    assert verify_signed_file(signed, anchors)[0].content == b"<rings/>"
    assert scene.store.read("ringlist.xml.sgn") is signed
    scene.cluster.database.set_parameter("ClusterSecurityMode", "0")
    assert refusal(scene.store, "ringlist.xml.sgn") is NotServedReason.NOT_FOUND
    (folder / "ringlist.xml.sgn").write_bytes(b"signed elsewhere")
    assert scene.store.read("ringlist.xml.sgn") == b"signed elsewhere"


def test_a_static_file_too_large_for_a_phone_is_not_signed(scene: Scene) -> None:
    (scene.cluster.directory / "tftp" / "firmware.loads").write_bytes(bytes(2048 * 1024 + 1))
    assert scene.store.read("firmware.loads")
    assert refusal(scene.store, "firmware.loads.sgn") is NotServedReason.NOT_FOUND


def test_static_files_never_stand_in_for_virtual_ones(scene: Scene) -> None:
    folder = scene.cluster.directory / "tftp"
    for name in (f"{PHONE}.cnf.xml", f"ITL{PHONE}.tlv", "XMLDefault.cnf.xml", "XMLDefault.cnf.xml.sgn"):
        (folder / name).write_bytes(b"static")
        assert scene.store.read(name) != b"static"


def test_a_file_that_cannot_be_signed_is_busy_and_told(scene: Scene) -> None:
    (scene.cluster.directory / "security" / "CallManager.key").unlink()
    assert refusal(scene.store, f"{PHONE}.cnf.xml.sgn") is NotServedReason.BUSY
    assert len(scene.told(FileNotSigned)) == 1


def test_a_closed_database_is_busy_not_a_crash(scene: Scene) -> None:
    scene.store.read("ITLFile.tlv")
    scene.store.close()
    assert refusal(scene.store, f"{PHONE}.cnf.xml") is NotServedReason.BUSY


def test_a_folder_that_is_no_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        NodeFileStore(tmp_path, PUBLISHER, profile_of("10.5.2"), MovableClock(NOW))
    (tmp_path / "tftp").mkdir()
    with pytest.raises(DatabaseError):
        NodeFileStore(tmp_path, PUBLISHER, profile_of("10.5.2"), MovableClock(NOW))


def test_a_reset_itl_is_served_and_on_disk_until_the_itl_has_something_new_to_say(scene: Scene) -> None:
    scene.store.read("ITLFile.tlv")
    data = scene.reset_itl()
    scene.store.serve_reset_itl(data)
    path = scene.cluster.directory / "tftp" / "ITLFile.tlv"
    assert scene.store.read(f"ITL{PHONE}.tlv") == path.read_bytes() == data
    assert len(scene.told(TrustListReset)) == 1
    scene.cluster.database.put_device(Device("SEP001122334455", "CP-8861", "Another", 1, "Default"))
    assert scene.store.read("ITLFile.tlv") == data, "a change that is none of the ITL's"
    scene.cluster.install(CertificateUnit.TVS, SUBSCRIBER, label="new", not_before=NOW)
    after = scene.store.read("ITLFile.tlv")
    assert after == path.read_bytes()
    assert decode_trust_list(after).signer.serial == own_serial(scene, CertificateUnit.CALLMANAGER)


def own_serial(scene: Scene, unit: CertificateUnit) -> bytes:
    return scene.cluster.identities[unit, PUBLISHER].serial


@pytest.mark.parametrize("transfer", ["to the service", "to the disk"])
def test_a_start_of_the_service_puts_its_own_itl_in_the_place_of_a_reset_one(scene: Scene, transfer: str) -> None:
    first, data = scene.store.read("ITLFile.tlv"), scene.reset_itl()
    if transfer == "to the disk":
        write_itl(scene.cluster.directory, data)
        assert scene.store.read("ITLFile.tlv") == first, "a running service does not look at its disk"
    else:
        scene.store.serve_reset_itl(data)
    assert scene.start().read("ITLFile.tlv") == first
    assert (scene.cluster.directory / "tftp" / "ITLFile.tlv").read_bytes() == first


def test_a_reset_itl_is_served_where_the_key_of_the_normal_one_is_lost(scene: Scene) -> None:
    data = scene.reset_itl()
    (scene.cluster.directory / "security" / "CallManager.key").unlink()
    (scene.cluster.directory / "tftp" / "ITLFile.tlv").unlink()
    store = scene.start()
    assert refusal(store, "ITLFile.tlv") is NotServedReason.BUSY
    store.serve_reset_itl(data)
    assert store.read("ITLFile.tlv") == data


def test_what_is_no_itl_does_not_become_the_reset_one(scene: Scene) -> None:
    first = scene.store.read("ITLFile.tlv")
    for data, error in ((scene.update_ctl(), UsageError), (b"", DecodeError), (b"\x01\x00\x02\x01\x02", DecodeError)):
        with pytest.raises(error):
            scene.store.serve_reset_itl(data)
    header_alone = first[: decode_trust_list(first).header_length]
    with pytest.raises(UsageError, match="no ITL"):
        scene.store.serve_reset_itl(header_alone)
    assert scene.store.read("ITLFile.tlv") == first
    assert scene.told(TrustListReset) == []


@pytest.mark.parametrize(("version", "lists_tvs"), [("8.6.2", False), ("9.1.2", True), ("12.5.1", True)])
def test_the_default_configuration_of_8_6_lists_no_tvs(
    make: Callable[..., Scene], version: str, lists_tvs: bool
) -> None:
    scene = make(version=version)
    default = fromstring(scene.store.read("XMLDefault.cnf.xml").decode())
    assert (default.find("TVS") is not None) == lists_tvs
    assert fromstring(scene.store.read(f"{PHONE}.cnf.xml").decode()).find("TVS") is not None


def test_an_itl_that_phones_will_not_load_is_served_all_the_same_and_told(scene: Scene) -> None:
    """Facts 3.5: about 39 certificates. One key for all: what counts is their number."""
    for node in MORE[:40]:
        scene.cluster.database.add_node(node, ADDRESSES[node], services=["TVS"])
        tvs = node_certificate(
            scene.cluster.keys, CertificateUnit.TVS, node, seed=1, not_before=INSTALLED, key_label="TVS of many"
        )
        scene.cluster.database.put_certificate(
            tvs.certificate_der, CertificateUnit.TVS, node, ADDRESSES[node], moment=NOW
        )
    assert scene.told(TrustListOutgrown) == []
    data = scene.store.read("ITLFile.tlv")
    assert len(data) > MAX_TRUST_LIST
    assert len(decode_trust_list(data).records) == 46
    assert scene.events[-1] == TrustListOutgrown("ITLFile.tlv", len(data), MAX_TRUST_LIST)
    scene.events.clear()
    assert scene.start().read("ITLFile.tlv") == data
    assert len(scene.told(TrustListOutgrown)) == 1
