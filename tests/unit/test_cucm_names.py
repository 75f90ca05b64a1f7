from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from cucm.errors import UsageError
from cucm.names import (
    _known_name_key,
    cisco_name,
    common_name,
    database_name,
    name_key,
    openssl_oneline,
    parse_name,
    same_name,
    same_serial,
    serial_from_number,
    serial_hex,
)

NODE = "CN=ucm11pub.stormin.local;OU=IST;O=Stormin;L=Brisbane;ST=QLD;C=AU"
CAPF = "C=AU;O=stormin;OU=IST;CN=CAPF-a7fb32bf;ST=NSQ;L=Sydney"
LSC = "serialNumber=PID:CP-8861 SN:FCH18198CNQ;C=AU;O=stormin;OU=IST;CN=CP-8861-SEPB000B4BA0AEE"


@pytest.mark.parametrize(
    "text", [NODE, CAPF, LSC, "CN=stormin-WIN2012-CA", "CN=a;2.5.4.65=pseudonym", "CN=a;DC=b;DC=c"]
)
def test_order_and_spelling_survive(text: str) -> None:
    assert cisco_name(parse_name(text)) == text


def test_the_seeds_subject_has_65_characters() -> None:
    assert len(NODE) == 65


def test_openssl_form_of_the_seeds_lsc() -> None:
    assert openssl_oneline(parse_name(LSC)) == (
        "/serialNumber=PID:CP-8861 SN:FCH18198CNQ/C=AU/O=stormin/OU=IST/CN=CP-8861-SEPB000B4BA0AEE"
    )
    assert openssl_oneline(parse_name(CAPF)) == "/C=AU/O=stormin/OU=IST/CN=CAPF-a7fb32bf/ST=NSQ/L=Sydney"


@pytest.mark.parametrize("text", [NODE, "C=AU,ST=QLD,L=Brisbane,O=Stormin,OU=IST,CN=ucm11pub.stormin.local"])
def test_database_form_has_one_order(text: str) -> None:
    assert database_name(parse_name(text)) == "L=Brisbane,ST=QLD,CN=ucm11pub.stormin.local,OU=IST,O=Stormin,C=AU"


def test_database_form_keeps_what_it_has_no_place_for_at_the_end() -> None:
    assert database_name(parse_name("serialNumber=1;DC=x;CN=a")) == "CN=a,serialNumber=1,DC=x"


@pytest.mark.parametrize(
    "other",
    [
        NODE.replace(";", ","),
        NODE.replace(";", ", "),
        NODE.replace(";", " ; "),
        NODE.replace("CN=", "cn = ").replace("OU=", "ou="),
        NODE + ";",
        NODE.replace("O=Stormin", 'O="Stormin"'),
    ],
)
def test_separators_spaces_and_case_of_types_do_not_count(other: str) -> None:
    assert same_name(NODE, other)


@pytest.mark.parametrize(
    "other",
    [
        "",
        NODE.replace("Stormin", "stormin"),
        NODE.replace("ucm11pub", "ucml1pub"),
        NODE.replace(";C=AU", ""),
        "OU=IST;CN=ucm11pub.stormin.local;O=Stormin;L=Brisbane;ST=QLD;C=AU",
    ],
)
def test_values_their_case_and_their_order_count(other: str) -> None:
    assert not same_name(NODE, other)


def test_a_comma_inside_a_value_is_not_a_separator() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Stormin, Inc; Pty")])
    assert cisco_name(name) == 'O="Stormin, Inc; Pty"'
    assert parse_name(cisco_name(name)) == name
    assert name_key("CN=a,O=Stormin, Inc,C=AU") == (("CN", "a"), ("O", "Stormin, Inc"), ("C", "AU"))
    assert name_key("CN=a;O=x,y=z") == (("CN", "a"), ("O", "x,y=z"))


def test_quotes_and_spaces_in_a_value_survive() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ' say "cheese" ')])
    assert parse_name(cisco_name(name)) == name


def test_the_cut_etoken_name_can_be_compared() -> None:
    """Facts 3.4: the closing quote is cut off."""
    cut = 'cn="SAST-ADN0054f509        ";ou=IPCBU;o="Cisco Systems'
    assert name_key(cut) == (("CN", "SAST-ADN0054f509"), ("OU", "IPCBU"), ("O", "Cisco Systems"))
    assert same_name(cut, "CN=SAST-ADN0054f509,OU=IPCBU,O=Cisco Systems")


@pytest.mark.parametrize(
    "text", ["", ";", "=", "no name at all", '"', "CN", "CN=\x00;;,", "CN=" + "x" * 10_000, "+" * 500]
)
def test_comparing_never_fails(text: str) -> None:
    assert same_name(text, text)
    assert same_name(text, NODE) is False


@pytest.mark.parametrize("text", ["no name", "C=Australia", "CN=", "XY=1", "CN=" + "x" * 65, "9.9.9=x", "CN=a;stray"])
def test_unusable_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_name(text)
    assert caught.value.mend


def test_common_name() -> None:
    assert common_name(parse_name(LSC)) == "CP-8861-SEPB000B4BA0AEE"
    assert common_name(parse_name("O=x")) is None


def test_a_relative_name_of_two_attributes_stays_one_part() -> None:
    pair = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")]
    )
    text = cisco_name(
        x509.Name([pair, x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "AU")])])
    )
    assert text in ("CN=a+UID=b;C=AU", "UID=b+CN=a;C=AU")


def test_serials_have_no_sign_byte() -> None:
    assert serial_from_number(0x83E908) == b"\x83\xe9\x08"
    assert serial_from_number(0) == b"\0"
    assert serial_hex(bytes.fromhex("83e9080000005545af31")) == "83E9080000005545AF31"


def test_a_sign_byte_written_by_others_does_not_count() -> None:
    assert same_serial(b"\x00\x83\xe9", b"\x83\xe9")
    assert not same_serial(b"\x83\xe9", b"\x83\xe9\x00")


def test_long_names_are_compared_and_not_kept() -> None:
    """A stranger may send 64 KiB of separators as a name: remembered, a few thousand of them would fill the memory."""
    text = "CN=a;" * 13_000
    before = _known_name_key.cache_info().currsize
    assert same_name(text, text.replace(";", " ; "))
    assert _known_name_key.cache_info().currsize == before
