from __future__ import annotations

import pytest

from cucm.errors import DecodeError, LimitExceeded, WireError
from phone_agent.configuration import (
    MAX_LENGTH,
    CallManager,
    CapfServer,
    DeviceSecurityMode,
    parse_configuration,
)
from tftp_server.configuration import (
    CallManagerGroup,
    DeviceSettings,
    ServerAddress,
    default_configuration,
    device_configuration,
)

PUBLISHER, SUBSCRIBER = ServerAddress("ucm105pub", "192.168.11.32"), ServerAddress("ucm105sub", "192.168.11.33")
GROUP = CallManagerGroup("Default", (PUBLISHER, SUBSCRIBER), (SUBSCRIBER, PUBLISHER))


def device(inside: str) -> bytes:
    return f"<device>{inside}</device>".encode()


def test_reads_what_our_file_server_writes() -> None:
    served = device_configuration(DeviceSettings("desk", "Default", GROUP, (PUBLISHER,), DeviceSecurityMode.ENCRYPTED))
    read = parse_configuration(served)
    assert read.device_security_mode is DeviceSecurityMode.ENCRYPTED
    assert read.wants_tls
    assert [(server.address, server.port) for server in read.tvs_servers] == [
        ("192.168.11.33", 2445),
        ("192.168.11.32", 2445),
    ]
    assert read.call_managers[0] == CallManager("ucm105pub", "192.168.11.32", 0, 5060, 5061)
    assert read.capf_servers == (CapfServer("192.168.11.32", 3804),)
    assert read.version_stamp.startswith("{")


def test_reads_digest_credentials_and_does_not_show_the_password() -> None:
    settings = DeviceSettings(
        "desk", "Default", GROUP, (), DeviceSecurityMode.NON_SECURE, digest_user="me", digest_password="it & <so>"
    )
    read = parse_configuration(device_configuration(settings))
    assert (read.digest_user, read.digest_password) == ("me", "it & <so>")
    assert "it &" not in repr(read) + repr(settings)


def test_reads_the_default_configuration() -> None:
    read = parse_configuration(default_configuration(GROUP))
    assert [one.address for one in read.call_managers] == ["192.168.11.32", "192.168.11.33"]
    assert len(read.tvs_servers) == 2
    assert not read.wants_tls


def test_servers_are_sorted_by_priority_and_at_most_five() -> None:
    member = "<member priority='{0}'><port>2445</port><address>192.0.2.{0}</address></member>"
    inside = "".join(member.format(number) for number in (4, 6, 0, 5, 2, 1, 3))
    read = parse_configuration(device(f"<TVS><members>{inside}</members></TVS>"))
    assert [server.priority for server in read.tvs_servers] == [0, 1, 2, 3, 4]


def test_ports_have_defaults_and_unknown_elements_are_skipped() -> None:
    read = parse_configuration(
        device("<what/><TVS><x/><members><member><address> tvs.example </address></member></members></TVS>")
    )
    assert (read.tvs_servers[0].address, read.tvs_servers[0].port) == ("tvs.example", 2445)


@pytest.mark.parametrize(
    ("inside", "where"),
    [
        ("<deviceSecurityMode>4</deviceSecurityMode>", "deviceSecurityMode"),
        ("<deviceSecurityMode>secure</deviceSecurityMode>", "deviceSecurityMode"),
        ("<TVS><members><member><address/></member></members></TVS>", "TVS/members/member/address"),
        (f"<TVS><members><member><address>{'a' * 51}</address></member></members></TVS>", "TVS/members/member/address"),
        ("<TVS><members><member><address>a b</address></member></members></TVS>", "TVS/members/member/address"),
        ("<TVS><members><member><address>a</address><port>65536</port></member></members></TVS>", "port"),
        ("<TVS><members><member><address>a</address><port>-1</port></member></members></TVS>", "port"),
        ("<TVS><members><member priority='x'/></members></TVS>", "TVS/members/member[1]"),
        (
            "<devicePool><callManagerGroup><members><member/></members></callManagerGroup></devicePool>",
            "callManagerGroup/members/member",
        ),
        ("<capfList><capf/></capfList>", "capfList/capf/processNodeName"),
    ],
)
def test_values_that_make_no_sense_name_their_element(inside: str, where: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_configuration(device(inside))
    assert caught.value.where == where
    assert caught.value.mend


def test_another_document_is_no_configuration() -> None:
    with pytest.raises(WireError, match="<phone>"):
        parse_configuration(b"<phone/>")


@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"", 0), (b"<device>\n <b></c></device>", 15), (b"<device>\xff</device>", 8), (b"\x00\x01", 0)],
)
def test_malformed_xml_gives_the_offset(data: bytes, offset: int) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_configuration(data)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE device><device/>",
        b'<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><device>&b;</device>',
        b'<!DOCTYPE d SYSTEM "http://192.0.2.1/d.dtd"><device/>',
        b'<?xml version="1.0" encoding="utf-7"?><device/>',
        b'<?xml version="1.0" encoding="no-such"?><device/>',
    ],
)
def test_document_types_entities_and_odd_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_configuration(data)


@pytest.mark.parametrize(
    "data",
    [
        b"<device>" + b" " * MAX_LENGTH + b"</device>",
        b"<device>" + b"<a/>" * 20_000 + b"</device>",
        b"<device>" + b"<a>" * 64 + b"</a>" * 64 + b"</device>",
    ],
)
def test_size_count_and_depth_are_bounded(data: bytes) -> None:
    with pytest.raises(LimitExceeded):
        parse_configuration(data)


def test_every_cut_of_a_configuration_is_an_error_and_nothing_else() -> None:
    whole = default_configuration(GROUP).rstrip()
    for length in range(len(whole)):
        with pytest.raises(WireError):
            parse_configuration(whole[:length])
