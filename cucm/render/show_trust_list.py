"""A CTL or ITL file as `show ctl` and `show itl` print it (facts 4.1, 4.2).

Layout and words of `show ctl` are Cisco's; those of `show itl` are [recall]. The published text has lost its tabs:
columns are set at tab stops of 8, which fits every published line [inferred]. BYTEPOS is really the tag number. What
CUCM prints for a signature that does not verify is UNKNOWN: such lines are ours and begin with `OURS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from cucm.errors import TrustError
from cucm.names import same_name, same_serial
from cucm.render.text import printable
from cucm.roles import FUNCTION_TEXTS, TrustRole
from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.cursor import Element, Schema, read_elements
from cucm.wire.trust_list import Record, RecordTag, SignerId, TrustList, TrustListTag, decode_trust_list

OURS: Final = "[cucm-lab]"
"""Begins every line that is not Cisco's."""
SIGNATURE_BYTES_PER_LINE: Final = 16
TAB_STOP: Final = 8
COLUMNS: Final = ("BYTEPOS\tTAG\t\tLENGTH\tVALUE", "-------\t---\t\t------\t-----")

_ANY_ELEMENTS: Final = Schema(TrustListTag, {}, pad_tag=TrustListTag.PAD)
_Containers = Mapping[int, "_Containers"]
_CONTAINERS: Final[_Containers] = {
    TrustListTag.SIGNERID: {},
    TrustListTag.SIGNATUREINFO: {TrustListTag.SIGNATUREALGOINFO: {}},
}
"""What contains elements, and where: the decoder has checked these; the same tags elsewhere may hold anything."""
_HEADER_TEXTS: Final = frozenset({TrustListTag.SIGNERNAME, TrustListTag.CANAME})
_RECORD_TEXTS: Final = frozenset({RecordTag.DNSNAME, RecordTag.SUBJECTNAME, RecordTag.ISSUERNAME})
_NOT_ROWS: Final = frozenset({TrustListTag.VERSION, TrustListTag.HEADERLENGTH, TrustListTag.PAD})


class TrustListKind(StrEnum):
    """Which of the two commands: `show ctl` or `show itl`."""

    CTL = "CTL"
    ITL = "ITL"


def verification(data: bytes, trust_list: TrustList) -> TrustError | None:
    """Why the file's signature does not verify with the signer's record in the file itself; None if it does."""
    try:
        verify_trust_list(data, anchors_of(trust_list, "its own"))
    except TrustError as error:
        return error
    return None


def is_signer(record: Record, signer: SignerId) -> bool:
    """Whether a record has the identity that the header names (facts 3.3: issuer and serial number)."""
    if record.issuer is None or record.serial is None:
        return False
    return same_serial(record.serial, signer.serial) and same_name(record.issuer, signer.issuer)


def missing_file_lines(kind: TrustListKind) -> list[str]:
    """What is printed where there is no file. Cisco's text for the CTL; for the ITL it is UNKNOWN, this is ours."""
    if kind is TrustListKind.ITL:
        return ["Length of ITL file: 0", f"{OURS} ITL File not found.", "Error parsing the ITL File."]
    return [
        "Length of CTL file: 0",
        "CTL File not found . Please run CTLClient plugin or run the CLI - utils ctl.. to generate the CTL file.",
        "Error parsing the CTL File.",
    ]


def show_lines(data: bytes, kind: TrustListKind, *, modified_at: float) -> list[str]:
    """The file as CUCM prints it; `modified_at` is the file's own time in Unix seconds, printed in UTC.

    Raises DecodeError and LimitExceeded for bytes that are no trust list.
    """
    trust_list = decode_trust_list(data)
    lines = [*_head(data, trust_list, kind, modified_at), *_header_rows(trust_list), ""]
    for number, record in enumerate(trust_list.records, start=1):
        lines += [*_record_lines(number, record, trust_list.signer, kind), ""]
    if trust_list.trailing:
        lines.append(f"{OURS} {len(trust_list.trailing)} bytes follow the last record")
    refusal = verification(data, trust_list)
    if refusal is None:
        lines.append(f"The {kind} file was verified successfully.")
    else:
        lines.append(f"{OURS} The {kind} file was NOT verified: {refusal.reason}: {refusal.what}")
    return [printable(line) for line in lines]


