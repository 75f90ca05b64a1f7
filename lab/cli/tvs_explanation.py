"""Explain the bytes of a TVS message, whole or cut short, field by field, each with its offset, path and confidence.

The codec (`cucm.wire.tvs`) refuses what does not follow the format; this reads as far as the bytes go and says where
and why it stops. Facts 2.1 to 2.6.
"""

from __future__ import annotations

import hashlib
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import Final

from cucm.errors import WireError
from cucm.records import dataclass
from cucm.roles import TrustRole
from cucm.wire.tvs import (
    HEADER_BYTES,
    ISSUER_OR_SERIAL_TAGS,
    PROTOCOL_DISCRIMINATOR,
    VERSION,
    MessageType,
    TvsTag,
    decode_message,
)

MEANINGS: Final = {
    MessageType.VERIFY_REQUEST: "the phone asks whether a certificate is good",
    MessageType.VERIFY_RESPONSE: "the answer whether a certificate is good",
    MessageType.QUERY_CERTIFICATE_REQUEST: "the phone asks for a certificate by its names and serial number",
    MessageType.QUERY_CERTIFICATE_RESPONSE: "the answer with the certificate",
}
STATED: Final = "stated"
TTL_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class ExplainedField:
    """One field: `data` are the bytes at hand (with an element's tag and length), `length` how many it should have."""

    offset: int
    length: int
    path: str
    name: str
    meaning: str
    confidence: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the bytes say. `problem` is set when they contradict the format, `missing` counts bytes not at hand."""

    data: bytes
    fields: tuple[ExplainedField, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None
    session_id: int | None = None
    total_length: int | None = None
    missing: int = 0


@dataclass(slots=True)
class _Reading:
    data: bytes
    fields: list[ExplainedField] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, offset: int, length: int, path: str, name: str, meaning: str, confidence: str = STATED) -> None:
        shown = self.data[offset : offset + length]
        self.fields.append(ExplainedField(offset, length, path, name, meaning, confidence, shown))


def explain_message(data: bytes, *, declared_length: int | None = None) -> Explanation:
    """Explain one message at the start of `data`; `declared_length` is its whole length where a log tells it.

    Bytes behind the message's end are counted in a note. Never raises, whatever the bytes.
    """
    reading = _Reading(data)
    problem = _read_header(reading, declared_length)
    if len(data) < HEADER_BYTES:
        note = f"the dump ends inside the {HEADER_BYTES}-byte header"
        return Explanation(data, tuple(reading.fields), (note,), problem, missing=HEADER_BYTES - len(data))
    total = HEADER_BYTES + int.from_bytes(data[8:10])
    problem = problem or _read_elements(reading, total)
    missing = max(total - len(data), 0)
    if not missing and not problem:
        problem = _refusal(data[:total])
    if missing and not problem:
        reading.notes.append(f"the dump ends at offset {len(data)}: {missing} of {total} bytes are not in it")
    return Explanation(
        data[:total],
        tuple(reading.fields),
        tuple(reading.notes),
        problem,
        session_id=int.from_bytes(data[4:8]),
        total_length=total,
        missing=missing,
    )


def explain_messages(data: bytes, *, declared_length: int | None = None) -> tuple[Explanation, ...]:
    """Explain the message, and further ones when others follow it in the same bytes."""
    explained: list[Explanation] = []
    start = 0
    while not explained or (start < len(data) and not explained[-1].problem):
        # never all that is left: copying it for every message takes minutes where there are many
        end = start + HEADER_BYTES + int.from_bytes(data[start + 8 : start + HEADER_BYTES])
        explained.append(explain_message(data[start:end], declared_length=declared_length))
        start += len(explained[-1].data)
    if len(explained) > 1 and explained[-1].problem and explained[-1].data[:1] != bytes([PROTOCOL_DISCRIMINATOR]):
        trailing = len(explained.pop().data) + len(data) - start
        note = f"{trailing} bytes follow the message; they are not another one"
        explained[-1] = replace(explained[-1], notes=(*explained[-1].notes, note))
    return tuple(explained)


def _read_header(reading: _Reading, declared_length: int | None) -> str | None:
    data = reading.data
    problem = None
    if data:
        good = data[0] == PROTOCOL_DISCRIMINATOR
        reading.add(0, 1, "header", "protocol discriminator", "'W'" if good else "not a TVS message: 57 expected")
        problem = None if good else f"offset 0, header: discriminator is {data[0]:02x}, a TVS message begins with 57"
    if len(data) > 1:
        reading.add(1, 1, "header", "version", str(data[1]))
        if data[1] != VERSION and not problem:
            problem = f"offset 1, header: version is {data[1]}, only {VERSION} is known"
    if len(data) > 2:
        reading.add(2, 1, "header", "message type", _type_text(data[2]))
        if data[2] not in MEANINGS and not problem:
            problem = f"offset 2, header: message type {data[2]} is not known (1 to 4 are)"
    if len(data) > 3:
        reading.add(3, 1, "header", "pad", "without meaning: requests have 00, answers whatever lay in memory")
    if len(data) >= 8:
        meaning = f"{int.from_bytes(data[4:8])} (echoed in the answer; CUCM's trace prints 0 for it)"
        reading.add(4, 4, "header", "session id", meaning)
    if len(data) >= HEADER_BYTES:
        problem = _read_length(reading, declared_length) or problem
    return problem


def _read_length(reading: _Reading, declared_length: int | None) -> str | None:
    payload = int.from_bytes(reading.data[8:10])
    total = HEADER_BYTES + payload
    reading.add(8, 2, "header", "payload length", f"{payload}, so {total} bytes with the header")
    if declared_length is None or declared_length == total:
        return None
    return (
        f"offset 8, header: the length field says {payload}, but the log says {declared_length} bytes in all,"
        f" which is a payload of {declared_length - HEADER_BYTES}"
    )


def _refusal(message: bytes) -> str | None:
    """Why the codec refuses a whole message in which nothing else was wrong; None if it does not."""
    try:
        decode_message(message)
    except WireError as error:
        return str(error)
    return None


def _read_elements(reading: _Reading, end: int) -> str | None:
    """Read elements up to `end` or as far as the bytes go; returns the contradiction that stopped it."""
    data, offset, index = reading.data, HEADER_BYTES, 0
    while offset < min(end, len(data)):
        path = f"element[{index}]"
        if offset + 3 > end:
            return f"offset {offset}, {path}: {end - offset} bytes of payload are left, too few for a tag and a length"
        if offset + 3 > len(data):
            reading.add(offset, 3, path, "head of an element", f"tag {data[offset]}, its length is cut off")
            return None
        tag, length = data[offset], int.from_bytes(data[offset + 1 : offset + 3])
        value = data[offset + 3 : min(offset + 3 + length, end)]
        if offset + 3 + length > end:
            return (
                f"offset {offset}, {path}: tag {tag} claims {length} bytes, but the payload has {end - offset - 3} left"
            )
        name, meaning, confidence = explain_element(tag, value, length)
        reading.add(offset, 3 + length, path, f"{name} (tag {tag}, length {length})", meaning, confidence)
        offset, index = offset + 3 + length, index + 1
    return None


def explain_element(tag: int, value: bytes, length: int) -> tuple[str, str, str]:
    """Name, meaning and confidence of an element of which `value` holds the first bytes of `length`."""
    cut = f" ({len(value)} of {length} bytes are in the dump)" if len(value) < length else ""
    match tag:
        case TvsTag.DEVICE_NAME:
            odd = "" if value[:1] == b"\x01" else " (the first byte should be 01)"
            return "device name", _text(value[1:]) + odd + cut, STATED
        case TvsTag.CERTIFICATE:
            return "certificate", _certificate(value, cut), STATED
        case TvsTag.SUBJECT:
            return "subject name", _text(value) + cut, STATED
        case _ if tag in ISSUER_OR_SERIAL_TAGS:
            return *_issuer_or_serial(value, cut), "UNKNOWN which of the tags 4, 5, 6; told apart by its content"
        case TvsTag.STATUS:
            known = {0: "0: ok, found or valid", 1: "1: not found or not valid"}
            text = known.get(value[0], f"{value[0]}: not known") if value else "no byte"
            return "status", text + cut, STATED if value[:1] == b"\x00" else "[peer]: what CUCM sends is UNKNOWN"
        case TvsTag.ROLES:
            roles = ", ".join(role_text(role) for role in value) or "none"
            return "roles", roles + cut, "[calc] from the lengths, and [peer]"
        case TvsTag.TTL:
            return "time to live", (_seconds(value) if not cut else "") + cut, STATED
        case _:
            return "not a known element", _octets(value) + cut, "UNKNOWN"


def _type_text(number: int) -> str:
    if number not in MEANINGS:
        return "none that is known (1 to 4)"
    kind = MessageType(number)
    return f"{kind.log_name}: {MEANINGS[kind]}"


def role_text(role: int) -> str:
    """`0 SAST`; a number without a name stays a number."""
    known = role in TrustRole.__members__.values()
    return f"{role} {TrustRole(role).name}" if known else f"{role} (no known role)"


def _issuer_or_serial(value: bytes, cut: str) -> tuple[str, str]:
    text = value.removesuffix(b"\0")
    if text and all(0x20 <= byte < 0x7F for byte in text) and (cut or text != value):
        return "issuer name", _text(value) + cut
    return "serial number", value.hex().upper() + cut


def _text(value: bytes) -> str:
    text = value.removesuffix(b"\0").decode("latin-1")
    return f'"{text}"' if text.isprintable() else _octets(value)


def _seconds(value: bytes) -> str:
    if len(value) != TTL_BYTES:
        return f"{_octets(value)}: not the {TTL_BYTES} bytes of a number of seconds"
    seconds = int.from_bytes(value)
    return f"{seconds} s = {seconds / 3600:g} h"


def _octets(value: bytes, most: int = 24) -> str:
    return value[:most].hex(" ") + (" …" if len(value) > most else "")


def _certificate(value: bytes, cut: str) -> str:
    """What a DER tells, whole or cut."""
    if cut:
        serial = _serial_in_head(value)
        return f"DER{cut}" + (f", serial number {serial}" if serial else "")
    from cucm.identity import describe
    from cucm.names import serial_hex

    try:
        known = describe(value)
    except WireError:
        return f"{len(value)} bytes that are not a usable certificate"
    names = f"subject {known.subject}, issuer {known.issuer}, serial number {serial_hex(known.serial)}"
    dates = f"{_day(known.not_before)} to {_day(known.not_after)}"
    return f"{names}, valid {dates}, SHA-1 {hashlib.sha1(value).hexdigest()}"


def _day(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def _serial_in_head(der: bytes) -> str | None:
    """The serial number from the first bytes of a certificate: SEQUENCE, SEQUENCE, [0] version, INTEGER."""
    head = b"\xa0\x03\x02\x01\x02\x02"
    at = der.find(head, 0, 32)
    if at < 0 or len(der) <= at + len(head):
        return None
    length = der[at + len(head)]
    serial = der[at + len(head) + 1 :][:length]
    return serial.hex().upper() + ("…" if len(serial) < length else "")
