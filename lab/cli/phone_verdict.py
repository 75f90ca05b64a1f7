"""Let the lab's phone decide about a file, with its lists as given and TVS as supposed.

There is no logic of trust in here: the phone's own decision tree (`phone_agent.verification`) runs, and its question to
TVS, if it comes to one, is answered as the user says or stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from cucm.clock import SystemClock
from cucm.errors import TrustError, TrustReason, UsageError, WireError
from cucm.events.phone import TrustBasis
from cucm.names import serial_hex
from cucm.records import dataclass
from cucm.render.text import printable
from cucm.roles import SIGNS_FILES, SIGNS_ITLS, SIGNS_TRUST_LISTS
from cucm.trust import find_signer
from cucm.wire.signature_header import SignedDocument, has_signature_header
from cucm.wire.signed_file import decode_signed_file, is_signed_file
from cucm.wire.trust_list import MAX_DECODED_BYTES, decode_trust_list
from cucm.wire.tvs import STATUS_OK
from lab.cli.inputs import read_input
from lab.cli.tvs_explanation import role_text
from phone_agent.commands import QueryTvs, Steps, TvsAnswer, TvsServer
from phone_agent.verification import (
    InstalledList,
    InstalledLists,
    TvsVerifier,
    VerifiedFile,
    VerifiedList,
    verify_configuration,
    verify_trust_list,
)

MAX_FILE: Final = MAX_DECODED_BYTES
"""What a phone downloads at most (facts 3.5)."""
SUPPOSED_TVS: Final = TvsServer("the phone's TVS", 2445, 0)
"""A stored configuration nearly always names a TVS; without one the phone could not ask, whatever its lists say."""
BASIS_TEXTS: Final = {
    TrustBasis.BLANK_ITL: "the installed ITL is blank (rollback parameter): any ITL is taken",
    TrustBasis.UNSIGNED_ALLOWED: "the installed ITL is blank (rollback parameter): unsigned files are taken",
    TrustBasis.TVS: "TVS vouched for the signer",
}


@dataclass(frozen=True, slots=True)
class Phone:
    """What the phone holds, and what its TVS would answer (None: not supposed)."""

    installed: InstalledLists
    tvs_answer: TvsAnswer | None


@dataclass(frozen=True, slots=True)
class PhoneVerdict:
    """`query` is the question to TVS that the verdict depended on, or would depend on."""

    name: str
    kind: str
    document: SignedDocument | None
    basis: str | None = None
    refusal: TrustError | None = None
    query: QueryTvs | None = None
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.refusal is None


def phone_with(names: Sequence[str], tvs_certificate: bytes | None, roles: tuple[int, ...]) -> Phone:
    """A phone with the lists in these files. Raises UsageError for what is no list, or twice the same one."""
    lists: dict[str, tuple[str, InstalledList]] = {}
    for name in names:
        data = read_input(name, limit=MAX_FILE).data
        try:
            kind = kind_of_list(data)
            loaded = InstalledList.load(data, kind)
        except WireError as error:
            raise UsageError(f"not a trust list: {error.what}", where=f"{name}, {error.where}") from None
        if kind in lists:
            raise UsageError(
                f"two lists of the kind {kind}: {lists[kind][0]} and {name}", mend="a phone holds one CTL and one ITL"
            )
        lists[kind] = (name, loaded)
    ctl, itl = (lists[kind][1] if kind in lists else None for kind in ("CTL", "ITL"))
    answer = TvsAnswer(STATUS_OK, tvs_certificate, roles, None) if tvs_certificate is not None else None
    return Phone(InstalledLists(ctl, itl), answer)


def kind_of_list(data: bytes) -> str:
    """`ITL` for a list that calls itself so, else `CTL`. Raises DecodeError, LimitExceeded."""
    return "ITL" if decode_trust_list(data).file_name.upper().startswith("ITL") else "CTL"


def judge(name: str, data: bytes, phone: Phone) -> PhoneVerdict:
    """What the phone does with the file `name`."""
    kind, document = _read(name, data)
    tvs = TvsVerifier("CP-8861-SEP000000000000", (), SystemClock())
    tvs.servers = (SUPPOSED_TVS,)
    steps: Steps[VerifiedList] | Steps[VerifiedFile] = (
        verify_trust_list(kind, data, phone.installed, tvs)
        if kind in ("CTL", "ITL")
        else verify_configuration(data, phone.installed, tvs)
    )
    return _run(steps, PhoneVerdict(name, kind, document), phone)


def _read(name: str, data: bytes) -> tuple[str, SignedDocument | None]:
    """What kind of file this is, and its header if it has a sound one. Damage is the phone's to judge."""
    signed = is_signed_file(data)
    is_list = not signed and (has_signature_header(data) or name.lower().endswith(".tlv"))
    kind = "signed file" if signed else "unsigned file"
    if is_list:
        kind = "ITL" if "ITL" in name.upper().rpartition("/")[2] else "CTL"
    try:
        document = decode_trust_list(data) if is_list else decode_signed_file(data) if signed else None
    except WireError:
        return kind, None
    return (kind_of_list(data), document) if is_list else (kind, document)


