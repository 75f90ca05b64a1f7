"""What a boot decided about what it was given, in one line each: for the truth about a phone, and for its reader."""

from __future__ import annotations

from typing import Final, NamedTuple

from cucm.events import Event, phone


class Verdict(NamedTuple):
    """`what` was judged ("CTL", "ITL", "configuration", "TVS", "registration"); `verdict` is a word: `accepted`,
    `vouched`, or the reason of a refusal; `detail` says more.
    """

    what: str
    verdict: str
    detail: str


_JUDGING: Final = frozenset(
    {
        phone.TrustListAccepted,
        phone.TrustListRefused,
        phone.ConfigurationAccepted,
        phone.ConfigurationRefused,
        phone.RegistrationFailed,
        phone.RegistrationNotPossible,
        phone.TvsNotUsed,
        phone.TvsCacheHit,
        phone.TvsVouched,
        phone.TvsDidNotVouch,
        phone.TvsQueryFailed,
    }
)


def verdict_of(event: Event) -> Verdict | None:
    """None for events that judge nothing."""
    if type(event) not in _JUDGING:  # nearly all of them
        return None
    match event:
        case phone.TrustListAccepted(trust_list=what, basis=basis):
            return Verdict(what, "accepted", basis)
        case phone.TrustListRefused(trust_list=what, reason=reason, detail=detail):
            return Verdict(what, reason, detail)
        case phone.ConfigurationAccepted(basis=basis):
            return Verdict("configuration", "accepted", basis)
        case phone.ConfigurationRefused(reason=reason, detail=detail):
            return Verdict("configuration", reason or "content", detail)
        case phone.RegistrationFailed(status=status, detail=detail, call_manager=call_manager):
            return Verdict("registration", status, f"{call_manager}: {detail}")
        case phone.RegistrationNotPossible(detail=detail):
            return Verdict("registration", "not-possible", detail)
        case _:
            return _verdict_of_tvs(event)


def _verdict_of_tvs(event: Event) -> Verdict | None:
    match event:
        case phone.TvsNotUsed(reason=reason):
            return Verdict("TVS", reason, "not asked")
        case phone.TvsCacheHit(subject=subject):
            return Verdict("TVS", "cached", subject)
        case phone.TvsVouched(subject=subject, roles=roles):
            return Verdict("TVS", "vouched", f"{subject} with roles {', '.join(map(str, roles))}")
        case phone.TvsDidNotVouch(reason=reason, detail=detail):
            return Verdict("TVS", reason, detail)
        case phone.TvsQueryFailed(reason=reason, detail=detail):
            return Verdict("TVS", reason, detail)
        case _:
            return None
