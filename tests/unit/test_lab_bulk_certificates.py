"""Two clusters exchange certificates over a real SFTP server."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sftp_exchange import settings_of, sftp_server

from cucm.certificate_bundle import BundledCertificate, decode_bundle, encode_bundle
from cucm.certificates import node_certificate
from cucm.database import NodeDatabase, PutOutcome
from cucm.errors import CertificateRefused, LabError, UsageError
from cucm.events import Event
from cucm.events.bulk import (
    BulkCertificateRefused,
    BulkConsolidated,
    BulkExported,
    BulkFailed,
    BulkImported,
    BulkSftpSet,
    BulkTypeSkipped,
)
from cucm.events.sftp import SftpLoginAccepted
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.versions import BulkType
from lab.bulk_certificates import BulkCertificateManagement, BulkCounts, ImportCounts, SftpSettings
from lab.bulk_files import BULK_PASSWORD, EXPORTED_UNITS, IMPORT_STORES, consolidated_name, is_export, node_file_name
from lab.sftp_server import SftpServer

Draw = Callable[[], str]
BEGIN = 1_480_000_000
NOW = BEGIN + 86_400.0
CALLMANAGER = CertificateUnit.CALLMANAGER


class Source:
    """A cluster with a real database; every node has every certificate, CAPF the first one only."""

    def __init__(self, directory: Path, nodes: Sequence[str], version: str) -> None:
        self.version = version
        self.database = NodeDatabase(directory / f"{nodes[0]}.db").create()
        self.own: dict[CertificateUnit, list[tuple[str, bytes]]] = {}
        self.now = NOW
        self.told: list[list[CertificateUnit]] = []
        for unit in EXPORTED_UNITS.values():
            for node in nodes[:1] if unit is CertificateUnit.CAPF else nodes:
                self.renew(unit, node, BEGIN)

    def renew(self, unit: CertificateUnit, node: str, not_before: float) -> None:
        identity = node_certificate(
            KeyStore(), unit, node, seed=1, not_before=not_before, subject=f"CN={unit}.{node}", key_label="bulk test"
        )
        mine = [pair for pair in self.own.get(unit, []) if pair[0] != node]
        self.own[unit] = [*mine, (node, identity.certificate_der)]

    def require_up(self) -> None:
        pass

    def own_certificates(self, unit: CertificateUnit) -> Sequence[tuple[str, bytes]]:
        return self.own.get(unit, [])

    def upload(self, der: bytes, store: CertificateUnit) -> PutOutcome:
        return self.database.put_certificate(der, store, "publisher", moment=self.now)

    async def imported(self, units: Sequence[CertificateUnit]) -> None:
        self.told.append(list(units))

    def trusted(self, store: CertificateUnit) -> set[bytes]:
        return {stored.der for stored in self.database.certificates(store)}

    def ders(self, unit: CertificateUnit) -> set[bytes]:
        return {der for _, der in self.own[unit]}


class Side:
    """One cluster: its source, its management, and what was told."""

    def __init__(self, directory: Path, name: str, nodes: Sequence[str], version: str, address: str | None) -> None:
        self.events: list[Event] = []
        self.source = Source(directory, nodes, version)
        self.state_file = directory / f"{name}.json"
        self.bulk = BulkCertificateManagement(
            name, nodes[0], version, self.source, self.state_file, local_address=address, emit=self.events.append
        )

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        self.source.database.close()


class Exchange:
    def __init__(self, server: SftpServer, old: Side, new: Side) -> None:
        self.server = server
        self.old = old
        self.new = new

    @property
    def folder(self) -> Path:
        return self.server.directory / "bulk"

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@asynccontextmanager
async def exchange(
    tmp_path: Path, loopback: Draw, old: str = "10.5.2.13900-12", new: str = "11.5", *, is_set: bool = True
) -> AsyncIterator[Exchange]:
    async with sftp_server(tmp_path, loopback) as server:
        sides = Side(tmp_path, "old", ("old1", "old2"), old, None), Side(tmp_path, "new", ("new1",), new, None)
        try:
            if is_set:
                for side in sides:
                    await side.bulk.set_sftp(settings_of(server))
            yield Exchange(server, *sides)
        finally:
            for side in sides:
                side.close()


async def test_the_whole_exchange(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, "11.5", "12.5") as both:
        assert await both.old.bulk.export("TFTP") == BulkCounts(2, 2)
        assert await both.new.bulk.export("TFTP") == BulkCounts(1, 1)
        assert await both.new.bulk.consolidate("TFTP") == BulkCounts(1, 3)
        assert await both.old.bulk.import_certificates("TFTP") == ImportCounts(added=2)
        assert await both.new.bulk.import_certificates("TFTP") == ImportCounts(added=4)
        assert both.files() == [
            "consolidated.tftp.p12",
            "new1@new.tftp.p12",
            "old1@old.tftp.p12",
            "old2@old.tftp.p12",
        ]
        for mine, theirs in ((both.old, both.new), (both.new, both.old)):
            for store in (CertificateUnit.PHONE_SAST_TRUST, CertificateUnit.CALLMANAGER_TRUST):
                assert mine.source.trusted(store) == theirs.source.ders(CALLMANAGER)
            assert all(item.roles == (TrustRole.SAST, TrustRole.TFTP) for item in mine.source.database.certificates())
        texts = [event.text for event in (*both.old.told(BulkExported), *both.old.told(BulkImported))]
        assert texts == [
            "Successfully exported tftp certificate(s) to sftp server.",
            "Successfully imported tftp certificates.",
        ]
        (consolidated,) = both.new.told(BulkConsolidated)
        assert (consolidated.clusters, consolidated.certificates) == (("new", "old"), 3)


@pytest.mark.parametrize("bulk_type", list(BulkType))
async def test_each_type_goes_where_it_belongs(bulk_type: BulkType, tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, "12.5", "14") as both:
        for side in (both.old, both.new):
            await side.bulk.export(bulk_type)
        await both.old.bulk.consolidate(bulk_type)
        await both.old.bulk.import_certificates(bulk_type)
        expected = both.new.source.ders(EXPORTED_UNITS[bulk_type])
        for store in CertificateUnit:
            if store.is_trust_store:
                found = both.old.source.trusted(store)
                assert found == (expected if store in IMPORT_STORES[bulk_type] else set()), store


async def test_all_is_what_the_version_has(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, "11.5", "12.5") as both:
        assert await both.old.bulk.export() == BulkCounts(7, 7)
        assert await both.new.bulk.export("All") == BulkCounts(5, 5)
        await both.new.bulk.consolidate("all")
        skipped = BulkTypeSkipped(
            "new", "ITLRecovery", "only new has exported ITLRecovery certificates to this directory"
        )
        assert both.new.told(BulkTypeSkipped) == [skipped]
        assert await both.old.bulk.import_certificates() == ImportCounts(added=5)
        assert await both.new.bulk.import_certificates() == ImportCounts(added=9)
        assert [event.bulk_type for event in both.new.told(BulkTypeSkipped)] == ["ITLRecovery"] * 2


async def test_importing_again_changes_nothing(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await exchanged(both, "TFTP")
        assert await both.new.bulk.import_certificates("TFTP") == ImportCounts(unchanged=4)
        both.old.source.renew(CALLMANAGER, "old1", BEGIN + 3600)
        await both.old.bulk.export("TFTP")
        await both.old.bulk.consolidate("TFTP")
        assert await both.new.bulk.import_certificates("TFTP") == ImportCounts(replaced=2, unchanged=2)
        assert both.new.source.told == [[CALLMANAGER], [], [CALLMANAGER]]  # what makes phones reset
        assert both.new.source.trusted(CertificateUnit.PHONE_SAST_TRUST) == both.old.source.ders(CALLMANAGER)


async def exchanged(both: Exchange, types: str) -> None:
    for side in (both.old, both.new):
        await side.bulk.export(types)
    await both.new.bulk.consolidate(types)
    for side in (both.old, both.new):
        await side.bulk.import_certificates(types)


async def test_an_old_consolidation_brings_old_certificates(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await exchanged(both, "TFTP")
        before = both.old.source.ders(CALLMANAGER)
        both.old.source.renew(CALLMANAGER, "old1", BEGIN + 3600)
        await both.old.bulk.export("TFTP")
        assert await both.new.bulk.import_certificates("TFTP") == ImportCounts(unchanged=4)
        assert both.new.source.trusted(CertificateUnit.PHONE_SAST_TRUST) == before
        assert await both.old.bulk.import_certificates("TFTP") == ImportCounts(unchanged=2)  # not its own former one


async def test_a_certificate_of_the_whole_cluster_is_consolidated_once(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, "12.5", "12.5") as both:
        (first, *_) = both.old.source.own[CertificateUnit.ITLRECOVERY]
        both.old.source.own[CertificateUnit.ITLRECOVERY] = [("old1", first[1]), ("old2", first[1])]
        for side in (both.old, both.new):
            await side.bulk.export("ITLRecovery")
        assert await both.old.bulk.consolidate("ITLRecovery") == BulkCounts(1, 2)


async def test_what_a_store_refuses_is_told_and_left_out(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        both.old.source.renew(CALLMANAGER, "old2", BEGIN + 4 * 365 * 86_400)
        both.new.source.now = BEGIN + 6 * 365 * 86_400.0  # old1's has expired by then
        await exchanged(both, "TFTP")
        (imported,) = both.new.told(BulkImported)
        assert (imported.added, imported.refused) == (2, 2)
        refused = both.new.told(BulkCertificateRefused)
        assert [(event.store, event.subject) for event in refused] == [
            ("Phone-SAST-trust", "CN=CallManager.old1"),
            ("CallManager-trust", "CN=CallManager.old1"),
        ]
        assert "expired" in refused[0].why


async def refusal(side: Side, step: Callable[[str], Any], types: str = "TFTP") -> LabError:
    """What is said; it has something to mend, stands in the log, and nothing has come into a store."""
    with pytest.raises(LabError) as refused:
        await step(types)
    assert refused.value.mend
    assert side.told(BulkFailed)[-1].text == str(refused.value)
    assert side.source.database.certificates() == ()
    return refused.value


@pytest.mark.parametrize("types", ["TFTP", "All"])
async def test_consolidation_before_both_exported(types: str, tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        assert "no cluster has exported TFTP" in (await refusal(both.old, both.old.bulk.consolidate, types)).what
        await both.old.bulk.export(types)
        error = await refusal(both.new, both.new.bulk.consolidate, types)
        assert error.what.startswith("only old has exported TFTP certificates")
        assert not [name for name in both.files() if name.startswith("consolidated")]


@pytest.mark.parametrize("types", ["TFTP", "All"])
async def test_import_before_consolidation(types: str, tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        for side in (both.old, both.new):
            await side.bulk.export(types)
        error = await refusal(both.old, both.old.bulk.import_certificates, types)
        assert "no consolidated file of TFTP" in error.what


async def test_before_the_server_is_set(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, is_set=False) as both:
        for step in (both.old.bulk.export, both.old.bulk.consolidate, both.old.bulk.import_certificates):
            assert "no SFTP server is set" in (await refusal(both.old, step)).what


async def test_two_directories_are_not_one(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        (both.server.directory / "other").mkdir()
        await both.new.bulk.set_sftp(settings_of(both.server, directory="/other"))
        await both.old.bulk.export("TFTP")
        await both.new.bulk.export("TFTP")
        assert "only new has" in (await refusal(both.new, both.new.bulk.consolidate)).what


async def test_what_is_wrong_with_the_server_is_said_at_once(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, is_set=False) as both:
        bulk = both.old.bulk
        for changes, text in (
            ({"password": "wrong"}, "refuses user"),
            ({"directory": "/nowhere"}, "no such file or directory"),
            ({"port": 9}, "cannot be reached"),
            ({"host_key": "SHA256:x"}, "host key"),
        ):
            with pytest.raises(LabError, match=text):
                await bulk.set_sftp(settings_of(both.server, **changes))
            assert bulk.sftp is None
        assert len(both.old.told(BulkFailed)) == 4


async def test_the_server_is_remembered_with_its_key(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        side = both.old
        saved = side.bulk.sftp
        assert saved == settings_of(both.server, host_key=both.server.host_key)
        assert stat.S_IMODE(side.state_file.stat().st_mode) == 0o600
        told = BulkSftpSet("old", both.server.address, both.server.port, "bulk", "/bulk", both.server.host_key)
        assert side.told(BulkSftpSet) == [told]
        again = BulkCertificateManagement("old", "old1", "11.5", side.source, side.state_file)
        assert again.sftp == saved
        assert await again.export("TFTP") == BulkCounts(2, 2)


async def test_a_changed_host_key(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await both.server.stop()
        (tmp_path / "host_key").unlink()
        impostor = SftpServer(
            both.server.address,
            port=both.server.port,
            directory=both.server.directory,
            user="bulk",
            password="lab-toy",
            host_key=tmp_path / "host_key",
        )
        await impostor.start()
        try:
            assert "host key" in (await refusal(both.old, both.old.bulk.export)).what
            with pytest.raises(LabError, match="host key"):
                await both.old.bulk.set_sftp(settings_of(both.server))  # naming no key does not accept any
            await both.old.bulk.set_sftp(settings_of(both.server, host_key=impostor.host_key))
            assert await both.old.bulk.export("TFTP") == BulkCounts(2, 2)
        finally:
            await impostor.stop()


async def test_a_server_that_went_away(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await both.server.stop()
        for step in (both.old.bulk.export, both.old.bulk.consolidate, both.old.bulk.import_certificates):
            assert "cannot be reached" in (await refusal(both.old, step)).what


async def test_words_that_are_no_type(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        for words in ("tomcats", ("TFTP", "nonsense"), ()):
            with pytest.raises(UsageError) as refused:
                await both.old.bulk.export(words)
            assert "TFTP, CAPF, TVS, tomcat" in str(refused.value.mend)
        assert both.files() == []


async def test_a_type_the_version_has_not(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        error = await refusal(both.old, both.old.bulk.export, "itlrecovery")
        assert error.what == "CUCM 10.5.2.13900-12 has no bulk type ITLRecovery"


async def test_several_types_and_doubles(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        assert await both.old.bulk.export(["TOMCAT", "capf", "tomcat"]) == BulkCounts(3, 3)
        assert both.files() == ["old1@old.capf.p12", "old1@old.tomcat.p12", "old2@old.tomcat.p12"]


async def test_nothing_to_export(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        del both.old.source.own[CertificateUnit.CAPF]
        with pytest.raises(LabError, match="no node has a certificate of CAPF"):
            await both.old.bulk.export("CAPF")
        assert await both.old.bulk.export() == BulkCounts(6, 6)
        assert [event.bulk_type for event in both.old.told(BulkTypeSkipped)] == ["CAPF"]


@pytest.mark.parametrize(
    ("old", "new", "works"),
    [
        ("8.6", "10.5.2.13900-12", False),
        ("9.1", "12.5", False),
        ("10.5.2.13900-12", "12.5", True),
        ("9.1", "10.5.2.12900-1", True),
    ],
)
async def test_cscuy43181(old: str, new: str, works: bool, tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, old, new) as both:
        for side in (both.old, both.new):
            await side.bulk.export("TFTP")
        await both.old.bulk.consolidate("TFTP")
        assert await both.new.bulk.import_certificates("TFTP") == ImportCounts(added=4)
        if works:
            assert await both.old.bulk.import_certificates("TFTP") == ImportCounts(added=2)
        else:
            error = await refusal(both.old, both.old.bulk.import_certificates)
            assert "CSCuy43181" in error.what
            assert "by hand" in str(error.mend)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"x" * (4 * 1024 * 1024)])
async def test_files_that_are_none_of_ours(content: bytes, tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await both.new.bulk.export("TFTP")
        (both.folder / "old1@old.tftp.p12").write_bytes(content)
        (both.folder / "consolidated.tftp.p12").write_bytes(content + b"x")
        for step in (both.new.bulk.consolidate, both.new.bulk.import_certificates):
            error = await refusal(both.new, step)
            assert "cannot be read as a bulk file" in error.what
            assert error.where in both.files()


async def test_a_certificate_in_a_file_of_another_type(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await both.new.bulk.export("TFTP")
        (both.folder / "new1@new.tftp.p12").rename(both.folder / "consolidated.tomcat.p12")
        error = await refusal(both.old, both.old.bulk.import_certificates, "tomcat")
        assert error.what == "holds a certificate of CallManager, which is none of tomcat"


async def test_other_files_do_not_matter(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        for name in ("readme.txt", "x.p12", "old1@old.tftp.p12.bak", ".hidden@x.tftp.p12"):
            (both.folder / name).write_bytes(b"not a bulk file")
        await exchanged(both, "TFTP")
        assert both.new.source.trusted(CertificateUnit.PHONE_SAST_TRUST) == both.old.source.ders(CALLMANAGER)


async def test_the_files_say_who_exported_them(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback, "10.5.2.13900-12", "12.5(1)SU3") as both:
        await exchanged(both, "TVS")
        found = decode_bundle((both.folder / consolidated_name(BulkType.TVS)).read_bytes(), BULK_PASSWORD)
        assert [(item.cluster, item.node, item.version) for item in found] == [
            ("new", "new1", "12.5(1)SU3"),
            ("old", "old1", "10.5.2.13900-12"),
            ("old", "old2", "10.5.2.13900-12"),
        ]


async def test_two_clusters_of_the_same_node_names_do_not_collide(tmp_path: Path, loopback: Draw) -> None:
    assert node_file_name(BulkType.TFTP, "b", "a") != node_file_name(BulkType.TFTP, "a.b", "a")
    assert is_export(node_file_name(BulkType.CAPF, "consolidated", "x"), BulkType.CAPF)
    assert not is_export(consolidated_name(BulkType.CAPF), BulkType.CAPF)
    assert not is_export(node_file_name(BulkType.TVS, "c", "n"), BulkType.TFTP)


async def test_connections_come_from_the_publisher(tmp_path: Path, loopback: Draw) -> None:
    heard: list[Event] = []
    async with sftp_server(tmp_path, loopback, heard.append) as server:
        publisher = loopback()
        side = Side(tmp_path, "old", ("old1",), "11.5", publisher)
        await side.bulk.set_sftp(settings_of(server))
        assert SftpLoginAccepted(publisher, "bulk") in heard
        side.close()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"address": 1}', "x" * 20_000, '{"address":"a","user":"u","password":"p",'
             '"directory":"/","port":"22","host_key":"k"}', '{"address":"a","user":"u","password":"p",'
             '"directory":"/","port":99999,"host_key":"k"}']
)  # fmt: skip
async def test_a_damaged_state_file(text: str, tmp_path: Path) -> None:
    side = Side(tmp_path, "old", ("old1",), "11.5", None)
    side.state_file.write_text(text)
    with pytest.raises(LabError, match="cannot be read as SFTP data") as refused:
        _ = side.bulk.sftp
    assert "delete it" in str(refused.value.mend)
    with pytest.raises(LabError, match="cannot be read as SFTP data"):
        await side.bulk.export()
    with pytest.raises(LabError, match="cannot be read as SFTP data"):
        await side.bulk.set_sftp(SftpSettings("127.0.0.1", "u", "p", port=9))
    side.close()


async def test_errors_of_the_store_other_than_refusals_come_out(tmp_path: Path, loopback: Draw) -> None:
    async with exchange(tmp_path, loopback) as both:
        await exchanged(both, "TFTP")
        both.new.source.database.close()
        both.new.source.database.path.unlink()
        both.new.source.database.path.mkdir()
        with pytest.raises(LabError) as refused:
            await both.new.bulk.import_certificates("TFTP")
        assert not isinstance(refused.value, CertificateRefused)


def test_a_bundle_is_what_the_format_says() -> None:
    der = node_certificate(KeyStore(), CALLMANAGER, "n", seed=1, not_before=BEGIN).certificate_der
    item = BundledCertificate(der, CALLMANAGER, "c", "n", "11.5")
    assert decode_bundle(encode_bundle([item], BULK_PASSWORD), BULK_PASSWORD) == (item,)
