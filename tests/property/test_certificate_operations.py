"""Any sequence of certificate operations, with replication disturbed at will, leaves stores that follow the rules."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab_on_sockets import topology_of

from cucm.certificates import Organisation, node_certificate
from cucm.clock import MovableClock
from cucm.database import DatabaseRole, NodeDatabase, PutOutcome
from cucm.errors import CertificateRefused, UsageError
from cucm.events import EventLog, ignore
from cucm.identity import describe
from cucm.key_store import KeyStore
from cucm.net.addresses import STANDARD_PORTS
from cucm.net.tls import TlsProfile
from cucm.roles import CertificateUnit, roles_of_units
from cucm.versions import profile_of
from lab.certificate_management import COPIED_BY_CHANGE_NOTIFICATION
from lab.cluster import Cluster
from lab.node import CHANGE_NOTIFICATION, Node, NodePlan, Surroundings
from lab.replication import Replication
from lab.served_files import ServedFiles
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


def require_rules(database: NodeDatabase) -> None:
    """Facts 5.5: one certificate per CN and store, none that has expired; 5.3: roles follow from the stores."""
    for store in STORES:
        held = [describe(item.der) for item in database.certificates(store)]
        assert max(Counter(one.common_name for one in held).values(), default=0) <= 1
        assert all(one.not_after >= NOW for one in held)
    for item in database.certificates():
        assert item.roles == roles_of_units(item.units)


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


RULES = settings(max_examples=25)


# --- what an administrator of a cluster does, on its nodes' disks


class Administered:
    """A cluster of three nodes whose only running service is certificate change notification: no socket."""

    def __init__(self, folder: Path, version: str) -> None:
        topology = topology_of(
            {"name": "here", "version": version, "nodes": list(NODES), "security_mode": "non-secure"}
        )
        table, profile, clock = topology.clusters["here"], profile_of(version), MovableClock(NOW, frozen=True)
        around = Surroundings(EventLog(clock), clock, KeyStore(), ServedFiles(), 0, b"")
        plans = [
            NodePlan(
                cluster="source",
                name=node.name,
                address=f"127.0.0.{node.host}",
                directory=folder / node.name,
                profile=profile,
                services=table.services_of(node),
                tls_profile=TlsProfile(profile.tls_profile),
                ports=STANDARD_PORTS,
                is_publisher=node is table.nodes[0],
            )
            for node in table.nodes
        ]
        self.cluster = Cluster(
            "here", table, profile, [Node(plan, around, FreshnessMode.CHANGE_NOTIFICATION) for plan in plans], around
        )
        self.cluster.install()

    async def start(self) -> None:
        await self.cluster.replication.start()
        await self.cluster.replication.settle()
        for node in self.cluster.nodes.values():
            await node.start_service(CHANGE_NOTIFICATION)

    async def perform(self, step: tuple) -> None:
        pages, replication = self.cluster.certificates, self.cluster.replication
        match step:
            case ("upload", node, store, der):
                try:
                    outcome = pages.upload(der, store, node)
                except CertificateRefused:
                    assert describe(der).not_after < NOW
                else:
                    assert (der in self.held(self.writer(node, store), store)) == (outcome is not PutOutcome.IGNORED)
            case ("delete", node, store, name):
                before = name in self.names(node, store)
                try:
                    pages.delete(store, name, node)
                except CertificateRefused:
                    assert not before or self.cluster.profile.deletes_cluster_wide
                else:
                    writer = node if not self.cluster.profile.deletes_cluster_wide else self.writer(node, store)
                    assert name not in self.names(writer, store)
            case ("delete on all", store, name):
                for node in NODES:
                    await self.perform(("delete", node, store, name))
            case ("regenerate", node, unit):
                old = self.cluster.node(node).certificate(unit)
                if node in dict(pages.own(unit)):
                    await pages.regenerate(unit, node)
                    assert self.cluster.node(node).certificate(unit) != old
                else:
                    with pytest.raises(UsageError):
                        await pages.regenerate(unit, node)
            case ("synchronise", _):
                pages.synchronise()
            case ("stop" | "start" as verb, node):
                change = getattr(self.cluster.node(node), f"{verb}_service")
                await change(CHANGE_NOTIFICATION)
            case ("repair", node):
                await replication.repair(node)
            case (verb, node):
                getattr(replication, verb)(node)

    def writer(self, node: str, store: CertificateUnit) -> str:
        return node if store is CertificateUnit.CAPF_TRUST else "pub"

    def held(self, node: str, store: CertificateUnit) -> set[bytes]:
        return {item.der for item in self.cluster.node(node).database.certificates(store)}

    def names(self, node: str, store: CertificateUnit) -> list[str | None]:
        return [describe(der).common_name for der in self.held(node, store)]

    def check(self) -> None:
        for node in self.cluster.nodes.values():
            require_rules(node.database)
        for unit in REGENERATED:
            assert self.held("pub", unit) == {der for _, der in self.cluster.certificates.own(unit)}

    def check_end(self) -> None:
        """Everything has arrived: all nodes have the publisher's own certificates, and the same trust stores."""
        for unit in (*REGENERATED, *COPIED_BY_CHANGE_NOTIFICATION):
            assert self.held("sub1", unit) == self.held("sub2", unit) == self.held("pub", unit)


