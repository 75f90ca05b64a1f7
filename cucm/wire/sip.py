"""SIP on a stream: cutting it into messages by Content-Length (RFC 3261 18.3), and where a phone writes its name.

What a message says is parsed by `sipmessage`; this is the bounded frame around it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from sipmessage import Address, Message, Request, Response

from cucm.errors import DecodeError, LimitExceeded

MAX_HEAD: Final = 8 * 1024
MAX_BODY: Final = 64 * 1024
MAX_HEADERS: Final = 128
"""Lines of a head; ours. A phone writes some 20, and `sipmessage` takes time with their square."""
DEVICE_NAME_PARAMETER: Final = "+u.sip!devicename.ccm.cisco.com"
"""Contact parameter with the device's name [recall]; no REGISTER of a phone is in the facts."""

MAX_EXPIRES_S: Final = 2**32 - 1
"""RFC 3261 20.19."""

_HEAD_END: Final = b"\r\n\r\n"
_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What CUCM Administration takes as the name of a device [recall]; it stands in logs and tables from here on."""
_TELEPHONE: Final = "tel:"
"""`sipmessage` takes time with the square of a telephone URI's length (8 KiB: 1.7 s), and nobody here needs one."""
_CONTACT_PARTS: Final = re.compile(
    r'"(?:[^"\\]|\\.)*+"?|<[^<>]*>|(?P<expires>[ \t]*;[ \t]*expires[ \t]*=[^;,"<>]*)', re.IGNORECASE
)


class SipReceiver:
    """Give it what a connection brings, take messages out. Either side, no I/O."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._taken = 0
        self._message: Request | Response | None = None
        self._body_length = 0

    def receive_data(self, data: bytes) -> None:
        self._received += data

    def next_message(self) -> Request | Response | None:
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
        self._skip_keep_alives()
        end = self._received.find(_HEAD_END, 0, MAX_HEAD)
        if end < 0:
            if len(self._received) >= MAX_HEAD:
                raise LimitExceeded(f"SIP message head larger than {MAX_HEAD} bytes", where=f"offset {self._taken}")
            return
        message = self._parse(bytes(self._received[: end + len(_HEAD_END)]))
        self._body_length = self._content_length(message)
        self._take(end + len(_HEAD_END))
        self._message = message

    def _skip_keep_alives(self) -> None:
        """Empty lines before a message (RFC 3261 7.5)."""
        blank = len(self._received) - len(self._received.lstrip(b"\r\n"))
        self._take(blank)

    def _parse(self, head: bytes) -> Request | Response:
        if head.count(b"\r\n") > MAX_HEADERS:
            raise LimitExceeded(f"SIP message with more than {MAX_HEADERS} lines", where=f"offset {self._taken}")
        if _TELEPHONE.encode() in head.partition(b"\r\n")[0]:
            raise DecodeError("telephone URIs are not emulated", offset=self._taken, path="sip")
        try:
            return Message.parse(head)
        except (ValueError, TypeError) as error:  # TypeError: a parameter named `self`
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
        name = contact.parameters.get(DEVICE_NAME_PARAMETER)
        if name:
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
    """The Contact of a REGISTER as its answer has it: with the seconds that are granted (RFC 3261 10.3, step 8).

    By hand: `sipmessage` would percent-encode a phone's parameters.
    """
    kept = _CONTACT_PARTS.sub(lambda part: "" if part["expires"] else part[0], contact)
    return f"{kept};expires={expires_s}"


def expiry_of(message: Message, default_s: int) -> int:
    """Seconds that a REGISTER asks for or its answer grants: Contact's `expires` before the header Expires (RFC 3261
    10.2.1.1), `default_s` when neither is there. Raises DecodeError.
    """
    for contact in _contacts(message):
        if (text := contact.parameters.get("expires")) is not None:
            return _seconds(text, "sip.Contact.expires")
    text = message.headers.get("Expires")
    return default_s if text is None else _seconds(text, "sip.Expires")


def response_to(request: Request | None, status: int, phrase: str) -> Response:
    """An answer that repeats what RFC 3261 8.2.6 asks for; of a request that could not be read there is nothing."""
    response = Response(status, phrase)
    if request is not None:
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            values = request.headers.getlist(name)
            if values:
                response.headers.setlist(name, list(values))
        _add_tag(response, request.headers.get("Call-ID") or "")
    response.content_length = 0
    return response


def transaction_of(message: Message) -> tuple[str, str]:
    """What an answer shares with its request on one connection: Call-ID and CSeq."""
    return message.headers.get("Call-ID") or "", message.headers.get("CSeq") or ""


def _add_tag(response: Response, call_id: str) -> None:
    """The answering side's tag in To (RFC 3261 8.2.6.2); made of the Call-ID, so that a repetition has the same."""
    to = response.headers.get("To")
    if to is not None and ";tag=" not in to:
        response.headers.set("To", f"{to};tag={hashlib.sha256(call_id.encode()).hexdigest()[:16]}")


def _contacts(message: Message) -> list[Address]:
    """Empty without the header and for the `*` of a removal of all bindings. Raises DecodeError."""
    values = message.headers.getlist("Contact")
    if not values or values == ["*"]:
        return []
    if any(_TELEPHONE in value for value in values):
        raise DecodeError("telephone URIs are not emulated", offset=0, path="sip.Contact")
    try:
        return message.contact
    except (ValueError, TypeError) as error:  # TypeError: a parameter named `self`
        raise DecodeError(f"unreadable contact: {error}", offset=0, path="sip.Contact") from error


def _seconds(text: str, path: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or int(text) > MAX_EXPIRES_S:
        raise DecodeError("no number of seconds", offset=0, path=path)
    return int(text)
