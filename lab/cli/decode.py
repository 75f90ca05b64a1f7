"""`cucm-lab decode`: explain TVS messages from hex, a file, a TVS trace or a phone's log."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.cli.hex_dumps import HexDump
    from lab.cli.tvs_explanation import ExplainedField, Explanation

MAX_INPUT: Final = 4 * 1024 * 1024
"""Bytes of text or binary that are read; a TVS message has at most 65,545."""
BYTES_SHOWN: Final = 8

DESCRIPTION: Final = """\
Explain TVS messages. INPUT is hex in any form (57 01 03 ..., 0x57,0x01, 570103), or a file with hex, with the raw
bytes of a message, with a TVS trace (HEX_DUMP lines) or with a phone's console log; `-`, or nothing, reads standard
input. Dumps that are cut short, as CUCM's 50-byte dumps are, are explained as far as they go."""
EPILOG: Final = """\
examples:
  cucm-lab decode 57 01 04 00 00 00 03 e9 00 04 07 00 01 01
  cucm-lab decode tvs-ucm105pub.log
exit codes: 0 explained; 1 nothing to explain, or a message contradicts the format; 2 wrong words"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("input", nargs="*", metavar="INPUT", help="hex, a file, or - for standard input (default)")


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_NO, EXIT_OK
    from lab.cli.frame import print_json

    dumps = [(dump, explain_dump(dump)) for dump in dumps_of(arguments.input)]
    if arguments.json:
        print_json({"dumps": [_as_json(dump, parts) for dump, parts in dumps]})
    else:
        print("\n\n".join("\n".join(_lines(dump, parts)) for dump, parts in dumps))
    return EXIT_NO if any(part.problem for _, parts in dumps for part in parts) else EXIT_OK


def dumps_of(words: Sequence[str]) -> tuple[HexDump, ...]:
    """The dumps in what the user gave. Raises `LabError` when there is none."""
    from cucm.errors import LabError, UsageError
    from lab.cli.hex_dumps import HexDump, find_dumps
    from lab.cli.inputs import STANDARD_INPUT, read_input

    source = words[0] if words else STANDARD_INPUT
    if len(words) > 1 or not (source == STANDARD_INPUT or _is_path(source)):
        try:
            return find_dumps(" ".join(words)) or _refuse(words)
        except LabError as error:
            raise UsageError(error.what, where=error.where, mend=error.mend) from None
    if source == STANDARD_INPUT and sys.stdin is not None and sys.stdin.isatty():
        print("cucm-lab: paste hex or a trace, then end it with Ctrl-D", file=sys.stderr)
    data = read_input(source, limit=MAX_INPUT).data
    if data[:2] == b"\x57\x01":  # no text has a 01: these are the bytes themselves
        return (HexDump(data, label="raw bytes"),)
    found = find_dumps(data.decode("utf-8", "replace"))
    if not found:
        raise LabError(
            "this holds no hex dump",
            where="standard input" if source == STANDARD_INPUT else source,
            mend="give the hex of a message, or a trace with HEX_DUMP lines",
        )
    return found


def explain_dump(dump: HexDump) -> tuple[Explanation, ...]:
    """Explain the messages of one dump; empty for a dump without bytes or of something else than a message."""
    from lab.cli.tvs_explanation import explain_messages

    if not is_message(dump):
        return ()
    explained = explain_messages(dump.data, declared_length=dump.declared_length)
    return mend_lost_byte(dump) or explained if explained[0].problem else explained


def is_message(dump: HexDump) -> bool:
    """A dump that a trace labels as a certificate or a value is no message; bare hex is taken for one."""
    from cucm.wire.tvs import PROTOCOL_DISCRIMINATOR

    return bool(dump.data) and (dump.declared_length is None or dump.data[0] == PROTOCOL_DISCRIMINATOR)


def mend_lost_byte(dump: HexDump) -> tuple[Explanation, ...] | None:
    """The explanation with one lost `00` put back, when a full line of a trace is a byte short and that mends it all.

    Copies of traces lose a repeated byte easily (the French edition of technote 213407 did: facts 1). Of several places
    that fit, the one with the smallest session id is taken: phones seem to count from 1001 [inferred].
    """
    from dataclasses import replace

    from cucm.wire.tvs import HEADER_BYTES
    from lab.cli.hex_dumps import TRACE_WIDTH
    from lab.cli.tvs_explanation import explain_message

    short = [row for row, length in enumerate(dump.line_lengths[:-1]) if length == TRACE_WIDTH - 1]
    if len(short) != 1 or dump.declared_length is None:
        return None
    start = sum(dump.line_lengths[: short[0]])
    mended = {dump.data[:at] + b"\0" + dump.data[at:] for at in range(start, start + TRACE_WIDTH)}
    fitting = [e for e in (explain_message(d, declared_length=dump.declared_length) for d in mended) if not e.problem]
    if not fitting:
        return None
    best = min(fitting, key=lambda explanation: explanation.session_id or 0)
    as_read = explain_message(dump.data, declared_length=dump.declared_length)
    as_read = explain_message(dump.data, declared_length=dump.declared_length)
    payload = dump.declared_length - HEADER_BYTES
    notes = [
        f"line {dump.line + 1 + short[0]} has {TRACE_WIDTH - 1} bytes where a trace prints {TRACE_WIDTH}: one was lost",
        f"as it stands it makes no sense: {as_read.problem}",
        f"with a 00 put back the length field says {payload}, and {payload} + {HEADER_BYTES} is the log's"
        f" {dump.declared_length}; explained that way",
    ]
    if len(fitting) > 1:
        notes.append(f"a 00 fits in {len(fitting)} places; the one with the smallest session id is shown [inferred]")
    return (replace(best, notes=(*notes, *best.notes)),)


def _is_path(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _refuse(words: Sequence[str]) -> tuple[HexDump, ...]:
    from cucm.errors import UsageError

    raise UsageError(
        "this is neither a file nor hex", where=" ".join(words)[:80], mend="`cucm-lab decode --help` has examples"
    )


def _title(dump: HexDump) -> str:
    whole = f" of {dump.declared_length}" if dump.declared_length not in (None, len(dump.data)) else ""
    return f"line {dump.line}: {dump.label}, {len(dump.data)}{whole} bytes"


def _lines(dump: HexDump, parts: Sequence[Explanation]) -> list[str]:
    from cucm.render.text import printable

    lines = [printable(_title(dump))]
    if not parts:
        return [*lines, f"  {printable(_other(dump))}"]
    for part in parts:
        lines += [f"  {'offset':<7} {'bytes':<{BYTES_SHOWN * 3 + 1}} field and meaning"]
        lines += [line for item in part.fields for line in _field_lines(item)]
        lines += [f"  note: {printable(note)}" for note in part.notes]
        if part.problem:
            lines.append(f"  PROBLEM: {printable(part.problem)}")
    return lines


def _field_lines(item: ExplainedField) -> list[str]:
    from cucm.render.text import printable
    from lab.cli.tvs_explanation import STATED

    more = "…" if len(item.data) > BYTES_SHOWN else ""
    shown = item.data[:BYTES_SHOWN].hex(" ") + more
    mark = "" if item.confidence == STATED else f"  <{item.confidence}>"
    return [f"  {item.offset:<7} {shown:<{BYTES_SHOWN * 3 + 1}} {item.name}: {printable(item.meaning)}{mark}"]


def _other(dump: HexDump) -> str:
    """What a dump is that is not a message."""
    from lab.cli.tvs_explanation import explain_element

    if not dump.data:
        return "the log announces these bytes and prints none"
    length = dump.declared_length or len(dump.data)
    if dump.data[0] == 0x30:
        return f"certificate (element 2): {explain_element(2, dump.data, length)[1]}"
    if "PublicKey" in dump.label and length == 4:
        meaning = explain_element(9, dump.data, length)[1]
        return f"time to live (element 9): {meaning}; the trace labels it with a name of CAPF [inferred]"
    return "not a TVS message (these begin with 57)"


def _as_json(dump: HexDump, parts: Sequence[Explanation]) -> dict[str, Any]:
    head = {
        "line": dump.line,
        "label": dump.label,
        "declared_length": dump.declared_length,
        "hex": dump.data.hex(),
        "messages": [_message_as_json(part) for part in parts],
    }
    return head if parts else head | {"meaning": _other(dump)}


def _message_as_json(part: Explanation) -> dict[str, Any]:
    return {
        "hex": part.data.hex(),
        "session_id": part.session_id,
        "total_length": part.total_length,
        "missing_bytes": part.missing,
        "problem": part.problem,
        "notes": list(part.notes),
        "fields": [
            {
                "offset": item.offset,
                "length": item.length,
                "path": item.path,
                "name": item.name,
                "hex": item.data.hex(),
                "meaning": item.meaning,
                "confidence": item.confidence,
            }
            for item in part.fields
        ],
    }
