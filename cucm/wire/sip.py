"""SIP on a stream: cutting it into messages by Content-Length (RFC 3261 18.3), and where a phone writes its name.

What a message is made of stands in `cucm.wire.sip_message`; this is the bounded frame around it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.sip_message import SIP_URI, TOKEN, Headers, Message, Request, Response, parse_head

MAX_HEAD: Final = 8 * 1024
MAX_BODY: Final = 64 * 1024
MAX_HEADERS: Final = 128
"""Lines of a head; ours. A phone writes some 20."""
DEVICE_NAME_PARAMETER: Final = "+u.sip!devicename.ccm.cisco.com"
"""Contact parameter with the device's name [recall]; no REGISTER of a phone is in the facts."""

MAX_EXPIRES_S: Final = 2**32 - 1
"""RFC 3261 20.19."""

_REPEATED: Final = ("Via", "From", "To", "Call-ID", "CSeq")
_HEAD_END: Final = b"\r\n\r\n"
_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What CUCM Administration takes as the name of a device [recall]; it stands in logs and tables from here on."""
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_ADDRESS: Final = re.compile(rf'[ \t]*+(?:(?:{_QUOTED}|[^"<>,;:]*+)[ \t]*<{SIP_URI}>|(?i:sips?):[^\s<>",;]+)[ \t]*')
"""Of Contact (RFC 3261 20.10): with a name or without. What follows `;` behind a bare URI is the field's."""
_PARAMETER: Final = re.compile(rf';[ \t]*({TOKEN})[ \t]*(?:=[ \t]*({_QUOTED}|[^\s";,<>]+)[ \t]*)?')
_NO_PARAMETER: Final = r'"(?:[^"\\]|\\.)*+"?|<[^<>]*>'
"""What is passed over in looking for a parameter of an address: its texts in quotes, its URI."""
_CONTACT_PARTS: Final = re.compile(
    rf'{_NO_PARAMETER}|(?P<comma>,)|(?P<expires>(?<![ \t])[ \t]*+;[ \t]*expires[ \t]*=(?:[ \t]*{_QUOTED}|[^;,"<>]*))',
    re.IGNORECASE,
)
_TAG: Final = re.compile(rf"{_NO_PARAMETER}|(?P<tag>;[ \t]*tag[ \t]*=)", re.IGNORECASE)


