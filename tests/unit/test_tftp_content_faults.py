"""Faults of whole files: what is done to them, what a verifying reader makes of it, and what is told."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Any

import pytest
from cluster_on_disk import PUBLISHER
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA512
from served_cluster import Mode, serving

from cucm.certificates import node_certificate
from cucm.errors import DecodeError, TrustError, WireError
from cucm.events import EventLog
from cucm.events.files import FileAltered, FileNotAltered
from cucm.faults import FaultBoard, fault_of
from cucm.faults.catalogue.files import Oversized, Tampered, Truncated, Unsigned
from cucm.key_store import KeyStore
from cucm.roles import SIGNS_TRUST_LISTS, CertificateUnit
from cucm.trust import anchors_of, find_signer, verify_document
from cucm.wire.signed_file import build_signed_file, decode_signed_file
from cucm.wire.trust_list import (
    MAX_TRUST_LIST,
    DigestAlgorithm,
    Record,
    build_trust_list,
    decode_trust_list,
    signed_bytes,
)
from tftp_server import content_faults
from tftp_server.altered_files import NotAlterable, altered, signed_by
from tftp_server.content_faults import FaultyStore, ServedVersions
from tftp_server.file_store import MappingStore

CONTENT = b"<device/>"


@pytest.fixture(scope="module")
def ctl(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The CTL of a cluster in mixed mode."""
    draw = iter(range(1, 250))

    async def read() -> bytes:
        address = partial(lambda: f"127.19.6.{next(draw)}")
        async with serving(tmp_path_factory.mktemp("cluster"), address, "11.0", Mode.TOKENLESS) as cluster:
            return cluster.stores[PUBLISHER].read("CTLFile.tlv")

    return asyncio.run(read())


@pytest.fixture(scope="module")
def envelope() -> bytes:
    identity = node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "n1", seed="served", not_before=1.7e9)
    return build_signed_file(
        CONTENT,
        signer=identity.signer_id,
        file_name="SEP001122334455.cnf.xml.sgn",
        digest=DigestAlgorithm.SHA1,
        sign=identity.sign,
        signature_length=256,
        timestamp=1,
    )


# --- what is done to a file


def test_truncated() -> None:
    assert altered(CONTENT, Truncated(bytes=3)) == b"<de"
    assert altered(CONTENT, Truncated(bytes=0)) == b""
    with pytest.raises(NotAlterable, match="9 bytes"):
        altered(CONTENT, Truncated(bytes=9))


@pytest.mark.parametrize(("offset", "changed"), [(0, 0), (8, 8), (-1, 8), (-9, 0)])
def test_tampered(offset: int, changed: int) -> None:
    now = altered(CONTENT, Tampered(offset=offset))
    assert [place for place in range(9) if now[place] != CONTENT[place]] == [changed]
    with pytest.raises(NotAlterable, match="9 bytes"):
        altered(CONTENT, Tampered(offset=9))


def test_a_changed_list_no_longer_verifies(ctl: bytes) -> None:
    now = altered(ctl, Tampered())
    known = decode_trust_list(ctl)
    anchors = anchors_of(known, "CTL")
    verify_document(known, ctl, anchors, SIGNS_TRUST_LISTS)
    with pytest.raises(TrustError):
        verify_document(decode_trust_list(now), now, anchors, SIGNS_TRUST_LISTS)


def test_unsigned_envelope_is_its_content(envelope: bytes) -> None:
    assert altered(envelope, Unsigned()) == CONTENT
    with pytest.raises(NotAlterable, match="no signature"):
        altered(CONTENT, Unsigned())


def test_unsigned_list_has_everything_but_the_signature(ctl: bytes) -> None:
    now = altered(ctl, Unsigned())
    header = int.from_bytes(now[8:10], "big")
    before = decode_trust_list(ctl)
    assert header % 4 == 0
    assert now[header:] == ctl[before.header_length :], "the records stand where the header ends"
    assert len(ctl) - len(now) >= len(before.signature)
    with pytest.raises(DecodeError, match="SIGNATURE"):
        decode_trust_list(now)