def checksums(data: bytes) -> tuple[str, str]:
    """MD5 and SHA-1 of the file, lower-case hex; phones and `show ctl` name a list by them."""
    return hashlib.md5(data).hexdigest(), hashlib.sha1(data).hexdigest()


def function_text(function: int) -> str:
    """FUNCTION in words; the number where there are none."""
    known = function in TrustRole.__members__.values()
    return FUNCTION_TEXTS.get(TrustRole(function), TrustRole(function).name) if known else str(function)


def colon_hex(value: bytes) -> str:
    """`70:CA:F6:4E`, as serial numbers are printed."""
    return value.hex(":").upper()


def _head(data: bytes, trust_list: TrustList, kind: TrustListKind, modified_at: float) -> list[str]:
    md5, sha1 = checksums(data)
    moment = datetime.fromtimestamp(modified_at, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
    major, minor = trust_list.version
    return [
        f"The checksum value of the {kind} file:",
        f"{md5}(MD5)",
        f"{sha1}(SHA1)",
        "",
        f"Length of {kind} file: {len(data)}",
        f"The {kind} File was last modified on {moment}",
        "",
        f"Parse {kind} File",
        "-" * 16,
        "",
        f"Version:\t{major}.{minor}".expandtabs(TAB_STOP),
        f"HeaderLength:\t{trust_list.header_length} (BYTES)".expandtabs(TAB_STOP),
        "",
        *(line.expandtabs(TAB_STOP) for line in COLUMNS),
    ]


def _row(tag: int, name: str, length: int, value: str = "") -> str:
    """One line; a name shorter than a tab stop takes two tabs, as in Cisco's columns."""
    return f"{tag}\t{name}{_tabs(name)}{length}\t{printable(value)}".expandtabs(TAB_STOP).rstrip()


def _tabs(name: str) -> str:
    return "\t\t" if len(name) < TAB_STOP else "\t"


def _header_rows(trust_list: TrustList) -> Iterator[str]:
    for element in trust_list.header:
        if element.tag not in _NOT_ROWS:
            yield from _header_element(element, _CONTAINERS)


def _header_element(element: Element, containers: _Containers) -> Iterator[str]:
    tag, value = element
    name = _name(TrustListTag, tag)
    if tag in containers:
        yield _row(tag, name, 2, str(len(value)))  # LENGTH is that of the length itself (facts 4.1)
        for inner in read_elements(value, 0, len(value), "", _ANY_ELEMENTS):
            yield from _header_element(inner, containers[tag])
    elif tag in _HEADER_TEXTS:
        yield _row(tag, name, len(value), _text(value))
    elif tag == TrustListTag.SERIALNUMBER:
        yield _row(tag, name, len(value), colon_hex(value))
    else:
        yield _row(tag, name, len(value))
    if tag == TrustListTag.SIGNATURE:
        yield from _signature_lines(value)


def _signature_lines(signature: bytes) -> Iterator[str]:
    for start in range(0, len(signature), SIGNATURE_BYTES_PER_LINE):
        yield "  ".join(f"{byte:2x}" for byte in signature[start : start + SIGNATURE_BYTES_PER_LINE])


def _record_lines(number: int, record: Record, signer: SignerId, kind: TrustListKind) -> Iterator[str]:
    yield f"{kind} Record #:{number}"
    yield "----"
    yield from (line.expandtabs(TAB_STOP) for line in COLUMNS)
    for tag, value in record.elements:
        yield _row(tag, _name(RecordTag, tag), len(value), _record_value(tag, value))
    if record.function == TrustRole.SAST:
        used = "used" if is_signer(record, signer) else "not used"
        yield f"This etoken was {used} to sign the {kind} file."  # "etoken" also where there is none (facts 4.1)


def _record_value(tag: int, value: bytes) -> str:
    match tag:
        case RecordTag.RECORDLENGTH:
            return str(int.from_bytes(value))
        case RecordTag.FUNCTION:
            return function_text(int.from_bytes(value))
        case RecordTag.SERIALNUMBER:
            return colon_hex(value)
        case RecordTag.CERTIFICATE:
            return f"{hashlib.sha1(value).digest().hex(' ').upper()} (SHA1 Hash HEX)"
        case _ if tag in _RECORD_TEXTS:
            return _text(value)
        case _:
            return ""


def _name(names: type[TrustListTag] | type[RecordTag], tag: int) -> str:
    return names(tag).name if tag in names.__members__.values() else "UNKNOWN"


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode("latin-1")
