"""HTTP digest authentication as SIP uses it: RFC 2617 with MD5, for both ends (RFC 3261 22)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from cucm.errors import DecodeError, LimitExceeded, WireError
from cucm.records import dataclass
from cucm.wire.sip_message import quoted

MAX_LENGTH: Final = 2048
"""Characters of one header; ours."""
MAX_PARAMETERS: Final = 24
"""Ours; RFC 2617 defines ten."""
_BARE: Final = frozenset({"algorithm", "nc", "stale"})
"""Parameters whose values stand without quotes (RFC 2617 3.2). `qop` is quoted in answers too, as many phones do
[recall].
"""
_PARAMETER: Final = re.compile(r'[ \t]*([A-Za-z0-9._~!%*+`\'-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))[ \t]*')


@dataclass(frozen=True, slots=True)
class Digest:
    """The parameters of a `Digest` challenge or of credentials; names in lower case, values without quotes."""

    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises LimitExceeded, and DecodeError for another scheme or what is no list of parameters."""
        if len(text) > MAX_LENGTH:
            raise LimitExceeded(f"more than {MAX_LENGTH} characters", where="sip.digest")
        scheme, _, rest = text.strip().partition(" ")
        if scheme.lower() != "digest":
            raise DecodeError(f"authentication scheme {scheme[:20]!r} is not Digest", offset=0, path="sip.digest")
        return cls(MappingProxyType(_parameters(rest)))

    def __getitem__(self, name: str) -> str:
        """The value, empty when absent."""
        return self.parameters.get(name, "")


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    offset = 0
    while True:
        match = _PARAMETER.match(text, offset)
        if match is None or len(found) >= MAX_PARAMETERS:
            raise DecodeError("no list of parameters", offset=offset, path="sip.digest")
        name, quoted, plain = match.groups()
        found[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        offset = match.end()
        if offset == len(text):
            return found
        if text[offset] != ",":
            raise DecodeError("no comma between parameters", offset=offset, path="sip.digest")
        offset += 1


def challenge(realm: str, nonce: str, *, stale: bool = False) -> str:
    """The value of WWW-Authenticate. Without `qop`, as RFC 2069 had it: [recall] of CallManager's challenges."""
    asked = {"realm": realm, "nonce": nonce, "algorithm": "MD5"}
    return _written(asked | {"stale": "true"} if stale else asked)


def answer(asked: Digest, method: str, uri: str, user: str, password: str, *, cnonce: str) -> str | None:
    """The value of Authorization that answers this challenge; None for one that cannot be answered."""
    if not _is_answerable(asked):
        return None
    choices = _qualities(asked)
    texts = {"username": user, "realm": asked["realm"], "nonce": asked["nonce"], "uri": uri, "algorithm": "MD5"}
    if choices:
        # every request is challenged anew or carries a new cnonce, so the count of the nonce's uses may start again
        texts |= {"qop": "auth", "nc": "00000001", "cnonce": cnonce}
    texts["response"] = response_of(texts, method, password)
    if "opaque" in asked.parameters:
        texts["opaque"] = asked["opaque"]
    return _written(texts)


def first_answerable(challenges: Sequence[str]) -> Digest | None:
    """There may be several, of other schemes or algorithms too (RFC 3261 22.2, RFC 8760 2.4)."""
    for text in challenges:
        try:
            challenge = Digest.parse(text)
        except WireError:
            continue
        if _is_answerable(challenge):
            return challenge
    return None


def _is_answerable(asked: Digest) -> bool:
    """Not with another algorithm than MD5, nor without `auth` in its qop, if it has one."""
    choices = _qualities(asked)
    return asked["algorithm"].upper() in {"", "MD5"} and (not choices or "auth" in choices)


def _qualities(asked: Digest) -> list[str]:
    return [choice.strip().lower() for choice in asked["qop"].split(",") if choice.strip()]


def _written(parameters: Mapping[str, str]) -> str:
    texts = (f"{name}={value if name in _BARE else quoted(value)}" for name, value in parameters.items())
    return f"Digest {', '.join(texts)}"


def response_of(given: Mapping[str, str], method: str, password: str) -> str:
    """The `response` these credentials must have (RFC 2617 3.2.2.1), for the user and realm they name."""
    secret = _md5(f"{given.get('username', '')}:{given.get('realm', '')}:{password}")
    request = _md5(f"{method}:{given.get('uri', '')}")
    nonce = given.get("nonce", "")
    if given.get("qop"):
        return _md5(f"{secret}:{nonce}:{given.get('nc', '')}:{given.get('cnonce', '')}:{given['qop']}:{request}")
    return _md5(f"{secret}:{nonce}:{request}")


def is_right(given: Digest, method: str, user: str, password: str) -> bool:
    """Whether the credentials prove that their sender knows the password of `user`; who gave the nonce is not asked."""
    if given["username"] != user or given["qop"] not in {"", "auth"}:
        return False
    return hmac.compare_digest(
        given["response"].lower().encode(), response_of(given.parameters, method, password).encode()
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
