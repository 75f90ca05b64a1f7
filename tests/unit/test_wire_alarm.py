from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.alarm import MAX_LENGTH, MAX_PARAMETERS, Alarm, AlarmParameter, DeviceTlInfo

DIGEST = bytes.fromhex("A36DCF0000000000000000000000000000000001")
FACTS = b"""<?xml version="1.0" encoding="UTF-8"?>
<x-cisco-alarm>
<Alarm Name="DeviceTLInfo">
<ParameterList>
<String name="DeviceName">SEPC80084AA8743</String>
<String name="IPv4Address">192.168.7.104</String>
<String name="IPv6Address"></String>
<String name="CTL_Signature">Not Installed</String>
<String name="CTL_TFTP_Server">N/A</String>
<String name="ITL_Signature">A3 6D CF 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 </String>
<String name="ITL_TFTP_Server">clstr-2-pub.home.lab</String>
<String name="StatusCode">3</String>
</ParameterList></Alarm></x-cisco-alarm>"""
INFO = DeviceTlInfo("SEPC80084AA8743", None, None, DIGEST, "clstr-2-pub.home.lab", "192.168.7.104")


def test_the_alarm_of_the_facts_byte_for_byte() -> None:
    assert INFO.as_alarm().encode() == FACTS
    assert DeviceTlInfo.of(Alarm.decode(FACTS)) == INFO


TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xD7FF, exclude_characters="\x7f\x85\xa0"), max_size=20)


@given(
    TEXTS, st.lists(st.builds(AlarmParameter, st.sampled_from(["String", "Enum", "UInt"]), TEXTS, TEXTS), max_size=9)
)
def test_any_alarm_survives(name: str, parameters: list[AlarmParameter]) -> None:
    alarm = Alarm(name, tuple(parameters))
    assert Alarm.decode(alarm.encode()) == alarm


PLAIN = st.text("AZaz09 ._:/-", max_size=9)
ELEMENTS = st.sampled_from(["String", "Enum"])


@given(PLAIN, st.lists(st.builds(AlarmParameter, ELEMENTS, PLAIN, PLAIN), max_size=9), ELEMENTS)
def test_the_usual_layout_is_read_as_any_xml(name: str, parameters: list[AlarmParameter], end: str) -> None:
    """A line more is not what phones write: an XML parser reads it."""
    data = Alarm(name, tuple(parameters)).encode()
    assert Alarm.decode(data) == Alarm.decode(data + b"\n")
    wrong = data.replace(b"</String>", f"</{end}>".encode())
    if wrong != data:
        with pytest.raises(DecodeError):
            Alarm.decode(wrong)


@pytest.mark.parametrize(
    ("written", "meant"), [("a&amp;b", "a&b"), ("&#65;", "A"), ("&#34;", '"'), ("\u00e9", "\u00e9"), ("a\tb", "a\tb")]
)
def test_in_the_usual_layout_other_texts_mean_what_they_mean_in_xml(written: str, meant: str) -> None:
    data = Alarm("x", (AlarmParameter("String", "a", "VALUE"),)).encode().replace(b"VALUE", written.encode())
    assert Alarm.decode(data).parameters == (AlarmParameter("String", "a", meant),)


def test_the_usual_layout_has_the_same_limits() -> None:
    parameters = (AlarmParameter("String", "a", "b"),) * (MAX_PARAMETERS + 1)
    assert Alarm.decode(Alarm("x", parameters[1:]).encode()).parameters == parameters[1:]
    with pytest.raises(LimitExceeded):
        Alarm.decode(Alarm("x", parameters).encode())
    with pytest.raises(LimitExceeded):
        Alarm.decode(Alarm("x", (AlarmParameter("String", "a", "b" * MAX_LENGTH),)).encode())


def test_another_alarm_tells_nothing_of_lists() -> None:
    alarm = Alarm("LastOutOfServiceInformation", (AlarmParameter("Enum", "ReasonForOutOfService", "10"),))
    assert DeviceTlInfo.of(Alarm.decode(alarm.encode())) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<x-cisco-alarm>",
        b"<x-cisco-alarm/>",
        b"<other><Alarm/></other>",
        b"\xff\xfe",
        b'<!DOCTYPE a [<!ENTITY b "c">]><x-cisco-alarm><Alarm>&b;</Alarm></x-cisco-alarm>',
        b'<?xml version="1.0" encoding="nonsense"?><x-cisco-alarm><Alarm/></x-cisco-alarm>',
    ],
)
def test_what_is_no_alarm(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Alarm.decode(data)


def test_the_limits_hold() -> None:
    many = Alarm("a", (AlarmParameter("String", "b", "c"),) * (MAX_PARAMETERS + 1))
    for data in (many.encode(), FACTS + b" " * MAX_LENGTH):
        with pytest.raises(LimitExceeded):
            Alarm.decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    for data in (noise, FACTS[:60] + noise + FACTS[60:]):
        try:
            DeviceTlInfo.of(Alarm.decode(data))
        except (DecodeError, LimitExceeded):
            continue


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Not Installed", b"A3 6D"),
        (b"A3 6D", b"XY"),
        (b">3<", b">three<"),
        (b">3<", b">1234567890<"),
        (b"CTL_TFTP_Server", b"CTL_Server"),
    ],
)
def test_a_trust_list_alarm_that_does_not_say_what_it_should(old: bytes, new: bytes) -> None:
    with pytest.raises(DecodeError):
        DeviceTlInfo.of(Alarm.decode(FACTS.replace(old, new)))


def test_texts_that_xml_cannot_hold_do_not_break_the_alarm() -> None:
    bad = "a\0b\x1b[2J\ud800\uffff"
    alarm = Alarm.decode(Alarm(bad, (AlarmParameter("String", bad, bad + "\r\n"),)).encode())
    good = "a\ufffdb\ufffd[2J\ufffd\ufffd"
    assert alarm == Alarm(good, (AlarmParameter("String", good, good + "\r\n"),))


@pytest.mark.parametrize("element", [b"a:b", b"B" * 33])
def test_parameters_that_could_not_be_written_again(element: bytes) -> None:
    xml = b'<x-cisco-alarm xmlns:a="u"><Alarm><ParameterList><%s/></ParameterList></Alarm></x-cisco-alarm>' % element
    with pytest.raises(DecodeError):
        Alarm.decode(xml)
