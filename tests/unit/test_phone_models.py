from __future__ import annotations

import pytest

from cucm.errors import UsageError
from cucm.wire.signature_header import DigestAlgorithm
from phone_agent.models import NEWER, SHA1_SERIES, WITHOUT_SECURITY_BY_DEFAULT, Capabilities, PhoneModel


@pytest.mark.parametrize(
    ("model", "capabilities"),
    [
        ("8861", NEWER),
        ("7841", NEWER),
        ("8831", NEWER),
        ("ATA191", NEWER),
        ("7975", SHA1_SERIES),
        ("7975G", SHA1_SERIES),
        ("8945", SHA1_SERIES),
        ("9971", SHA1_SERIES),
        ("7940", WITHOUT_SECURITY_BY_DEFAULT),
        ("7960G", WITHOUT_SECURITY_BY_DEFAULT),
        ("CP-7960", WITHOUT_SECURITY_BY_DEFAULT),
    ],
)
def test_what_a_model_can_do(model: str, capabilities: Capabilities) -> None:
    assert PhoneModel.of("B000B4BA0AEE", model).capabilities == capabilities


def test_sha512_needs_a_newer_phone() -> None:
    assert DigestAlgorithm.SHA512 in NEWER.digests
    for older in (SHA1_SERIES, WITHOUT_SECURITY_BY_DEFAULT):
        assert older.digests == {DigestAlgorithm.SHA1}


def test_names_of_a_phone() -> None:
    phone = PhoneModel.of("b0:00:b4:ba:0a:ee", "cp-8861")
    assert (phone.name, phone.device_name) == ("SEPB000B4BA0AEE", "CP-8861-SEPB000B4BA0AEE")
    assert PhoneModel.of("SEPB000B4BA0AEE", "8861") == phone


@pytest.mark.parametrize(("mac", "model"), [("B000", "8861"), ("B000B4BA0AEE", "88/61"), ("B000B4BA0AEE", "")])
def test_what_is_no_phone(mac: str, model: str) -> None:
    with pytest.raises(UsageError) as caught:
        PhoneModel.of(mac, model)
    assert caught.value.mend
