from __future__ import annotations

import threading

import pytest
from lab_on_sockets import make_lab, network_of, perform, topology_of

from cucm.errors import LabError, UsageError
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.trust_list import TrustList, decode_trust_list
from lab.runtime import Lab, LabOptions
from tftp_server.cluster_view import is_mixed_mode

RECOVERY = CertificateUnit.ITLRECOVERY
CALLMANAGER = CertificateUnit.CALLMANAGER


async def lab_of(tmp_path, loopback, version, mode="mixed"):
    topology = topology_of({"name": "here", "version": version, "nodes": ["pub", "sub"], "security_mode": mode})
    return make_lab(tmp_path / "lab", network_of(loopback), topology)


def ctl(lab, node="pub") -> TrustList:
    return decode_trust_list(lab.node(node).ctl_file.read_bytes())


def signer(lab, data: bytes) -> bytes:
    """The certificate whose key made the list's own signature."""
    _, anchor = verify_trust_list(data, anchors_of(decode_trust_list(data), "the list"))
    assert anchor.certificate is not None
    return anchor.certificate


def itl_of(node) -> bytes:
    """As it lies on the node's disk."""
    return bytes((node.directory / "tftp" / "ITLFile.tlv").read_bytes())


def ctl_signer(lab) -> bytes:
    return signer(lab, lab.node("pub").ctl_file.read_bytes())


async def test_mixed_mode_off_blanks_the_records_and_on_again_fills_them(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "11.5") as lab:
        commands = lab.cluster("here").trust_lists
        with pytest.raises(LabError, match="in mixed mode already"):
            commands.set_mixed_mode()
        commands.set_non_secure_mode()
        blank = [record for record in ctl(lab).records if record.function == TrustRole.CALLMANAGER_TFTP]
        assert [record.certificate for record in blank] == [None, None]
        assert {record.function for record in ctl(lab).records} >= {TrustRole.SAST, TrustRole.CAPF}
        assert not is_mixed_mode(lab.node("pub").database)
        for refused in (commands.set_non_secure_mode, commands.update_ctl_file, commands.reset_ctl_localkey):
            with pytest.raises(LabError, match="not in mixed mode"):
                refused()
        commands.set_mixed_mode()
        full = [record for record in ctl(lab).records if record.function == TrustRole.CALLMANAGER_TFTP]
        assert len([record for record in full if record.certificate]) == 2


