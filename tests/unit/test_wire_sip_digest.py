from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import AuthChallenge, AuthCredentials

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.sip_digest import MAX_PARAMETERS, Digest, answer, challenge, is_right, response_of

MUFASA = (
    'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
    'uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", '
    'response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)
"""The example of RFC 2617 3.5."""


def test_the_example_of_the_rfc() -> None:
    given = Digest.parse(MUFASA)
    assert response_of(given.parameters, "GET", "Circle Of Life") == given["response"]
    assert is_right(given, "GET", "Mufasa", "Circle Of Life")


@pytest.mark.parametrize(("user", "password"), [("Mufasa", "circle of life"), ("Simba", "Circle Of Life"), ("", "")])
def test_who_does_not_know_is_wrong(user: str, password: str) -> None:
    assert not is_right(Digest.parse(MUFASA), "GET", user, password)


@pytest.mark.parametrize(
    ("old", "new"), [("Digest", "DIGEST"), ("username", "UserName"), ("6629fae4", "6629FAE4"), ("Muf", "\\Muf")]
)
def test_how_credentials_may_be_written(old: str, new: str) -> None:
    assert is_right(Digest.parse(MUFASA.replace(old, new)), "GET", "Mufasa", "Circle Of Life")


def test_an_unknown_quality_is_wrong() -> None:
    assert not is_right(Digest.parse(MUFASA.replace("qop=auth", "qop=auth-int")), "GET", "Mufasa", "Circle Of Life")


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@given(TEXTS.filter(bool), TEXTS, st.sampled_from(["", "auth", "auth,auth-int", "auth-int, auth"]))
def test_what_is_answered_is_right(user: str, password: str, qop: str) -> None:
    text = challenge("ccmsipline", "nonce", stale=True)
    asked = Digest.parse(f'{text}, qop="{qop}"' if qop else text)
    credentials = answer(asked, "REGISTER", "sip:127.0.0.1", user, password, cnonce="0123")
    assert asked["stale"] == "true"
    assert is_right(Digest.parse(credentials or ""), "REGISTER", user, password)
    assert not is_right(Digest.parse(credentials or ""), "REFER", user, password)


def test_others_read_the_same() -> None:
    """`sipmessage`, which is not ours."""
    asked = AuthChallenge.parse(challenge("ccmsipline", "a b", stale=True))
    assert (asked.scheme, dict(asked.parameters)) == (
        "Digest",
        {"realm": "ccmsipline", "nonce": "a b", "algorithm": "MD5", "stale": "true"},
    )
    given = answer(Digest.parse('Digest realm="r", nonce="n", qop="auth"'), "A", "sip:a", 'x"\\y', "p", cnonce="c")
    told = AuthCredentials.parse(given or "").parameters
    assert told is not None
    assert dict(told) | {"response": ""} == {
        "username": 'x"\\y',
        "realm": "r",
        "nonce": "n",
        "uri": "sip:a",
        "algorithm": "MD5",
        "qop": "auth",
        "nc": "00000001",
        "cnonce": "c",
        "response": "",
    }


def test_how_a_challenge_may_be_written() -> None:
    given = answer(
        Digest.parse('dIgEsT Realm="r", NONCE="n", Algorithm=md5, QOP="AUTH"'), "A", "sip:a", "x", "p", cnonce="c"
    )
    assert is_right(Digest.parse(given or ""), "A", "x", "p")


def test_a_user_name_begins_no_line() -> None:
    given = answer(Digest.parse('Digest realm="r", nonce="n"'), "A", "sip:a", "x\r\nVia: y", "p", cnonce="c")
    assert 'username="x  Via: y"' in (given or "")


@pytest.mark.parametrize("more", ["algorithm=SHA-256", 'qop="auth-int"'])
def test_what_cannot_be_answered(more: str) -> None:
    asked = Digest.parse(f'Digest realm="a", nonce="b", {more}')
    assert answer(asked, "REGISTER", "sip:a", "user", "password", cnonce="c") is None


def test_the_opaque_comes_back() -> None:
    asked = Digest.parse('Digest realm="a", nonce="b", opaque="c, d"')
    assert 'opaque="c, d"' in str(answer(asked, "REGISTER", "sip:a", "user", "password", cnonce="c"))


@pytest.mark.parametrize(
    "text", ["", "Basic abc", "Digest", "Digest a", "Digest a=b c=d", 'Digest a="b"xc=d', 'Digest a="b', "Digest a=b,"]
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(DecodeError):
        Digest.parse(text)


def test_the_limits_hold() -> None:
    with pytest.raises(DecodeError):
        Digest.parse("Digest " + ", ".join(f"a{i}=b" for i in range(MAX_PARAMETERS + 1)))
    with pytest.raises(LimitExceeded):
        Digest.parse("Digest a=" + "b" * 3000)


def test_a_hostile_header_does_not_take_long() -> None:
    """A pattern that backtracks would need 2**400 steps; the test run's own time limit would end that."""
    for evil in ('a="x",' * 300 + "!", 'a="' + "\\" * 1900, "a=" + " " * 1900 + '"'):
        with pytest.raises((DecodeError, LimitExceeded)):
            Digest.parse("Digest " + evil[:2000])


@given(st.text(max_size=100))
def test_no_text_raises_anything_else(noise: str) -> None:
    for text in (noise, f"Digest {noise}", f'Digest realm="a", {noise}'):
        try:
            Digest.parse(text)
        except (DecodeError, LimitExceeded):
            continue
