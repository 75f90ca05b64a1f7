from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Message

from cucm.wire.sip_message import COMPACT_FORMS, Headers, Request, Response, parse_head, quoted

NAMES = st.text("abcDEF-", min_size=2, max_size=6)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12).map(lambda text: text.strip(" \t"))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
MESSAGES = st.one_of(
    st.builds(lambda fields: Request("NOTIFY", "sip:a@b:5060;lr", Headers(fields)), FIELDS),
    st.builds(lambda fields, phrase: Response(202, phrase, Headers(fields)), FIELDS, VALUES),
)


def values_of(headers: Headers, fields: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {name: headers.getlist(name) for name, _ in fields}


@given(MESSAGES)
def test_what_is_written_is_read(message: Request | Response) -> None:
    assert bytes(parse_head(bytes(message))) == bytes(message)


@given(FIELDS)
def test_others_read_the_same_fields(fields: list[tuple[str, str]]) -> None:
    """`sipmessage`, which is not ours."""
    mine = Request("OPTIONS", "sip:a", Headers(fields))
    theirs = Message.parse(bytes(mine))
    assert {name: [value.strip() for value in values] for name, values in values_of(mine.headers, fields).items()} == {
        name: theirs.headers.getlist(name) for name, _ in fields
    }


def test_names_do_not_depend_on_case_and_keep_that_of_their_first() -> None:
    headers = Headers([("Via", "1"), ("To", "x"), ("VIA", "2")])
    assert str(headers) == "Via: 1\r\nVia: 2\r\nTo: x\r\n\r\n"
    assert (headers["via"], headers.get("vIa"), headers.getlist("viA"), "VIA" in headers) == (
        "1",
        "1",
        ["1", "2"],
        True,
    )
    headers.set("via", "3")
    headers.set("New", "4", "5")
    assert str(headers) == "Via: 3\r\nTo: x\r\nNew: 4\r\nNew: 5\r\n\r\n"


def test_what_is_not_there() -> None:
    headers = Headers()
    assert (headers.get("X"), headers.getlist("X"), "X" in headers) == (None, [], False)
    with pytest.raises(KeyError):
        headers["X"]


@pytest.mark.parametrize(("short", "long"), COMPACT_FORMS.items())
def test_compact_forms(short: str, long: str) -> None:
    for name in (short, short.upper()):
        message = parse_head(f"OPTIONS sip:a SIP/2.0\r\n{name}:1\r\n{long} \t: 2\r\nz: 3\r\n\r\n".encode())
        assert (message.headers.getlist(long), message.headers["Z"]) == (["1", "2"], "3")


def test_the_first_lines() -> None:
    request = parse_head(b"REGISTER sip:x;self=1 SIP/2.0\r\n\r\n")
    assert isinstance(request, Request)
    assert (request.method, request.uri) == ("REGISTER", "sip:x;self=1")
    response = parse_head(b"SIP/2.0 423 Interval Too Brief\r\n\r\n")
    assert isinstance(response, Response)
    assert (response.code, response.phrase) == (423, "Interval Too Brief")


def test_spaces_around_a_value_are_none_of_it() -> None:
    headers = parse_head(b"OPTIONS sip:a SIP/2.0\r\nTo: \t a b\t \r\nFrom:\tc\t\r\nSubject:  \r\n\r\n").headers
    assert (headers["To"], headers["From"], headers["Subject"]) == ("a b", "c", "")
    assert parse_head(b"OPTIONS sip:a SIP/2.0\r\nTo:a\t\r\n\r\n").headers["To"] == "a"


def test_the_case_of_version_and_scheme_says_nothing() -> None:
    request = parse_head(b"REGISTER SIPS:x Sip/2.0\r\n\r\n")
    assert isinstance(request, Request)
    assert request.uri == "SIPS:x"
    assert isinstance(parse_head(b"sip/2.0 200 OK\r\n\r\n"), Response)


def test_a_field_may_go_on_in_the_next_lines() -> None:
    """RFC 3261 7.3.1; each fold is as much as one space."""
    head = b"OPTIONS sip:a SIP/2.0\r\nSubject: I know\r\n \t you\r\n\tare:\r\n there\r\nW:\r\n 1\r\n \r\n\r\n"
    headers = parse_head(head).headers
    assert (headers["Subject"], headers["W"]) == ("I know you are: there", "1")


def test_hostile_heads_do_not_take_long() -> None:
    """A pattern that goes over its text more than once would meet the test run's own time limit."""
    for evil in (
        "a" * 1_000_000,
        "a" + " " * 1_000_000 + "b",
        "a:" + " " * 1_000_000 + "\x01",
        "a:\r\n " * 300_000 + "\x01",
    ):
        with pytest.raises(ValueError, match="is no header field"):
            parse_head(f"OPTIONS sip:a SIP/2.0\r\n{evil}\r\n\r\n".encode())
    with pytest.raises(ValueError, match="first line"):
        parse_head(b"OPTIONS sip:" + b"a" * 1_000_000 + b"\r\n\r\n")


def test_quoted_strings_hold_no_control_characters() -> None:
    assert quoted('a"b\\c\r\n\td\x7f') == '"a\\"b\\\\c  \td "'
