from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cucm.errors import FlashError
from phone_agent import flash as flash_module
from phone_agent.flash import DeviceIdentity, Flash, FlashChanges, FlashContents, MemoryFlash, PhoneFlash, TvsCacheEntry

ENTRY = TvsCacheEntry(
    "CN=stormin-WIN2012-CA", bytes.fromhex("24000000"), b"certificate of TVS", (0, 3), 1_480_487_640.5
)
FULL = FlashContents(
    ctl=b"the CTL",
    itl=b"the ITL",
    configuration=b"<device/>",
    configuration_name="SEPB000B4BA0AEE.cnf.xml.sgn",
    tvs_cache=(ENTRY,),
    lsc=DeviceIdentity(b"LSC", b"key of the LSC"),
    mic=DeviceIdentity(b"MIC", b"key of the MIC"),
    tftp_servers=("127.0.11.32", "127.0.11.33"),
    ctl_source="127.0.11.32",
    itl_source="127.0.11.33",
)


def changes_of(contents: FlashContents) -> FlashChanges:
    return {item.name: getattr(contents, item.name) for item in fields(contents)}  # type: ignore[return-value]


@pytest.fixture(params=["directory", "memory"])
def flash(request: pytest.FixtureRequest, tmp_path: Path) -> PhoneFlash:
    return Flash(tmp_path / "flash") if request.param == "directory" else MemoryFlash()


def test_a_new_flash_is_empty(flash: PhoneFlash) -> None:
    assert flash.contents == FlashContents()


def test_every_field_is_kept(tmp_path: Path) -> None:
    Flash(tmp_path).store(**changes_of(FULL))
    assert Flash(tmp_path).contents == FULL


def test_a_store_changes_what_it_names_and_nothing_else(flash: PhoneFlash) -> None:
    flash.store(**changes_of(FULL))
    flash.store(ctl=b"another CTL", itl=None)
    expected = {**changes_of(FULL), "ctl": b"another CTL", "itl": None}
    assert changes_of(flash.contents) == expected


def test_an_unknown_field_is_refused(flash: PhoneFlash) -> None:
    with pytest.raises(FlashError, match="firmware"):
        flash.store(firmware=b"sip88xx")  # type: ignore[call-arg]
    assert flash.contents == FlashContents()


def test_erasing_security_settings_takes_the_lists_and_leaves_the_rest(flash: PhoneFlash) -> None:
    flash.store(**changes_of(FULL))
    flash.erase_security_settings()
    left = flash.contents
    assert (left.ctl, left.itl, left.ctl_source, left.itl_source, left.tvs_cache) == (None, None, None, None, ())
    assert (left.configuration, left.lsc, left.tftp_servers) == (FULL.configuration, FULL.lsc, FULL.tftp_servers)


def test_the_lsc_goes_before_the_mic() -> None:
    assert FULL.active_identity == FULL.lsc
    assert FlashContents(mic=FULL.mic).active_identity == FULL.mic
    assert FlashContents().active_identity is None


def test_private_keys_are_for_the_owner_only_and_not_printed(tmp_path: Path) -> None:
    Flash(tmp_path / "flash").store(**changes_of(FULL))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "flash").rglob("*") if path.is_file()}
    assert len(modes) == 10  # eight contents, manifest, lock
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "flash").stat().st_mode) == 0o700
    assert "key of" not in repr(FULL)


def test_what_is_no_longer_in_force_is_removed(tmp_path: Path) -> None:
    flash = Flash(tmp_path)
    flash.store(ctl=b"first", itl=b"same")
    flash.store(ctl=b"second", itl=b"same")
    assert sorted(path.read_bytes() for path in (tmp_path / "objects").iterdir()) == [b"same", b"second"]


def test_remains_of_a_killed_store_are_removed_at_load(tmp_path: Path) -> None:
    Flash(tmp_path).store(ctl=b"kept")
    (tmp_path / "objects" / ("0" * 64)).write_bytes(b"never came into force")
    (tmp_path / "objects" / ".half.new").write_bytes(b"ha")
    (tmp_path / ".manifest.json.new").write_bytes(b"{")
    assert Flash(tmp_path).contents.ctl == b"kept"
    assert len(list((tmp_path / "objects").iterdir())) == 1
    assert not (tmp_path / ".manifest.json.new").exists()


def test_two_flash_objects_on_one_directory_do_not_destroy_each_other(tmp_path: Path) -> None:
    first, second = Flash(tmp_path), Flash(tmp_path)
    first.store(ctl=b"A")
    second.store(itl=b"B")
    first.store(tftp_servers=("127.0.0.1",))
    assert Flash(tmp_path).contents == FlashContents(ctl=b"A", tftp_servers=("127.0.0.1",))


DAMAGES = {
    "no JSON": lambda manifest: b"{",
    "not text": lambda manifest: b"\xff\xfe\x00",
    "empty": lambda manifest: b"",
    "another shape": lambda manifest: b"[1, 2]",
    "no body": lambda manifest: b"{}",
    "body of another kind": lambda manifest: b'{"check": "", "body": 7}',
    "a flipped character": lambda manifest: manifest.replace(b"127.0.11.32", b"127.0.11.31", 1),
    "nested without end": lambda manifest: b"[" * 100_000,
    "too large": lambda manifest: manifest + b" " * flash_module.MAX_MANIFEST,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_manifest_is_an_error_with_a_mend(tmp_path: Path, damage: Any) -> None:
    Flash(tmp_path).store(**changes_of(FULL))
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(damage(manifest.read_bytes()))
    with pytest.raises(FlashError) as caught:
        Flash(tmp_path)
    assert "erase" in (caught.value.mend or "")
    assert str(tmp_path) in str(caught.value)


def test_a_manifest_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("phone_agent.flash_contents.FORMAT", 2)
        Flash(tmp_path).store(ctl=b"of the future")
    with pytest.raises(FlashError, match="format 2"):
        Flash(tmp_path)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"the ITL."), lambda path: path.unlink()])
