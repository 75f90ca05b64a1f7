"""SIP on a stream: cutting it into messages by Content-Length (RFC 3261 18.3), and where a phone writes its name.

What a message says is parsed by `sipmessage`; this is the bounded frame around it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sipmessage import Address, Message, Request, Response

from cucm.errors import DecodeError, LimitExceeded

MAX_HEAD: Final = 8 * 1024
MAX_BODY: Final = 64 * 1024
DEVICE_NAME_PARAMETER: Final = "+u.sip!devicename.ccm.cisco.com"
"""Contact parameter with the device's name [recall]; no REGISTER of a phone is in the facts."""

MAX_EXPIRES_S: Final = 2**32 - 1
"""RFC 3261 20.19."""

_HEAD_END: Final = b"\r\n\r\n"


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
        try:
            return Message.parse(head)
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
        name = contact.parameters.get(DEVICE_NAME_PARAMETER)
        if name:
            return name.strip('"')
    raise DecodeError("no device name", offset=0, path="sip.Contact")


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
    try:
        return message.contact
    except ValueError as error:
        raise DecodeError(f"unreadable contact: {error}", offset=0, path="sip.Contact") from error


def _seconds(text: str, path: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or int(text) > MAX_EXPIRES_S:
        raise DecodeError("no number of seconds", offset=0, path=path)
    return int(text)