def test_wrong_signer_is_another_certificate_of_the_same_name(ctl: bytes, envelope: bytes) -> None:
    key = KeyStore().key("impostor of a test")
    before, after = decode_trust_list(ctl), decode_trust_list(signed_by(ctl, key))
    assert (after.signer.subject, after.signer.issuer) == (before.signer.subject, before.signer.issuer)
    assert after.signer.serial != before.signer.serial
    assert (after.records, after.timestamp, after.file_name) == (before.records, before.timestamp, before.file_name)
    with pytest.raises(TrustError, match="signer"):
        find_signer(after.signer, anchors_of(before, "CTL"), SIGNS_TRUST_LISTS)
    own = decode_signed_file(signed_by(envelope, key))
    assert own.content == CONTENT
    assert own.signer.serial != decode_signed_file(envelope).signer.serial
    assert signed_by(ctl, key) == signed_by(ctl, key), "a phone that asks twice sees no change"
    with pytest.raises(NotAlterable, match="no signature"):
        signed_by(CONTENT, key)


@pytest.fixture(params=range(4))
def newer_list(request: pytest.FixtureRequest) -> bytes:
    """As newer releases sign it; every remainder of the header's length is met."""
    identity = node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "n1", seed="served", not_before=1.7e9)
    return build_trust_list(
        signer=identity.signer_id,
        records=[Record.build(function=0, certificate=identity.certificate_der)],
        digest=DigestAlgorithm.SHA512,
        sign=identity.sign,
        signature_length=256,
        file_name="ITLFile.tlv" + "x" * request.param,
        timestamp=5,
        signer_version=(1, 1),
    )


def test_what_is_taken_over_when_another_signs(newer_list: bytes) -> None:
    key = KeyStore().key("impostor of a test")
    forged = signed_by(newer_list, key)
    before, after = decode_trust_list(newer_list), decode_trust_list(forged)
    assert (after.digest, after.signer_version, after.file_name) == (before.digest, (1, 1), before.file_name)
    key.public_key().verify(after.signature, signed_bytes(forged), PKCS1v15(), SHA512())


def test_a_header_without_signature_is_padded_again(newer_list: bytes) -> None:
    now = altered(newer_list, Unsigned())
    header = int.from_bytes(now[8:10], "big")
    assert header % 4 == 0
    assert now[header:] == newer_list[decode_trust_list(newer_list).header_length :]


@pytest.mark.parametrize("size", [MAX_TRUST_LIST + 1, MAX_TRUST_LIST + 7, 300_000])
def test_oversized_list_is_well_formed(ctl: bytes, size: int) -> None:
    now = altered(ctl, Oversized(bytes=size))
    known = decode_trust_list(now)
    assert size <= len(now) < size + 20
    assert now.startswith(ctl)
    assert known.trailing == b""
    assert len(known.records) > len(decode_trust_list(ctl).records)


def test_oversized_text_ends_in_line_feeds() -> None:
    now = altered(CONTENT, Oversized())
    assert len(now) == MAX_TRUST_LIST + 1
    assert now.rstrip(b"\n") == CONTENT
    with pytest.raises(NotAlterable, match="already"):
        altered(now, Oversized())


def test_what_claims_to_be_a_list_and_is_none(ctl: bytes) -> None:
    broken = ctl[:40]
    for action in (Unsigned(), Oversized()):
        with pytest.raises(WireError):
            altered(broken, action)
    with pytest.raises(WireError):
        signed_by(broken, KeyStore().key("impostor of a test"))


# --- the store


class Faulty:
    """A store with one fault of file contents, and what it tells."""

    def __init__(self, files: dict[str, bytes], action: str, **rule: Any) -> None:
        self.log = EventLog()
        self.board = FaultBoard(self.log.emitter("lab:faults"))
        self.board.set(fault_of({"id": "it", "point": "file.content", "action": action, **rule}))
        self.versions = ServedVersions()
        self.files = files
        self.store = self.started_anew()

    def started_anew(self) -> FaultyStore:
        emit = self.log.emitter("tftp:n1")
        return FaultyStore(MappingStore(self.files), self.board, KeyStore(), versions=self.versions, emit=emit)

    def told(self) -> list[FileAltered | FileNotAltered]:
        return [one.event for one in self.log if isinstance(one.event, FileAltered | FileNotAltered)]


