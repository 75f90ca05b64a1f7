from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cucm.certificates import Identity, node_certificate
from cucm.database import NodeDatabase
from cucm.events import Event
from cucm.events.tvs import CacheName, CacheStep, TvsCacheLoaded, TvsCacheNotLoaded
from cucm.key_store import KeyStore
from cucm.names import database_name
from cucm.roles import CertificateUnit
from cucm.wire.signature_header import DigestAlgorithm
from cucm.wire.trust_list import Record, blank_record, build_trust_list
from tvs_server.certificate_cache import CertificateCache, FreshnessMode, PemFolderSource

NOT_BEFORE = 1_700_000_000.0
NOW = NOT_BEFORE + 1


def make(name: str, unit: CertificateUnit = CertificateUnit.CALLMANAGER) -> Identity:
    return node_certificate(KeyStore(), unit, name, seed=1, not_before=NOT_BEFORE)


@pytest.fixture(scope="module")
def own() -> Identity:
    return make("ucm105pub")


@pytest.fixture(scope="module")
def foreign() -> Identity:
    return make("ucm11pub")


@pytest.fixture
def node(tmp_path: Path, own: Identity) -> Path:
    path = tmp_path / "node.db"
    with NodeDatabase(path).create() as database:
        database.put_certificate(own.certificate_der, CertificateUnit.CALLMANAGER, "ucm105pub", moment=NOW)
    return path


def upload(node: Path, identity: Identity, *units: CertificateUnit, ttl_s: int | None = None) -> None:
    with NodeDatabase(node).open() as database:
        for unit in units:
            database.put_certificate(identity.certificate_der, unit, "ucm11pub", moment=NOW, ttl_s=ttl_s)


def record(identity: Identity, function: int, *, issuer: str | None = None) -> Record:
    return Record.build(
        function=function,
        dns_name="ucm105pub",
        subject=identity.subject,
        issuer=issuer or identity.issuer,
        serial=identity.serial,
        public_key=identity.public_key_record,
        certificate=identity.certificate_der,
        ip_address="127.0.11.32",
    )


def write_ctl(path: Path, signer: Identity, *records: Record) -> None:
    data = build_trust_list(
        signer=signer.signer_id,
        records=records,
        digest=DigestAlgorithm.SHA1,
        sign=signer.sign,
        signature_length=signer.signature_length,
        file_name="CTLFile.tlv",
        timestamp=1_700_000_000,
    )
    replacement = path.with_suffix(".new")
    replacement.write_bytes(data)
    replacement.replace(path)


class Loaded:
    """A loaded cache and the events it told."""

    def __init__(
        self,
        database: Path | PemFolderSource,
        ctl_file: Path | None = None,
        mode: FreshnessMode = FreshnessMode.CHANGE_NOTIFICATION,
    ) -> None:
        self.events: list[Event] = []
        self.cache = CertificateCache(database, ctl_file=ctl_file, mode=mode, emit=self.events.append)
        self.cache.load()

    def roles(self, identity: Identity, issuer: str | None = None) -> tuple[int, ...] | None:
        found = self.cache.look_up(identity.serial, issuer or identity.issuer)
        if found.entry is not None:
            assert found.entry.certificate == identity.certificate_der
        return found.entry.roles if found.entry else None

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cache.close()


def test_the_store_decides_the_roles(node: Path, own: Identity, foreign: Identity) -> None:
    with Loaded(node) as loaded:
        assert loaded.roles(own) == (0, 2)
        assert loaded.roles(foreign) is None
    upload(node, foreign, CertificateUnit.CALLMANAGER_TRUST)
    with Loaded(node) as loaded:
        assert loaded.roles(foreign) == ()
    upload(node, foreign, CertificateUnit.PHONE_SAST_TRUST)
    with Loaded(node) as loaded:
        assert loaded.roles(foreign) == (0, 3)


