from __future__ import annotations

import contextlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.sip import (
    MAX_BODY,
    MAX_HEAD,
    MAX_HEADERS,
    SipReceiver,
    device_name_of,
    expiry_of,
    granted_contact,
    required_extensions,
    response_to,
)
from cucm.wire.sip_message import Headers, Request, Response

REGISTER = (
    b"REGISTER sip:127.0.11.32 SIP/2.0\r\n"
    b"Via: SIP/2.0/TLS 127.0.11.100:50000;branch=z9hG4bK1\r\n"
    b"From: <sip:b000b4ba0aee@127.0.11.32>;tag=1\r\n"
    b"To: <sip:b000b4ba0aee@127.0.11.32>\r\n"
    b"Call-ID: 1@127.0.11.100\r\n"
    b"CSeq: 101 REGISTER\r\n"
    b"Contact: <sip:b000b4ba0aee@127.0.11.100:50000;transport=tls>"
    b';+sip.instance="<urn:uuid:00000000-0000-0000-0000-b000b4ba0aee>"'
    b';+u.sip!devicename.ccm.cisco.com="SEPB000B4BA0AEE";+u.sip!model.ccm.cisco.com="682"\r\n'
    b"Content-Length: 4\r\n"
    b"\r\n"
    b"body"
)
OK = b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n"


def messages_of(*chunks: bytes) -> list[Request | Response]:
    receiver = SipReceiver()
    messages = []
    for chunk in chunks:
        receiver.receive_data(chunk)
        while (message := receiver.next_message()) is not None:
            messages.append(message)
    return messages


def test_a_message_in_one_piece() -> None:
    (message,) = messages_of(REGISTER)
    assert isinstance(message, Request)
    assert (message.method, message.body, message.headers["CSeq"]) == ("REGISTER", b"body", "101 REGISTER")
    assert device_name_of(message) == "SEPB000B4BA0AEE"


@given(st.lists(st.integers(0, len(REGISTER + OK + REGISTER)), max_size=8))
def test_any_chunking_gives_the_same_messages(cuts: list[int]) -> None:
    stream = REGISTER + OK + REGISTER
    edges = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert [bytes(message) for message in messages_of(*chunks)] == [bytes(message) for message in messages_of(stream)]
    assert len(messages_of(*chunks)) == 3


def test_byte_by_byte() -> None:
    (message,) = messages_of(*(REGISTER[i : i + 1] for i in range(len(REGISTER))))
    assert message.body == b"body"


def test_keep_alives_between_messages_are_passed_over() -> None:
    assert len(messages_of(b"\r\n\r\n" + OK + b"\r\n\r\n\r\n", b"\r\n" + OK)) == 2


def test_the_compact_form_of_the_length_counts() -> None:
    (message,) = messages_of(OK)
    assert isinstance(message, Response)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\n\r\n",
        b"REGISTER SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER http://x SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nContent-Length: -1\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nContent-Length: 1_0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nContent-Length: \xc2\xb2\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"SIP/2.0 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"SIP/2.0 200 \xff\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\n: no name\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nX: bell \x07\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nX: two\nlines\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nX: two\nLines: 1\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\n\x00 no field\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\nX: a\nContent-Length: 9\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\n folds: nothing\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:a\x00\x1b[2J SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:a\x7f SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32  SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/3.0\r\nContent-Length: 0\r\n\r\n",
        b"SIP/2.0 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"OPTIONS tel:5551234 SIP/2.0\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_sip_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        messages_of(data)


