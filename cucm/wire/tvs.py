"""TVS (facts 2): the connection that carries the messages, and the messages themselves under one import."""

from __future__ import annotations

from typing import Final

from cucm.errors import DecodeError, LimitExceeded, WireError
from cucm.records import dataclass
from cucm.wire.cursor import Element
from cucm.wire.tvs_messages import (
    DEVICE_NAME_MARK,
    HEADER_BYTES,
    ISSUER_OR_SERIAL_TAGS,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    MESSAGE_CLASSES,
    PORT,
    PROTOCOL_DISCRIMINATOR,
    REQUEST_PAD,
    RESPONSE_PAD,
    STATUS_NOT_FOUND,
    STATUS_OK,
    VERSION,
    MessageType,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsMessage,
    TvsTag,
    VerifyRequest,
    VerifyResponse,
    check_header,
    decode_body,
    decode_message,
    encode_message,
    header_bytes,
    payload_bytes,
)

__all__ = [
    "CONNECTION_CLOSED",
    "DEVICE_NAME_MARK",
    "HEADER_BYTES",
    "ISSUER_OR_SERIAL_TAGS",
    "MAX_BUFFERED",
    "MAX_MESSAGE",
    "MAX_MESSAGES",
    "MAX_PAYLOAD",
    "MESSAGE_CLASSES",
    "NEED_DATA",
    "PORT",
    "PROTOCOL_DISCRIMINATOR",
    "REQUEST_PAD",
    "RESPONSE_PAD",
    "STATUS_NOT_FOUND",
    "STATUS_OK",
    "VERSION",
    "ConnectionClosed",
    "Element",
    "MessageType",
    "NeedData",
    "QueryCertificateRequest",
    "QueryCertificateResponse",
    "TvsConnection",
    "TvsMessage",
    "TvsTag",
    "VerifyRequest",
    "VerifyResponse",
    "check_header",
    "decode_message",
    "encode_message",
    "header_bytes",
    "payload_bytes",
]

MAX_MESSAGES: Final = 1024
"""Most messages read from one connection. Phones send one (facts 2.9); several on one connection are UNKNOWN."""
MAX_BUFFERED: Final = 16 * MAX_MESSAGE
"""Most bytes that a connection keeps for a reader that does not call `next_event`."""


@dataclass(frozen=True, slots=True)
class NeedData:
    """No whole message is there yet."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The peer closed between two messages."""


NEED_DATA: Final = NeedData()
CONNECTION_CLOSED: Final = ConnectionClosed()


class TvsConnection:
    """Either side of a TVS connection, without I/O: bytes in, messages out, whatever the chunking.

    After an error the connection is of no more use: every later `next_event` raises the same error again. Offsets in
    its DecodeErrors count from the start of the message at fault.
    """

    def __init__(self, *, max_message: int = MAX_MESSAGE, max_messages: int = MAX_MESSAGES) -> None:
        """`max_message` bounds one message in bytes (header included), `max_messages` those read in all."""
        self._max_message = max_message
        self._max_messages = max_messages
        self._buffer = bytearray()
        self._count = 0
        self._closed = False
        self._overflow = False
        self._failure: WireError | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes that came from the peer; never fails, `next_event` tells what is wrong with them."""
        if self._failure is not None or self._overflow:
            return  # after a gap nothing belongs together any more
        room = MAX_BUFFERED - len(self._buffer)
        self._overflow = len(data) > room
        self._buffer += data[:room]

    def receive_eof(self) -> None:
        """The peer will send nothing more."""
        self._closed = True

    def next_event(self) -> TvsMessage | NeedData | ConnectionClosed:
        """The next message, or that there is none (yet).

        Raises DecodeError for bytes that are no TVS message or an end in mid-message, LimitExceeded past a limit.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_event()
        except WireError as failure:
            self._failure = failure
            self._buffer.clear()
            raise

    def send(self, message: TvsMessage) -> bytes:
        """Bytes to write to the peer. Raises EncodeError."""
        return encode_message(message)

    def _next_event(self) -> TvsMessage | NeedData | ConnectionClosed:
        buffer = self._buffer
        if buffer:
            if self._count >= self._max_messages:
                raise LimitExceeded(f"more than {self._max_messages} messages on one connection")
            check_header(buffer)
            if len(buffer) >= HEADER_BYTES:
                length = HEADER_BYTES + (buffer[8] << 8 | buffer[9])
                if length > self._max_message:
                    raise LimitExceeded(f"message of {length} bytes, {self._max_message} are allowed")
                if len(buffer) >= length:
                    return self._take(length)
        if self._overflow:
            raise LimitExceeded(f"more than {MAX_BUFFERED} bytes came at once")
        if not self._closed:
            return NEED_DATA
        if buffer:
            raise DecodeError("connection closed in mid-message", offset=len(buffer), path="message")
        return CONNECTION_CLOSED

    def _take(self, length: int) -> TvsMessage:
        whole = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._count += 1
        return decode_body(whole)