def test_with_change_notification_an_upload_counts_at_once(node: Path, foreign: Identity) -> None:
    with Loaded(node) as loaded:
        assert loaded.roles(foreign) is None
        upload(node, foreign, CertificateUnit.PHONE_SAST_TRUST, ttl_s=3600)
        assert loaded.roles(foreign) == (0, 3)
        entry = loaded.cache.look_up(foreign.serial, foreign.issuer).entry
        assert entry is not None
        assert entry.ttl_s == 3600
        assert [event.changed for event in loaded.events if isinstance(event, TvsCacheLoaded)] == [False, True]


def test_what_is_found_together_is_as_new_as_the_look_before_it(node: Path, foreign: Identity) -> None:
    with Loaded(node) as loaded:
        loaded.cache.look_anew()
        assert loaded.cache.find(foreign.serial, foreign.issuer).entry is None
        upload(node, foreign, CertificateUnit.PHONE_SAST_TRUST)
        assert loaded.cache.find(foreign.serial, foreign.issuer).entry is None
        loaded.cache.look_anew()
        assert loaded.cache.find(foreign.serial, foreign.issuer).entry is not None


def test_without_it_an_upload_counts_after_a_restart(node: Path, foreign: Identity) -> None:
    with Loaded(node, mode=FreshnessMode.STALE_UNTIL_RESTART) as loaded:
        upload(node, foreign, CertificateUnit.PHONE_SAST_TRUST)
        assert loaded.roles(foreign) is None
        assert len(loaded.events) == 1
    with Loaded(node, mode=FreshnessMode.STALE_UNTIL_RESTART) as restarted:
        assert restarted.roles(foreign) == (0, 3)


def test_the_local_ctl_is_asked_second(node: Path, own: Identity, foreign: Identity, tmp_path: Path) -> None:
    ctl = tmp_path / "CTLFile.tlv"
    # one certificate as SAST and as CCM+TFTP, a blank record, and one that the database also has
    write_ctl(ctl, own, record(foreign, 0), record(foreign, 2), blank_record(), record(own, 4))
    with Loaded(node, ctl) as loaded:
        found = loaded.cache.look_up(foreign.serial, foreign.issuer)
        assert found.steps == (CacheStep(CacheName.DATABASE, False, ()), CacheStep(CacheName.LOCAL_CTL, True, (0, 2)))
        assert found.key == foreign.serial.hex().upper() + foreign.issuer
        assert loaded.roles(own) == (0, 2)
        assert len(loaded.cache.look_up(own.serial, own.issuer).steps) == 1
        assert (loaded.cache.count(CacheName.DATABASE), loaded.cache.count(CacheName.LOCAL_CTL)) == (1, 2)


@pytest.mark.parametrize("mode", list(FreshnessMode))
def test_a_changed_ctl_file_is_read_again(
    node: Path, own: Identity, foreign: Identity, tmp_path: Path, mode: FreshnessMode
) -> None:
    ctl = tmp_path / "CTLFile.tlv"
    with Loaded(node, ctl, mode) as loaded:
        assert loaded.roles(foreign) is None  # no file: no records
        write_ctl(ctl, own, record(foreign, 0))
        assert loaded.roles(foreign) == (0,)
        write_ctl(ctl, own, record(own, 0))
        assert loaded.roles(foreign) is None
        ctl.unlink()
        loaded.roles(foreign)
        loaded.roles(foreign)
        changes = [
            event.keys
            for event in loaded.events
            if isinstance(event, TvsCacheLoaded) and event.cache is CacheName.LOCAL_CTL and event.changed
        ]
        keys = [identity.serial.hex().upper() + identity.issuer for identity in (foreign, own)]
        assert changes == [(keys[0],), (keys[1],), ()]


