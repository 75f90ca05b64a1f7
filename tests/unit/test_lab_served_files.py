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
    monkeypatch.setattr(served_files, "MAX_KEPT", 3)
    served = ServedFiles()
    for number in range(9):
        served.note("n1", f"{number}", b"%d" % number)
    assert len(list(served)) == 3
    served.note("n1", "0", b"again")
    assert ("n1", "0", b"again") in list(served)
