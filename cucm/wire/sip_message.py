"""SIP messages as values (RFC 3261 7): a first line, header fields, a body. What the fields mean is said elsewhere.

Our own, and not a library's: a phone that migrates needs fourteen messages, and reading and writing them took a fifth
of all Python there was to do for it. Every pattern here goes over its text once, whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field
from typing import Final

from cucm.records import dataclass

TOKEN: Final = r"[A-Za-z0-9.!%*_+`'~-]+"  # noqa: S105 (RFC 3261 calls it that)
"""RFC 3261 25.1."""
SIP_URI: Final = r'(?i:sips?):[^\s\x00-\x1f\x7f<>"]+'
"""As far as anything here depends on it; telephone URIs are not emulated."""
COMPACT_FORMS: Final = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
"""IANA's list of compact names."""
_TEXT: Final = r"[^\x00-\x08\x0a-\x1f\x7f]*"
"""What a line may hold: no control characters but the tab."""
_REQUEST_LINE: Final = re.compile(rf"({TOKEN}) ({SIP_URI}) (?i:SIP)/2\.0")
_STATUS_LINE: Final = re.compile(rf"(?i:SIP)/2\.0 ([1-6][0-9][0-9]) ({_TEXT})")
_FIELD: Final = re.compile(rf"^({TOKEN})[ \t]*:[ \t]*+({_TEXT})\r\n", re.MULTILINE)
"""A whole line: two in one match cannot be, for no text holds the end of a line."""
_FOLD: Final = re.compile(r"\r\n[ \t]+")


class Headers:
    """Header fields by their names, in any case and also compact; in the order in which each name first came."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        known: dict[str, tuple[str, list[str]]] = {}
        for name, value in fields:
            key = name.lower()
            if key in COMPACT_FORMS:
                name = COMPACT_FORMS[key]
                key = name.lower()
            if key in known:
                known[key][1].append(value)
            else:
                known[key] = (name, [value])
        self._fields = known

    def get(self, name: str) -> str | None:
        """The first value, None where there is no such field."""
        held = self._fields.get(name.lower())
        return None if held is None else held[1][0]

    def getlist(self, name: str) -> list[str]:
        """All values; not to be changed."""
        held = self._fields.get(name.lower())
        return [] if held is None else held[1]

    def set(self, name: str, *values: str) -> None:
        """These, at least one, instead of whatever there was."""
        key = name.lower()
        held = self._fields.get(key)
        self._fields[key] = (name if held is None else held[0], [*values])

    def __getitem__(self, name: str) -> str:
        """The first value. Raises KeyError."""
        return self._fields[name.lower()][1][0]

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields

    def __str__(self) -> str:
        """As on the wire, with the empty line behind them."""
        lines = [f"{name}: {value}\r\n" for name, values in self._fields.values() for value in values]
        return "".join((*lines, "\r\n"))


@dataclass(slots=True)
class Request:
    method: str
    uri: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def __bytes__(self) -> bytes:
        return f"{self.method} {self.uri} SIP/2.0\r\n{self.headers}".encode() + self.body


@dataclass(slots=True)
class Response:
    code: int
    phrase: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def __bytes__(self) -> bytes:
        return f"SIP/2.0 {self.code} {self.phrase}\r\n{self.headers}".encode() + self.body


Message = Request | Response


def parse_head(head: bytes) -> Message:
    """A message without its body, from its first line to the empty line. Raises ValueError, which says why."""
    first, _, lines = head.decode().removesuffix("\r\n").partition("\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is not None:
        return Response(int(status[1]), status[2], _fields(lines))
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise ValueError("the first line is that of neither a request nor a response")
    return Request(request[1], request[2], _fields(lines))


def _fields(lines: str) -> Headers:
    if "\r\n " in lines or "\r\n\t" in lines:  # a field that goes on in the next line (RFC 3261 7.3.1)
        lines = _FOLD.sub(" ", lines)
    fields = _FIELD.findall(lines)
    if len(fields) != lines.count("\n"):  # of every line, whatever ends it: none may be passed over
        wrong = next(line for line in lines.split("\r\n") if not _FIELD.fullmatch(f"{line}\r\n"))
        raise ValueError(f"{wrong[:40]!r} is no header field")
    if " \r" in lines or "\t\r" in lines:
        fields = [(name, value.rstrip(" \t")) for name, value in fields]
    return Headers(fields)


def quoted(text: str) -> str:
    """`text` as a quoted string (RFC 3261 25.1); control characters, which none can hold, become spaces."""
    return f'"{_TO_ESCAPE.sub(_escape, text)}"'


_TO_ESCAPE: Final = re.compile(r'["\\\x00-\x08\x0a-\x1f\x7f]')


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}" if match[0] in '"\\' else " "