def test_a_damaged_or_missing_object_is_an_error(tmp_path: Path, damage: Any) -> None:
    Flash(tmp_path).store(itl=b"the ITL")
    (only,) = (tmp_path / "objects").iterdir()
    damage(only)
    with pytest.raises(FlashError, match="object"):
        Flash(tmp_path)


def test_a_manifest_cannot_name_files_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    flash = Flash(tmp_path / "flash")
    with pytest.raises(ValueError, match="names no object"):
        flash._read_object("../../secret")


def test_a_path_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "flash").write_bytes(b"")
    with pytest.raises(FlashError, match="cannot be read"):
        Flash(tmp_path / "flash")


def test_too_much_is_refused_and_leaves_the_old_state(tmp_path: Path) -> None:
    flash = Flash(tmp_path)
    flash.store(ctl=b"old")
    with pytest.raises(FlashError, match="do not fit"):
        flash.store(ctl=bytes(flash_module.MAX_OBJECT + 1))
    assert flash.contents.ctl == Flash(tmp_path).contents.ctl == b"old"


def test_export_is_for_people_and_has_no_keys(flash: PhoneFlash, tmp_path: Path) -> None:
    flash.store(**changes_of(FULL))
    flash.export(tmp_path / "out")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written.keys() == {"CTLFile.tlv", "ITLFile.tlv", "SEPB000B4BA0AEE.cnf.xml.sgn", "status.json"}
    assert (written["CTLFile.tlv"], written["ITLFile.tlv"]) == (b"the CTL", b"the ITL")
    status = json.loads(written["status.json"])
    assert status["ctl"] == {
        "bytes": 7,
        "sha1": "2cb32518bd1c993d1e98ff7abcf443b87a628ada",
        "server": "127.0.11.32",
    }
    assert status["tvs_cache"][0]["serial"] == "24000000"
    assert not any(b"key of" in content for content in written.values())


def test_export_removes_the_list_of_an_earlier_export(flash: PhoneFlash, tmp_path: Path) -> None:
    flash.store(ctl=b"the CTL")
    flash.export(tmp_path / "out")
    flash.erase_security_settings()
    flash.export(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["status.json"]


def test_export_does_not_leave_its_folder(flash: PhoneFlash, tmp_path: Path) -> None:
    flash.store(configuration=b"x", configuration_name="../escaped")
    with pytest.raises(FlashError, match="no file name"):
        flash.export(tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


# -- killed at any instant ------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `step`-th call into the file system does not happen, and nothing after it."""
    seen = iter(range(10_000))

    def dying(original: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if next(seen) >= step:
                raise Killed
            return original(*arguments, **named)

        return call

    for name in ("open", "fsync", "fdopen", "replace", "unlink", "rename"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def test_dying_before_any_call_into_the_file_system_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = FlashContents(ctl=b"old", itl=b"old ITL"), FULL
    seen = set()
    for step in range(200):
        directory = tmp_path / str(step)
        flash = Flash(directory)
        flash.store(**changes_of(old))
        with monkeypatch.context() as patch:
            kill_at(step, patch)
            try:
                flash.store(**changes_of(new))
                survived = True
            except Killed:
                survived = False
        contents = Flash(directory).contents
        assert contents in (old, new), f"torn at call {step}"
        seen.add(contents)
        if survived:
            break
    else:
        pytest.fail("the store never ended")
    assert step > 20
    assert seen == {old, new}


WRITER = """
import sys
from pathlib import Path
from phone_agent.flash import DeviceIdentity, Flash, TvsCacheEntry
flash = Flash(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    text = str(number).encode()
    flash.store(
        ctl=b"ctl " + text * 2000, itl=b"itl " + text * 3000, configuration=b"cnf " + text,
        configuration_name=f"{number}", lsc=DeviceIdentity(b"lsc " + text, b"key " + text),
        tftp_servers=(str(number),), tvs_cache=(TvsCacheEntry("CN=x", text, b"tvs " + text, (0,), float(number)),),
    )
    print(number, flush=True)
"""


def numbered(contents: FlashContents) -> int:
    """The store that `contents` is of; fails if it is of more than one."""
    number = int(contents.configuration_name or 0)
    text = str(number).encode()
    if number:
        assert contents == FlashContents(
            ctl=b"ctl " + text * 2000,
            itl=b"itl " + text * 3000,
            configuration=b"cnf " + text,
            configuration_name=str(number),
            lsc=DeviceIdentity(b"lsc " + text, b"key " + text),
            tftp_servers=(str(number),),
            tvs_cache=(TvsCacheEntry("CN=x", text, b"tvs " + text, (0,), float(number)),),
        )
    else:
        assert contents == FlashContents()
    return number


def test_a_killed_process_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    dice = random.Random(20161129)
    for round_number in range(12):
        directory = tmp_path / str(round_number)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            told = 0
            for _ in range(dice.randint(1, 25)):
                told = int(writer.stdout.readline())
            sum(range(dice.randint(0, 60_000)))  # some more instants, without a clock
            writer.send_signal(signal.SIGKILL)
            told = max([told, *map(int, writer.stdout.read().split())])
        assert writer.returncode == -signal.SIGKILL
        assert numbered(Flash(directory).contents) in (told, told + 1)
