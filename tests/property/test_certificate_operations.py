"""Any sequence of certificate operations, with replication disturbed at will, leaves stores that follow the rules."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cucm.certificates import Organisation, node_certificate
from cucm.clock import MovableClock
from cucm.database import DatabaseRole, NodeDatabase
from cucm.errors import CertificateRefused
from cucm.events import ignore
from cucm.identity import describe
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, roles_of_units
from lab.replication import Replication
from tvs_server.certificate_cache import CertificateCache, FreshnessMode

NOW = 1_800_000_000.0
DAY = 86_400.0
STORES = (CertificateUnit.PHONE_SAST_TRUST, CertificateUnit.CALLMANAGER_TRUST, CertificateUnit.CAPF_TRUST)
NODES = ("pub", "sub1", "sub2")


def _certificates() -> list[bytes]:
    """Three names, each with three beginnings; the oldest of each has expired."""
    keys = KeyStore()
    return [
        node_certificate(
            keys,
            CertificateUnit.CALLMANAGER,
            name,
            seed=0,
            not_before=NOW - age * DAY,
            lifetime_days=30,
            subject=Organisation().node_subject(name),
            key_label="property test",
        ).certificate_der
        for name in ("a", "b", "c")
        for age in (40, 20, 10)
    ]


CERTIFICATES = _certificates()
UPLOAD = st.tuples(st.just("upload"), st.sampled_from(NODES), st.sampled_from(STORES), st.sampled_from(CERTIFICATES))
DELETE = st.tuples(st.just("delete"), st.sampled_from(NODES), st.sampled_from(STORES), st.sampled_from(["a", "b", "c"]))
DISTURB = st.tuples(st.sampled_from(["pause", "resume", "repair", "settle"]), st.sampled_from(NODES[1:]))
STEPS = st.lists(UPLOAD | DELETE | DISTURB, max_size=14)


class Stores:
    """A publisher and two subscribers on disk, replicating; no socket."""

    def __init__(self, folder: Path) -> None:
        self.databases = {
            name: NodeDatabase(folder / f"{name}.db").create(
                role=DatabaseRole.PUBLISHER if name == "pub" else DatabaseRole.SUBSCRIBER
            )
            for name in NODES
        }
        self.clock = MovableClock(NOW, frozen=True)
        subscribers = {name: self.databases[name] for name in NODES[1:]}
        self.replication = Replication(self.databases["pub"], subscribers, self.clock, ignore)

    def close(self) -> None:
        for database in self.databases.values():
            database.close()

    def writable(self, node: str, store: CertificateUnit) -> NodeDatabase:
        """CAPF-trust is each node's own, all else is written on the publisher (facts 5.5)."""
        return self.databases[node if store is CertificateUnit.CAPF_TRUST else "pub"]

    async def perform(self, step: tuple) -> None:
        match step:
            case ("upload", node, store, der):
                try:
                    self.writable(node, store).put_certificate(der, store, "from", moment=NOW)
                except CertificateRefused:
                    assert describe(der).not_after < NOW
            case ("delete", node, store, name):
                try:
                    self.writable(node, store).delete_certificate(store, name)
                except CertificateRefused:
                    held = [describe(item.der).common_name for item in self.writable(node, store).certificates(store)]
                    assert name not in held
            case ("pause", node):
                self.replication.pause(node)
            case ("resume", node):
                self.replication.resume(node)
            case ("repair", node):
                await self.replication.repair(node)
            case ("settle", _):
                await self.replication.settle()

    def check(self) -> None:
        for database in self.databases.values():
            for store in STORES:
                held = [describe(item.der) for item in database.certificates(store)]
                assert max(Counter(one.common_name for one in held).values(), default=0) <= 1
                assert all(one.not_after >= NOW for one in held)
            for item in database.certificates():
                assert item.roles == roles_of_units(item.units)

    def replicated(self, node: str) -> set[tuple[CertificateUnit, bytes]]:
        database = self.databases[node]
        return {
            (store, item.der)
            for store in STORES
            if store is not CertificateUnit.CAPF_TRUST
            for item in database.certificates(store)
        }


def in_a_loop(test: Callable[[Stores], object]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            stores = Stores(Path(folder))
            await stores.replication.start()
            try:
                await test(stores)  # type: ignore[misc]
            finally:
                await stores.replication.stop()
                stores.close()

    asyncio.run(run())


RULES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RULES
@given(STEPS)
def test_stores_follow_the_rules_and_end_alike(steps: list[tuple]) -> None:
    async def story(stores: Stores) -> None:
        for step in steps:
            await stores.perform(step)
            stores.check()
        for node in NODES[1:]:
            stores.replication.resume(node)
        await stores.replication.settle()
        stores.check()
        assert stores.replicated("sub1") == stores.replicated("sub2") == stores.replicated("pub")

    in_a_loop(story)


@pytest.mark.parametrize("mode", list(FreshnessMode))
@RULES
@given(STEPS)
def test_tvs_answers_what_its_own_node_says_or_said(mode: FreshnessMode, steps: list[tuple]) -> None:
    async def story(stores: Stores) -> None:
        caches = {}
        for name, database in stores.databases.items():
            caches[name] = CertificateCache(database.path, mode=mode, emit=ignore)
            caches[name].load()
        at_start = {name: _roles(database) for name, database in stores.databases.items()}
        try:
            for step in steps:
                await stores.perform(step)
                await stores.replication.settle()
            for name, database in stores.databases.items():
                said = _roles(database) if mode is FreshnessMode.CHANGE_NOTIFICATION else at_start[name]
                for der in CERTIFICATES:
                    known = describe(der)
                    entry = caches[name].look_up(known.serial, known.issuer).entry
                    assert (entry and tuple(entry.roles)) == said.get(der)
        finally:
            for cache in caches.values():
                cache.close()

    in_a_loop(story)


def _roles(database: NodeDatabase) -> dict[bytes, tuple[int, ...]]:
    return {item.der: tuple(int(role) for role in item.roles) for item in database.certificates()}
