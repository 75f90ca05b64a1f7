"""Bulk certificate management: export, consolidation and import over an SFTP server (facts 9.1).

What is exported, consolidated or importable is what lies in the directory of the server: a cluster remembers its SFTP
data and the server's host key, nothing else. So a forgotten export, another directory or somebody else's
consolidation have the effects they have.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

from cucm.certificate_bundle import BundledCertificate, encode_bundle
from cucm.database import PutOutcome
from cucm.errors import CertificateRefused, LabError, UsageError
from cucm.events import Emit, ignore
from cucm.events.bulk import (
    BulkCertificateRefused,
    BulkConsolidated,
    BulkExported,
    BulkFailed,
    BulkImported,
    BulkSftpSet,
    BulkTypeSkipped,
)
from cucm.identity import describe
from cucm.records import dataclass
from cucm.roles import CertificateUnit
from cucm.versions import BulkType, profile_of
from lab.bulk_files import (
    BULK_PASSWORD,
    EXPORTED_UNITS,
    IMPORT_STORES,
    consolidated_name,
    node_file_name,
    read_bulk_file,
    read_exports,
    require_readable,
)
from lab.bulk_settings import BulkSettingsFile
from lab.sftp_settings import SftpDeadlines, SftpSettings

if TYPE_CHECKING:
    from lab.sftp_client import RemoteDirectory

__all__ = [
    "ALL",
    "BulkCertificateManagement",
    "BulkCounts",
    "BulkSource",
    "ImportCounts",
    "NothingToDo",
    "SftpSettings",
]

ALL: Final = "All"
MIN_CLUSTERS: Final = 2
"""Clusters that must have exported before a consolidation (facts 9.1)."""
_REFUSED: Final = "refused"

Counts = TypeVar("Counts")


class BulkSource(Protocol):
    """The cluster, as far as bulk certificate management sees it."""

    def require_up(self) -> None:
        """LabError while the publisher, on whose pages all of this is done, is down."""
        ...

    def own_certificates(self, unit: CertificateUnit) -> Sequence[tuple[str, bytes]]:
        """Node and DER of the unit's certificate, for every node that has one."""
        ...

    def upload(self, der: bytes, store: CertificateUnit) -> PutOutcome:
        """Put it into a trust store. CertificateRefused if the store does not take it."""
        ...

    async def imported(self, units: Sequence[CertificateUnit]) -> None:
        """Other clusters' certificates of these units are new in its trust stores."""
        ...


@dataclass(frozen=True, slots=True)
class BulkCounts:
    """Of an export or a consolidation."""

    files: int = 0
    certificates: int = 0


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What became of the certificates; one that goes into two stores counts twice."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    ignored: int = 0
    refused: int = 0


class NothingToDo(LabError):
    """A type has nothing to export, consolidate or import: an error only if it, or nothing else, was asked for."""


_Work: TypeAlias = "Callable[[RemoteDirectory, Sequence[str], BulkType], Awaitable[Counts]]"
"""One type's share of a step; the names are those of the files in the directory when the step began."""


