"""The phone's menus, of live phones and of folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from phone_script import MAC, OLD, PHONE, phone_identity, record, signed_list

from phone_agent.address import FixedTftpServers
from phone_agent.driver import Phone
from phone_agent.flash import DeviceIdentity, Flash, FlashContents, MemoryFlash
from phone_agent.flash_export import FlashView, export_contents
from phone_agent.screens import list_signature, screens_of, screens_of_folder, security_menu


def live(contents: FlashContents) -> Phone:
    return Phone(PHONE, MemoryFlash(contents), FixedTftpServers(()))


def test_a_phone_of_a_secure_cluster() -> None:
    phone = live(OLD.holding(ctl_source=OLD.address, itl_source=OLD.address))
    phone.delete_lsc()
    screens = screens_of(phone)
    menu = screens.security
    assert menu.security_mode == "Encrypted"
    assert (menu.lsc, menu.mic) == (None, None)
    assert menu.ctl.signature == hashlib.sha1(OLD.ctl()).digest().hex(" ").upper()
    assert menu.ctl.signer == OLD.call_manager.subject
    assert [(entry.label, entry.name) for entry in menu.itl.entries] == [
        ("System Administrator Security Token", "node"),
        ("Unified CM / TFTP Server", "node"),
        ("CAPF Server", "node"),
        ("TVS", "node"),
    ]
    assert screens.status.messages == ("LSC deleted",)
    assert screens.status.state == "off"
    text = "\n".join(screens.lines())
    for expected in (
        "Security Mode: Encrypted",
        "LSC: Not Installed",
        "CTL file",
        f"CTL Signature: {menu.ctl.signature}",
        f"from {OLD.address}",
        f"Configuration: SEP{MAC}.cnf.xml",
        "CAPF Server: node",
        f"TFTP servers: {OLD.address}",
    ):
        assert expected in text
    assert "registered with" not in text
    assert json.loads(json.dumps(screens.as_json()))["security"]["ctl"]["title"] == "CTL file"


def test_a_new_phone_has_nothing() -> None:
    lines = screens_of(live(FlashContents())).lines()
    assert "  configuration: none" in lines
    assert "  Security Mode: none" in lines
    assert "    ITL Signature: Not Installed" in lines
    assert "  Configuration: Not Installed" in lines


def test_the_entries_of_a_blank_itl_are_blank() -> None:
    """Rollback parameter: records without certificate, shown as blank entries (facts 7.3)."""
    itl = security_menu(FlashView(itl=OLD.blank_itl())).itl
    assert [(entry.label, entry.name, entry.has_certificate) for entry in itl.entries] == [
        ("CAPF Server", "node", True),
        ("Unified CM / TFTP Server", "", False),
        ("TVS", "", False),
    ]
    assert "  TVS:" in itl.lines()


def test_other_functions_and_broken_lists_are_shown_as_they_are() -> None:
    records = [record(function, OLD.capf) for function in (7, 99, 5)]
    odd = signed_list(OLD.capf, records, "ITLFile.tlv")
    labels = [entry.label for entry in security_menu(FlashView(itl=odd)).itl.entries]
    assert labels == ["APPLICATION_SERVER", "function 99", "SRST Router"]
    broken = security_menu(FlashView(ctl=b"no list", configuration=b"no XML"))
    assert broken.security_mode is None
    assert broken.ctl.problem
    assert any("cannot be read" in line for line in broken.ctl.lines())


def test_certificates_are_shown_with_their_names() -> None:
    identity = phone_identity(OLD)
    menu = security_menu(FlashView.of(FlashContents(lsc=identity, mic=DeviceIdentity(b"x", b"y"))))
    assert menu.lsc is not None
    assert menu.lsc.issuer == OLD.capf.subject
    assert menu.lsc.sha1 == hashlib.sha1(identity.certificate).hexdigest()
    assert menu.mic is not None
    assert menu.mic.subject == ""
    assert f"issued by {OLD.capf.subject}" in "\n".join(menu.lines())


def test_an_exported_folder_shows_the_same(tmp_path: Path) -> None:
    contents = OLD.holding(ctl_source=OLD.address, mic=phone_identity(OLD))
    export_contents(contents, tmp_path)
    assert screens_of_folder(tmp_path).security == screens_of(live(contents)).security
    export_contents(FlashContents(), tmp_path)
    (tmp_path / f"SEP{MAC}.cnf.xml").unlink()
    assert screens_of_folder(tmp_path).security == screens_of(live(FlashContents())).security


def test_a_flash_directory_shows_the_same(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash")
    flash.store(ctl=OLD.ctl(), tftp_servers=("192.0.2.9",))
    screens = screens_of_folder(tmp_path / "flash")
    assert screens.security.ctl.signature == list_signature(OLD.ctl())
    assert screens.status.tftp_servers == ("192.0.2.9",)
