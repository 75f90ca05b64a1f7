from __future__ import annotations

from dataclasses import replace
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from tftp_server.configuration import (
    CallManagerGroup,
    DeviceSecurityMode,
    DeviceSettings,
    ServerAddress,
    default_configuration,
    device_configuration,
)

PUBLISHER = ServerAddress("ucm105pub", "192.168.11.32")
SUBSCRIBER = ServerAddress("ucm105sub", "192.168.11.33")
GROUP = CallManagerGroup("Default", (SUBSCRIBER, PUBLISHER), (SUBSCRIBER, PUBLISHER))
SETTINGS = DeviceSettings(
    "Desk of S. Tormin", "Brisbane", GROUP, (PUBLISHER,), DeviceSecurityMode.ENCRYPTED, "sip88xx.10-3-1-20"
)


def parsed(data: bytes) -> Element:
    root: Element = fromstring(data.decode())
    return root


def texts(root: Element, path: str) -> list[str | None]:
    return [element.text for element in root.findall(path)]


def test_the_tvs_list_has_the_order_of_the_callmanager_group() -> None:
    root = parsed(device_configuration(SETTINGS))
    assert [member.get("priority") for member in root.findall("TVS/members/member")] == ["0", "1"]
    assert texts(root, "TVS/members/member/address") == ["192.168.11.33", "192.168.11.32"]
    assert texts(root, "TVS/members/member/port") == ["2445", "2445"]


def test_a_node_without_tvs_is_not_in_the_tvs_list() -> None:
    root = parsed(device_configuration(replace(SETTINGS, group=replace(GROUP, tvs=(PUBLISHER,)))))
    assert texts(root, "TVS/members/member/address") == ["192.168.11.32"]
    assert len(root.findall("devicePool/callManagerGroup/members/member")) == 2


def test_no_more_than_five_tvs_servers_are_named() -> None:
    many = tuple(ServerAddress(f"n{number}", f"127.0.0.{number}") for number in range(1, 8))
    root = parsed(device_configuration(replace(SETTINGS, group=CallManagerGroup("G", many, many))))
    assert [member.get("priority") for member in root.findall("TVS/members/member")] == ["0", "1", "2", "3", "4"]


def test_callmanagers_come_with_their_ports_and_the_address_to_connect_to() -> None:
    members = parsed(device_configuration(SETTINGS)).findall("devicePool/callManagerGroup/members/member")
    assert [member.get("priority") for member in members] == ["0", "1"]
    first = members[0]
    assert texts(first, "callManager/processNodeName") == ["192.168.11.33"]
    assert texts(first, "callManager/name") == ["ucm105sub"]
    assert texts(first, "callManager/ports/ethernetPhonePort") == ["2000"]
    assert texts(first, "callManager/ports/sipPort") == ["5060"]
    assert texts(first, "callManager/ports/securedSipPort") == ["5061"]


@pytest.mark.parametrize(
    ("mode", "number", "transport"),
    [
        (DeviceSecurityMode.NON_SECURE, "1", "1"),
        (DeviceSecurityMode.AUTHENTICATED, "2", "3"),
        (DeviceSecurityMode.ENCRYPTED, "3", "3"),
    ],
)
def test_a_secure_device_is_told_to_use_tls(mode: DeviceSecurityMode, number: str, transport: str) -> None:
    root = parsed(device_configuration(replace(SETTINGS, security_mode=mode)))
    assert texts(root, "deviceSecurityMode") == [number]
    assert texts(root, "transportLayerProtocol") == [transport]


def test_the_rest_a_phone_needs() -> None:
    root = parsed(device_configuration(SETTINGS))
    assert root.tag == "device"
    assert texts(root, "deviceProtocol") == ["SIP"]
    assert texts(root, "devicePool/name") == ["Brisbane"]
    assert texts(root, "loadInformation") == ["sip88xx.10-3-1-20"]
    assert texts(root, "capfList/capf/phonePort") == ["3804"]
    assert texts(root, "capfList/capf/processNodeName") == ["192.168.11.32"]
    assert texts(root, "encrConfig") == ["false"]
    assert texts(root, "sipProfile/phoneLabel") == ["Desk of S. Tormin"]


def test_same_settings_same_bytes_and_another_stamp_for_another_content() -> None:
    first = device_configuration(SETTINGS)
    assert device_configuration(SETTINGS) == first
    stamp = texts(parsed(first), "versionStamp")[0]
    other = texts(parsed(device_configuration(replace(SETTINGS, description="Another desk"))), "versionStamp")[0]
    assert stamp
    assert other
    assert stamp != other


@pytest.mark.parametrize("text", ["<&>\"'", "]]>", "Übergröße ☎", "tab\tand\nline"])
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert texts(parsed(device_configuration(replace(SETTINGS, description=text))), "sipProfile/phoneLabel") == [text]


def test_characters_that_xml_cannot_carry_do_not_break_the_file() -> None:
    root = parsed(device_configuration(replace(SETTINGS, description="a\0b\x1b\ud800\uffff")))
    assert texts(root, "sipProfile/phoneLabel") == ["a\ufffdb\ufffd\ufffd\ufffd"]


def test_the_default_configuration_names_callmanagers_and_tvs_but_no_security() -> None:
    root = parsed(default_configuration(GROUP))
    assert root.tag == "Default"
    assert texts(root, "callManagerGroup/members/member/callManager/processNodeName") == [
        "192.168.11.33",
        "192.168.11.32",
    ]
    assert texts(root, "TVS/members/member/address") == ["192.168.11.33", "192.168.11.32"]
    assert root.find("deviceSecurityMode") is None
    assert default_configuration(GROUP) == default_configuration(GROUP)


def test_a_release_with_the_defect_leaves_the_tvs_list_out_of_the_default_configuration() -> None:
    root = parsed(default_configuration(GROUP, lists_tvs=False))
    assert root.find("TVS") is None
    assert texts(root, "callManagerGroup/members/member/callManager/processNodeName")
