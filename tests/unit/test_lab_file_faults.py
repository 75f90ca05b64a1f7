"""Faults of the file service in a running lab: whom they hit, and that the ground truth stays true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from lab_on_sockets import PHONE, make_lab, network_of, perform

from cucm.errors import TrustReason
from lab.runtime import Lab
from lab.truth import PhoneTruth, truth_of
from phone_agent.state import PhoneState


@pytest.fixture
async def lab(tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[Lab]:
    async with make_lab(tmp_path / "lab", network_of(loopback)) as made:
        yield made


async def set_fault(lab: Lab, point: str, action: str, match: dict[str, str] | None = None, **attributes: Any) -> None:
    await lab.set_fault({"id": "it", "point": point, "action": action, "match": match or {}, "attributes": attributes})


def hit(lab: Lab) -> list[dict[str, str]]:
    return [record.as_json()["request"] for record in lab.events if record.event.kind == "fault.fired"]


async def boot_anew(lab: Lab) -> PhoneTruth:
    begins = lab.events.last_sequence
    await perform(lab, "boot-phone" if lab.phone(PHONE).state is PhoneState.OFF else "reset-phone", phone=PHONE)
    return truth_of(lab, PHONE, lab.events.since(begins))


@pytest.mark.parametrize(("point", "action"), [("http.response", "status"), ("tftp.request", "error")])
async def test_a_request_is_told_with_cluster_node_and_phone(lab: Lab, point: str, action: str) -> None:
    match = {"cluster": "source", "node": "ucm105pub", "phone": PHONE, "file": "CTL*"}
    if point == "tftp.request":
        await lab.set_fault({"point": "http.response", "action": "status", "match": {"file": "CTL*"}})
    await set_fault(lab, point, action, match)
    await lab.phone(PHONE).boot()
    fired = hit(lab)[-1]
    assert fired == match | {"service": "TFTP", "peer": fired["peer"], "file": f"CTL{PHONE}.tlv"}


async def test_other_nodes_and_phones_are_not_hit(lab: Lab) -> None:
    await set_fault(lab, "file.content", "truncated", {"node": "ucm11pub"}, bytes=1)
    assert (await boot_anew(lab)).ctl == "source"
    assert hit(lab) == []


@pytest.mark.parametrize("action", ["wrong-signer", "tampered"])
async def test_a_new_phone_takes_an_altered_list_and_the_truth_tells_whose_it_was(lab: Lab, action: str) -> None:
    await set_fault(lab, "file.content", action, {"file": f"CTL{PHONE}.tlv"})
    truth = await boot_anew(lab)
    assert truth.ctl == "source", "leap of faith: nothing to verify it with"
    assert truth.ctl_list is not None
    assert truth.ctl_list.signer_cluster == ("unknown" if action == "wrong-signer" else "source")
    assert truth.ctl_list.served_by == lab.node("ucm105pub").address


@pytest.mark.parametrize(
    ("action", "file", "reason"),
    [
        ("tampered", "CTL*", TrustReason.SIGNATURE_MISMATCH),
        ("truncated", "CTL*", TrustReason.MALFORMED),
        ("unsigned", "CTL*", TrustReason.MALFORMED),
        ("oversized", "ITL*", TrustReason.TOO_LARGE),
        ("unsigned", "SEP*.sgn", TrustReason.UNSIGNED),
        ("tampered", "SEP*.sgn", TrustReason.SIGNATURE_MISMATCH),
    ],
)
async def test_a_phone_with_lists_notices(lab: Lab, action: str, file: str, reason: TrustReason) -> None:
    before = await boot_anew(lab)
    await set_fault(lab, "file.content", action, {"file": file})
    after = await boot_anew(lab)
    assert reason in after.reasons
    assert (after.ctl_list, after.itl_list, after.configuration) == (before.ctl_list, before.itl_list, "source")


async def test_who_signs_with_another_key_is_not_vouched_for(lab: Lab) -> None:
    await boot_anew(lab)
    await set_fault(lab, "file.content", "wrong-signer", {"file": "CTL*"})
    after = await boot_anew(lab)
    assert after.reasons
    assert after.ctl_list is not None
    assert after.ctl_list.signer_cluster == "source"


async def test_a_stale_list_is_still_this_nodes_after_a_restart_of_the_service(lab: Lab) -> None:
    before = await boot_anew(lab)
    await perform(lab, "regenerate-certificate", cluster="source", certificate="TVS")
    await perform(lab, "restart-service", cluster="source", service="TFTP")
    fresh = await boot_anew(lab)
    assert fresh.itl_list != before.itl_list
    await set_fault(lab, "file.content", "stale", {"file": "ITL*"})
    stale = await boot_anew(lab)
    assert stale.itl == "source"
    assert stale.itl_list == before.itl_list
    await lab.end_fault("it")
    assert (await boot_anew(lab)).itl_list == fresh.itl_list