def _run(steps: Steps[VerifiedList] | Steps[VerifiedFile], verdict: PhoneVerdict, phone: Phone) -> PhoneVerdict:
    result: TvsAnswer | None = None
    query: QueryTvs | None = None
    try:
        while True:
            command = steps.send(result)
            result = None
            if isinstance(command, QueryTvs):
                query, result = command, phone.tvs_answer
                if result is None:
                    raise _open_question(verdict, phone)
    except StopIteration as finished:
        return replace(verdict, basis=_basis_text(finished.value.basis, verdict, phone), query=query)
    except TrustError as error:
        return replace(verdict, refusal=error, query=query, notes=_notes(error, verdict, phone))
    finally:
        steps.close()


def _open_question(verdict: PhoneVerdict, phone: Phone) -> TrustError:
    """Why the lists alone do not do, in the words of the search for the signer in all of them."""
    return _search(verdict, phone) or TrustError(TrustReason.SIGNER_UNKNOWN, "the signer is in neither list")


def _search(verdict: PhoneVerdict, phone: Phone) -> TrustError | None:
    if verdict.document is None:
        return None
    try:
        find_signer(verdict.document.signer, _anchors(phone), _roles(verdict))
    except TrustError as error:
        return error
    return None


def _anchors(phone: Phone) -> tuple[Any, ...]:
    lists = (phone.installed.ctl, phone.installed.itl)
    return tuple(anchor for held in lists if held for anchor in held.anchors)


def _roles(verdict: PhoneVerdict) -> Any:
    if verdict.kind == "ITL":
        return SIGNS_ITLS
    return SIGNS_TRUST_LISTS if verdict.kind == "CTL" else SIGNS_FILES


def _basis_text(basis: TrustBasis, verdict: PhoneVerdict, phone: Phone) -> str:
    if basis in BASIS_TEXTS or verdict.document is None:
        return BASIS_TEXTS.get(basis, basis.value)
    anchor = find_signer(verdict.document.signer, _anchors(phone), _roles(verdict))
    return f"{anchor.origin}, function {role_text(anchor.role)}"


def _notes(error: TrustError, verdict: PhoneVerdict, phone: Phone) -> tuple[str, ...]:
    """What the refusal does not say: a phone that cannot ask TVS got there because its lists lack the signer."""
    found = _search(verdict, phone) if error.reason is TrustReason.TVS_NOT_IN_TRUST_LIST else None
    return (f"{found.reason}: {found.what}",) if found else ()


def verdict_lines(verdict: PhoneVerdict) -> list[str]:
    """The verdict in words."""
    refusal, lines = verdict.refusal, []
    if refusal is None:
        lines.append(f"ACCEPTED: the phone takes {verdict.name} ({verdict.kind})")
        lines.append(f"  trusted by: {verdict.basis}")
    else:
        lines.append(f"REFUSED: the phone keeps what it has and refuses {verdict.name} ({verdict.kind})")
        lines.append(f"  reason:     {refusal.reason}: {refusal.what}")
    lines += [f"  note:       {note}" for note in verdict.notes]
    if verdict.document is not None:
        signer = verdict.document.signer
        lines.append(f"  signed by:  {signer.subject}")
        lines.append(f"              issuer {signer.issuer}, serial number {serial_hex(signer.serial)}")
        lines.append(f"  digest:     {verdict.document.digest.name}")
    if verdict.query is not None:
        lines += _query_lines(verdict.query, answered=refusal is None or refusal.reason not in OPEN)
    return [printable(line) for line in lines]


OPEN: Final = frozenset({TrustReason.SIGNER_UNKNOWN, TrustReason.SIGNER_ROLE})
"""Reasons of the lists alone: with one of these and a query, TVS would have the last word."""


def _query_lines(query: QueryTvs, *, answered: bool) -> list[str]:
    first = (
        "the phone asked its TVS (the answer is the one you supposed) for"
        if answered
        else "the phone would now ask its TVS for"
    )
    lines = [first, f"  subject        {query.subject}", f"  issuer         {query.issuer}"]
    lines.append(f"  serial number  {serial_hex(query.serial)}")
    if not answered:
        lines.append(
            "suppose an answer with --tvs-answer CERTIFICATE --roles 0,3, or ask a TVS: cucm-lab tvs query HOST ..."
        )
    return lines


def as_json(verdict: PhoneVerdict) -> dict[str, Any]:
    """The verdict as plain JSON values."""
    refusal, document, query = verdict.refusal, verdict.document, verdict.query
    return {
        "file": verdict.name,
        "kind": verdict.kind,
        "accepted": verdict.accepted,
        "basis": verdict.basis,
        "reason": refusal.reason.value if refusal else None,
        "what": refusal.what if refusal else None,
        "notes": list(verdict.notes),
        "signer": _identity(document.signer.subject, document.signer.issuer, document.signer.serial)
        if document
        else None,
        "digest": document.digest.name if document else None,
        "depends_on_tvs": refusal is not None and query is not None and refusal.reason in OPEN,
        "tvs_query": _identity(query.subject, query.issuer, query.serial) if query else None,
    }


def _identity(subject: str, issuer: str, serial: bytes) -> dict[str, str]:
    return {"subject": subject, "issuer": issuer, "serial": serial_hex(serial)}