REGENERATED = (CertificateUnit.CALLMANAGER, CertificateUnit.ITLRECOVERY)
FEW = (CertificateUnit.PHONE_SAST_TRUST, CertificateUnit.CAPF_TRUST)
"""Of the stores and names only some, so that steps meet each other."""
ADMINISTERED = st.lists(
    st.tuples(st.just("upload"), st.sampled_from(NODES), st.sampled_from(FEW), st.sampled_from(CERTIFICATES[:6]))
    | st.tuples(st.just("delete"), st.sampled_from(NODES), st.sampled_from(FEW), st.sampled_from(["a", "b"]))
    | st.tuples(st.just("delete on all"), st.sampled_from(FEW), st.sampled_from(["a", "b"]))
    | st.tuples(st.sampled_from(["pause", "resume", "repair"]), st.sampled_from(NODES[1:]))
    | st.tuples(st.just("regenerate"), st.sampled_from(NODES), st.sampled_from(REGENERATED))
    | st.tuples(st.sampled_from(["synchronise", "stop", "start"]), st.sampled_from(NODES)),
    max_size=14,
)
ONE_DELETED = [("upload", "pub", FEW[0], CERTIFICATES[1]), ("delete", "sub1", FEW[0], "a")]
COPIED_WITHOUT = [
    ("upload", "pub", FEW[0], CERTIFICATES[1]),
    ("delete", "pub", FEW[0], "a"),
    ("repair", "sub1"),
]
"""A full copy of a publisher that alone deleted a certificate; sub2 still has it."""
ALL_DELETED = [("upload", "pub", FEW[0], CERTIFICATES[1]), ("delete on all", FEW[0], "a")]


@pytest.fixture(scope="module", params=["10.5.2", "12.5"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(version, folder of an installed cluster)."""
    folder = tmp_path_factory.mktemp("installed")
    cluster = Administered(folder, request.param).cluster
    for node in cluster.nodes.values():
        node.database.close()
    return request.param, folder


@settings(RULES, max_examples=20)
@example(steps=ONE_DELETED)
@example(steps=ALL_DELETED)
@example(steps=COPIED_WITHOUT)
@given(steps=ADMINISTERED)
def test_stores_follow_the_rules_and_end_alike(installed: tuple[str, Path], steps: list[tuple]) -> None:
    version, template = installed

    async def story(folder: Path) -> None:
        administered = Administered(folder, version)
        cluster = administered.cluster
        try:
            await administered.start()
            for step in steps:
                await administered.perform(step)
                await cluster.replication.settle()
                administered.check()
            for node in cluster.nodes.values():
                await node.start_service(CHANGE_NOTIFICATION)
            for node in NODES[1:]:
                cluster.replication.resume(node)
            await cluster.replication.settle()
            somewhere = {
                (store, der)
                for store in COPIED_BY_CHANGE_NOTIFICATION
                for node in NODES
                for der in administered.held(node, store)
            }
            cluster.certificates.synchronise()
            await cluster.replication.settle()
            administered.check()
            administered.check_end()
            assert somewhere == {
                (store, der) for store in COPIED_BY_CHANGE_NOTIFICATION for der in administered.held("pub", store)
            }  # what one node had, all have; what all deleted, stays away
        finally:
            await cluster.close()

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        asyncio.run(story(Path(folder)))


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