class SipReceiver:
    """Give it what a connection brings, take messages out. Either side, no I/O."""

    __slots__ = ("_body_length", "_message", "_received", "_taken")

    def __init__(self) -> None:
        self._received = bytearray()
        self._taken = 0
        self._message: Message | None = None
        self._body_length = 0

    def receive_data(self, data: bytes) -> None:
        self._received += data

    def next_message(self) -> Message | None:
        """The next whole message, None if more data is needed.

        Raises DecodeError and LimitExceeded; the stream cannot be read on after that.
        """
        if self._message is None:
            self._take_head()
        if self._message is None or len(self._received) < self._body_length:
            return None
        message, self._message = self._message, None
        message.body = self._take(self._body_length)
        return message

    def _take_head(self) -> None:
        if self._received.startswith((b"\r", b"\n")):
            self._skip_keep_alives()
        end = self._received.find(_HEAD_END, 0, MAX_HEAD)
        if end < 0:
            if len(self._received) >= MAX_HEAD:
                raise LimitExceeded(f"SIP message head larger than {MAX_HEAD} bytes", where=f"offset {self._taken}")
            return
        head = bytes(self._received[: end + len(_HEAD_END)])
        message = self._parse(head)
        self._body_length = self._content_length(message)
        self._take(len(head))
        self._message = message

    def _skip_keep_alives(self) -> None:
        """Empty lines before a message (RFC 3261 7.5)."""
        self._take(len(self._received) - len(self._received.lstrip(b"\r\n")))

    def _parse(self, head: bytes) -> Message:
        if head.count(b"\r\n") > MAX_HEADERS:
            raise LimitExceeded(f"SIP message with more than {MAX_HEADERS} lines", where=f"offset {self._taken}")
        try:
            return parse_head(head)
        except ValueError as error:
            raise DecodeError(f"no SIP message: {error}", offset=self._taken, path="sip") from error

    def _content_length(self, message: Message) -> int:
        """RFC 3261 20.14 demands the header on streams."""
        values = message.headers.getlist("Content-Length")
        if len(values) != 1 or not (values[0].isascii() and values[0].isdecimal()):
            raise DecodeError("no single length in bytes", offset=self._taken, path="sip.Content-Length")
        if len(values[0]) > len(str(MAX_BODY)) or int(values[0]) > MAX_BODY:
            raise LimitExceeded(f"SIP message body larger than {MAX_BODY} bytes", where=f"offset {self._taken}")
        return int(values[0])

    def _take(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        self._taken += count
        return data


def device_name_of(request: Request) -> str:
    """The device that sends a REGISTER, from its Contact. Raises DecodeError."""
    for contact in _contacts(request):
        if name := contact.get(DEVICE_NAME_PARAMETER):
            return as_device_name(name.strip('"'), "sip.Contact")
    raise DecodeError("no device name", offset=0, path="sip.Contact")


def as_device_name(text: str, path: str) -> str:
    """`text` if a device may be called that. DecodeError for what is too long or holds other characters."""
    if not is_device_name(text):
        raise DecodeError(f"{text[:32]!r} is no device name", offset=0, path=path)
    return text


def is_device_name(text: str) -> bool:
    return _DEVICE_NAME.fullmatch(text) is not None


def granted_contact(contact: str, expires_s: int) -> str:
    """The Contact of a REGISTER as its answer has it: each address with the seconds that are granted (RFC 3261 10.3,
    step 8).
    """
    granted = f";expires={expires_s}"

    def said(part: re.Match[str]) -> str:
        if part["comma"]:
            return f"{granted},"
        return "" if part["expires"] else part[0]

    return f"{_CONTACT_PARTS.sub(said, contact)}{granted}"


def expiry_of(message: Message, default_s: int) -> int:
    """Seconds that a REGISTER asks for or its answer grants: Contact's `expires` before the header Expires (RFC 3261
    10.2.1.1), `default_s` when neither is there. Raises DecodeError.
    """
    for contact in _contacts(message):
        if (text := contact.get("expires")) is not None:
            return _seconds(text, "sip.Contact.expires")
    text = message.headers.get("Expires")
    return default_s if text is None else _seconds(text, "sip.Expires")


def response_to(request: Request | None, status: int, phrase: str) -> Response:
    """An answer that repeats what RFC 3261 8.2.6 asks for; of a request that could not be read there is nothing."""
    asked = request.headers if request is not None else Headers()
    repeated = [(name, value) for name in _REPEATED for value in asked.getlist(name)]
    headers = Headers((*repeated, ("Content-Length", "0")))
    _add_tag(headers)
    return Response(status, phrase, headers)


def required_extensions(request: Request) -> list[str]:
    """The option tags of its Require (RFC 3261 20.32)."""
    tags = ",".join(request.headers.getlist("Require")).split(",")
    return [tag.strip() for tag in tags if tag.strip()]


def transaction_of(message: Message) -> tuple[str, str]:
    """What an answer shares with its request on one connection: Call-ID and CSeq."""
    return message.headers.get("Call-ID") or "", message.headers.get("CSeq") or ""


def _add_tag(headers: Headers) -> None:
    """The answering side's tag in To (RFC 3261 8.2.6.2); made of the Call-ID, so that a repetition has the same."""
    to = headers.get("To")
    if to is not None and not _has_tag(to):
        call_id = headers.get("Call-ID") or ""
        headers.set("To", f"{to};tag={hashlib.sha256(call_id.encode()).hexdigest()[:16]}")


def _has_tag(to: str) -> bool:
    return "tag" in to.lower() and any(part["tag"] for part in _TAG.finditer(to))


def _contacts(message: Message) -> Iterator[Mapping[str, str | None]]:
    """The parameters of each Contact, names in lower case; none for the `*` of a removal of all bindings. Raises
    DecodeError.
    """
    values = message.headers.getlist("Contact")
    if values == ["*"]:
        return
    for value in values:
        end = -1
        while end < len(value):
            parameters, end = _contact(value, end + 1)
            yield parameters


def _contact(value: str, start: int) -> tuple[dict[str, str | None], int]:
    """The parameters of the address that begins there, and where the comma behind it is, or the end of all."""
    address = _ADDRESS.match(value, start)
    if address is None:
        raise DecodeError("no address", offset=start, path="sip.Contact")
    parameters: dict[str, str | None] = {}
    end = address.end()
    while (parameter := _PARAMETER.match(value, end)) is not None:
        parameters[parameter[1].lower()] = parameter[2]
        end = parameter.end()
    if value[end : end + 1] not in ("", ","):
        raise DecodeError("no parameters of an address", offset=end, path="sip.Contact")
    return parameters, end


def _seconds(text: str, path: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or int(text) > MAX_EXPIRES_S:
        raise DecodeError("no number of seconds", offset=0, path=path)
    return int(text)
