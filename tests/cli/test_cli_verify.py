from __future__ import annotations

import json

import pytest

from cucm.roles import TrustRole
from cucm.wire.trust_list import blank_record


def test_the_own_clusters_lists_are_accepted(cucm_lab, files):
    done = cucm_lab("verify", files.source_itl, "--against", files.source_ctl)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"ACCEPTED: the phone takes {files.source_itl} (ITL)\n")
    assert "trusted by: CTL record 1, function 0 SAST" in done.stdout


def test_a_foreign_ctl_would_need_tvs(cucm_lab, files, destination):
    words = ("verify", files.destination_ctl, "--against", files.source_ctl, files.source_itl)
    done = cucm_lab(*words)
    assert done.returncode == 1
    assert done.stdout.startswith("REFUSED")
    assert "signer-unknown: no trusted record has the signer's issuer" in done.stdout
    assert "the phone would now ask its TVS for" in done.stdout
    answer = json.loads(cucm_lab(*words, "--json").stdout)
    assert answer["schema"] == 1
    assert (answer["accepted"], answer["reason"], answer["depends_on_tvs"]) == (False, "signer-unknown", True)
    assert (
        answer["tvs_query"]
        == answer["signer"]
        == {
            "subject": destination.identity.subject,
            "issuer": destination.identity.issuer,
            "serial": destination.identity.serial.hex().upper(),
        }
    )


@pytest.mark.parametrize(
    ("roles", "exit_code", "reason"),
    [("0,3", 0, None), ("0", 0, None), ("3", 1, "tvs-answer-lacks-role"), ("", 1, "tvs-answer-lacks-role")],
)
def test_a_supposed_answer_decides(cucm_lab, files, roles, exit_code, reason):
    """Roles 0 and 3 are those of Phone-SAST-trust, none those of CallManager-trust alone (facts 5.3)."""
    supposed = ("--tvs-answer", files.destination_pem, "--roles", roles)
    words = ("verify", files.destination_ctl, "--against", files.source_ctl, files.source_itl, *supposed)
    answer = json.loads(cucm_lab(*words, "--json").stdout)
    assert answer["reason"] == reason
    assert answer["tvs_query"] is not None
    assert not answer["depends_on_tvs"]
    done = cucm_lab(*words)
    assert done.returncode == exit_code
    assert "the phone asked its TVS (the answer is the one you supposed) for" in done.stdout


def test_a_supposed_answer_with_another_certificate(cucm_lab, files, source):
    pem = files.add("source.pem", source.identity.certificate_pem)
    words = ("verify", files.destination_ctl, "--against", files.source_itl, "--tvs-answer", pem, "--roles", "0,3")
    answer = json.loads(cucm_lab(*words, "--json").stdout)
    assert answer["reason"] == "tvs-answer-invalid"


def test_without_a_tvs_record_nobody_is_asked(cucm_lab, files):
    """The seed's Caution: the rollback parameter takes the TVS record away, the CTL stays."""
    done = cucm_lab("verify", files.destination_ctl, "--against", files.source_ctl)
    assert done.returncode == 1
    assert "tvs-not-in-trust-list" in done.stdout
    assert "note:       signer-unknown: " in done.stdout
    assert "ask its TVS" not in done.stdout


def test_a_blank_itl_takes_any_itl_only_where_no_ctl_is_installed(cucm_lab, files, source, destination, source_tvs):
    """With a CTL installed it would be a way around it: the next CTL could lean on the ITL that came in unchecked."""
    blank = files.add(
        "blank.tlv", source.trust_list(source.record(TrustRole.SAST), blank_record(), file_name="ITLFile.tlv")
    )
    itl = files.add("destination-itl.tlv", destination.itl(source_tvs))
    done = cucm_lab("verify", itl, "--against", blank)
    assert done.returncode == 0
    assert "the installed ITL is blank" in done.stdout
    done = cucm_lab("verify", itl, "--against", files.source_ctl, blank)
    assert done.returncode == 1
    assert "tvs-not-in-trust-list" in done.stdout
    assert cucm_lab("verify", files.destination_ctl, "--against", files.source_ctl, blank).returncode == 1


def test_a_changed_list(cucm_lab, files):
    data = bytearray(files.source_ctl.read_bytes())
    data[-1] ^= 1
    done = cucm_lab("verify", files.add("changed.tlv", bytes(data)), "--against", files.source_ctl)
    assert done.returncode == 1
    assert "reason:     signature-mismatch" in done.stdout


@pytest.mark.parametrize("cut", [1, 100, 700])
def test_a_list_cut_short_is_refused_as_malformed(cucm_lab, files, cut):
    data = files.source_ctl.read_bytes()
    answer = json.loads(
        cucm_lab("verify", files.add("cut.tlv", data[:-cut]), "--against", files.source_ctl, "--json").stdout
    )
    assert (answer["kind"], answer["reason"]) == ("CTL", "malformed")
    assert "offset" in answer["what"]


def test_a_signed_configuration(cucm_lab, files, source, destination):
    own = files.add("SEPB000B4BA0AEE.cnf.xml.sgn", source.signed_file(b"<device/>"))
    done = cucm_lab("verify", own, "--against", files.source_ctl)
    assert done.returncode == 0
    assert "function 2 CALLMANAGER_TFTP" in done.stdout
    foreign = files.add("foreign.sgn", destination.signed_file(b"<device/>"))
    assert cucm_lab("verify", foreign, "--against", files.source_ctl).returncode == 1


def test_an_unsigned_configuration(cucm_lab, files):
    plain = files.add("SEPB000B4BA0AEE.cnf.xml", b"<device/>")
    answer = json.loads(cucm_lab("verify", plain, "--against", files.source_ctl, "--json").stdout)
    assert answer["reason"] == "unsigned"


@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 300])
def test_rubbish_is_refused(cucm_lab, files, content):
    done = cucm_lab("verify", files.add("rubbish.tlv", content), "--against", files.source_ctl)
    assert done.returncode == 1
    assert "malformed" in done.stdout


def test_two_lists_of_one_kind(cucm_lab, files):
    done = cucm_lab("verify", files.source_itl, "--against", files.source_ctl, files.destination_ctl)
    assert done.returncode == 2
    assert "two lists of the kind CTL" in done.stderr


def test_wrong_words(cucm_lab, files):
    against = ("--against", files.source_itl)
    for words, text in (
        (("--against", files.destination_pem), "not a trust list"),
        (("--against", files.folder), "this is a directory"),
        ((*against, "--roles", "0,3"), "--tvs-answer and --roles need each other"),
        ((*against, "--tvs-answer", files.destination_pem, "--roles", "SAST"), "is not a list of roles"),
        ((*against, "--tvs-answer", files.destination_pem, "--roles", "9" * 5000), "is not a list of roles"),
        ((*against, "--tvs-answer", files.source_ctl, "--roles", "0"), "holds no certificate"),
        ((), "--against"),
    ):
        done = cucm_lab("verify", files.destination_ctl, *words)
        assert done.returncode == 2, done
        assert text in done.stderr
    assert cucm_lab("verify", files.folder / "none", *against).returncode == 2
    assert cucm_lab("verify", "/dev/zero", *against).returncode == 1
