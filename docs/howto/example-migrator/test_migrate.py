"""The migrator against a lab, and against everything that may go wrong on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PHONE = "SEPB000B4BA0AEE"
TOOL = os.environ.get("MIGRATOR", "migrate.py")
"""`MIGRATOR=first_attempt.py pytest` tries the tool as it was first."""

pytestmark = pytest.mark.cucm_lab(topology="subscriber")


def migrate(lab, *words, patience=5):
    """The tool as a user runs it: exit code and what it prints."""
    done = subprocess.run(
        [sys.executable, HERE / TOOL, "--lab", lab.url, "--patience", str(patience), *words],
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_phone_moves(cucm_lab):
    code, said = migrate(cucm_lab)
    assert code == 0, said
    truth = cucm_lab.phone(PHONE).truth()
    assert [truth[name] for name in ("registered", "ctl", "itl", "configuration")] == ["destination"] * 4
    cucm_lab.assert_happened("phone.tvs_vouched")


def test_it_can_be_run_again(cucm_lab):
    assert migrate(cucm_lab)[0] == 0
    assert migrate(cucm_lab)[0] == 0


def test_the_way_back(cucm_lab):
    assert migrate(cucm_lab)[0] == 0
    code, said = migrate(cucm_lab, "--old", "destination", "--new", "source")
    assert code == 0, said
    truth = cucm_lab.phone(PHONE).truth()
    assert [truth[name] for name in ("registered", "ctl", "itl", "configuration")] == ["source"] * 4


# --- nothing may be reset while the old cluster is not prepared


def test_a_subscriber_that_replication_does_not_reach(cucm_lab):
    with cucm_lab.fault("replication.link", "pause", match={"node": "src-sub"}):
        code, said = migrate(cucm_lab, patience=1)
    assert (code, "replication to src-sub" in said) == (2, True), said
    cucm_lab.assert_never("phone.boot_started")
    assert cucm_lab.phone(PHONE).registered == "source"


def test_a_row_that_was_lost_on_the_way(cucm_lab):
    table = "certificateservicecertificatemap"  # which store a certificate lies in
    with cucm_lab.fault("replication.change", "lose", match={"table": table}, must_fire=True):
        code, said = migrate(cucm_lab)
    assert (code, "src-sub lacks" in said) == (2, True), said
    cucm_lab.assert_never("phone.boot_started")


def test_a_publisher_that_is_down(cucm_lab):
    with cucm_lab.fault("node.machine", "crash", match={"node": "src-pub"}):
        code, said = migrate(cucm_lab)
    assert (code, "is down" in said) == (2, True), said
    cucm_lab.assert_never("phone.boot_started")


# --- the tool says where phones really are


@pytest.mark.parametrize(
    ("point", "action", "attributes"),
    [
        ("tvs.response", "not-found", {}),
        ("tvs.response", "wrong-roles", {}),
        ("tvs.response", "truncate", {"bytes": 10}),
        ("tls.handshake", "wrong-key", {}),
        ("service.port", "refuse", {}),
    ],
)
def test_a_tvs_that_does_not_vouch(cucm_lab, point, action, attributes):
    match = {"service": "TVS"} if point != "tvs.response" else {}
    with cucm_lab.fault(point, action, match=match, must_fire=True, **attributes):
        code, said = migrate(cucm_lab)
    assert (code, f"{PHONE} source" in said) == (1, True), said
    assert cucm_lab.phone(PHONE).truth()["ctl"] == "source"


def test_a_rogue_dhcp_server(cucm_lab):
    with cucm_lab.fault("dhcp.request", "rogue-server", must_fire=True):
        code, said = migrate(cucm_lab)
    assert (code, f"{PHONE} source" in said) == (1, True), said


def test_it_is_interrupted_while_phones_are_reset(cucm_lab):
    with cucm_lab.fault("tvs.response", "delay", seconds=4.0):  # long enough to come between
        command = [sys.executable, HERE / TOOL, "--lab", cucm_lab.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tool:
            cucm_lab.wait_for_event("phone.boot_started")
            cucm_lab.api.post("reset")  # somebody takes the lab back: what is under way is refused
            said = tool.communicate(timeout=60)[0]
    assert (tool.returncode, "nothing was reset" in said) == (3, False), said


# --- what happens once is mended by trying again


@pytest.mark.parametrize(
    ("point", "action", "match", "attributes"),
    [
        ("http.response", "status", {"node": "dst-pub", "file": "CTL*"}, {"code": 503}),
        ("file.content", "tampered", {"node": "dst-pub", "file": "CTL*"}, {}),
        ("sip.request", "reject", {"node": "dst-pub", "method": "REGISTER"}, {"status": 503}),
        ("phone.step", "power-loss", {"step": "store", "stores": "*itl*"}, {}),
    ],
)
def test_a_mishap_on_the_way(cucm_lab, point, action, match, attributes):
    with cucm_lab.fault(point, action, match=match, times=1, must_fire=True, **attributes):
        code, said = migrate(cucm_lab)
    assert code == 0, said
    assert cucm_lab.phone(PHONE).registered == "destination"


def test_a_slow_tvs_is_waited_for(cucm_lab):
    with cucm_lab.fault("tvs.response", "delay", seconds=1.0, must_fire=True):
        code, said = migrate(cucm_lab)
    assert code == 0, said
