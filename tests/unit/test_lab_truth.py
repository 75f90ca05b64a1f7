from __future__ import annotations

import pytest
from lab_on_sockets import PHONE, make_lab, network_of

from cucm.errors import TrustReason
from cucm.events.phone import ConfigurationRefused, TrustListRefused
from lab.truth import truth_of


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