async def test_the_ctl_is_the_same_on_all_nodes_that_are_up(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5") as lab:
        before = lab.node("sub").ctl_file.read_bytes()
        assert before == lab.node("pub").ctl_file.read_bytes()
        await lab.cluster("here").crash_node("sub")
        await lab.cluster("here").certificates.regenerate(CALLMANAGER, "pub")
        lab.cluster("here").trust_lists.update_ctl_file()
        assert lab.node("sub").ctl_file.read_bytes() == before != lab.node("pub").ctl_file.read_bytes()
        await lab.cluster("here").start_node("sub")
        store = lab.node("sub").file_store
        assert store is not None
        assert store.read("CTLFile.tlv") == before  # what it missed does not come by itself, and it serves the old one
        await perform(lab, "restart-service", cluster="here", node="sub", service="TFTP")
        assert lab.node("sub").ctl_file.read_bytes() == before
        lab.cluster("here").trust_lists.update_ctl_file()
        assert lab.node("sub").ctl_file.read_bytes() == lab.node("pub").ctl_file.read_bytes() != before


async def test_from_12_0_on_update_copies_phone_sast_trust(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.0") as lab:
        cluster = lab.cluster("here")
        der = cluster.trust_lists.token_certificate(1)
        cluster.certificates.upload(der, CertificateUnit.PHONE_SAST_TRUST)
        assert der not in [record.certificate for record in ctl(lab).records]
        cluster.trust_lists.update_ctl_file()
        assert [record.function for record in ctl(lab).records if record.certificate == der] == [TrustRole.SAST]


@pytest.mark.parametrize(
    ("version", "normal", "reset"),
    [("10.5.2", CALLMANAGER, RECOVERY), ("11.5", CALLMANAGER, RECOVERY), ("12.5", RECOVERY, CALLMANAGER)],
)
async def test_reset_localkey_signs_with_the_other_key(tmp_path, loopback, version, normal, reset):
    async with await lab_of(tmp_path, loopback, version) as lab:
        cluster, node = lab.cluster("here"), lab.node("pub")
        assert ctl_signer(lab) == node.certificate(normal)
        cluster.trust_lists.reset_ctl_localkey()
        assert ctl_signer(lab) == node.certificate(reset)
        cluster.trust_lists.update_ctl_file()
        assert ctl_signer(lab) == node.certificate(normal)
        assert signer(lab, itl_of(node)) == node.certificate(normal)
        cluster.trust_lists.reset_itl("localkey")
        for each in ("pub", "sub"):
            assert signer(lab, itl_of(lab.node(each))) == node.certificate(reset)
            assert node.file_store.read("ITLFile.tlv") == itl_of(lab.node(each))
        await node.restart_service("TFTP")
        assert signer(lab, itl_of(node)) == node.certificate(normal)


async def test_a_reset_list_goes_to_tftp_servers_or_is_not_made(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "11.5") as lab:
        cluster, before = lab.cluster("here"), itl_of(lab.node("pub"))
        for node in ("pub", "sub"):
            await cluster.deactivate(node, "TFTP")
        with pytest.raises(LabError, match="no TFTP server that is up"):
            cluster.trust_lists.reset_itl("localkey")
        assert itl_of(lab.node("pub")) == before


async def test_reset_remotekey_takes_the_pair_exported_before(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "11.5") as lab:
        cluster, node = lab.cluster("here"), lab.node("pub")
        with pytest.raises(LabError, match="no recovery pair was exported"):
            cluster.trust_lists.reset_itl("remotekey")
        exported = node.identity(RECOVERY)
        cluster.trust_lists.export_recovery_pair()
        await cluster.certificates.regenerate(RECOVERY)
        cluster.trust_lists.reset_itl("remotekey")
        known = decode_trust_list(itl_of(node))
        assert known.signer.serial == exported.serial
        kept = list(cluster.directory.glob("ITLRecovery.exported*"))
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}


async def test_a_small_recovery_key_is_refused(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "11.5") as lab:
        await lab.cluster("here").certificates.regenerate(RECOVERY, "pub", key_bits=1024)
        with pytest.raises(LabError, match="1024 bits"):
            lab.cluster("here").trust_lists.reset_itl("localkey")


async def test_what_an_old_release_does_not_have(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "9.1", "mixed-etoken") as lab:
        commands = lab.cluster("here").trust_lists
        for refused in (commands.update_ctl_file, commands.set_mixed_mode, commands.reset_ctl_localkey):
            with pytest.raises(LabError, match="no `utils ctl` commands"):
                refused()
        with pytest.raises(LabError, match="no `utils itl reset`"):
            commands.reset_itl("localkey")


async def test_tokens(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "11.5", "mixed-etoken") as lab:
        cluster = lab.cluster("here")
        assert ctl_signer(lab) == cluster.trust_lists.token_certificate(1)
        with pytest.raises(LabError, match="signed by USB tokens"):
            cluster.trust_lists.update_ctl_file()
        cluster.trust_lists.run_ctl_client((2, 3))
        assert ctl_signer(lab) == cluster.trust_lists.token_certificate(2)
        with pytest.raises(LabError, match="does not exist in the CTL File"):
            cluster.trust_lists.run_ctl_client((1, 4))
        cluster.certificates.upload(cluster.trust_lists.token_certificate(4), CertificateUnit.PHONE_SAST_TRUST)
        cluster.trust_lists.run_ctl_client((4, 1))
        assert ctl_signer(lab) == cluster.trust_lists.token_certificate(4)
        cluster.trust_lists.set_non_secure_mode()
        assert ctl_signer(lab) == cluster.trust_lists.token_certificate(1)
        for wrong in ((1, 1), (1, 9), (1,)):
            with pytest.raises(UsageError, match="two different tokens"):
                cluster.trust_lists.run_ctl_client(wrong)
        with pytest.raises(UsageError, match="there is no token 9"):
            cluster.trust_lists.token_certificate(9)


class WatchedKeys(KeyStore):
    """Knows which keys were made by the event loop's thread."""

    def __init__(self, directory):
        super().__init__(directory)
        self.by_the_loop: list[str] = []

    def _make(self, path, kind):
        if threading.current_thread() is threading.main_thread():
            self.by_the_loop.append(path.name)
        return super()._make(path, kind)


async def test_keys_of_tokens_are_made_while_the_loop_goes_on(tmp_path, loopback):
    table = {"name": "here", "version": "11.5", "nodes": ["pub"], "security_mode": "mixed-etoken"}
    options = LabOptions(tmp_path / "lab", network_of(loopback))
    keys = WatchedKeys(tmp_path / "keys")
    async with Lab(topology_of(table), options, keys=keys) as lab:
        assert keys.by_the_loop == []
        made = keys.generated
        await perform(lab, "upload-token-certificate", cluster="here", token=3, stores=["Phone-SAST-trust"])
        await perform(lab, "run-ctl-client", cluster="here", tokens=[4, 1])
        assert keys.generated == made + 2
        await perform(lab, "set-cluster-non-secure-mode", cluster="here")
        await perform(lab, "set-cluster-mixed-mode", cluster="here")
        await perform(lab, "update-ctl-file", cluster="here")
        assert keys.generated == made + 2
        assert keys.by_the_loop == []


async def test_no_key_of_a_token_is_made_to_look_at_a_tokenless_ctl(tmp_path, loopback):
    options = LabOptions(tmp_path / "lab", network_of(loopback))
    topology = topology_of({"name": "here", "version": "12.5", "nodes": ["pub"], "security_mode": "mixed"})
    keys = WatchedKeys(tmp_path / "keys")
    async with Lab(topology, options, keys=keys) as lab:
        made = keys.generated
        await perform(lab, "update-ctl-file", cluster="here")
        await perform(lab, "set-cluster-non-secure-mode", cluster="here")
        assert keys.generated == made


async def test_a_ctl_by_tokens_becomes_tokenless(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5", "mixed-etoken") as lab:
        cluster = lab.cluster("here")
        commands = cluster.trust_lists
        # a phone that knows a token only is to believe the next list too: its certificate is copied into that one
        cluster.certificates.upload(commands.token_certificate(1), CertificateUnit.PHONE_SAST_TRUST)
        commands.set_mixed_mode()
        assert ctl_signer(lab) == lab.node("pub").identity(RECOVERY).certificate_der
        assert commands.token_certificate(1) in [record.certificate for record in ctl(lab).records]
        with pytest.raises(LabError, match="in mixed mode already"):
            commands.set_mixed_mode()
        await cluster.certificates.regenerate(CALLMANAGER, "pub")
        commands.update_ctl_file()  # it lists a token, but is not by tokens
        assert lab.node("pub").identity(CALLMANAGER).certificate_der in [
            record.certificate for record in ctl(lab).records
        ]
        commands.set_non_secure_mode()
        assert ctl_signer(lab) == lab.node("pub").identity(RECOVERY).certificate_der


async def test_a_release_without_tokens(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "15") as lab:
        with pytest.raises(LabError, match="supports no tokens"):
            lab.cluster("here").trust_lists.run_ctl_client()


async def test_the_ctl_file_is_deleted_on_one_node_or_on_all(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5") as lab:
        commands = lab.cluster("here").trust_lists
        commands.delete_ctl_file("sub")
        assert (lab.node("pub").ctl_file.exists(), lab.node("sub").ctl_file.exists()) == (True, False)
        commands.delete_ctl_file()
        assert not lab.node("pub").ctl_file.exists()
        with pytest.raises(UsageError, match="no node 'nobody'"):
            commands.delete_ctl_file("nobody")


async def test_nothing_is_signed_while_the_publisher_is_down(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5") as lab:
        await lab.cluster("here").crash_node("pub")
        for refused in (
            lab.cluster("here").trust_lists.update_ctl_file,
            lambda: lab.cluster("here").trust_lists.reset_itl("localkey"),
        ):
            with pytest.raises(LabError, match="the publisher pub is down"):
                refused()


async def test_a_blank_record_holds_name_function_and_address_only(tmp_path, loopback):
    """33 bytes for a name of 12 letters, as in Cisco's sample (facts 3.2)."""
    topology = topology_of({"name": "here", "version": "10.5.2", "nodes": ["cucm-b-12345"]})
    async with make_lab(tmp_path / "lab", network_of(loopback), topology) as lab:
        lab.cluster("here").trust_lists.set_non_secure_mode()
        (blank,) = [each for each in ctl(lab, "cucm-b-12345").records if each.function == TrustRole.CALLMANAGER_TFTP]
        assert blank.length == 33
        assert [element.tag for element in blank.elements] == [1, 2, 4, 10]


@pytest.mark.parametrize("mode", ["mixed", "mixed-etoken"])
async def test_when_the_ctl_cannot_be_built_the_mode_stays(tmp_path, loopback, mode):
    async with await lab_of(tmp_path, loopback, "11.5", mode) as lab:
        cluster, before = lab.cluster("here"), lab.node("pub").ctl_file.read_bytes()
        cluster.set_parameter("TFTP File Signature Algorithm", "none of these")
        with pytest.raises(UsageError, match="no signature algorithm"):
            cluster.trust_lists.set_non_secure_mode()
        assert is_mixed_mode(lab.node("pub").database)
        assert lab.node("pub").ctl_file.read_bytes() == before
        cluster.set_parameter("TFTP File Signature Algorithm", "SHA-512")
        cluster.trust_lists.set_non_secure_mode()
        assert ctl(lab).digest.name == "SHA512"


async def test_an_old_cluster_whose_ctl_was_deleted_can_be_made_non_secure(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "9.1", "mixed-etoken") as lab:
        commands = lab.cluster("here").trust_lists
        commands.delete_ctl_file()
        commands.set_non_secure_mode()
        assert not is_mixed_mode(lab.node("pub").database)
        assert not lab.node("pub").ctl_file.exists()
        commands.run_ctl_client((3, 4))  # no list names tokens any more: any will do
        assert ctl_signer(lab) == commands.token_certificate(3)


async def test_an_update_replaces_a_damaged_ctl(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5") as lab:
        path = lab.node("pub").ctl_file
        path.write_bytes(path.read_bytes()[:1000])
        lab.cluster("here").trust_lists.update_ctl_file()
        assert ctl_signer(lab) == lab.node("pub").certificate(RECOVERY)


async def test_nothing_is_deleted_on_a_node_that_is_down(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5") as lab:
        commands = lab.cluster("here").trust_lists
        await lab.cluster("here").crash_node("sub")
        with pytest.raises(LabError, match="sub is down"):
            commands.delete_ctl_file("sub")
        commands.delete_ctl_file()
        assert (lab.node("pub").ctl_file.exists(), lab.node("sub").ctl_file.exists()) == (False, True)


@pytest.mark.parametrize("how", ["stop_service", "crash_service"])
async def test_a_reset_itl_lies_on_a_node_whose_tftp_is_down_until_it_starts(tmp_path, loopback, how):
    async with await lab_of(tmp_path, loopback, "11.5") as lab:
        sub = lab.node("sub")
        own = signer(lab, itl_of(sub))
        assert own == sub.certificate(CALLMANAGER)
        await getattr(sub, how)("TFTP")
        lab.cluster("here").trust_lists.reset_itl("localkey")
        assert itl_of(sub) == itl_of(lab.node("pub"))
        assert signer(lab, itl_of(sub)) == lab.node("pub").certificate(RECOVERY)
        await sub.start_service("TFTP")
        assert signer(lab, itl_of(sub)) == own


async def test_a_reset_itl_is_served_until_the_itl_has_something_new_to_say(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "11.5") as lab:
        cluster, node = lab.cluster("here"), lab.node("pub")
        since = len(lab.events)
        cluster.trust_lists.reset_itl("localkey")
        kinds = [record.event.kind for record in lab.events.since(since)]
        assert kinds.count("itl_reset.transferred") == 2
        assert signer(lab, node.file_store.read("ITLFile.tlv")) == node.certificate(RECOVERY)
        await cluster.deactivate("sub", "TVS")
        assert signer(lab, node.file_store.read("ITLFile.tlv")) == node.certificate(CALLMANAGER)
