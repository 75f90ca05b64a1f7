from __future__ import annotations

import pytest

from cucm.errors import TrustReason
from cucm.events import Event, phone
from phone_agent.verdicts import Verdict, verdict_of

REASON = TrustReason.SIGNER_UNKNOWN


@pytest.mark.parametrize(
    ("event", "verdict"),
    [
        (phone.TrustListAccepted("CTL", phone.TrustBasis.TVS, "CN=x", (1, 2), b""), ("CTL", "accepted", "tvs")),
        (phone.TrustListRefused("ITL", "/tmp/x", REASON, "why"), ("ITL", REASON, "why")),
        (phone.ConfigurationAccepted("x", phone.TrustBasis.ITL, "", True), ("configuration", "accepted", "itl")),
        (phone.ConfigurationRefused("x", "/tmp/x", REASON, "why"), ("configuration", REASON, "why")),
        (phone.ConfigurationRefused("x", "/tmp/x", None, "bad XML"), ("configuration", "content", "bad XML")),
        (phone.TvsNotUsed(TrustReason.TVS_NOT_CONFIGURED), ("TVS", "tvs-not-configured", "not asked")),
        (phone.TvsCacheHit("CN=x", "CN=y", b""), ("TVS", "cached", "CN=x")),
        (phone.TvsVouched("CN=x", (0, 3)), ("TVS", "vouched", "CN=x with roles 0, 3")),
        (phone.TvsDidNotVouch("CN=x", REASON, "why"), ("TVS", REASON, "why")),
        (phone.TvsQueryFailed("192.0.2.1", 2445, REASON, "why"), ("TVS", REASON, "why")),
        (
            phone.RegistrationFailed("cm", "192.0.2.1", 5061, "tls", "refused", 403, "403 Forbidden"),
            ("registration", "refused", "cm: 403 Forbidden"),
        ),
        (phone.RegistrationNotPossible("no CTL"), ("registration", "not-possible", "no CTL")),
        (phone.PoweredOff(), None),
    ],
)
def test_verdicts(event: Event, verdict: tuple[str, str, str] | None) -> None:
    assert verdict_of(event) == (verdict and Verdict(*verdict))
