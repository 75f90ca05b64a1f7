from __future__ import annotations

import pytest

from cucm.events import Event
from cucm.events import administration as admin
from cucm.events.phone import PoweredOff
from cucm.render.plain import headline
from cucm.render.plain_administration import administration_headline

NAMES = ("CN=n1.example;OU=IST", "CN=ca", b"\x01")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (admin.OperationPerformed("x", "do it", "step 1"), "do it  [step 1]"),
        (admin.OperationRefused("x", "it is down", "start it"), "REFUSED: it is down (start it)"),
        (admin.OperationRefused("x", "it is down"), "REFUSED: it is down"),
        (admin.CtlFileDeleted("n1"), "CTLFile.tlv deleted on n1"),
        (admin.ItlResetTransferred("n1"), "successfully transferred reset ITL to node n1"),
        (admin.RecoveryPairExported("c"), "ITLRecovery pair exported"),
        (admin.PhonesReset("c", ("SEP1",), "new TVS certificate"), "resets SEP1: new TVS certificate"),
        (admin.PhonesReset("c", ("SEP1", "SEP2"), "bulk import"), "resets 2 registered phones: bulk import"),
        (admin.CertificateStored("c", "CAPF", *NAMES, (4,), "n1"), "CAPF holds n1.example; trust roles: CAPF (4)"),
        (
            admin.CertificateIgnored("c", "Phone-SAST-trust", *NAMES),
            "Phone-SAST-trust IGNORES n1.example: it holds one of this name that starts no earlier",
        ),
        (admin.CertificateDeleted("c", "n2", "CAPF-trust", "n1.example"), "n1.example deleted from CAPF-trust on n2"),
        (
            admin.CertificateRestored("c", "n2", "Phone-SAST-trust", "n1.example"),
            "n1.example is back in Phone-SAST-trust of n2: another node still had it",
        ),
        (admin.SigningRequestMade("c", "n1", "CallManager"), "CSR for CallManager of n1"),
        (admin.ServiceStarted("n1", "TVS", "127.0.0.1"), "TVS started on 127.0.0.1"),
        (admin.ServiceStarted("n1", "TVS", "127.0.0.1", impostor=True), "impostor of TVS started on 127.0.0.1"),
        (admin.ServiceStopped("n1", "TVS"), "TVS stopped"),
        (admin.ServiceCrashed("n1", "TVS"), "TVS CRASHED"),
        (admin.ServiceUnchanged("n1", "TVS", "runs already"), "nothing changes: TVS runs already"),
        (admin.ReachabilityChanged("n1", "TVS", "refuse"), "TVS is refuse from now on"),
        (admin.NodeCrashed("n1"), "n1 is DOWN"),
        (admin.NodeStarted("n1"), "n1 is up"),
        (admin.ParameterSet("c", "p", "v"), None),
    ],
)
def test_one_line_of_plain_words(event: Event, text: str | None) -> None:
    assert administration_headline(event) == headline(event) == text


def test_events_of_others_are_not_told_here() -> None:
    assert administration_headline(PoweredOff()) is None
