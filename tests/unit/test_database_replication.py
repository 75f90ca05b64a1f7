"""The publisher's history and a subscriber's copy of it, file to file: no tasks, no clock."""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cucm.broken_certificates import expired, wrong_key
from cucm.certificates import Identity, node_certificate
from cucm.database import (
    Change,
    DatabaseRole,
    Device,
    FullCopyNeeded,
    LinkSetting,
    NodeDatabase,
    PutOutcome,
    ReplicationPosition,
    Snapshot,
    Transaction,
)
from cucm.database.capture import REPLICATED
from cucm.errors import CertificateRefused, DatabaseError, UsageError
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit as Unit

BEGIN = 1_480_000_000
NOW = BEGIN + 86_400


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[NodeDatabase]:
    with NodeDatabase(tmp_path / "pub.db").create() as database:
        yield database


@pytest.fixture
def subscriber(tmp_path: Path) -> Iterator[NodeDatabase]:
    with NodeDatabase(tmp_path / "sub.db").create(DatabaseRole.SUBSCRIBER) as database:
        yield database


@pytest.fixture
def pair(publisher: NodeDatabase, subscriber: NodeDatabase) -> tuple[NodeDatabase, NodeDatabase]:
    subscriber.install_snapshot(publisher.snapshot())
    return publisher, subscriber


def certificate(keys: KeyStore, host: str = "a", *, begin: float = BEGIN, seed: int = 1) -> Identity:
    return node_certificate(keys, Unit.CALLMANAGER, host, seed=seed, not_before=begin, kind="secp256r1")


def put(database: NodeDatabase, identity: Identity, *units: Unit, server: str = "pub") -> None:
    for unit in units:
        database.put_certificate(identity.certificate_der, unit, server, moment=NOW)


def replicate(publisher: NodeDatabase, subscriber: NodeDatabase, limit: int = 500) -> int:
    found = publisher.changes_since(subscriber.position.sequence, limit=limit)
    return subscriber.apply_changes(found, publisher.position.history)


def rows(database: NodeDatabase) -> dict[str, list[tuple[Any, ...]]]:
    """All that is replicated, in the order of its keys."""
    with closing(sqlite3.connect(database.path)) as connection:
        return {name: sorted(connection.execute(f"select * from {name}"), key=repr) for name in REPLICATED}


