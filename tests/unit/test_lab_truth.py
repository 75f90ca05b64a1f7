from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from lab_on_sockets import PHONE, make_lab, network_of

from cucm.errors import TrustReason
from cucm.events.phone import ConfigurationRefused, TrustListRefused
from cucm.roles import CertificateUnit
from lab.operation_words import operation_of
from lab.truth import truth_of, truths_of


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        yield lab


async def test_a_new_phone_is_nowhere_and_has_nothing(lab):
    truth = truth_of(lab, PHONE, ())
    assert (truth.registered, truth.ctl, truth.itl, truth.configuration) == ("nowhere", "none", "none", "none")
    assert (truth.reasons, truth.status_messages) == ((), ())


async def test_what_a_phone_holds_is_known_by_who_served_it(lab):
    await lab.phone(PHONE).boot()
    truth = truth_of(lab, PHONE, ())
    assert (truth.registered, truth.ctl, truth.itl, truth.configuration) == ("source",) * 4
    assert "Trust List Updated" in truth.status_messages


async def test_what_no_node_served_is_unknown(lab):
    lab.phone(PHONE).flash.store(ctl=b"somebody's")
    assert truth_of(lab, PHONE, ()).ctl == "unknown"


async def test_the_callmanager_says_who_is_registered_not_the_phone(lab):
    await lab.phone(PHONE).boot()
    await lab.cluster("source").publisher.stop_service("CallManager")
    assert truth_of(lab, PHONE, ()).registered == "nowhere"


async def test_reasons_are_this_phones_each_once_in_order(lab):
    unsigned, role = TrustReason.UNSIGNED, TrustReason.SIGNER_ROLE
    for source, event in (
        (f"phone:{PHONE}", TrustListRefused("CTL", "CTLFile.tlv", role, "d")),
        (f"phone:{PHONE}", ConfigurationRefused("a", "a", None, "not XML")),
        ("phone:SEP000000000000", TrustListRefused("CTL", "CTLFile.tlv", TrustReason.MALFORMED, "d")),
        (f"phone:{PHONE}", ConfigurationRefused("a", "a", unsigned, "d")),
        (f"phone:{PHONE}", TrustListRefused("ITL", "ITLFile.tlv", role, "d")),
    ):
        lab.events.emit(source, event)
    assert truth_of(lab, PHONE, tuple(lab.events)).reasons == (role, unsigned)


async def test_lists_are_told_with_hash_signer_and_source(lab):
    await lab.phone(PHONE).boot()
    truth = truth_of(lab, PHONE, ())
    node = lab.cluster("source").publisher
    assert truth.ctl_list is not None
    assert truth.ctl_list.sha1 == hashlib.sha1(node.ctl_file.read_bytes()).hexdigest()
    assert truth.ctl_list.length == node.ctl_file.stat().st_size
    assert (truth.ctl_list.signer_cluster, truth.ctl_list.served_by) == ("source", node.address)
    signer = node.identity(CertificateUnit.CALLMANAGER)
    assert (truth.itl_list.signer, truth.itl_list.issuer) == (signer.subject, signer.issuer)
    assert truth.itl_list.serial == signer.serial.hex().upper()
    assert (truth.state, truth.node, truth.configuration_name) == ("registered", node.name, f"{PHONE}.cnf.xml")


async def test_a_signer_no_cluster_has_any_more_is_unknown(lab):
    await lab.phone(PHONE).boot()
    await lab.perform(operation_of({"do": "regenerate-certificate", "cluster": "source", "certificate": "CallManager"}))
    assert truth_of(lab, PHONE, ()).ctl_list.signer_cluster == "unknown"
    assert truth_of(lab, PHONE, ()).ctl == "source"


async def test_a_file_that_is_no_list_has_no_signer(lab):
    lab.phone(PHONE).flash.store(itl=b"somebody's")
    installed = truth_of(lab, PHONE, ()).itl_list
    assert (installed.length, installed.signer, installed.signer_cluster) == (10, "", "unknown")


async def test_call_managers_tell_what_they_know(lab):
    await lab.phone(PHONE).boot()
    (standing,) = truth_of(lab, PHONE, ()).call_managers
    assert (standing.cluster, standing.node, standing.status) == ("source", "ucm105pub", "registered")
    assert standing.sip_status == 200
    await lab.phone(PHONE).power_off()
    while truth_of(lab, PHONE, ()).registered != "nowhere":
        await asyncio.sleep(0)
    (standing,) = truth_of(lab, PHONE, ()).call_managers
    assert standing.status == "unregistered"
    assert standing.reason
    assert truth_of(lab, PHONE, ()).node is None


async def test_the_last_boots_verdicts_and_reasons(lab):
    await lab.phone(PHONE).boot()
    verdicts = {one.what: one.verdict for one in truths_of(lab)[PHONE].trust_verdicts}
    assert verdicts["CTL"] == "accepted"
    lab.set_option_150(lab.cluster("destination").tftp_addresses)
    await lab.phone(PHONE).reset()
    truth = truths_of(lab)[PHONE]
    assert truth.reasons[0] == TrustReason.TVS_NOT_FOUND
    assert {one.verdict for one in truth.trust_verdicts if one.what == "CTL"} == {TrustReason.TVS_NOT_FOUND}
    lab.set_option_150(lab.cluster("source").tftp_addresses)
    await lab.phone(PHONE).reset()
    assert truths_of(lab)[PHONE].reasons == ()


async def test_the_truth_is_json(lab):
    await lab.phone(PHONE).boot()
    value = {name: truth.as_json() for name, truth in truths_of(lab).items()}
    assert json.loads(json.dumps(value))[PHONE]["ctl_list"]["signer_cluster"] == "source"