class BulkCertificateManagement:
    """OS Administration > Security > Bulk Certificate Management on one cluster's publisher.

    `state_file` (mode 0600) keeps the SFTP data over restarts; connections come from `local_address` if it is given.
    Types are the words of `BulkType`, in any case, one or several, or "All" for those of the version: then a type
    with nothing to do is told and passed over. What goes wrong is a LabError with what to mend (UsageError for a word
    that is no type), told as an event too.
    """

    def __init__(
        self,
        cluster_name: str,
        publisher_name: str,
        version: str,
        source: BulkSource,
        state_file: Path,
        *,
        local_address: str | None = None,
        deadlines: SftpDeadlines | None = None,
        emit: Emit = ignore,
    ) -> None:
        self.cluster_name = cluster_name
        self.publisher_name = publisher_name
        self.version = version
        self._source = source
        self._settings_file = BulkSettingsFile(state_file)
        self._local_address = local_address
        self._deadlines = deadlines
        self._emit = emit

    @property
    def types(self) -> tuple[BulkType, ...]:
        """Those of the version (facts 9.1)."""
        return profile_of(self.version).bulk_types

    @property
    def sftp(self) -> SftpSettings | None:
        """As saved, with the host key the server showed then. LabError if the state file cannot be read."""
        return self._settings_file.read()

    async def set_sftp(self, settings: SftpSettings) -> None:
        """Log in, look into the directory, and save; nothing is saved if that fails.

        The host key of a server that is known already must be the one it had, unless `settings` names another.
        """
        async with self._telling("set sftp", ALL):
            wanted = self._settings_file.with_known_host_key(settings)
            async with self._connected(wanted) as directory:
                saved = dataclasses.replace(wanted, host_key=directory.host_key)
            self._settings_file.write(saved)
        told = (saved.address, saved.port, saved.user, saved.directory, directory.host_key)
        self._emit(BulkSftpSet(self.cluster_name, *told))

    async def export(self, types: str | Iterable[str] = ALL) -> BulkCounts:
        """Write a file per type and node; an earlier one gives way."""
        return _sum(await self._each("export", types, self._export))

    async def _export(self, directory: RemoteDirectory, _names: Sequence[str], bulk_type: BulkType) -> BulkCounts:
        unit = EXPORTED_UNITS[bulk_type]
        written: list[str] = []
        for node, der in self._source.own_certificates(unit):
            item = BundledCertificate(der, unit, self.cluster_name, node, self.version)
            name = node_file_name(bulk_type, self.cluster_name, node)
            await directory.write(name, encode_bundle([item], BULK_PASSWORD), self.cluster_name)
            written.append(name)
        if not written:
            raise NothingToDo(f"no node has a certificate of {unit}", where=self.cluster_name)
        text = f"Successfully exported {bulk_type.lower()} certificate(s) to sftp server."
        self._emit(BulkExported(self.cluster_name, bulk_type, tuple(written), len(written), text))
        return BulkCounts(len(written), len(written))

    async def consolidate(self, types: str | Iterable[str] = ALL) -> BulkCounts:
        """Make one file per type of all that clusters exported. LabError unless two clusters or more did."""
        return _sum(await self._each("consolidate", types, self._consolidate))

    async def _consolidate(self, directory: RemoteDirectory, names: Sequence[str], bulk_type: BulkType) -> BulkCounts:
        found = await read_exports(directory, names, bulk_type)
        clusters = tuple(sorted({item.cluster for item in found}))
        if len(clusters) < MIN_CLUSTERS:
            who = f"only {clusters[0]} has" if clusters else "no cluster has"
            raise NothingToDo(
                f"{who} exported {bulk_type} certificates to this directory",
                where=self._where(),
                mend="export on both clusters to the same server and directory, then consolidate on one of them",
            )
        await directory.write(consolidated_name(bulk_type), encode_bundle(found, BULK_PASSWORD), self.cluster_name)
        text = f"Successfully consolidated {bulk_type.lower()} certificates."
        self._emit(BulkConsolidated(self.cluster_name, bulk_type, clusters, len(found), text))
        return BulkCounts(1, len(found))

    async def import_certificates(self, types: str | Iterable[str] = ALL) -> ImportCounts:
        """Put what other clusters exported into this one's trust stores.

        LabError before consolidation, and for a file of a release that this one cannot read (CSCuy43181). A
        certificate that a store refuses is told, counted and left out. What is new makes phones reset (facts 9.1).
        """
        total: Counter[str] = Counter()
        changed: list[CertificateUnit] = []

        async def one(directory: RemoteDirectory, names: Sequence[str], bulk_type: BulkType) -> None:
            counts = await self._import(directory, names, bulk_type)
            total.update(counts)
            if counts[PutOutcome.ADDED] or counts[PutOutcome.REPLACED]:
                changed.append(EXPORTED_UNITS[bulk_type])

        try:
            await self._each("import", types, one)
        except LabError:  # of one type; those before it are imported
            await self._source.imported(changed)
            raise
        await self._source.imported(changed)
        return ImportCounts(**total)

    async def _import(self, directory: RemoteDirectory, names: Sequence[str], bulk_type: BulkType) -> Counter[str]:
        name = consolidated_name(bulk_type)
        if name not in names:
            raise NothingToDo(
                f"there is no consolidated file of {bulk_type} certificates in this directory",
                where=self._where(),
                mend="export on both clusters and consolidate on one of them first",
            )
        found = await read_bulk_file(directory, name, bulk_type)
        require_readable(self.version, found, name)
        counts = Counter(
            self._upload(item.der, store) for item in self._foreign(found) for store in IMPORT_STORES[bulk_type]
        )
        text = f"Successfully imported {bulk_type.lower()} certificates."
        self._emit(BulkImported(self.cluster_name, bulk_type, **dataclasses.asdict(ImportCounts(**counts)), text=text))
        return counts

    def _foreign(self, found: Iterable[BundledCertificate]) -> Iterable[BundledCertificate]:
        """A cluster does not trust itself a second time, nor certificates of its own that it has renewed since."""
        others = [item for item in found if item.cluster != self.cluster_name]
        own = {der for unit in {item.unit for item in others} for _, der in self._source.own_certificates(unit)}
        return [item for item in others if item.der not in own]

    def _upload(self, der: bytes, store: CertificateUnit) -> str:
        try:
            return self._source.upload(der, store).value
        except CertificateRefused as refusal:
            self._emit(BulkCertificateRefused(self.cluster_name, store, describe(der).subject, refusal.what))
            return _REFUSED

    async def _each(self, step: str, types: str | Iterable[str], work: _Work[Counts]) -> list[Counts]:
        """Do the step for each type. Of "All", those with nothing to do are told, unless none has anything."""
        words = (types,) if isinstance(types, str) else tuple(types)
        async with self._telling(step, ", ".join(words)):
            is_all = ALL.casefold() in (word.casefold() for word in words)
            chosen = self.types if is_all else self._types_of(words)
            done: list[Counts] = []
            skipped: dict[BulkType, NothingToDo] = {}
            async with self._directory() as directory:
                names = await directory.names()
                for bulk_type in chosen:
                    try:
                        done.append(await work(directory, names, bulk_type))
                    except NothingToDo as nothing:
                        if not is_all:
                            raise
                        skipped[bulk_type] = nothing
            if not done:
                raise next(iter(skipped.values()))
            for bulk_type, why in skipped.items():
                self._emit(BulkTypeSkipped(self.cluster_name, bulk_type, why.what))
            return done

    def _types_of(self, words: Iterable[str]) -> tuple[BulkType, ...]:
        known = {bulk_type.casefold(): bulk_type for bulk_type in BulkType}
        chosen: list[BulkType] = []
        for word in words:
            bulk_type = known.get(word.casefold())
            if bulk_type is None:
                raise UsageError(f"no such type: {word!r}", mend=f"use {', '.join(self.types)} or {ALL}")
            if bulk_type not in self.types:
                raise LabError(
                    f"CUCM {self.version} has no bulk type {bulk_type}",
                    where=self.cluster_name,
                    mend=f"it has {', '.join(self.types)}; upload other certificates by hand",
                )
            chosen.append(bulk_type)
        if not chosen:
            raise UsageError("no type of certificates", mend=f"use {', '.join(self.types)} or {ALL}")
        return tuple(dict.fromkeys(chosen))

    def _where(self) -> str:
        settings = self.sftp
        return settings.where if settings else self.cluster_name

    @asynccontextmanager
    async def _directory(self) -> AsyncIterator[RemoteDirectory]:
        settings = self.sftp
        if settings is None:
            raise LabError(
                "no SFTP server is set", where=self.cluster_name, mend="set its data first, on both clusters"
            )
        async with self._connected(settings) as directory:
            yield directory

    @asynccontextmanager
    async def _connected(self, settings: SftpSettings) -> AsyncIterator[RemoteDirectory]:
        from lab.sftp_client import open_directory  # asyncssh is slow to import

        async with open_directory(settings, local_address=self._local_address, deadlines=self._deadlines) as directory:
            yield directory

    @asynccontextmanager
    async def _telling(self, step: str, types: str) -> AsyncIterator[None]:
        try:
            self._source.require_up()
            yield
        except LabError as error:
            self._emit(BulkFailed(self.cluster_name, step, types, str(error)))
            raise


def _sum(counts: Iterable[BulkCounts]) -> BulkCounts:
    """Of all types."""
    parts = tuple(counts)
    return BulkCounts(sum(part.files for part in parts), sum(part.certificates for part in parts))