def by_hand(path: Path, *statements: str) -> None:
    """Another program, which does not enforce foreign keys: one transaction."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("begin")
        for statement in statements:
            connection.execute(statement)


# --- roles


def test_a_role_stays_with_its_file(subscriber: NodeDatabase, publisher: NodeDatabase) -> None:
    assert (publisher.role, subscriber.role) == (DatabaseRole.PUBLISHER, DatabaseRole.SUBSCRIBER)
    for again in (NodeDatabase(subscriber.path).open(), NodeDatabase(subscriber.path).create()):
        assert again.role is DatabaseRole.SUBSCRIBER
        again.close()
    other = NodeDatabase(subscriber.path)
    with pytest.raises(DatabaseError, match="of a subscriber, not of a publisher"):
        other.create(DatabaseRole.PUBLISHER)
    with pytest.raises(DatabaseError, match="not open"):
        other.nodes()


WRITES = {
    "certificate": lambda d, c: put(d, c, Unit.PHONE_SAST_TRUST),
    "own": lambda d, c: put(d, c, Unit.CALLMANAGER),
    "deletion": lambda d, c: d.delete_certificate(Unit.CALLMANAGER_TRUST, "a"),
    "node": lambda d, c: d.add_node("x", "127.0.0.9"),
    "parameter": lambda d, c: d.set_parameter("a", "c"),
    "group": lambda d, c: d.put_callmanager_group("Default", ["pub"]),
    "pool": lambda d, c: d.put_device_pool("Other", "Default"),
    "device": lambda d, c: d.put_device(Device("SEP1", "CP-8861", "", 1, "Default")),
    "device deletion": lambda d, c: d.delete_device("SEP0"),
    "sql": lambda d, c: d.execute("update processconfig set paramvalue = 'c'"),
    "forgetting": lambda d, c: d.forget_changes(1),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_subscriber_is_read_only(pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore, what: str) -> None:
    publisher, subscriber = pair
    publisher.add_node("pub", "127.0.0.1")
    publisher.put_callmanager_group("Default", ["pub"])
    publisher.put_device(Device("SEP0", "CP-8861", "", 1, "Default"))
    publisher.set_parameter("a", "b")
    put(publisher, certificate(keys), Unit.CALLMANAGER_TRUST)
    replicate(publisher, subscriber)
    before = rows(subscriber)
    with pytest.raises(UsageError, match="read-only") as caught:
        WRITES[what](subscriber, certificate(keys, "b"))
    assert caught.value.mend == "write on the publisher"
    assert rows(subscriber) == before
    WRITES[what](publisher, certificate(keys, "b"))


@pytest.mark.parametrize(
    "sql",
    [
        "insert into processconfig values ('1', 'x', 'y')",
        "update processconfig set paramvalue = 'c'",
        "delete from processconfig",
        "delete from typemodel",
    ],
)
def test_other_programs_cannot_write_on_a_subscriber_either(pair: tuple[NodeDatabase, NodeDatabase], sql: str) -> None:
    publisher, subscriber = pair
    publisher.set_parameter("a", "b")
    publisher.execute("insert into typemodel values (1, 'm', 'm')")
    replicate(publisher, subscriber)
    with pytest.raises(sqlite3.IntegrityError, match="write on the publisher"):
        by_hand(subscriber.path, sql)


def test_only_the_right_file_tells_and_takes(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, _ = pair
    with pytest.raises(UsageError, match="no copy"):
        publisher.install_snapshot(publisher.snapshot())
    with pytest.raises(UsageError, match="no copy"):
        publisher.apply_changes((), publisher.position.history)


# --- what replicates


def test_everything_but_capf_trust_replicates(pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore) -> None:
    publisher, subscriber = pair
    publisher.add_node("pub", "127.0.0.1", services=["TVS", "TFTP"])
    publisher.add_node("sub", "::2", services=["TVS"])
    publisher.put_callmanager_group("Default", ["pub", "sub"])
    publisher.put_callmanager_group("Default", ["sub", "pub"])
    publisher.put_device(Device("SEP1", "CP-8861", "x", 3, "Default", "Branch", "user", "secret", 2))
    publisher.put_device(Device("SEP2", "CP-7821", "x", 1, "Default"))
    publisher.delete_device("SEP2")
    publisher.set_parameter("a", "ü'\"\0")
    put(publisher, certificate(keys, "own"), Unit.CALLMANAGER, Unit.CALLMANAGER_TRUST)
    for unit in Unit:
        if unit.is_trust_store and unit is not Unit.CAPF_TRUST:
            put(publisher, certificate(keys, f"in {unit}"), unit)
    assert replicate(publisher, subscriber) > 10
    assert rows(subscriber) == rows(publisher)
    assert subscriber.certificates() == publisher.certificates()
    assert subscriber.devices() == publisher.devices()


def test_capf_trust_is_each_nodes_own(pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore) -> None:
    publisher, subscriber = pair
    theirs, ours, both = certificate(keys, "theirs"), certificate(keys, "ours"), certificate(keys, "both")
    put(publisher, theirs, Unit.CAPF_TRUST)
    put(subscriber, ours, Unit.CAPF_TRUST)
    put(publisher, both, Unit.CAPF_TRUST, Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    assert [item.der for item in subscriber.certificates(Unit.CAPF_TRUST)] == [ours.certificate_der]
    assert [item.der for item in publisher.certificates(Unit.CAPF_TRUST)] == [
        theirs.certificate_der, both.certificate_der
    ]  # fmt: skip
    assert {item.der for item in subscriber.certificates()} == {ours.certificate_der, both.certificate_der}
    assert subscriber.certificates(Unit.PHONE_SAST_TRUST)[0].roles == (0, 3)
    publisher.delete_certificate(Unit.PHONE_SAST_TRUST, "both")
    publisher.delete_certificate(Unit.CAPF_TRUST, "theirs")
    replicate(publisher, subscriber)
    assert [item.der for item in subscriber.certificates()] == [ours.certificate_der]
    subscriber.delete_certificate(Unit.CAPF_TRUST, "ours")
    assert rows(subscriber)["certificate"] == rows(subscriber)["certificatehashmap"] == []


def test_what_a_subscriber_trusts_itself_survives_the_publishers_deletion(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    publisher, subscriber = pair
    shared = certificate(keys)
    put(publisher, shared, Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    put(subscriber, shared, Unit.CAPF_TRUST)
    publisher.delete_certificate(Unit.CALLMANAGER_TRUST, "a")
    replicate(publisher, subscriber)
    assert subscriber.certificates()[0].roles == (0, 3)
    publisher.delete_certificate(Unit.PHONE_SAST_TRUST, "a")
    replicate(publisher, subscriber)
    (kept,) = subscriber.certificates()
    assert (kept.units, kept.roles, kept.der) == ((Unit.CAPF_TRUST,), (), shared.certificate_der)
    assert len(rows(subscriber)["certificatehashmap"]) == 1
    subscriber.install_snapshot(publisher.snapshot())
    assert subscriber.certificates() == (kept,)


def test_a_subscribers_own_row_gives_way_to_the_publishers(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    """Another certificate with the same issuer and serial: one row can hold one of them."""
    publisher, subscriber = pair
    genuine = certificate(keys)
    put(subscriber, wrong_key(genuine, keys.key("other", "secp256r1")), Unit.CAPF_TRUST)
    put(publisher, genuine, Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    assert [item.der for item in subscriber.certificates()] == [genuine.certificate_der]


def test_rows_of_another_key_in_the_way_are_replaced(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, subscriber = pair
    publisher.set_parameter("a", "1")
    replicate(publisher, subscriber)
    by_hand(publisher.path, "insert or replace into processconfig values ('other key', 'a', '2')")
    replicate(publisher, subscriber)
    assert rows(subscriber)["processconfig"] == rows(publisher)["processconfig"] == [("other key", "a", "2")]


# --- SQL by hand


def test_sql_of_other_programs_replicates_and_is_never_torn(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys, "a"), Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST)
    put(publisher, certificate(keys, "b"), Unit.PHONE_SAST_TRUST)
    by_hand(
        publisher.path,
        "insert into processconfig values ('k1', 'x', '1')",
        "insert into processconfig values ('k2', 'y', '1')",
        "delete from certificatetrustrolemap where tktrustrole = 0",
        "update certificate set timetolive = 5, pkid = pkid",
    )
    by_hand(publisher.path, "update processconfig set pkid = 'k3' where pkid = 'k2'")
    publisher.set_parameter("z", "1")
    assert replicate(publisher, subscriber, limit=4) > 0
    while replicate(publisher, subscriber, limit=1):
        pass
    assert rows(subscriber) == rows(publisher)
    assert subscriber.certificates()[0].roles == (3,)
    by_hand(publisher.path, "delete from certificate")  # orphans elsewhere, were it not for the trigger
    replicate(publisher, subscriber)
    assert rows(subscriber) == rows(publisher)
    assert rows(subscriber)["certificatetrustrolemap"] == rows(subscriber)["certificate"] == []


def test_writes_of_another_program_after_a_look_come_with_the_next(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, subscriber = pair
    for number in range(5):
        by_hand(publisher.path, f"insert into processconfig values ('{number}', '{number}', '')")
        assert len(publisher.changes_since(subscriber.position.sequence)) == 1
        assert replicate(publisher, subscriber) == 1
    assert rows(subscriber) == rows(publisher)


def test_moving_a_certificate_between_stores_by_hand(pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys), Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    publisher.execute("update certificateservicecertificatemap set tkcertificateservice = 10")
    replicate(publisher, subscriber)
    assert subscriber.certificates() == ()
    publisher.execute("update certificateservicecertificatemap set tkcertificateservice = 4")
    replicate(publisher, subscriber)
    assert rows(subscriber) == rows(publisher)
    assert subscriber.certificates(Unit.CALLMANAGER_TRUST) == publisher.certificates(Unit.CALLMANAGER_TRUST) != ()


# --- one writing statement


def test_execute_changes_rows_and_counts_them(publisher: NodeDatabase) -> None:
    publisher.set_parameter("a", "1")
    publisher.set_parameter("b", "1")
    told: list[None] = []
    end = publisher.on_commit(lambda: told.append(None))
    assert publisher.execute("update processconfig set paramvalue = '2'") == 2
    assert publisher.execute("insert into processconfig values ('k', 'c', '3') -- one more") == 1
    assert publisher.execute("with x as (select 'c' as n) delete from processconfig where paramname in x") == 1
    assert publisher.execute("delete from processconfig where paramname = 'nobody'") == 0
    assert len(told) == 4
    end()
    publisher.set_parameter("a", "3")
    assert len(told) == 4


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "select 1",
        "select * from processconfig",
        "insert into processconfig values ('k', 'c', '3') returning pkid",
        "insert into processconfig values ('k', 'a', '3')",
        "insert into processconfig values ('k', 'c', null)",
        "insert into processconfig values ('k', 'c', x'00')",
        "insert into certificatehashmap values ('k', 'nowhere', 'x')",
        "update processconfig set paramvalue = 1; update processconfig set paramvalue = 2",
        "update replicationstate set guarded = 0",
        "delete from replicationchange",
        "delete from localdeletion",
        "update sqlite_sequence set seq = 0",
        "delete from sqlite_master",
        "drop table processconfig",
        "create table x (y)",
        "create trigger t after insert on device begin select 1; end",
        "alter table processconfig add column x",
        "pragma user_version = 5",
        "attach ':memory:' as other",
        "begin",
        "commit",
        "rollback",
        "savepoint x",
        "vacuum",
        "reindex",
        "upd",
        "update processconfig set paramvalue = zeroblob(100000000)",
        "update nothing set x = 1",
        "delete from processconfig where '" + "x" * 200_000 + "' = ''",
        "update processconfig set paramvalue = '\x00",
        "update processconfig set paramvalue = '\udc80'",
    ],
)
def test_execute_takes_nothing_else(publisher: NodeDatabase, sql: str) -> None:
    publisher.set_parameter("a", "1")
    before, sequence = rows(publisher), publisher.last_sequence()
    with pytest.raises(UsageError):
        publisher.execute(sql)
    assert (rows(publisher), publisher.last_sequence()) == (before, sequence)
    assert publisher.execute("update processconfig set paramvalue = '2'") == 1


def test_execute_is_bounded(publisher: NodeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    many = (
        "with recursive n(i) as (select 1 union all select i + 1 from n{stop})"
        " insert into processconfig select i, i, '' from n"
    )
    with pytest.raises(UsageError, match="10000 are allowed"):
        publisher.execute(many.format(stop=" where i < 10001"))
    monkeypatch.setattr("cucm.database.file.QUERY_TIMEOUT_S", 0.05)
    with pytest.raises(UsageError, match="interrupted"):
        publisher.execute(many.format(stop=""))
    assert publisher.query("select count(*) from processconfig").rows == ((0,),)
    assert publisher.last_sequence() == 0


# --- deleted on one node only


def test_a_local_deletion_stays_local_until_it_is_restored(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys), Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    both = publisher.certificates()
    for here, there in ((subscriber, publisher), (publisher, subscriber)):
        here.delete_certificate(Unit.PHONE_SAST_TRUST, "a", local=True)
        replicate(publisher, subscriber)
        assert here.local_deletions() == ((Unit.PHONE_SAST_TRUST, "a"),)
        assert [item.roles for item in here.certificates()] == [()]
        assert there.certificates() == both
        assert here.restore_local_deletions(NOW) == ((Unit.PHONE_SAST_TRUST, "a"),)
        assert here.certificates() == both
        assert here.local_deletions() == here.restore_local_deletions(NOW) == ()
    with pytest.raises(CertificateRefused):
        subscriber.delete_certificate(Unit.TVS_TRUST, "a", local=True)


def test_the_roles_of_a_partly_deleted_certificate_follow_its_stores_here(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys), Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    subscriber.delete_certificate(Unit.PHONE_SAST_TRUST, "a", local=True)
    assert subscriber.certificates() == ()
    publisher.execute("update certificate set timetolive = 7")
    replicate(publisher, subscriber)
    assert subscriber.certificates() == ()
    put(publisher, certificate(keys), Unit.TOMCAT_TRUST)
    replicate(publisher, subscriber)
    (item,) = subscriber.certificates()
    assert (item.units, item.roles, item.ttl_s) == ((Unit.TOMCAT_TRUST,), (7,), 7)
    publisher.delete_certificate(Unit.PHONE_SAST_TRUST, "a")
    replicate(publisher, subscriber)
    assert subscriber.local_deletions() == ()
    assert rows(subscriber) == rows(publisher)


def test_a_successor_displaces_what_the_publisher_had_deleted_for_itself(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys), Unit.PHONE_SAST_TRUST, Unit.TOMCAT_TRUST)
    replicate(publisher, subscriber)
    publisher.delete_certificate(Unit.PHONE_SAST_TRUST, "a", local=True)
    successor = certificate(keys, begin=BEGIN + 1)
    put(publisher, successor, Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    assert [item.der for item in subscriber.certificates(Unit.PHONE_SAST_TRUST)] == [successor.certificate_der]
    assert rows(subscriber) == rows(publisher)
    assert publisher.local_deletions() == ()


def test_what_expired_or_was_replaced_does_not_come_back(
    pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore
) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys), Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    subscriber.delete_certificate(Unit.PHONE_SAST_TRUST, "a", local=True)
    put(publisher, certificate(keys, begin=BEGIN + 1), Unit.PHONE_SAST_TRUST)
    replicate(publisher, subscriber)
    assert subscriber.restore_local_deletions(NOW) == ()
    publisher.delete_certificate(Unit.PHONE_SAST_TRUST, "a", local=True)
    assert publisher.restore_local_deletions(NOW * 10) == ()


def test_a_local_deletion_of_a_store_that_is_per_node_is_a_deletion(subscriber: NodeDatabase, keys: KeyStore) -> None:
    put(subscriber, certificate(keys), Unit.CAPF_TRUST)
    subscriber.delete_certificate(Unit.CAPF_TRUST, "a", local=True)
    assert subscriber.local_deletions() == subscriber.certificates() == ()


# --- transactions, positions, full copies


def test_each_of_our_transactions_is_one(publisher: NodeDatabase, keys: KeyStore) -> None:
    publisher.add_node("pub", "127.0.0.1", services=["TVS", "TFTP"])
    publisher.set_parameter("a", "1")
    put(publisher, certificate(keys), Unit.PHONE_SAST_TRUST)
    put(publisher, certificate(keys), Unit.PHONE_SAST_TRUST)  # UNCHANGED: nothing to tell
    first, second, third = publisher.changes_since(0)
    assert {change.table for change in first.changes} == {"processnode", "processnodeservice"}
    assert [change.table for change in second.changes] == ["processconfig"]
    assert (first.first, first.last + 1, second.last + 1) == (1, second.first, third.first)
    assert third.last == publisher.last_sequence() == publisher.position.sequence
    assert publisher.changes_since(first.last, limit=1) == (second,)
    assert publisher.count_transactions_since(first.last) == 2


def test_applying_twice_does_nothing(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, subscriber = pair
    publisher.set_parameter("a", "1")
    found = publisher.changes_since(0)
    assert [subscriber.apply_changes(found, publisher.position.history) for _ in range(2)] == [1, 0]
    assert subscriber.position == publisher.position


def test_a_copy_takes_no_other_history_and_leaves_nothing_out(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, subscriber = pair
    for value in "123":
        publisher.set_parameter("a", value)
    found = publisher.changes_since(0)
    with pytest.raises(FullCopyNeeded, match="another publisher"):
        subscriber.apply_changes(found, "0" * 32)
    with pytest.raises(FullCopyNeeded, match="begin at 2") as caught:
        subscriber.apply_changes(found[1:], publisher.position.history)
    assert caught.value.mend
    assert subscriber.parameter("a") is None


def test_changes_that_make_no_sense_leave_the_copy_as_it_was(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, subscriber = pair
    history = publisher.position.history
    good = Change(1, "processconfig", "k", {"pkid": "k", "paramname": "x", "paramvalue": "y"})
    before = rows(subscriber)
    for bad in (
        Change(2, "replicationstate", "1", None),
        Change(2, "processconfig", "k", {"pkid": "k", "paramname": "x"}),
        Change(2, "processconfig", "k", {"pkid": "k", "paramname": "x", "paramvalue": "y", "); drop": 1}),
    ):
        with pytest.raises(FullCopyNeeded):
            subscriber.apply_changes([Transaction(1, (good, bad))], history)
    for value in (None, [], {}):
        bad = Change(2, "processconfig", "k", {"pkid": "k", "paramname": "x", "paramvalue": value})
        with pytest.raises(DatabaseError):
            subscriber.apply_changes([Transaction(1, (good, bad))], history)
    assert rows(subscriber) == before
    assert subscriber.position == ReplicationPosition(history, 0)


def test_a_damaged_history_is_named(publisher: NodeDatabase) -> None:
    publisher.set_parameter("a", "1")
    by_hand(publisher.path, "update replicationchange set row = 'no json'")
    with pytest.raises(FullCopyNeeded, match="change 1 is damaged"):
        publisher.changes_since(0)


def test_what_is_forgotten_needs_a_full_copy(pair: tuple[NodeDatabase, NodeDatabase]) -> None:
    publisher, subscriber = pair
    for value in "123":
        publisher.set_parameter("a", value)
    assert publisher.forget_changes(2) == 2
    assert [transaction.first for transaction in publisher.changes_since(2)] == [3]
    with pytest.raises(FullCopyNeeded, match="kept no longer"):
        publisher.changes_since(1)
    subscriber.install_snapshot(publisher.snapshot())
    assert publisher.forget_changes(999) == 1
    publisher.set_parameter("a", "4")
    assert publisher.last_sequence() == 4  # no number is used twice
    assert replicate(publisher, subscriber) == 1
    assert rows(subscriber) == rows(publisher)


def test_sizes_are_bounded(pair: tuple[NodeDatabase, NodeDatabase], monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, subscriber = pair
    publisher.set_parameter("a", "1")
    publisher.add_node("pub", "127.0.0.1", services=["TVS", "TFTP"])
    monkeypatch.setattr("cucm.database.changes.MAX_CHANGES", 2)
    assert replicate(publisher, subscriber) == 1
    with pytest.raises(FullCopyNeeded, match="more than 2 changes"):
        publisher.changes_since(1)
    with pytest.raises(DatabaseError, match="too many for a full copy"):
        publisher.snapshot()


def test_a_full_copy_heals_everything(pair: tuple[NodeDatabase, NodeDatabase], keys: KeyStore) -> None:
    publisher, subscriber = pair
    put(publisher, certificate(keys, "x"), Unit.CALLMANAGER_TRUST)
    replicate(publisher, subscriber)
    subscriber.delete_certificate(Unit.CALLMANAGER_TRUST, "x", local=True)
    subscriber.set_link(LinkSetting(5.0, True, "why"))
    put(publisher, certificate(keys, "y"), Unit.CALLMANAGER_TRUST)
    subscriber.install_snapshot(publisher.snapshot())
    assert rows(subscriber) == rows(publisher)
    assert subscriber.position == publisher.position
    assert subscriber.local_deletions() == ()
    assert subscriber.link == LinkSetting(5.0, True, None)
    bad = Snapshot(publisher.position, (Change(0, "nowhere", "k", {}),))
    with pytest.raises(FullCopyNeeded):
        subscriber.install_snapshot(bad)
    assert rows(subscriber) == rows(publisher)


def test_the_history_holds_the_row_of_its_moment(publisher: NodeDatabase) -> None:
    publisher.set_parameter("a", "1")
    publisher.set_parameter("a", "2")
    values = [t.changes[0].row["paramvalue"] for t in publisher.changes_since(0) if t.changes[0].row]
    assert values == ["1", "2"]
    (row,) = publisher.query("select row from replicationchange where sequence = 1").rows[0]
    assert json.loads(str(row))["paramname"] == "a"


# --- rules of the stores that came with replication


def test_an_own_certificate_does_not_push_out_a_foreign_one_of_its_issuer_and_serial(
    publisher: NodeDatabase, keys: KeyStore
) -> None:
    foreign = certificate(keys)
    own = wrong_key(foreign, keys.key("own", "secp256r1"))
    put(publisher, foreign, Unit.PHONE_SAST_TRUST)
    with pytest.raises(CertificateRefused, match="same issuer and serial"):
        put(publisher, own, Unit.CALLMANAGER)
    publisher.delete_certificate(Unit.PHONE_SAST_TRUST, "a")
    put(publisher, own, Unit.CALLMANAGER, server="other node")
    with pytest.raises(CertificateRefused, match="same issuer and serial"):
        put(publisher, foreign, Unit.CALLMANAGER, server="pub")
    assert [item.der for item in publisher.certificates()] == [own.certificate_der]


def test_issuers_with_their_parts_in_another_order_are_others(publisher: NodeDatabase, keys: KeyStore) -> None:
    one, other = (
        node_certificate(keys, Unit.CAPF, "a", seed=1, not_before=BEGIN, subject=name, kind="secp256r1")
        for name in ("CN=a;OU=b", "OU=b;CN=a")
    )
    twin = wrong_key(one, keys.key("twin", "secp256r1"))
    put(publisher, one, Unit.PHONE_SAST_TRUST)
    assert other.serial == one.serial
    put(publisher, other, Unit.CALLMANAGER_TRUST)
    assert len(publisher.certificates()) == 2
    with pytest.raises(CertificateRefused, match="same issuer and serial"):
        put(publisher, twin, Unit.TOMCAT_TRUST)


def test_digest_users_are_shared_and_checked(publisher: NodeDatabase) -> None:
    publisher.add_node("pub", "127.0.0.1")
    publisher.put_callmanager_group("Default", ["pub"])
    for number, password in enumerate(("first", "second")):
        publisher.put_device(Device(f"SEP{number}", "CP-8861", "", 1, "Default", "Default", "user", password))
    assert [device.digest_password for device in publisher.devices()] == ["second", "second"]
    assert "second" not in repr(publisher.devices())
    publisher.put_device(Device("SEP0", "CP-8861", "", 1, "Default"))
    assert publisher.device("SEP0") == Device("SEP0", "CP-8861", "", 1, "Default")
    with pytest.raises(UsageError, match="without a user"):
        publisher.put_device(Device("SEP0", "CP-8861", "", 1, "Default", digest_password="x"))


def test_an_expired_certificate_is_refused_in_a_per_node_store_too(subscriber: NodeDatabase, keys: KeyStore) -> None:
    with pytest.raises(CertificateRefused, match="expired"):
        put(subscriber, expired(certificate(keys), NOW), Unit.CAPF_TRUST)
    assert subscriber.certificates() == ()
    assert subscriber.put_certificate(
        certificate(keys).certificate_der, Unit.CAPF_TRUST, "x", moment=NOW
    ) is PutOutcome.ADDED  # fmt: skip
    with pytest.raises(sqlite3.IntegrityError):
        by_hand(subscriber.path, "delete from certificate")  # the guard is up again


# --- killed at any moment, in processes of their own


def write_for_ever(path: Path, ders: list[bytes], started: Any) -> None:
    with NodeDatabase(path).open() as database:
        for number in count():
            database.add_node(f"n{number % 20}", f"127.0.0.{number % 250 + 1}", services=["TVS", "TFTP"])
            der = ders[number % len(ders)]
            database.put_certificate(der, Unit.PHONE_SAST_TRUST, "x", moment=NOW)
            database.put_certificate(der, Unit.CALLMANAGER_TRUST, "x", moment=NOW)
            database.set_parameter("number", str(number))
            if number % 3 == 2:
                cn = database.certificates(Unit.PHONE_SAST_TRUST)[0]
                database.delete_certificate(Unit.PHONE_SAST_TRUST, cn.server_name and _cn(cn.der))
            started.set()


def _cn(der: bytes) -> str:
    from cucm.identity import describe

    return describe(der).common_name or ""


def apply_for_ever(publisher_path: Path, subscriber_path: Path, seed: int, started: Any) -> None:
    choice = random.Random(seed)
    with NodeDatabase(publisher_path).open() as publisher, NodeDatabase(subscriber_path).open() as subscriber:
        while True:
            if choice.random() < 0.1:
                subscriber.install_snapshot(publisher.snapshot())
            elif subscriber.position.history:
                replicate(publisher, subscriber, limit=choice.choice([1, 3, 50]))
            if subscriber.position.sequence:
                started.set()


def consistent(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        assert connection.execute("select guarded from replicationstate").fetchall() == [(1,)]


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_any_moment_leaves_prefixes_and_replication_catches_up(
    publisher: NodeDatabase, subscriber: NodeDatabase, keys: KeyStore, seed: int
) -> None:
    choice = random.Random(seed)
    ders = [certificate(keys, f"c{number}").certificate_der for number in range(5)]
    context = multiprocessing.get_context("spawn")
    events = [context.Event(), context.Event()]
    processes = [
        context.Process(target=write_for_ever, args=(publisher.path, ders, events[0])),
        context.Process(target=apply_for_ever, args=(publisher.path, subscriber.path, seed, events[1])),
    ]
    for process in processes:
        process.start()
    assert all(event.wait(60) for event in events)
    kept = subscriber.position.sequence
    # the moment of the kill is drawn in work done, not in time
    until = publisher.last_sequence() + choice.randrange(1, 200)
    while publisher.last_sequence() < until:
        assert processes[0].is_alive()
    choice.shuffle(processes)
    for process in processes:
        process.kill()
        process.join(30)
        assert process.exitcode == -9
        process.close()
    for path in (publisher.path, subscriber.path):
        consistent(path)
    assert kept <= subscriber.position.sequence <= publisher.last_sequence()
    assert subscriber.position.sequence in {0, *(t.last for t in publisher.changes_since(0, limit=1_000_000))}
    replicate(publisher, subscriber, limit=1_000_000)
    assert rows(subscriber) == rows(publisher)
    publisher.set_parameter("after", "the kill")
    assert replicate(publisher, subscriber) == 1
    assert rows(subscriber) == rows(publisher)
