from __future__ import annotations

import pytest

from cucm.events import Event, EventLog, cluster, files, phone, trust_lists
from cucm.events.administration import (
    CertificateIgnored,
    CertificateStored,
    OperationPerformed,
    ParameterSet,
    ServiceStarted,
    ServiceStopped,
)
from cucm.events.running import ClockMoved
from cucm.render.plain import BASIS_TEXTS, PlainLines, headline
from cucm.render.plain_running import running_headline
from cucm.render.text import duration

NAMES = ("CN=n1.example;OU=IST", "CN=ca", b"\x01")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (OperationPerformed("x", "do it"), "do it"),
        (OperationPerformed("x", "do it", "step 1"), "do it  [step 1]"),
        (
            CertificateStored("c", "CallManager-trust", *NAMES, ()),
            "CallManager-trust holds n1.example; trust roles: none",
        ),
        (
            CertificateStored("c", "Phone-SAST-trust", *NAMES, (0, 3, 99)),
            "Phone-SAST-trust holds n1.example; trust roles: SAST (0), TFTP (3), 99",
        ),
        (
            CertificateIgnored("c", "Phone-SAST-trust", "OU=no;O=common name", "CN=ca", b"\x01"),
            "Phone-SAST-trust IGNORES OU=no;O=common name: it holds one of this name that starts no earlier",
        ),
        (ServiceStarted("n1", "TVS", "127.0.0.1"), "TVS started on 127.0.0.1"),
        (ServiceStarted("n1", "TVS", "127.0.0.1", impostor=True), "impostor of TVS started on 127.0.0.1"),
        (ServiceStopped("n1", "TVS"), "TVS stopped"),
        (ParameterSet("c", "p", "v"), None),
        (cluster.RegistrationAccepted("tls", "127.0.0.9", 1, "SEPA", "", ""), "SEPA registered from 127.0.0.9, TLS"),
        (
            cluster.RegistrationRefused(
                "tls", "127.0.0.9", 1, None, cluster.RegistrationRefusal.CLIENT_CERTIFICATE, None, "not of our CAs"
            ),
            "127.0.0.9 REFUSED (client-certificate): not of our CAs",
        ),
        (
            cluster.RegistrationEnded("tls", "127.0.0.9", 1, "SEPA", cluster.RegistrationEnd.SERVICE_STOPPED),
            "registration of SEPA ended (service-stopped)",
        ),
        (
            cluster.RegistrationChallenged("tcp", "127.0.0.9", 1, "SEPA", stale=False),
            "SEPA is asked for its digest credentials",
        ),
        (
            cluster.AlarmReceived("tcp", "127.0.0.9", 1, "SEPA", "DeviceTLInfo", None, None, b"\xa3" * 20, "n1"),
            "SEPA reports its lists: no CTL, ITL a3a3a3a3a3a3",
        ),
        (cluster.AlarmReceived("tcp", "127.0.0.9", 1, "SEPA", "Other"), "SEPA reports Other"),
        (
            cluster.AlarmRefused("tcp", "127.0.0.9", 1, None, 400, "no usable XML"),
            "alarm of 127.0.0.9 REFUSED (400): no usable XML",
        ),
        (
            trust_lists.TrustListReset("ITLFile.tlv", NAMES[0], b"\2"),
            "ITLFile.tlv replaced by a reset one, signed by n1.example",
        ),
        (
            trust_lists.TrustListOutgrown("ITLFile.tlv", 70_000, 65_536),
            "ITLFile.tlv has 70000 bytes: phones load no list above 65536",
        ),
        (phone.PoweredOff(), "powered off"),
        (phone.PowerLost(), "loses its power"),
        (phone.LscInstalled("CN=CP-8861-SEPA;O=x", "CN=CAPF-1", b"1"), "LSC installed: CP-8861-SEPA, issued by CAPF-1"),
        (phone.LscRefused("CN=CAPF-1", None, "no answer"), "LSC of CAPF-1 NOT installed: no answer"),
        (phone.LscDeleted("CN=CAPF-1"), "LSC deleted, issued by CAPF-1"),
        (phone.LscDeleted(None), "no LSC to delete"),
    ],
)
def test_headlines(event: Event, text: str | None) -> None:
    assert headline(event) == text


def test_every_way_of_trusting_has_words() -> None:
    assert set(BASIS_TEXTS) == set(phone.TrustBasis)


def test_a_name_from_the_network_is_made_harmless() -> None:
    asked = files.FileNotFound("tftp", "127.0.0.9", 1, "\x1b]0;title\x07", "none")
    told = headline(asked)
    assert told is not None
    assert told.isprintable()


def test_a_plain_log_has_time_and_source_and_leaves_out_what_only_traces_need() -> None:
    class Noon:
        def now(self) -> float:
            return 43_200.5

    events, lines = EventLog(Noon()), PlainLines()
    assert lines.lines(events.emit("node:n1", ServiceStopped("n1", "TVS"))) == ["12:00:00.500000 node:n1 TVS stopped"]
    assert lines.lines(events.emit("node:n1", ParameterSet("c", "p", "v"))) == []


def test_a_signed_list_names_its_signer_and_records() -> None:
    signed = trust_lists.TrustListSigned("CTLFile.tlv", NAMES[0], b"\1", "SHA1", ("SAST n1", "CAPF n1"), 1, b"\2")
    assert headline(signed) == "CTLFile.tlv signed by n1.example: SAST n1; CAPF n1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1e6, "-11d 13h 46m 40s"), (2_593_800.0, "+30d 30m"), (0.0, "0s"), (0.25, "+0.25s"), (-90, "-1m 30s")],
)
def test_a_moved_date_is_told_in_days(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert f"is moved by {text} and" in (running_headline(ClockMoved(seconds, 1e9)) or "")
