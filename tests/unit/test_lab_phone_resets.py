"""Which of its registered phones a cluster resets by itself, and when (facts 5.6, 7.3, 9.1)."""

from __future__ import annotations

import pytest
from lab_on_sockets import make_lab, network_of, perform, topology_of

from cucm.errors import LabError
from cucm.events.administration import PhonesReset
from cucm.events.phone import PoweredOff
from cucm.roles import TrustRole
from cucm.wire.trust_list import decode_trust_list
from lab.phone_resets import MANUALLY, PHONE_INTERACTION_PARAMETER
from phone_agent.state import PhoneState
from tftp_server.cluster_view import ROLLBACK_PARAMETER

EAST, WEST = "SEPB000B4BA0AEE", "SEPB000B4BA0AEF"


def topology(version: str):
    """`here` with `pub` (west) and `sub` (east, no TFTP), each the only CallManager of a phone; `there`."""
    phones = tuple(
        {
            "mac": name[3:],
            "serial_number": name[-1],
            "host": 100 + number,
            "lsc_from": "here",
            "model": "CP-8861",
            "provisioned_in": ["here"],
            "pool": pool,
        }
        for number, (name, pool) in enumerate(((EAST, "east"), (WEST, "Default")))
    )
    nodes = [
        {"name": "pub", "host": 10, "services": ["CallManager", "TVS", "TFTP", "CAPF"]},
        {"name": "sub", "host": 11, "services": ["CallManager", "TVS"]},
    ]
    made = topology_of(
        {
            "name": "here",
            "version": version,
            "nodes": ["pub", "sub"],
            "callmanager_groups": {"Default": ["pub"], "East": ["sub"]},
            "device_pools": {"east": "East"},
        },
        {"name": "there", "version": version, "nodes": ["other"]},
    ).model_dump(mode="json", by_alias=True)
    made["clusters"]["here"]["nodes"] = nodes
    made["phones"] = phones
    return type(topology_of({"name": "x", "version": version, "nodes": ["y"]})).model_validate(made)


@pytest.fixture
async def old_lab(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), topology("11.5")) as lab:
        await perform(lab, "boot-phone", phones="all")
        yield lab


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), topology("14")) as lab:
        await perform(lab, "boot-phone", phones="all")
        yield lab


def told(lab) -> list[PhonesReset]:
    return [record.event for record in lab.events if isinstance(record.event, PhonesReset)]


def power_cycles(lab, phone: str) -> int:
    return sum(record.source == f"phone:{phone}" and isinstance(record.event, PoweredOff) for record in lab.events)


def tvs_certificates(lab, phone: str) -> list[bytes]:
    """Of the ITL in the phone's flash."""
    records = decode_trust_list(lab.phone(phone).flash.contents.itl).records
    return [one.certificate for one in records if one.function == TrustRole.TVS and one.certificate]


async def bulk(lab, types: str) -> None:
    for cluster in ("here", "there"):
        await perform(lab, "set-bulk-sftp", cluster=cluster)
        await perform(lab, "bulk-export", cluster=cluster, types=[types])
    await perform(lab, "bulk-consolidate", cluster="here", types=[types])
    await perform(lab, "bulk-import", cluster="here", types=[types])


@pytest.mark.parametrize(("types", "unit"), [("TFTP", "CallManager"), ("TVS", "TVS"), ("CAPF", "CAPF")])
async def test_a_bulk_import_resets_the_registered_phones_in_every_release(old_lab, types, unit):
    lab = old_lab
    await bulk(lab, types)
    assert told(lab) == [PhonesReset("here", (EAST, WEST), f"bulk import of {unit}")]
    assert [power_cycles(lab, phone) for phone in (EAST, WEST)] == [1, 1]
    assert lab.cluster("here").registered_devices == {EAST, WEST}  # they have come up again, by their own boot
    await perform(lab, "bulk-import", cluster="here", types=[types])
    assert len(told(lab)) == 1  # nothing was new


async def test_a_bulk_import_of_what_concerns_no_phone_resets_none(old_lab):
    await bulk(old_lab, "tomcat")
    assert told(old_lab) == []


async def test_only_who_is_registered_can_be_told(old_lab):
    await perform(old_lab, "power-off-phone", phone=EAST)
    await bulk(old_lab, "TFTP")
    assert told(old_lab) == [PhonesReset("here", (WEST,), "bulk import of CallManager")]
    assert old_lab.phone(EAST).state is PhoneState.OFF


async def test_before_14_the_administrator_resets_phones_after_a_regeneration(old_lab):
    await perform(old_lab, "regenerate-certificate", cluster="here", certificate="CallManager")
    assert told(old_lab) == []
    with pytest.raises(LabError, match="has no “Phone Interaction on Certificate Update”"):
        await perform(
            old_lab,
            "set-enterprise-parameter",
            cluster="here",
            parameter=PHONE_INTERACTION_PARAMETER,
            value=MANUALLY,
        )
    assert old_lab.node("pub").database.parameter(PHONE_INTERACTION_PARAMETER) is None


@pytest.mark.parametrize(
    ("certificate", "node", "devices"),
    [
        ("CallManager", "pub", (EAST, WEST)),
        ("CallManager", "sub", ()),  # TFTP is not activated there
        ("TVS", "sub", (EAST,)),  # the CallManager group with that node
        ("CAPF", "pub", (EAST, WEST)),
        ("ITLRecovery", None, ()),
        ("tomcat", None, ()),
    ],
)
async def test_from_14_on_a_new_certificate_resets_those_whom_it_concerns(lab, certificate, node, devices):
    await perform(lab, "regenerate-certificate", cluster="here", certificate=certificate, node=node)
    why = f"new {certificate} certificate"
    assert told(lab) == ([PhonesReset("here", devices, why)] if devices else [])
    assert tuple(phone for phone in (EAST, WEST) if power_cycles(lab, phone)) == devices


async def test_from_14_on_an_imported_certificate_resets_phones_too(lab):
    await perform(lab, "sign-certificate", cluster="here", certificate="TVS", authority="CN=a CA")
    assert told(lab) == [PhonesReset("here", (WEST,), "new TVS certificate")]


async def test_phones_are_not_reset_where_the_parameter_says_manually(lab):
    await perform(
        lab, "set-enterprise-parameter", cluster="here", parameter=PHONE_INTERACTION_PARAMETER, value=MANUALLY
    )
    await perform(lab, "regenerate-certificate", cluster="here", certificate="CallManager")
    await bulk(lab, "TFTP")
    assert told(lab) == []


async def test_phones_restart_by_themselves_for_a_rollback(old_lab):
    lab = old_lab
    parameter = {"cluster": "here", "parameter": ROLLBACK_PARAMETER}
    assert tvs_certificates(lab, EAST)
    await perform(lab, "set-enterprise-parameter", **parameter, value="True")
    assert told(lab) == [PhonesReset("here", (EAST, WEST), f"“{ROLLBACK_PARAMETER}” is True")]
    assert tvs_certificates(lab, EAST) == []
    await perform(lab, "set-enterprise-parameter", **parameter, value="False")
    assert len(told(lab)) == 1  # facts 11 F8: here the administrator resets them


async def test_a_phone_that_does_not_come_up_again_fails_nobody_elses_reset(lab):
    await lab.set_fault({"point": "phone.step", "match": {"phone": EAST}, "action": "power-loss"})
    await perform(lab, "regenerate-certificate", cluster="here", certificate="CallManager", node="pub")
    assert lab.phone(EAST).state is PhoneState.OFF
    assert lab.cluster("here").registered_devices == {WEST}
