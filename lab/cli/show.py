"""`cucm-lab show`: a CTL or ITL as CUCM's command line prints it, from a file or a running node; a phone's screens."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cucm.render.show_trust_list import TrustListKind
    from cucm.wire.trust_list import Record, SignerId
    from lab.cli.inputs import Input

EPILOG: Final = """\
ctl and itl take a .tlv file of a real system or of a lab (- for standard input), or CLUSTER/NODE of a running lab: a
file of that name wins. phone takes the name of a running lab's phone, or the folder of an exported flash.
The signature is checked with the signer's record in the file itself, as CUCM does. Lines that are not Cisco's begin
with [cucm-lab]; times are UTC.
exit codes: 0 verified; 1 not verified, or not a trust list; 2 no such file; 3 no lab is running"""
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("kind", choices=("ctl", "itl", "phone"), help="what is shown")
    parser.add_argument("what", metavar="FILE|CLUSTER/NODE|PHONE", help="where it is from; - for standard input")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind == "phone":
        from lab.cli.show_phone import show_phone

        return show_phone(arguments)
    return _show_list(arguments)


def _show_list(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_NO, EXIT_OK, LabError
    from cucm.render.show_trust_list import TrustListKind, missing_file_lines, show_lines, verification
    from cucm.wire.trust_list import decode_trust_list
    from lab.cli.frame import print_json
    from lab.cli.inputs import MissingFile

    kind = TrustListKind(arguments.kind.upper())
    try:
        source = _source(arguments, kind)
    except MissingFile:
        if not arguments.json:
            print("\n".join(missing_file_lines(kind)))
        raise
    try:
        trust_list = decode_trust_list(source.data)
    except LabError as error:
        raise bad_file(source, error) from None
    if trust_list.file_name in OTHER_FILE_NAME[kind]:
        print(f"cucm-lab: note: this file calls itself {trust_list.file_name}", file=sys.stderr)
    if arguments.json:
        print_json(as_json(source, kind))
    else:
        print("\n".join(show_lines(source.data, kind, modified_at=source.modified_at)))
    return EXIT_OK if verification(source.data, trust_list) is None else EXIT_NO


def _source(arguments: argparse.Namespace, kind: TrustListKind) -> Input:
    from cucm.wire.trust_list import MAX_DECODED_BYTES
    from lab.cli.inputs import read_input

    word = arguments.what
    if _NODE.fullmatch(word) and not Path(word).exists():
        return _file_of_node(arguments, kind)
    return read_input(word, limit=MAX_DECODED_BYTES)


def _file_of_node(arguments: argparse.Namespace, kind: TrustListKind) -> Input:
    """The list on a running node's disk. Raises MissingFile where the node has none."""
    from cucm.wire.trust_list import CTL_FILE_NAME, ITL_FILE_NAME
    from lab.api.problems import NO_FILE, Problem
    from lab.cli.inputs import Input, MissingFile
    from lab.cli.running import client

    cluster, _, node = arguments.what.partition("/")
    name = CTL_FILE_NAME if kind == "CTL" else ITL_FILE_NAME
    lab = client(arguments)
    if not lab.is_running():
        raise MissingFile(
            "there is no such file, and no lab is running that could have such a node",
            where=arguments.what,
            mend="check the path, or start the lab with `cucm-lab up`",
        )
    try:
        file = lab.get_file("clusters", cluster, "nodes", node, "files", name)
    except Problem as error:
        if error.kind == NO_FILE:
            raise MissingFile(error.what, where=arguments.what, mend=error.mend) from None
        raise
    return Input(f"{name} of {arguments.what}", file.data, file.modified_at)


OTHER_FILE_NAME: Final = {"CTL": ("ITLFile.tlv",), "ITL": ("CTLFile.tlv",)}


def bad_file(source: Input, error: Exception) -> Exception:
    """A decoder's error, told of the file as a whole; exit code 1: it was read, and it is bad."""
    from cucm.errors import LabError

    what = "the file is empty" if not source.data else f"not a whole trust list: {getattr(error, 'what', error)}"
    where = getattr(error, "where", None)
    return LabError(what, where=f"{source.name}, {where}" if where else source.name, mend="fetch the file again, whole")


def as_json(source: Input, kind: TrustListKind) -> dict[str, Any]:
    """Everything `show` prints and what it leaves out. Raises DecodeError, LimitExceeded."""
    from datetime import UTC, datetime

    from cucm.names import serial_hex
    from cucm.render.show_trust_list import checksums, verification
    from cucm.wire.trust_list import decode_trust_list

    trust_list = decode_trust_list(source.data)
    refusal = verification(source.data, trust_list)
    md5, sha1 = checksums(source.data)
    signer = trust_list.signer
    return {
        "file": source.name,
        "kind": kind.value,
        "length": len(source.data),
        "md5": md5,
        "sha1": sha1,
        "modified_at": datetime.fromtimestamp(source.modified_at, UTC).isoformat(timespec="seconds"),
        "verified": refusal is None,
        "problem": None if refusal is None else {"reason": refusal.reason.value, "what": refusal.what},
        "version": ".".join(map(str, trust_list.version)),
        "header_length": trust_list.header_length,
        "signer": {"subject": signer.subject, "issuer": signer.issuer, "serial": serial_hex(signer.serial)},
        "digest": trust_list.digest.name,
        "signature": trust_list.signature.hex(),
        "file_name": trust_list.file_name,
        "timestamp": trust_list.timestamp,
        "signer_version": list(trust_list.signer_version) if trust_list.signer_version else None,
        "records": [_record(number, record, signer) for number, record in enumerate(trust_list.records, start=1)],
        "trailing_bytes": len(trust_list.trailing),
    }


def _record(number: int, record: Record, signer: SignerId) -> dict[str, Any]:
    import hashlib

    from cucm.names import serial_hex
    from cucm.render.show_trust_list import function_text, is_signer
    from cucm.roles import TrustRole

    return {
        "number": number,
        "length": record.length,
        "dns_name": record.dns_name,
        "ip_address": record.ip_address,
        "function": {"number": record.function, "text": function_text(record.function)},
        "subject": record.subject,
        "issuer": record.issuer,
        "serial": serial_hex(record.serial) if record.serial is not None else None,
        "certificate": record.certificate.hex() if record.certificate is not None else None,
        "certificate_sha1": hashlib.sha1(record.certificate).hexdigest() if record.certificate is not None else None,
        "signed_the_file": record.function == TrustRole.SAST and is_signer(record, signer),
    }
