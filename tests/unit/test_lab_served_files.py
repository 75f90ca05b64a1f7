from __future__ import annotations

import pytest

from cucm.certificates import node_certificate
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import DigestAlgorithm
from lab import served_files
from lab.served_files import ServedFiles
from tftp_server.file_store import NotServed


class Store:
    def __init__(self, **contents: bytes) -> None:
        self.contents = contents

    def read(self, name: str) -> bytes:
        if name not in self.contents:
            raise NotServed("there is none")
        return self.contents[name]


def test_a_recording_store_answers_as_the_store_does_and_remembers():
    served = ServedFiles()
    store = served.recording("n1", Store(a=b"A"))
    assert store.read("a") == b"A"
    with pytest.raises(NotServed):
        store.read("b")
    assert list(served) == [("n1", "a", b"A")]
    assert served.node_of(b"A") == "n1"
    assert served.node_of(b"B") is None


def test_the_newest_content_is_kept_and_the_older_still_recognised():
    served = ServedFiles()
    for data in (b"old", b"new"):
        served.note("n1", "a", data)
    assert list(served) == [("n1", "a", b"new")]
    assert served.node_of(b"old") == served.node_of(b"new") == "n1"


def test_the_content_of_a_signed_file_is_recognised_too():
    identity = node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "n1", seed="served", not_before=1.7e9)
    signed = build_signed_file(
        b"<device/>",
        signer=identity.signer_id,
        file_name="a.cnf.xml.sgn",
        digest=DigestAlgorithm.SHA1,
        sign=identity.sign,
        signature_length=256,
        timestamp=1,
    )
    served = ServedFiles()
    served.note("n1", "a.cnf.xml.sgn", signed)
    assert served.node_of(b"<device/>") == "n1"
    served.note("n1", "cut.sgn", signed[:40])
    assert served.node_of(signed[:40]) == "n1"


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(served_files, "MAX_CONTENTS", 3)
    served = ServedFiles()
    for number in range(9):
        served.note("n1", f"{number}", b"%d" % number)
    assert [name for _, name, _ in served] == ["6", "7", "8"]
    served.note("n1", "6", b"again")
    served.note("n1", "9", b"9")
    assert [name for _, name, _ in served] == ["6", "8", "9"]
    monkeypatch.setattr(served_files, "MAX_BYTES", 100)
    served.note("n1", "10", b"x" * 97)
    assert [name for _, name, _ in served] == ["10", "9"]
    served.note("n1", "11", b"x" * 200)
    assert [name for _, name, _ in served] == ["11"]


def test_contents_served_longest_ago_are_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(served_files, "MAX_DIGESTS", 3)
    served = ServedFiles(tmp_path / "served.log")
    for data in (b"a", b"b", b"c", b"a", b"d"):
        served.note("n1", "name", data)
    for known in (served, ServedFiles(tmp_path / "served.log")):
        assert [known.node_of(data) for data in (b"a", b"c", b"d", b"x")][1:] == ["n1", "n1", None]
    assert served.node_of(b"b") is None
    assert served.node_of(b"a") == "n1"
    for number in range(50):
        served.note("n2", "name", b"%d" % number)
    assert (tmp_path / "served.log").read_text().count("\n") <= 7
    assert ServedFiles(tmp_path / "served.log").node_of(b"49") == "n2"


def test_a_later_lab_knows_who_served_what(tmp_path):
    path = tmp_path / "served.log"
    ServedFiles(path).note("n1", "name", b"A")
    with path.open("ab") as file:
        file.write(b"0123")  # a kill in the middle of a line
    second = ServedFiles(path)
    second.note("n2", "name", b"A")
    second.note("n2", "name", b"B")
    third = ServedFiles(path)
    assert [third.node_of(data) for data in (b"A", b"B")] == ["n1", "n2"]
    assert list(third) == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_tells_nothing(tmp_path):
    path = tmp_path / "served.log"
    path.write_bytes(b"\xff\0 \n\n" + b"x" * 64 + b"\n")
    served = ServedFiles(path)
    served.note("n1", "name", b"A")
    assert ServedFiles(path).node_of(b"A") == "n1"


def test_a_disk_that_is_full_costs_only_the_file(tmp_path, caplog):
    served = ServedFiles(tmp_path / "missing" / "served.log")
    served.note("n1", "name", b"A")
    served.note("n1", "name", b"B")
    assert served.node_of(b"B") == "n1"
    assert caplog.text.count("is not kept") == 1
