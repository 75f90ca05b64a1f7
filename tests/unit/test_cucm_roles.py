from __future__ import annotations

import json
from pathlib import Path

import pytest

from cucm.roles import FUNCTION_TEXTS, SERVICE_NUMBERS, UNIT_ROLES, CertificateUnit, TrustRole, roles_of_units

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())


@pytest.mark.parametrize(("unit", "roles"), VECTORS["roles_by_store"].items())
def test_store_gives_the_roles_of_facts_5_3(unit: str, roles: list[int]) -> None:
    assert sorted(roles_of_units([CertificateUnit(unit)])) == sorted(roles)


def test_every_store_is_in_every_table() -> None:
    assert set(UNIT_ROLES) == set(SERVICE_NUMBERS) == set(CertificateUnit)
    assert len(set(SERVICE_NUMBERS.values())) == len(SERVICE_NUMBERS)


@pytest.mark.parametrize(
    ("unit", "number"),
    [("Phone-trust", 1), ("CallManager", 3), ("CallManager-trust", 4), ("CAPF-trust", 10), ("TVS", 11),
     ("Phone-SAST-trust", 14), ("Phone-CTL-trust", 15), ("userlicensing-trust", 16)],
)  # fmt: skip
def test_service_numbers_of_facts_5_2(unit: str, number: int) -> None:
    assert SERVICE_NUMBERS[CertificateUnit(unit)] == number


def test_a_foreign_callmanager_as_in_the_seed() -> None:
    both = [CertificateUnit.CALLMANAGER_TRUST, CertificateUnit.PHONE_SAST_TRUST]
    assert roles_of_units(both) == (0, 3)
    assert roles_of_units([CertificateUnit.CALLMANAGER_TRUST]) == ()
    assert roles_of_units([]) == ()


def test_roles_of_several_stores_are_joined_once_each() -> None:
    assert roles_of_units([CertificateUnit.CALLMANAGER, CertificateUnit.PHONE_SAST_TRUST]) == (0, 2, 3)


def test_trust_stores_are_known_by_name() -> None:
    assert CertificateUnit.PHONE_SAST_TRUST.is_trust_store
    assert not CertificateUnit.ITLRECOVERY.is_trust_store


def test_function_texts_of_show_ctl() -> None:
    assert FUNCTION_TEXTS[TrustRole.SAST] == "System Administrator Security Token"
    assert FUNCTION_TEXTS[TrustRole.CALLMANAGER_TFTP] == "CCM+TFTP"