@pytest.mark.parametrize(
    "data",
    [
        b"a" * MAX_HEAD,
        b"SIP/2.0 200 OK\r\nX: " + b"y" * MAX_HEAD + b"\r\nContent-Length: 0\r\n\r\n",
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\n" + b"X: y\r\n" * (MAX_HEAD // 6),
        b"REGISTER sip:127.0.11.32 SIP/2.0\r\n" + b"X: y\r\n" * MAX_HEADERS + b"Content-Length: 0\r\n\r\n",
        b"SIP/2.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"SIP/2.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_the_limits_hold(data: bytes) -> None:
    with pytest.raises(LimitExceeded):
        messages_of(data)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    for data in (noise, noise + b"\r\n\r\n", REGISTER[:40] + noise + REGISTER[40:]):
        try:
            messages = messages_of(data)
        except (DecodeError, LimitExceeded):
            continue
        for message in messages:
            if isinstance(message, Request):
                with contextlib.suppress(DecodeError):
                    device_name_of(message)


@pytest.mark.parametrize(
    "contact",
    [
        b"",
        b"Contact: *\r\n",
        b"Contact: <sip:a@b>\r\n",
        b"Contact: <nonsense\r\n",
        b"Contact: <sip:a@b>;self=1\r\n",
        b'Contact: <http://a>;+u.sip!devicename.ccm.cisco.com="SEP0"\r\n',
        b"Contact: <sip:a@b>;q=0.5,\r\n",
        b"Contact: <sip:a@b>;q=0.5 !\r\n",
        b'Contact: <sip:a@b> x;+u.sip!devicename.ccm.cisco.com="SEP0"\r\n',
        b"Contact: <tel:5551234>\r\n",
        *(
            b'Contact: <sip:a@b>;+u.sip!devicename.ccm.cisco.com="' + name + b'"\r\n'
            for name in (b"S" * 129, b"SEP 0", b"SEP%1b[2J", "SEP\u00b2".encode())
        ),
    ],
)
def test_a_contact_without_a_device(contact: bytes) -> None:
    (message,) = messages_of(b"REGISTER sip:127.0.11.32 SIP/2.0\r\n" + contact + b"Content-Length: 0\r\n\r\n")
    assert isinstance(message, Request)
    with pytest.raises(DecodeError):
        device_name_of(message)


def test_hostile_contacts_do_not_take_long() -> None:
    """Within the limit on heads; a pattern that backtracks without end would meet the test run's own time limit."""
    for evil in (
        b";a=" * 1500,
        b";a=b.c" * 1000,
        b'<sip:a@b>;x="' * 500,
        b"a-" * 3000,
        b"<sip:" + b"a." * 3000 + b"!>",
    ):
        (message,) = messages_of(
            b"REGISTER sip:127.0.11.32 SIP/2.0\r\nContact: " + evil + b"\r\nContent-Length: 0\r\n\r\n"
        )
        assert isinstance(message, Request)
        with pytest.raises(DecodeError):
            device_name_of(message)


@pytest.mark.parametrize(
    "contact",
    [
        '<sip:a@b>;+u.sip!devicename.ccm.cisco.com="SEP1";expires=7',
        '<sip:a@b;transport=tls>;q=0.5 , "Two, <of> \\" them" <sips:c@[::1]:5061> ; expires = 7 ;self;'
        '+U.SIP!DEVICENAME.CCM.CISCO.COM="SEP1"',
        "A phone <sip:a@b>;Expires=7;+u.sip!devicename.ccm.cisco.com=SEP1",
        "sip:a@b;expires=7;+u.sip!devicename.ccm.cisco.com=SEP1",
        "<sip:x;self=1>;+u.sip!devicename.ccm.cisco.com=SEP1;expires=7",
        "<SIP:a@b>;expires=7, Sips:c;+u.sip!devicename.ccm.cisco.com=SEP1",
    ],
)
def test_how_a_contact_may_be_written(contact: str) -> None:
    request = Request("REGISTER", "sip:a", Headers([("Contact", contact)]))
    assert device_name_of(request) == "SEP1"
    assert expiry_of(request, 1) == 7


@pytest.mark.parametrize("start", [b"OPTIONS %s SIP/2.0\r\n", b"REGISTER sip:a SIP/2.0\r\nContact: <%s>\r\n"])
def test_telephone_uris_are_not_emulated(start: bytes) -> None:
    data = start % (b"tel:" + b"1" * 7000 + b"!") + b"Content-Length: 0\r\n\r\n"
    with pytest.raises(DecodeError):
        expiry_of(messages_of(data)[0], 1)


def test_an_expiry_of_neither_contact_nor_header_is_the_default() -> None:
    request = Request("REGISTER", "sip:a", Headers([("Contact", "<sip:a@b>")]))
    assert expiry_of(request, 7) == 7
    request.headers.set("expires", "8")
    assert expiry_of(request, 7) == 8


def test_the_expiry_of_all_bindings_is_that_of_the_header() -> None:
    request = Request("REGISTER", "sip:a", Headers([("Contact", "*"), ("Expires", "0")]))
    assert expiry_of(request, 7) == 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "\u0661", "4294967296", "00000000001"])
