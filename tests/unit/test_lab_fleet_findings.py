from __future__ import annotations

import pytest

from lab.fleet.findings import finding_of


@pytest.mark.parametrize(
    ("messages", "detail"),
    [
        ((), ""),
        (("Trust List Updated", "SEPB000B4BA0AEE.cnf.xml"), ""),
        (("File Not Found <CTLFile.tlv>", "SEPB000B4BA0AEE.cnf.xml"), ""),
        (("TFTP Timeout", "SEPB000B4BA0AEE.cnf.xml"), "TFTP Timeout"),
        (("Trust List Updated", "XmlDefault.cnf.xml"), "XmlDefault.cnf.xml"),
    ],
)
def test_what_a_screen_says_after_a_good_boot_is_no_trouble(messages: tuple[str, ...], detail: str) -> None:
    assert finding_of("registered", (), messages, 1).detail == detail