def test_what_is_altered_is_told() -> None:
    faulty = Faulty({"a": CONTENT, "b": CONTENT}, "truncated", match={"file": "a"}, attributes={"bytes": 2})
    assert faulty.store.read("a") == b"<d"
    assert faulty.store.read("b") == CONTENT
    was, now = (hashlib.sha256(data).hexdigest() for data in (CONTENT, b"<d"))
    assert faulty.told() == [FileAltered("a", "truncated", was, now, 2)]


def test_what_cannot_be_altered_is_served_as_it_is_and_told() -> None:
    faulty = Faulty({"a": CONTENT}, "wrong-signer")
    assert faulty.store.read("a") == CONTENT
    assert faulty.told() == [FileNotAltered("a", "wrong-signer", "it has no signature")]


def test_a_broken_list_is_served_as_it_is_and_told(ctl: bytes) -> None:
    faulty = Faulty({"a": ctl[:40]}, "unsigned")
    assert faulty.store.read("a") == ctl[:40]
    (told,) = faulty.told()
    assert isinstance(told, FileNotAltered)


def test_a_rule_for_a_phone_hits_the_files_that_bear_its_name() -> None:
    names = ["CTLSEP001122334455.tlv", "SEP001122334455.cnf.xml.sgn", "ITLSEP00112233445a.tlv", "CTLFile.tlv"]
    faulty = Faulty(
        dict.fromkeys(names, CONTENT), "truncated", match={"phone": "SEP001122334455"}, attributes={"bytes": 1}
    )
    assert [faulty.store.read(name) == b"<" for name in names] == [True, True, False, False]


def test_names_in_small_letters_are_the_same_phone() -> None:
    faulty = Faulty({"ITLsep00112233445a.tlv": CONTENT}, "tampered", match={"phone": "SEP00112233445A"})
    assert faulty.store.read("ITLsep00112233445a.tlv") != CONTENT


def test_stale_is_the_version_served_before_also_over_a_restart_of_the_service() -> None:
    files = {"ITLSEP001122334455.tlv": b"one", "ITLFile.tlv": b"one"}
    faulty = Faulty(files, "stale", match={"file": "ITL*"})
    assert faulty.store.read("ITLSEP001122334455.tlv") == b"one"
    (told,) = faulty.told()
    assert isinstance(told, FileNotAltered)
    files |= dict.fromkeys(files, b"two")
    again = faulty.started_anew()
    assert again.read("ITLFile.tlv") == b"one", "an ITL is one file under all its names"
    assert again.read("ITLSEP001122334455.tlv") == b"one"
    faulty.board.end("it")
    assert again.read("ITLFile.tlv") == b"two"


def test_serving_a_stale_version_does_not_make_it_the_present_one() -> None:
    files = {"a": b"one"}
    faulty = Faulty(files, "stale", match={"file": "a"})
    faulty.store.read("a")
    for version, stale in ((b"two", b"one"), (b"three", b"two")):
        files["a"] = version
        assert [faulty.store.read("a") for _ in range(2)] == [stale, stale]


def test_versions_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_faults, "MAX_HISTORIES", 3)
    monkeypatch.setattr(content_faults, "MAX_VERSION_BYTES", 100)
    monkeypatch.setattr(content_faults, "MAX_HISTORY_BYTES", 250)
    versions = ServedVersions()
    for number in range(5):
        for version in (b"1", b"2"):
            versions.note(f"file {number}", version)
    assert [versions.earlier(f"file {number}") for number in range(5)] == [None, None, b"1", b"1", b"1"]
    versions.note("file 4", bytes(101))
    assert versions.earlier("file 4") == b"1", "too large to be kept"
    versions.note("file 4", bytes(100))
    versions.note("file 4", bytes(99))
    versions.note("file 3", bytes(90))
    assert [versions.earlier(f"file {number}") for number in range(2, 5)] == [None, None, bytes(100)]


def test_without_a_rule_the_same_bytes_are_shared() -> None:
    store = FaultyStore(MappingStore({"a": CONTENT}), FaultBoard(), KeyStore())
    assert store.read("a") is CONTENT
