"""Any sequence of certificate operations and replication delays keeps the rules of the stores, on every node."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cucm.broken_certificates import wrong_key
from cucm.certificates import node_certificate
from cucm.database import PER_NODE_UNITS, DatabaseRole, NodeDatabase
from cucm.database.capture import REPLICATED
from cucm.errors import CertificateRefused
from cucm.identity import describe
from cucm.key_store import KeyStore
from cucm.roles import SERVICE_NUMBERS, roles_of_units
from cucm.roles import CertificateUnit as Unit
from tvs_server.certificate_cache import CertificateCache, FreshnessMode

BEGIN = 1_480_000_000
YEAR = 365 * 86_400.0
TRUST_STORES = (Unit.PHONE_SAST_TRUST, Unit.CALLMANAGER_TRUST, Unit.CAPF_TRUST, Unit.TOMCAT_TRUST)
OWN_UNITS = (Unit.CALLMANAGER, Unit.TVS, Unit.CAPF)
CAPF_TRUST = SERVICE_NUMBERS[Unit.CAPF_TRUST]
Rows = dict[str, list[tuple[Any, ...]]]


def _certificates() -> dict[str, bytes]:
    """Few names and many certificates, so that they meet: successors, twins of one issuer and serial."""
    keys = KeyStore()
    ders: dict[str, bytes] = {}
    for host in ("a", "b"):
        for age in range(3):
            identity = node_certificate(
                keys, Unit.CALLMANAGER, host, seed=age, not_before=BEGIN + age * YEAR, kind="secp256r1"
            )
            ders[f"{host}{age}"] = identity.certificate_der
            ders[f"twin of {host}{age}"] = wrong_key(identity, keys.key("twin", "secp256r1")).certificate_der
    return ders


CERTIFICATES = _certificates()
which = st.sampled_from(sorted(CERTIFICATES))
stores = st.sampled_from(TRUST_STORES)


def rows(database: NodeDatabase) -> Rows:
    """The rows that replicate: what is per node, and certificates that lie there only, do not count."""
    with closing(sqlite3.connect(database.path)) as connection:
        found = {name: connection.execute(f"select * from {name}").fetchall() for name in REPLICATED}
        stores_of = (
            f"select fkcertificate from certificateservicecertificatemap where tkcertificateservice <> {CAPF_TRUST}"
        )
        common = {key for (key,) in connection.execute(stores_of)}
    found["certificate"] = [row for row in found["certificate"] if row[0] in common]
    for name in ("certificatehashmap", "certificatetrustrolemap", "certificateprocessnodemap"):
        found[name] = [row for row in found[name] if row[1] in common]
    name = "certificateservicecertificatemap"
    found[name] = [row for row in found[name] if row[2] != CAPF_TRUST]
    return {name: sorted(values, key=repr) for name, values in found.items()}


class Stores(RuleBasedStateMachine):
    """A publisher, a subscriber, and the TVS caches of both: one that follows its database, one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = float(BEGIN + 4 * YEAR)
        self.parts = ExitStack()
        folder = Path(self.parts.enter_context(tempfile.TemporaryDirectory()))
        self.publisher = self.parts.enter_context(NodeDatabase(folder / "pub.db").create())
        self.subscriber = self.parts.enter_context(NodeDatabase(folder / "sub.db").create(DatabaseRole.SUBSCRIBER))
        self.nodes = (self.publisher, self.subscriber)
        self.fresh = [CertificateCache(node.path) for node in self.nodes]
        self.stale = [CertificateCache(node.path, mode=FreshnessMode.STALE_UNTIL_RESTART) for node in self.nodes]
        for cache in (*self.fresh, *self.stale):
            self.parts.callback(cache.close)
        self.loaded = [self.answers(node) for node in self.nodes]
        self.history: dict[int, Rows] = {}
        self.has_diverged = False

    def teardown(self) -> None:
        self.parts.close()

    @initialize()
    def install(self) -> None:
        self.subscriber.install_snapshot(self.publisher.snapshot())
        for cache in (*self.fresh, *self.stale):
            cache.load()
        self.loaded = [self.answers(node) for node in self.nodes]
        self.remember()

    def remember(self) -> None:
        self.history[self.publisher.last_sequence()] = rows(self.publisher)

    def answers(self, node: NodeDatabase) -> dict[bytes, tuple[int, ...]]:
        return {item.der: tuple(int(role) for role in item.roles) for item in node.certificates()}

    # --- what administrators do

    @rule(name=which, unit=stores)
    def upload(self, name: str, unit: Unit) -> None:
        der = CERTIFICATES[name]
        with suppress(CertificateRefused):
            self.publisher.put_certificate(der, unit, "elsewhere", moment=self.moment)
            assert describe(der).not_after >= self.moment
        self.remember()

    @rule(name=which, unit=st.sampled_from(OWN_UNITS), node=st.sampled_from(["pub", "sub"]))
    def regenerate(self, name: str, unit: Unit, node: str) -> None:
        with suppress(CertificateRefused):
            self.publisher.put_certificate(CERTIFICATES[name], unit, node, "127.0.0.1", moment=self.moment)
        self.remember()

    @rule(host=st.sampled_from("ab"), unit=stores)
    def delete(self, host: str, unit: Unit) -> None:
        with suppress(CertificateRefused):
            self.publisher.delete_certificate(unit, host)
        self.remember()

    @rule(name=which)
    def upload_on_the_subscriber(self, name: str) -> None:
        before = rows(self.subscriber)
        with suppress(CertificateRefused):
            self.subscriber.put_certificate(CERTIFICATES[name], Unit.CAPF_TRUST, "elsewhere", moment=self.moment)
        assert rows(self.subscriber) == before

    @rule(host=st.sampled_from("ab"))
    def delete_on_the_subscriber(self, host: str) -> None:
        before = rows(self.subscriber)
        with suppress(CertificateRefused):
            self.subscriber.delete_certificate(Unit.CAPF_TRUST, host)
        assert rows(self.subscriber) == before

    @rule(host=st.sampled_from("ab"), unit=stores, node=st.sampled_from([0, 1]))
    def delete_there_only(self, host: str, unit: Unit, node: int) -> None:
        with suppress(CertificateRefused):
            self.nodes[node].delete_certificate(unit, host, local=True)
            self.has_diverged = self.has_diverged or unit not in PER_NODE_UNITS
        self.remember()

    @rule(node=st.sampled_from([0, 1]))
    def synchronise(self, node: int) -> None:
        self.nodes[node].restore_local_deletions(self.moment)
        assert self.nodes[node].local_deletions() == ()
        self.remember()

    @rule(seconds=st.sampled_from([YEAR, 5 * YEAR]))
    def wait(self, seconds: float) -> None:
        self.moment += seconds

    # --- replication, late or not, whole or in part

    @rule(limit=st.integers(1, 4))
    def replicate(self, limit: int) -> None:
        found = self.publisher.changes_since(self.subscriber.position.sequence, limit=limit)
        self.subscriber.apply_changes(found, self.publisher.position.history)

    @rule()
    def reset_replication(self) -> None:
        self.subscriber.install_snapshot(self.publisher.snapshot())
        assert rows(self.subscriber) == rows(self.publisher)
        if not self.publisher.local_deletions():
            self.has_diverged = False
            self.history = {self.publisher.last_sequence(): rows(self.publisher)}

    @rule()
    def forget(self) -> None:
        self.publisher.forget_changes(self.subscriber.position.sequence)

    @rule(node=st.sampled_from([0, 1]))
    def restart_tvs(self, node: int) -> None:
        self.stale[node].load()
        self.loaded[node] = self.answers(self.nodes[node])

    # --- what always holds

    @invariant()
    def stores_keep_one_certificate_of_a_name(self) -> None:
        for node in self.nodes:
            for unit in TRUST_STORES:
                names = [describe(item.der).common_name for item in node.certificates(unit)]
                assert len(names) == len(set(names)), (node.path.name, unit)

    @invariant()
    def roles_follow_from_the_stores(self) -> None:
        for node in self.nodes:
            for item in node.certificates():
                assert item.units, node.path.name
                assert item.roles == roles_of_units(item.units), node.path.name

    @invariant()
    def files_are_sound(self) -> None:
        for node in self.nodes:
            with closing(sqlite3.connect(node.path)) as connection:
                assert connection.execute("pragma foreign_key_check").fetchall() == []

    @invariant()
    @precondition(lambda self: not self.has_diverged)
    def a_subscriber_is_a_state_that_the_publisher_was_in(self) -> None:
        assert rows(self.subscriber) == self.history[self.subscriber.position.sequence]

    @invariant()
    def tvs_answers_what_its_node_says(self) -> None:
        for node, cache in zip(self.nodes, self.fresh, strict=True):
            self.compare(cache, self.answers(node))
        for loaded, cache in zip(self.loaded, self.stale, strict=True):
            self.compare(cache, loaded)

    def compare(self, cache: CertificateCache, expected: dict[bytes, tuple[int, ...]]) -> None:
        found = {}
        for der in CERTIFICATES.values():
            seen = describe(der)
            entry = cache.look_up(seen.serial, seen.issuer).entry
            if entry is not None and entry.certificate == der:
                found[der] = tuple(entry.roles)
        assert found == expected


TestStores = pytest.mark.timeout(300)(Stores.TestCase)
TestStores.settings = settings(max_examples=25, stateful_step_count=25)
