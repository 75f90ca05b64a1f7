"""The pytest plugin in scratch projects of their own, as a user has it: real labs, real pytest processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from others_doings import has_ended, until

PHONE = "SEPB000B4BA0AEE"
PATIENCE_S = 100


class Project:
    """A folder with tests in it, and with packages of the lab's names, which must not come before the lab's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("lab", "cucm"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text("raise ImportError('a folder of the user came first')\n")
        (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")

    def write(self, text: str, name: str = "test_it.py") -> None:
        head = f"import pytest\nPHONE = {PHONE!r}\n" if name.startswith("test_") else ""
        (self.folder / name).write_text(head + textwrap.dedent(text))

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pytest", "-q", *words]

    def run(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            self.words(*words),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        return done.returncode, done.stdout + done.stderr


def environment() -> dict[str, str]:
    ours = ("PYTEST_", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours) and name != "PYTHONPATH"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)


def test_each_test_has_the_lab_as_it_began(project: Project) -> None:
    project.write(
        """
        def test_one(cucm_lab):
            phone = cucm_lab.phone(PHONE)
            assert phone.registered == "source"
            phone.power_off()
            cucm_lab.clock.move(days=30)
            cucm_lab.op("set-option-150", cluster="destination")
            cucm_lab.wait_for(f"phones.{PHONE}.registered == 'nowhere'")
            cucm_lab.fault("tvs.response", "drop").set()

        def test_two(cucm_lab):
            assert cucm_lab.phones[PHONE].registered == "source"
            assert cucm_lab.inspect("faults") == {}
            assert abs(cucm_lab.inspect("clock.moved_s")) < 60
            cucm_lab.assert_never("fault.*")
            assert cucm_lab.events("phone.*") == []

        async def test_three(cucm_lab):
            assert cucm_lab.truth()[PHONE]["ctl"] == "source"
            assert {node["name"] for node in cucm_lab.clusters["source"].status()["nodes"]} == {"ucm105pub"}
            assert cucm_lab.sql("source", "select count(*) as n from device")[0]["n"] == 1
            assert len(cucm_lab.phone(PHONE).flash("ctl")) > 1000
            assert cucm_lab.phone(PHONE).screens()
            assert any(one["service"] == "TVS" for one in cucm_lab.endpoints)
            assert cucm_lab.cluster("source").file("ucm105pub", "CTLFile.tlv") == cucm_lab.phone(PHONE).flash("ctl")
            assert cucm_lab.cluster("source").certificates(unit="CallManager")
        """
    )
    code, said = project.run("-o", "asyncio_mode=auto")
    assert code == 0, said
    assert "3 passed" in said


def test_faults_events_and_waits(project: Project) -> None:
    project.write(
        """
        import time

        def test_it(cucm_lab):
            with cucm_lab.fault("dhcp.request", "no-answer", match={"phone": PHONE}, must_fire=True) as fault:
                cucm_lab.phone(PHONE).reset()
                assert fault.hits > 0
            assert [event["request"]["message"] for event in fault.events]
            hit = {"request": {"phone": PHONE}, "hit": lambda number: number > 0}
            fired = cucm_lab.assert_happened("fault.fired", point="dhcp.*", **hit)
            assert fired["fault"] == fault.events[0]["fault"]
            assert cucm_lab.wait_for_event("phone.boot_*")
            assert cucm_lab.logs(PHONE)
            cucm_lab.checkpoint("here")
            cucm_lab.phone(PHONE).power_off()
            cucm_lab.restore("here")
            assert cucm_lab.phone(PHONE).registered == "source"

        def test_what_is_refused_is_told(cucm_lab):
            from pytest_cucmlab import LabRefused
            with pytest.raises(LabRefused, match="did you mean") as refused:
                cucm_lab.fault("tvs.respons", "drop").set()
            assert (refused.value.status, bool(refused.value.mend)) == (400, True)
            with pytest.raises(LabRefused):
                cucm_lab.op("boot-phone", phone=PHONE)
            with pytest.raises(AssertionError, match="not true within"):
                cucm_lab.wait_for("phones.nobody", timeout=0.1)
            with pytest.raises(AssertionError, match="did not happen: nothing.at_all"):
                cucm_lab.wait_for_event("nothing.at_all", timeout=0.1)
            with pytest.raises(AssertionError, match="should have hit"):
                with cucm_lab.fault("tvs.response", "drop", must_fire=True):
                    pass
        """
    )
    code, said = project.run()
    assert code == 0, said


def test_a_failure_shows_near_misses_events_and_files(project: Project) -> None:
    project.write(
        """
        def test_near(cucm_lab):
            cucm_lab.phone(PHONE).reset()
            cucm_lab.assert_happened("phone.registered", call_manager="ucm11pub")

        def test_kind(cucm_lab):
            cucm_lab.phone(PHONE).reset()
            cucm_lab.assert_happened("phone.registred")

        def test_never(cucm_lab):
            cucm_lab.phone(PHONE).reset()
            cucm_lab.assert_never("phone.registered")

        def test_must_fire(cucm_lab):
            cucm_lab.fault("tvs.response", "drop", must_fire=True).set()
        """
    )
    code, said = project.run("--cucm-lab-keep")
    assert code == 1
    assert 'call_manager is "ucm105pub", wanted "ucm11pub"' in said
    assert "no event of that kind; there were: phone.registered" in said
    assert "happened 1 times: phone.registered" in said
    assert "the fault drop at tvs.response should have hit, and did not" in said
    assert "last events:" in said
    kept = re.search(r"cucm-lab: kept (\S+)", said)
    assert kept is not None
    assert (Path(kept[1]) / "lab" / "lab.json").exists()
    assert "bug" not in said
    subprocess.run(["rm", "-r", kept[1]], check=True)


def test_a_fault_that_must_hit_is_not_forgotten_when_something_else_ends_it(project: Project) -> None:
    project.write(
        """
        RULE = {"point": "tvs.response", "action": "drop", "must_fire": True}

        def test_ended_by_hand(cucm_lab):
            cucm_lab.fault("tvs.response", "drop", must_fire=True).set().end()

        def test_ended_by_a_restore(cucm_lab):
            cucm_lab.fault("tvs.response", "drop", must_fire=True).set()
            cucm_lab.restore("start")

        def test_set_over_the_api(cucm_lab):
            name = cucm_lab.api.post("faults", body=RULE)["fault"]["id"]
            cucm_lab.api.delete("faults", name)

        def test_hit_and_ended_by_a_restore(cucm_lab):
            with cucm_lab.fault("sip.request", "delay", must_fire=True, seconds=0.01) as fault:
                cucm_lab.phone(PHONE).reset()
                cucm_lab.restore("start")
                assert fault.hits > 0
            assert fault.hits == len(fault.events) > 0
        """
    )
    code, said = project.run()
    assert code == 1
    assert "4 passed, 3 errors" in said, said
    assert said.count("the fault drop at tvs.response should have hit, and did not") >= 3


def test_events_that_are_kept_no_more_are_no_proof(project: Project) -> None:
    project.write(
        """
        from pytest_cucmlab import LabError

        @pytest.mark.cucm_lab(events=1000)
        def test_it(cucm_lab):
            for _ in range(600):
                cucm_lab.fault("tvs.response", "drop").set().end()
            with pytest.raises(LabError, match="not all events of this test are kept"):
                cucm_lab.assert_never("nothing.at_all")
        """
    )
    code, said = project.run()
    assert code == 1
    assert "1 passed, 1 error" in said, said
    assert "not all events of this test are kept" in said


def test_a_fixture_of_the_same_name_is_the_projects_own(project: Project) -> None:
    project.write(
        """
        @pytest.fixture
        def cucm_lab():
            return "mine"

        def test_it(cucm_lab):
            assert cucm_lab == "ours"
        """
    )
    code, said = project.run()
    assert code == 1
    assert "1 failed" in said
    assert "INTERNALERROR" not in said


def test_under_xdist_each_worker_has_its_own(project: Project) -> None:
    project.write(
        """
        @pytest.mark.parametrize("turn", range(4))
        def test_it(cucm_lab, turn, worker_id):
            cucm_lab.phone(PHONE).power_off()
            cucm_lab.wait_for(f"phones.{PHONE}.registered == 'nowhere'")
        """
    )
    code, said = project.run("-n", "2", "--cucm-lab-keep")
    assert code == 0, said
    kept = re.findall(r"cucm-lab: kept (\S+)", said)
    assert len(set(kept)) == 2
    subprocess.run(["rm", "-r", *kept], check=True)


def test_marker_and_fixtures_choose_the_lab(project: Project) -> None:
    project.write(
        """
        @pytest.fixture
        def cucm_lab_options():
            return {"phones": "off"}
        """,
        "conftest.py",
    )
    (project.folder / "conftest.py").write_text("import pytest\n" + (project.folder / "conftest.py").read_text())
    project.write(
        """
        def test_options(cucm_lab):
            assert cucm_lab.phone(PHONE).registered == "nowhere"

        @pytest.mark.cucm_lab(topology="subscriber", phones="on")
        def test_marker(cucm_lab):
            assert "src-sub" in cucm_lab.inspect("clusters.source.nodes")

        @pytest.mark.cucm_lab(colour="red")
        def test_wrong(cucm_lab):
            pass

        @pytest.mark.cucm_lab("no-such")
        def test_none(cucm_lab):
            pass
        """
    )
    code, said = project.run("--strict-markers")
    assert code == 1
    assert "2 passed, 2 errors" in said, said
    assert "there is no option 'colour'" in said
    assert "the lab did not start (exit code 2)" in said
    assert "no topology" in said or "no-such" in said
    assert "Traceback" not in said


def test_who_asks_for_nothing_pays_nothing(project: Project) -> None:
    project.write(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("pytest_cucmlab")}
            assert ours == {"pytest_cucmlab", "pytest_cucmlab.plugin"}
            assert "http.client" not in sys.modules
        """
    )
    code, said = project.run("-p", "no:xdist", "-p", "no:asyncio", "-p", "no:hypothesispytest")
    assert code == 0, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_lab_outlives_pytest(project: Project, number: signal.Signals) -> None:
    project.write(
        """
        import pathlib, signal

        def test_it(cucm_lab):
            pathlib.Path("up").write_text(cucm_lab.directory)
            signal.pause()
        """
    )
    with subprocess.Popen(
        project.words(), cwd=project.folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        up = project.folder / "up"
        until(lambda: up.exists() and bool(up.read_text()), running)
        directory = up.read_text()
        labs = [os.pidfd_open(int(pid)) for pid in labs_in(directory)]
        assert labs
        running.send_signal(number)
        running.wait(PATIENCE_S)
    assert all(has_ended(lab) for lab in labs)
    assert not labs_in(directory)
    assert not Path(directory).exists(), "and leaves nothing behind, not even its log"


def labs_in(directory: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if directory.encode() in words and b"lab.cli" in words:
            found.append(path.parent.name)
    return found