def test_what_is_no_number_of_seconds(text: str) -> None:
    for field in ("Expires", text), ("Contact", f'<sip:a@b>;expires="{text}"'):
        with pytest.raises(DecodeError):
            expiry_of(Request("REGISTER", "sip:a", Headers([field])), 7)
    assert expiry_of(Request("REGISTER", "sip:a", Headers([("Expires", "4294967295")])), 7) == 2**32 - 1


def test_extensions_may_be_required_in_several_lines() -> None:
    request = Request("REFER", "sip:a", Headers([("Require", "norefersub ,100rel"), ("require", "path"), ("X", "")]))
    assert required_extensions(request) == ["norefersub", "100rel", "path"]
    assert required_extensions(Request("REFER", "sip:a")) == []


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("<sip:a@b>", "<sip:a@b>;expires=120"),
        ("<sip:a@b>;expires=3600", "<sip:a@b>;expires=120"),
        ('<sip:a@b>;expires= "1;2" ;q=1', "<sip:a@b> ;q=1;expires=120"),
        ("<sip:a@b;expires=1> ; Expires = 3600;q=1", "<sip:a@b;expires=1>;q=1;expires=120"),
        (
            '<sip:a,b>;q=1;expires=1 , "c,d" <sip:c>;x="e,f"',
            '<sip:a,b>;q=1;expires=120, "c,d" <sip:c>;x="e,f";expires=120',
        ),
        ('"x;expires=1\\"" <sip:a@b>;x=";expires=2"', '"x;expires=1\\"" <sip:a@b>;x=";expires=2";expires=120'),
    ],
)
def test_the_contact_of_an_answer_says_what_is_granted(asked: str, granted: str) -> None:
    assert granted_contact(asked, 120) == granted


@pytest.mark.parametrize(
    ("to", "has_tag"),
    [
        ("<sip:a@b>", False),
        ("<sip:a@b>;x=stag", False),
        ('";tag=1" <sip:a@b;tag=2>', False),
        ("<sip:a@b>;tag=1", True),
        ("<sip:a@b;tag=2>;x=1 ;\tTAG = 1", True),
        ("sip:a@b;tag=1", True),
    ],
)
def test_an_answer_has_one_tag(to: str, has_tag: bool) -> None:
    request = Request("OPTIONS", "sip:a", Headers([("To", to), ("Call-ID", "1")]))
    answered = response_to(request, 200, "OK").headers["To"]
    assert answered == to if has_tag else re.fullmatch(re.escape(to) + ";tag=[0-9a-f]{16}", answered)


def test_spaces_do_not_take_the_square_of_their_number() -> None:
    """What backtracks over them would meet the test run's own time limit."""
    assert granted_contact("<sip:a@b>;x" + " " * 1_000_000 + ";y", 120).endswith(";y;expires=120")


def test_quotes_without_end_do_not_take_the_square_of_their_number() -> None:
    assert granted_contact('<sip:a@b>;x="' + '\\"' * 500_000, 120).endswith(";expires=120")
