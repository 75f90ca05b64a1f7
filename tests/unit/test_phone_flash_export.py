"""What an exported flash says when it is read again; how it is written: `test_phone_flash`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phone_script import OLD, phone_identity

from cucm.errors import FlashError
from phone_agent.flash import FlashContents
from phone_agent.flash_export import CertificateView, FlashView, export_contents, read_export


def test_what_was_exported_is_read_again(tmp_path: Path) -> None:
    for contents in (OLD.holding(ctl_source=OLD.address, mic=phone_identity(OLD)), FlashContents()):
        export_contents(contents, tmp_path)
        assert read_export(tmp_path) == FlashView.of(contents)


def test_certificates_that_cannot_be_read_have_a_hash_only() -> None:
    assert CertificateView.from_der(b"x") == CertificateView("", "", "11f6ad8ec52a2984abaafd7c3b516503785c2072")


GOOD = {"ctl": None, "itl": None, "configuration": None, "tftp_servers": []}


@pytest.mark.parametrize(
    "status",
    [
        "",
        "[]",
        "{}",
        "no json",
        json.dumps(GOOD | {"configuration": "../escaped"}),
        json.dumps(GOOD | {"lsc": {"subjekt": "x"}}),
        json.dumps(GOOD | {"lsc": "x"}),
        json.dumps(GOOD | {"ctl": 7}),
        "[" * 100_000,
    ],
)
def test_what_is_no_export_is_told(tmp_path: Path, status: str) -> None:
    (tmp_path / "status.json").write_text(status)
    with pytest.raises(FlashError, match="no exported flash") as caught:
        read_export(tmp_path)
    assert caught.value.mend


def test_a_folder_that_is_not_there_or_holds_something_huge(tmp_path: Path) -> None:
    with pytest.raises(FlashError):
        read_export(tmp_path / "nowhere")
    (tmp_path / "status.json").write_text(json.dumps(GOOD))
    with (tmp_path / "CTLFile.tlv").open("wb") as file:
        file.truncate(5 * 1024 * 1024)
    with pytest.raises(FlashError, match="larger"):
        read_export(tmp_path)
    (tmp_path / "CTLFile.tlv").unlink()
    (tmp_path / "CTLFile.tlv").mkdir()
    with pytest.raises(FlashError, match="cannot be read"):
        read_export(tmp_path)
