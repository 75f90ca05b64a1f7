"""Find bytes in what people paste: bare hex, a C or Python array, a TVS trace, a phone's console log, xxd output.

Pure text work. TVS prints a dump as `HEX_DUMP: Len = 153:` and then 8 bytes a line, the first 50 bytes only; a phone
announces `... byte dump ====, len = 153` (facts 10).
"""

from __future__ import annotations

import re
from typing import Final

from cucm.errors import LabError
from cucm.records import dataclass

TRACE_WIDTH: Final = 8
"""Bytes on a full line of a TVS HEX_DUMP (facts 10)."""

_PREFIXES: Final = (
    re.compile(r"^\s*\d\d:\d\d:\d\d\.\d+\s*\|\s*(?:-->|<--)?\s*(?:debug\b)?\s?"),
    re.compile(r"^\s*\d+:?\s+(?:NOT|INF|DEB|WRN|ERR)\s+(?:[A-Z][a-z]{2}\s+\d+\s+)?[\d:.]+\s+\w+(?:\([\d:]+\))?[-:]\s?"),
)
_TRACE_ANNOUNCEMENT: Final = re.compile(r"^(?P<label>.*?)HEX_DUMP:\s*Len\s*=\s*(?P<length>\d{1,9})")
_PHONE_ANNOUNCEMENT: Final = re.compile(r"^(?P<label>.*byte dump) ====,\s*len\s*=\s*(?P<length>\d{1,9})")
_HEX_LINE: Final = re.compile(r"^\s*(?:(?:0x)?[0-9a-fA-F]{2}(?:[\s,:-]+|$))+$")
_SOLID_LINE: Final = re.compile(r"^\s*(?:0x)?5701(?:[0-9a-fA-F]{2}[\s,:-]*)+$")
_OFFSET_LINE: Final = re.compile(r"^\s*(?:0x)?(?P<offset>[0-9a-fA-F]{4,8}):?\s+(?P<rest>\S.*)$")
_PAIRS: Final = re.compile(r"^[0-9a-fA-F]{2}(?: [0-9a-fA-F]{2})*$")
_WORDS: Final = re.compile(r"^(?:[0-9a-fA-F]{2}){1,2}(?: (?:[0-9a-fA-F]{2}){1,2})*$")
_SEPARATORS: Final = re.compile(r"(?:[\s,:;{}()\[\]\"'|-]|\\x|0[xX])+")


@dataclass(frozen=True, slots=True)
class HexDump:
    """Bytes as found. `line` (from 1) is where they or their announcement stand, `label` what the log calls them.

    `declared_length` is the length the log gives for the whole, of which `data` may be the beginning only (or nothing);
    `line_lengths` is how many bytes each line of the dump carries.
    """

    data: bytes
    line: int = 1
    label: str = ""
    declared_length: int | None = None
    line_lengths: tuple[int, ...] = ()


def find_dumps(text: str) -> tuple[HexDump, ...]:
    """Every dump in `text`, in order. Raises `LabError` when bare hex is broken; an empty tuple when there is none."""
    lines = text.splitlines()
    announced = _announced(lines)
    if announced:
        return announced
    if not re.search(r"[^0-9a-fA-FxX\s,:;{}()\[\]\"'|\\-]", text):
        return _hex_only(text, lines)
    return _with_offsets(lines) or _blocks(lines)


def _hex_only(text: str, lines: list[str]) -> tuple[HexDump, ...]:
    """Text without any other letters: bytes, unless it begins with an offset of 0 (od; a message begins with 57)."""
    first = next((line for line in lines if line.strip()), "")
    match = _OFFSET_LINE.match(first)
    if match and not int(match["offset"], 16):
        return _with_offsets(lines) or (HexDump(_bare(text), label="hex"),)
    return (HexDump(_bare(text), label="hex"),) if first else ()


def body(line: str) -> str:
    """A log line without its time, level and process."""
    for prefix in _PREFIXES:
        if match := prefix.match(line):
            return line[match.end() :]
    return line


def _announced(lines: list[str]) -> tuple[HexDump, ...]:
    found, previous = [], ""
    for number, line in enumerate(lines):
        match, consumed = _announcement(lines, number)
        if match:
            label = match["label"].strip() or previous
            rows = _hex_rows(lines, number + consumed)
            found.append(
                HexDump(b"".join(rows), number + 1, label, int(match["length"]), tuple(len(row) for row in rows))
            )
        if body(line).strip():
            previous = body(line).strip()
    return tuple(found)


def _announcement(lines: list[str], number: int) -> tuple[re.Match[str] | None, int]:
    """The announcement that begins on a line, and how many lines it takes: pasted pages break long lines."""
    here = body(lines[number])
    if "HEX_DUMP" in here:
        return _TRACE_ANNOUNCEMENT.match(here), 1
    if "byte dump" not in here:
        return None, 1
    if match := _PHONE_ANNOUNCEMENT.match(here):
        return match, 1
    return _PHONE_ANNOUNCEMENT.match(" ".join([here, *lines[number + 1 : number + 2]])), 2


def _hex_rows(lines: list[str], start: int) -> list[bytes]:
    """The lines from `start` on that hold nothing but hex."""
    rows = []
    for number in range(start, len(lines)):
        text = body(lines[number])
        if not _HEX_LINE.match(text):
            break
        rows.append(_bare(text))
    return rows


def _bare(text: str) -> bytes:
    """Hex digits with any separators; a lone digit between separators (`0x1,`) is a byte of its own."""
    values = []
    for token in filter(None, _SEPARATORS.split(text)):
        digits = f"0{token}" if len(token) == 1 else token
        try:
            values.append(bytes.fromhex(digits))
        except ValueError:
            raise LabError(
                f"this is not hex, or a digit is missing: {token[:40]!r}",
                where=f"after {sum(map(len, values))} bytes",
                mend="two digits for every byte",
            ) from None
    return b"".join(values)


def _with_offsets(lines: list[str]) -> tuple[HexDump, ...]:
    """xxd, hexdump -C, tcpdump, Wireshark: an offset before the bytes, their letters behind; each offset must fit."""
    data, first = bytearray(), 0
    for number, line in enumerate(lines, start=1):
        match = _OFFSET_LINE.match(line)
        row = _offset_row(match["rest"]) if match and int(match["offset"], 16) == len(data) else b""
        if row:
            first = first or number
            data += row
        elif data:
            break
    return (HexDump(bytes(data), first, "hex dump with offsets"),) if data else ()


def _offset_row(text: str) -> bytes:
    """The bytes of a line, in one block or in two of eight; what follows two spaces or `|` are their letters."""
    blocks = re.split(r"\s{2,}", text.partition("|")[0].strip())
    if not _WORDS.match(blocks[0]):
        return b""
    halved = len(blocks) > 1 and len(blocks[0]) == 8 * 3 - 1 and all(map(_PAIRS.match, blocks[:2]))
    return bytes.fromhex("".join(blocks[: 2 if halved else 1]))


def _blocks(lines: list[str]) -> tuple[HexDump, ...]:
    """Runs of lines that hold nothing but hex in pairs, and lines of solid hex that begin like a message."""
    found, number = [], 0
    while number < len(lines):
        rows = [_bare(lines[number])] if _SOLID_LINE.match(lines[number]) else _hex_rows(lines, number)
        if rows:
            found.append(HexDump(b"".join(rows), number + 1, "hex", None, tuple(len(row) for row in rows)))
        number += len(rows) or 1
    return tuple(found)