def test_an_unreadable_ctl_file_is_told_once_and_changes_nothing(
    node: Path, own: Identity, foreign: Identity, tmp_path: Path
) -> None:
    ctl = tmp_path / "CTLFile.tlv"
    write_ctl(ctl, own, record(foreign, 0))
    whole = ctl.read_bytes()
    with Loaded(node, ctl) as loaded:
        ctl.write_bytes(whole[: len(whole) // 2])
        assert loaded.roles(foreign) == (0,)
        assert loaded.roles(foreign) == (0,)
        (trouble,) = (event for event in loaded.events if isinstance(event, TvsCacheNotLoaded))
        assert trouble.cache is CacheName.LOCAL_CTL
        assert "offset" in trouble.detail


def test_a_missing_database_is_told_and_found_when_it_comes(tmp_path: Path, own: Identity) -> None:
    path = tmp_path / "node.db"
    with Loaded(path) as loaded:
        assert [type(event) for event in loaded.events] == [TvsCacheNotLoaded]
        assert loaded.roles(own) is None
        assert len(loaded.events) == 1
        with NodeDatabase(path).create() as database:
            database.put_certificate(own.certificate_der, CertificateUnit.CALLMANAGER, "ucm105pub", moment=NOW)
        assert loaded.roles(own) == (0, 2)


def test_another_file_under_the_databases_name_is_read(
    node: Path, own: Identity, foreign: Identity, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with NodeDatabase(other).create() as database:
        database.put_certificate(foreign.certificate_der, CertificateUnit.CALLMANAGER, "ucm11pub", moment=NOW)
    with Loaded(node) as loaded:
        other.replace(node)
        assert loaded.roles(foreign) == (0, 2)
        assert loaded.roles(own) is None
        upload(node, own, CertificateUnit.CALLMANAGER_TRUST)
        assert loaded.roles(own) == ()


def test_a_deleted_database_is_told_once_and_changes_nothing(node: Path, own: Identity) -> None:
    with Loaded(node) as loaded:
        for path in node.parent.glob("node.db*"):
            path.unlink()
        assert loaded.roles(own) == (0, 2)
        assert loaded.roles(own) == (0, 2)
        (trouble,) = (event for event in loaded.events if isinstance(event, TvsCacheNotLoaded))
        assert trouble.cache is CacheName.DATABASE


def test_a_locked_database_is_told_and_read_when_it_is_free(node: Path, own: Identity) -> None:
    with closing(sqlite3.connect(node, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("UPDATE certificate SET servername = 'changed'")
        with Loaded(node) as loaded:
            assert loaded.roles(own) is None
            assert "locked" in str(loaded.events)
            other.close()
            assert loaded.roles(own) == (0, 2)


def test_other_spellings_of_a_name_find_the_certificate(node: Path, own: Identity) -> None:
    with Loaded(node) as loaded:
        assert loaded.roles(own, own.issuer.replace(";", ", ")) == (0, 2)
        assert loaded.roles(own, own.issuer.replace("CN=", "cn = ")) == (0, 2)
        assert loaded.roles(own, database_name(own.certificate.issuer)) is None  # another order is another name
        found = loaded.cache.look_up(b"\0" + own.serial, own.issuer)
        assert found.entry is not None
        assert found.key.startswith("00")


def test_functions_that_no_answer_can_hold_are_left_out(node: Path, foreign: Identity, tmp_path: Path) -> None:
    ctl = tmp_path / "CTLFile.tlv"
    write_ctl(ctl, foreign, record(foreign, 300), record(foreign, 0))
    with Loaded(node, ctl) as loaded:
        assert loaded.roles(foreign) == (0,)


def test_a_pem_folder_serves_all_certificates_with_the_given_roles(
    tmp_path: Path, own: Identity, foreign: Identity
) -> None:
    (tmp_path / "a.pem").write_bytes(own.certificate_pem)
    (tmp_path / "notes.txt").write_text("not looked at")
    with Loaded(PemFolderSource(tmp_path, (3, 0))) as loaded:
        assert loaded.roles(own) == (0, 3)
        assert loaded.roles(foreign) is None
        (tmp_path / "b.CRT").write_bytes(own.certificate_pem + foreign.certificate_pem)
        assert loaded.roles(foreign) == (0, 3)
        (tmp_path / "c.pem").write_text("rubbish")
        assert loaded.roles(foreign) == (0, 3)
        (trouble,) = (event for event in loaded.events if isinstance(event, TvsCacheNotLoaded))
        assert "c.pem" in trouble.detail
