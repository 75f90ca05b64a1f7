"""Alarms that a phone sends to its CallManager: XML in the body of a SIP REFER (facts 7.6).

`Alarm` is any of them, as far as they are made like those of the facts; `DeviceTlInfo` is the one that tells which
trust lists a phone holds.
"""

from __future__ import annotations

import re
from typing import Final, Self
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape, quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cucm.errors import DecodeError, LimitExceeded
from cucm.records import dataclass

CONTENT_TYPE: Final = "application/x-cisco-alarm+xml"
MAX_LENGTH: Final = 16 * 1024
"""Bytes; ours. The one in the facts has some 700."""
MAX_PARAMETERS: Final = 64
"""Ours; the one in the facts has 8."""
STATUS_UPDATED: Final = 3
"""The only StatusCode ever seen, with a successful update; the list of codes is UNKNOWN (facts 7.6), so phones of this
lab always send it."""
NOT_INSTALLED: Final = "Not Installed"
NO_SERVER: Final = "N/A"
_NAME: Final = "DeviceTLInfo"
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0, section 2.2."""
_ELEMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
"""`String`, `Enum` and the like; ours. One of a namespace could not be written again."""

# the trick: what phones write has one layout and plain texts, and needs no XML parser; all else goes to one
_USUAL_TEXT: Final = "[A-Za-z0-9 ._:/-]*"
_USUAL_PARAMETER: Final = re.compile(f'<([A-Za-z]{{1,32}}) name="({_USUAL_TEXT})">({_USUAL_TEXT})</\\1>\n')
_USUAL: Final = re.compile(
    (
        f'<\\?xml version="1\\.0" encoding="UTF-8"\\?>\n<x-cisco-alarm>\n<Alarm Name="({_USUAL_TEXT})">\n'
        "<ParameterList>\n"
        f'((?:<[A-Za-z]{{1,32}} name="{_USUAL_TEXT}">{_USUAL_TEXT}</[A-Za-z]{{1,32}}>\n)*+)'
        "</ParameterList></Alarm></x-cisco-alarm>"
    ).encode()
)


@dataclass(frozen=True, slots=True)
class AlarmParameter:
    """`<String name="DeviceName">...`: `element` is `String`, `Enum` and the like."""

    element: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Alarm:
    name: str
    parameters: tuple[AlarmParameter, ...]

    def encode(self) -> bytes:
        """In the line layout of facts 7.6. Raises nothing, whatever the texts: what XML cannot hold becomes U+FFFD."""
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            "<x-cisco-alarm>",
            f"<Alarm Name={_quoted(self.name)}>",
            "<ParameterList>",
            *(
                f"<{one.element} name={_quoted(one.name)}>{_escaped(one.value)}</{one.element}>"
                for one in self.parameters
            ),
            "</ParameterList></Alarm></x-cisco-alarm>",
        ]
        return "\n".join(lines).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises LimitExceeded, and DecodeError for what is no alarm."""
        if len(data) > MAX_LENGTH:
            raise LimitExceeded(f"an alarm of {len(data)} bytes, at most {MAX_LENGTH} are read", where="alarm")
        usual = _USUAL.fullmatch(data)
        if usual is not None:
            found = _USUAL_PARAMETER.findall(usual[2].decode())
            if len(found) == usual[2].count(b"\n") <= MAX_PARAMETERS:
                return cls(usual[1].decode(), tuple(AlarmParameter(*one) for one in found))
        root = _parse(data)
        alarm = root.find("Alarm")
        if root.tag != "x-cisco-alarm" or alarm is None:
            raise DecodeError(f"<{root.tag[:40]}> holds no alarm", offset=0, path="alarm")
        elements = alarm.findall("ParameterList/*")
        if len(elements) > MAX_PARAMETERS:
            raise LimitExceeded(f"more than {MAX_PARAMETERS} parameters", where="alarm.ParameterList")
        if not all(_ELEMENT.fullmatch(one.tag) for one in elements):
            raise DecodeError("a parameter of unknown kind", offset=0, path="alarm.ParameterList")
        others = (AlarmParameter(one.tag, one.get("name", ""), one.text or "") for one in elements)
        return cls(alarm.get("Name", ""), tuple(others))


@dataclass(frozen=True, slots=True)
class DeviceTlInfo:
    """Which lists a phone holds: SHA-1 of each file (None: not installed) and the TFTP server it came from."""

    device_name: str
    ctl_signature: bytes | None
    ctl_tftp_server: str | None
    itl_signature: bytes | None
    itl_tftp_server: str | None
    ipv4_address: str = ""
    ipv6_address: str = ""
    status_code: int = STATUS_UPDATED

    def as_alarm(self) -> Alarm:
        texts = {
            "DeviceName": self.device_name,
            "IPv4Address": self.ipv4_address,
            "IPv6Address": self.ipv6_address,
            "CTL_Signature": _signature_text(self.ctl_signature),
            "CTL_TFTP_Server": self.ctl_tftp_server or NO_SERVER,
            "ITL_Signature": _signature_text(self.itl_signature),
            "ITL_TFTP_Server": self.itl_tftp_server or NO_SERVER,
            "StatusCode": str(self.status_code),
        }
        return Alarm(_NAME, tuple(AlarmParameter("String", name, text) for name, text in texts.items()))

    @classmethod
    def of(cls, alarm: Alarm) -> Self | None:
        """None for another alarm. Raises DecodeError for one of this name that does not say what it should."""
        if alarm.name != _NAME:
            return None
        texts = {one.name: one.value for one in alarm.parameters}
        try:
            return cls(
                texts["DeviceName"],
                _signature(texts["CTL_Signature"]),
                _server(texts["CTL_TFTP_Server"]),
                _signature(texts["ITL_Signature"]),
                _server(texts["ITL_TFTP_Server"]),
                texts.get("IPv4Address", ""),
                texts.get("IPv6Address", ""),
                _status_code(texts["StatusCode"]),
            )
        except KeyError as error:
            raise DecodeError("parameter missing", offset=0, path=f"alarm.{error.args[0]}") from None


def _parse(data: bytes) -> Element:
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DecodeError(f"no usable XML ({type(error).__name__}: {error})", offset=0, path="alarm") from error
    return root


_PLAIN: Final = re.compile(_USUAL_TEXT)
"""Texts that XML takes as they are: nearly all."""


def _escaped(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return quoteattr(_NOT_XML.sub("\ufffd", text))


def _signature_text(digest: bytes | None) -> str:
    """20 hex bytes, each with a space behind it, also the last (facts 7.6)."""
    return NOT_INSTALLED if digest is None else f"{digest.hex(' ').upper()} "


def _signature(text: str) -> bytes | None:
    if text.strip() == NOT_INSTALLED:
        return None
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 20:
        raise DecodeError(f"no SHA-1 of 20 hex bytes: {text[:80]!r}", offset=0, path="alarm.Signature")
    return digest


def _server(text: str) -> str | None:
    return None if text.strip() in {NO_SERVER, ""} else text.strip()[:255]


def _status_code(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise DecodeError(f"{text[:20]!r} is no number", offset=0, path="alarm.StatusCode")
    return int(text)
