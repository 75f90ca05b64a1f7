"""What a phone itself can say of its last boot, from what it made of files, TVS and CallManagers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cucm.errors import TrustReason
from lab.fleet.batch import PhoneFinding
from phone_agent.status_texts import CTL_NOT_FOUND, TRUST_LIST_UPDATED
from phone_agent.verdicts import Verdict

_REASONS: Final = frozenset(reason.value for reason in TrustReason)
_REFUSABLE: Final = frozenset({"CTL", "ITL", "configuration"})
_HARMLESS: Final = frozenset({TRUST_LIST_UPDATED, CTL_NOT_FOUND})
_GOOD: Final = frozenset({"accepted", "vouched", "cached"})


def finding_of(state: str, verdicts: Sequence[Verdict], messages: Sequence[str], boots: int) -> PhoneFinding:
    """`messages` are those of the Status screen: files that do not come are no verdicts, it tells of them; of what it
    tells also after a good boot nothing is trouble.
    """
    reasons = (one.verdict for one in verdicts if one.what in _REFUSABLE and one.verdict in _REASONS)
    detail = _trouble(verdicts) or next((one for one in reversed(messages) if not _is_harmless(one)), "")
    return PhoneFinding(state, tuple(dict.fromkeys(reasons)), detail, boots)


def _trouble(verdicts: Sequence[Verdict]) -> str:
    """The last thing that did not go well, in words."""
    bad = [one for one in verdicts if one.verdict not in _GOOD]
    return f"{bad[-1].what}: {bad[-1].verdict} ({bad[-1].detail})" if bad else ""


def _is_harmless(message: str) -> bool:
    """Of a boot in which all goes well: lists that are new or not there, the phone's own configuration."""
    return message in _HARMLESS or (message.startswith("SEP") and message.endswith(".cnf.xml"))
