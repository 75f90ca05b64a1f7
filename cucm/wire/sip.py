"""SIP on a stream: cutting it into messages by Content-Length (RFC 3261 18.3), and where a phone writes its name.

What a message says is parsed by `sipmessage`; this is the bounded frame around it.
"""

from __future__ import annotations

from typing import Final

from sipmessage import Message, Request, Response

from cucm.errors import DecodeError, LimitExceeded

MAX_HEAD: Final = 8 * 1024
MAX_BODY: Final = 64 * 1024
DEVICE_NAME_PARAMETER: Final = "+u.sip!devicename.ccm.cisco.com"
"""Contact parameter with the device's name [recall]; no REGISTER of a phone is in the facts."""

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
    try:
        contacts = request.contact
    except ValueError as error:
        raise DecodeError(f"unreadable contact: {error}", offset=0, path="sip.Contact") from error
    for contact in contacts:
        name = contact.parameters.get(DEVICE_NAME_PARAMETER)
        if name:
            return name.strip('"')
    raise DecodeError("no device name", offset=0, path="sip.Contact")
