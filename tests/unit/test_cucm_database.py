from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cucm.broken_certificates import expired, not_yet_valid, wrong_key
from cucm.certificates import Identity, Organisation, describe, node_certificate
from cucm.database import Device, NodeDatabase, ProcessNode, PutOutcome
from cucm.errors import CertificateRefused, DatabaseError, DecodeError, UsageError
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit as Unit

BEGIN = 1_480_000_000
NOW = BEGIN + 86_400
ROLES_OF = """
    select s.name, r.tktrustrole
    from certificate c
    join certificateservicecertificatemap m on m.fkcertificate = c.pkid
    join typecertificateservice s on s.enum = m.tkcertificateservice
    left join certificatetrustrolemap r on r.fkcertificate = c.pkid
    where c.serialnumber = '{serial}'
    order by s.name, r.tktrustrole
"""


@pytest.fixture(scope="module")
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[NodeDatabase]:
    with NodeDatabase(tmp_path / "node.db").create() as database:
        yield database


def node(
    keys: KeyStore, host: str = "ucm11pub", *, unit: Unit = Unit.CALLMANAGER, begin: float = BEGIN, seed: int = 1
) -> Identity:
    return node_certificate(keys, unit, host, seed=seed, not_before=begin, kind="secp256r1")


def put(database: NodeDatabase, identity: Identity, unit: Unit, server: str = "ucm11pub", **more: Any) -> PutOutcome:
    return database.put_certificate(identity.certificate_der, unit, server, moment=NOW, **more)


def sql_roles(database: NodeDatabase, identity: Identity) -> list[tuple[object, ...]]:
    return list(database.query(ROLES_OF.format(serial=identity.serial.hex())).rows)


def count(database: NodeDatabase, table: str) -> object:
    return database.query(f"select count(*) from {table}").rows[0][0]


# --- the stores and their roles, through SQL ---


def test_a_foreign_callmanager_in_phone_sast_trust_has_roles_0_and_3(database: NodeDatabase, keys: KeyStore) -> None:
    foreign = node(keys)
    put(database, foreign, Unit.CALLMANAGER_TRUST)
    put(database, foreign, Unit.PHONE_SAST_TRUST)
    assert sql_roles(database, foreign) == [
        ("CallManager-trust", 0), ("CallManager-trust", 3), ("Phone-SAST-trust", 0), ("Phone-SAST-trust", 3)
    ]  # fmt: skip
    (stored,) = database.certificates()
    assert stored.der == foreign.certificate_der
    assert stored.roles == (0, 3)
    assert stored.units == (Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST)


def test_a_foreign_callmanager_in_callmanager_trust_only_has_no_role(database: NodeDatabase, keys: KeyStore) -> None:
    foreign = node(keys)
    put(database, foreign, Unit.CALLMANAGER_TRUST)
    assert sql_roles(database, foreign) == [("CallManager-trust", None)]
    assert database.certificates(Unit.CALLMANAGER_TRUST)[0].roles == ()


def test_the_own_callmanager_has_roles_0_and_2(database: NodeDatabase, keys: KeyStore) -> None:
    put(database, node(keys), Unit.CALLMANAGER)
    assert database.certificates(Unit.CALLMANAGER)[0].roles == (0, 2)


def test_leaving_one_store_recomputes_the_roles(database: NodeDatabase, keys: KeyStore) -> None:
    foreign = node(keys)
    put(database, foreign, Unit.CALLMANAGER_TRUST)
    put(database, foreign, Unit.PHONE_SAST_TRUST)
    database.delete_certificate(Unit.PHONE_SAST_TRUST, "ucm11pub")
    assert sql_roles(database, foreign) == [("CallManager-trust", None)]
    assert database.certificates(Unit.PHONE_SAST_TRUST) == ()
    put(database, foreign, Unit.PHONE_SAST_TRUST)
    database.delete_certificate(Unit.CALLMANAGER_TRUST, "ucm11pub")
    assert sql_roles(database, foreign) == [("Phone-SAST-trust", 0), ("Phone-SAST-trust", 3)]


def test_a_certificate_is_one_row_and_goes_with_its_last_store(database: NodeDatabase, keys: KeyStore) -> None:
    foreign = node(keys)
    for unit in (Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST):
        put(database, foreign, unit)
    assert count(database, "certificate") == 1
    for unit in (Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST):
        database.delete_certificate(unit, "ucm11pub")
    for table in (
        "certificate", "certificatehashmap", "certificatetrustrolemap", "certificateservicecertificatemap",
        "certificateprocessnodemap",
    ):  # fmt: skip
        assert count(database, table) == 0


def test_columns_have_ciscos_forms(database: NodeDatabase, keys: KeyStore) -> None:
    identity = node(keys)
    put(database, identity, Unit.CALLMANAGER, ip="127.0.11.51", ttl_s=60)
    row = database.query("select * from certificate")
    values = dict(zip(row.columns, row.rows[0], strict=True))
    assert values["issuername"] == "L=Brisbane,ST=QLD,CN=ucm11pub,OU=IST,O=Stormin,C=AU"
    assert values["serialnumber"] == identity.serial.hex()
    assert values["certificate"] == identity.certificate_pem.decode()
    assert (values["ipv4address"], values["ipv6address"], values["timetolive"]) == ("127.0.11.51", None, 60)
    (digest,) = database.query("select certificatehash from certificatehashmap").rows[0]
    assert len(str(digest)) == 28
    (stored,) = database.certificates(Unit.CALLMANAGER)
    assert (stored.server_name, stored.ip_address, stored.ttl_s) == ("ucm11pub", "127.0.11.51", 60)


def test_time_to_live_is_null_on_upload(database: NodeDatabase, keys: KeyStore) -> None:
    put(database, node(keys), Unit.PHONE_SAST_TRUST)
    assert database.query("select timetolive from certificate").rows == ((None,),)


def test_roles_are_read_from_the_table(database: NodeDatabase, keys: KeyStore) -> None:
    """Outcomes follow from rows: an administrator's UPDATE counts."""
    put(database, node(keys), Unit.PHONE_SAST_TRUST)
    with closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("delete from certificatetrustrolemap where tktrustrole = 0")
    assert database.certificates()[0].roles == (3,)


# --- one certificate per CN and store ---


def test_only_a_later_start_replaces_in_a_trust_store(database: NodeDatabase, keys: KeyStore) -> None:
    first, later, earlier = node(keys), node(keys, begin=BEGIN + 1), node(keys, begin=BEGIN - 1)
    assert put(database, first, Unit.PHONE_SAST_TRUST) is PutOutcome.ADDED
    assert put(database, first, Unit.PHONE_SAST_TRUST) is PutOutcome.UNCHANGED
    assert put(database, earlier, Unit.PHONE_SAST_TRUST) is PutOutcome.IGNORED
    assert put(database, node(keys, seed=2), Unit.PHONE_SAST_TRUST) is PutOutcome.IGNORED  # the same start
    assert [c.der for c in database.certificates()] == [first.certificate_der]
    assert put(database, later, Unit.PHONE_SAST_TRUST) is PutOutcome.REPLACED
    assert [c.der for c in database.certificates()] == [later.certificate_der]


def test_other_names_and_other_stores_stand_beside_it(database: NodeDatabase, keys: KeyStore) -> None:
    put(database, node(keys, "a"), Unit.PHONE_SAST_TRUST)
    put(database, node(keys, "b"), Unit.PHONE_SAST_TRUST)
    put(database, node(keys, "a", begin=BEGIN - 5), Unit.CALLMANAGER_TRUST)
    assert len(database.certificates(Unit.PHONE_SAST_TRUST)) == 2
    assert len(database.certificates(Unit.CALLMANAGER_TRUST)) == 1
    assert len(database.certificates()) == 3


def test_the_replaced_one_stays_in_its_other_store(database: NodeDatabase, keys: KeyStore) -> None:
    old, new = node(keys), node(keys, begin=BEGIN + 1)
    put(database, old, Unit.CALLMANAGER_TRUST)
    put(database, old, Unit.PHONE_SAST_TRUST)
    put(database, new, Unit.PHONE_SAST_TRUST)
    assert sql_roles(database, old) == [("CallManager-trust", None)]
    assert sql_roles(database, new) == [("Phone-SAST-trust", 0), ("Phone-SAST-trust", 3)]


def test_a_certificate_without_cn_goes_by_its_subject(database: NodeDatabase, keys: KeyStore) -> None:
    nameless = node_certificate(
        keys, Unit.TOMCAT, "x", seed=1, not_before=BEGIN, subject="O=Stormin;C=AU", kind="secp256r1"
    )
    put(database, nameless, Unit.TOMCAT_TRUST)
    database.delete_certificate(Unit.TOMCAT_TRUST, "O=Stormin;C=AU")
    assert database.certificates() == ()


def test_expired_certificates_are_refused(database: NodeDatabase, keys: KeyStore) -> None:
    with pytest.raises(CertificateRefused, match="expired") as caught:
        put(database, expired(node(keys), NOW), Unit.PHONE_SAST_TRUST)
    assert caught.value.where == "Phone-SAST-trust"
    assert caught.value.mend
    assert database.certificates() == ()
    assert put(database, not_yet_valid(node(keys), NOW), Unit.PHONE_SAST_TRUST) is PutOutcome.ADDED


def test_the_last_valid_second_counts(database: NodeDatabase, keys: KeyStore) -> None:
    identity = node(keys)
    end = describe(identity.certificate_der).not_after
    database.put_certificate(identity.certificate_der, Unit.PHONE_SAST_TRUST, "a", moment=end)
    with pytest.raises(CertificateRefused):
        database.put_certificate(identity.certificate_der, Unit.CALLMANAGER_TRUST, "a", moment=end + 1)


def test_another_certificate_with_the_same_issuer_and_serial_is_refused(database: NodeDatabase, keys: KeyStore) -> None:
    genuine = node(keys)
    put(database, genuine, Unit.CALLMANAGER_TRUST)
    impostor = wrong_key(genuine, keys.key("impostor", "secp256r1"))
    with pytest.raises(CertificateRefused, match="same issuer and serial"):
        put(database, impostor, Unit.PHONE_SAST_TRUST)
    assert [c.der for c in database.certificates()] == [genuine.certificate_der]
    assert database.certificates()[0].units == (Unit.CALLMANAGER_TRUST,)


def test_what_is_no_certificate_changes_nothing(database: NodeDatabase) -> None:
    with pytest.raises(DecodeError):
        database.put_certificate(b"nothing", Unit.PHONE_SAST_TRUST, "a", moment=NOW)
    with pytest.raises(CertificateRefused, match="no certificate of 'a'"):
        database.delete_certificate(Unit.PHONE_SAST_TRUST, "a")


# --- a node's own certificates ---


def test_an_own_certificate_replaces_the_old_one_unconditionally(database: NodeDatabase, keys: KeyStore) -> None:
    assert put(database, node(keys), Unit.CALLMANAGER) is PutOutcome.ADDED
    assert put(database, node(keys), Unit.CALLMANAGER) is PutOutcome.UNCHANGED
    older = expired(node(keys, seed=2), NOW)
    assert put(database, older, Unit.CALLMANAGER) is PutOutcome.REPLACED
    assert [c.der for c in database.certificates()] == [older.certificate_der]
    impostor = wrong_key(older, keys.key("impostor", "secp256r1"))  # the same issuer and serial
    assert put(database, impostor, Unit.CALLMANAGER) is PutOutcome.REPLACED
    assert [c.der for c in database.certificates()] == [impostor.certificate_der]


def test_every_node_has_its_own(database: NodeDatabase, keys: KeyStore) -> None:
    publisher, subscriber = node(keys, "pub", unit=Unit.TVS), node(keys, "sub", unit=Unit.TVS)
    put(database, publisher, Unit.TVS, "pub")
    put(database, subscriber, Unit.TVS, "sub")
    regenerated = node(keys, "sub", unit=Unit.TVS, seed=2)
    put(database, regenerated, Unit.TVS, "sub")
    assert [(c.server_name, c.der) for c in database.certificates(Unit.TVS)] == [
        ("pub", publisher.certificate_der),
        ("sub", regenerated.certificate_der),
    ]


def test_nodes_may_share_one(database: NodeDatabase, keys: KeyStore) -> None:
    """One ITLRecovery for the cluster from 12.5 on (facts 6.2)."""
    shared = node(keys, "ITLRECOVERY_pub", unit=Unit.ITLRECOVERY)
    put(database, shared, Unit.ITLRECOVERY, "pub", ip="127.0.11.1")
    put(database, shared, Unit.ITLRECOVERY, "sub", ip="127.0.11.2")
    owners = [(c.server_name, c.ip_address) for c in database.certificates(Unit.ITLRECOVERY)]
    assert owners == [("pub", "127.0.11.1"), ("sub", "127.0.11.2")]
    assert [c.server_name for c in database.certificates()] == ["pub"]
    put(database, node(keys, "ITLRECOVERY_sub", unit=Unit.ITLRECOVERY), Unit.ITLRECOVERY, "sub")
    assert [c.server_name for c in database.certificates(Unit.ITLRECOVERY)] == ["pub", "sub"]
    assert len(database.certificates()) == 2


def test_a_trusted_copy_does_not_change_where_an_own_one_lives(database: NodeDatabase, keys: KeyStore) -> None:
    own = node(keys)
    put(database, own, Unit.CALLMANAGER, "pub", ip="127.0.11.1")
    put(database, own, Unit.CALLMANAGER_TRUST, "elsewhere")
    put(database, own, Unit.PHONE_SAST_TRUST, "elsewhere")
    (stored,) = database.certificates()
    assert (stored.server_name, stored.ip_address, stored.roles) == ("pub", "127.0.11.1", (0, 2, 3))
    put(database, node(keys, seed=2), Unit.CALLMANAGER, "pub")
    assert sql_roles(database, own)[0] == ("CallManager-trust", 0)
    assert {c.units for c in database.certificates()} == {
        (Unit.CALLMANAGER_TRUST, Unit.PHONE_SAST_TRUST),
        (Unit.CALLMANAGER,),
    }


# --- nodes, parameters, devices ---


def test_nodes_and_services(database: NodeDatabase) -> None:
    database.add_node("pub", "127.0.11.1", services=("TVS", "CallManager"))
    database.add_node("sub", "::1", services={"TFTP"})
    assert database.nodes() == (ProcessNode("pub", "127.0.11.1"), ProcessNode("sub", "::1"))
    assert database.services_of("pub") == ("CallManager", "TVS")
    assert database.services_of("nobody") == ()
    database.add_node("pub", "127.0.11.9", services=["CAPF"])
    assert database.nodes()[0] == ProcessNode("pub", "127.0.11.9")
    assert database.services_of("pub") == ("CAPF",)


def test_bad_nodes_are_refused_whole(database: NodeDatabase) -> None:
    with pytest.raises(UsageError, match="no such service: Coffee"):
        database.add_node("pub", "127.0.11.1", services=["Coffee"])
    with pytest.raises(UsageError, match="no IP address"):
        database.add_node("pub", "somewhere")
    assert database.nodes() == ()


def test_parameters_answer_the_documented_query(database: NodeDatabase) -> None:
    assert database.parameter("ClusterSecurityMode") is None
    database.set_parameter("ClusterSecurityMode", "0")
    database.set_parameter("ClusterSecurityMode", "1")
    assert database.parameter("ClusterSecurityMode") == "1"
    sql = "select paramname,paramvalue from processconfig where paramname='ClusterSecurityMode'"  # facts 4.3
    assert database.query(sql).rows == (("ClusterSecurityMode", "1"),)


def test_callmanager_groups_keep_their_order(database: NodeDatabase) -> None:
    for number, name in enumerate(("pub", "sub1", "sub2"), start=1):
        database.add_node(name, f"127.0.11.{number}")
    database.put_callmanager_group("Default", ["sub1", "pub"])
    assert [member.name for member in database.callmanager_group("Default")] == ["sub1", "pub"]
    database.put_callmanager_group("Default", ["pub", "sub2", "sub1"])
    assert [member.name for member in database.callmanager_group("Default")] == ["pub", "sub2", "sub1"]
    assert database.callmanager_group("Other") == ()


@pytest.mark.parametrize("names", [[], ["pub", "pub"], ["nobody"], ["pub", "nobody"], ["a", "b", "c", "d"]])
def test_bad_groups_leave_the_old_one(database: NodeDatabase, names: list[str]) -> None:
    database.add_node("pub", "127.0.11.1")
    database.put_callmanager_group("Default", ["pub"])
    with pytest.raises(UsageError):
        database.put_callmanager_group("Default", names)
    assert [member.name for member in database.callmanager_group("Default")] == ["pub"]


PHONE = Device("SEPB000B4BA0AEE", "CP-8861", "Reception", 3, "Default")


def with_group(database: NodeDatabase) -> None:
    database.add_node("pub", "127.0.11.1")
    database.put_callmanager_group("Default", ["pub"])


def test_devices_come_and_go(database: NodeDatabase) -> None:
    with_group(database)
    database.put_device(PHONE)
    other = Device("SEP000000000001", "CP-7821", "", 1, "Default", "Branch")
    database.put_device(other)
    assert database.device(PHONE.name) == PHONE
    assert database.devices() == (other, PHONE)
    changed = Device(PHONE.name, "CP-8865", "Lobby", 2, "Default", "Branch")
    database.put_device(changed)
    assert database.device(PHONE.name) == changed
    database.delete_device(PHONE.name)
    assert database.device(PHONE.name) is None
    with pytest.raises(UsageError, match="no device"):
        database.delete_device(PHONE.name)


def test_devices_join_as_ciscos_do(database: NodeDatabase) -> None:
    with_group(database)
    database.put_device(PHONE)
    found = database.query(
        "select d.name, m.name, p.name, s.tkdevicesecuritymode from device d "
        "join typemodel m on m.enum = d.tkmodel join devicepool p on p.pkid = d.fkdevicepool "
        "join securityprofile s on s.pkid = d.fksecurityprofile"
    )
    assert found.rows == (("SEPB000B4BA0AEE", "CP-8861", "Default", 3),)


@pytest.mark.parametrize(
    "bad",
    [
        Device("", "CP-8861", "", 3, "Default"),
        Device("SEP1", "CP-8861", "", 0, "Default"),
        Device("SEP1", "CP-8861", "", 4, "Default"),
        Device("SEP1", "CP-8861", "", 3, "Nowhere", "New"),
        Device("SEP1", "CP-8861", "", 3, "Other"),
    ],
)
def test_bad_devices(database: NodeDatabase, bad: Device) -> None:
    with_group(database)
    database.put_callmanager_group("Other", ["pub"])
    database.put_device(PHONE)
    with pytest.raises(UsageError) as caught:
        database.put_device(bad)
    assert caught.value.mend
    assert database.devices() == (PHONE,)


def test_a_pool_brings_its_group_to_all_its_devices(database: NodeDatabase) -> None:
    with_group(database)
    database.add_node("sub", "127.0.11.2")
    database.put_callmanager_group("Other", ["sub"])
    database.put_device(PHONE)
    database.put_device_pool("Default", "Other")
    device = database.device(PHONE.name)
    assert device is not None
    assert device.callmanager_group == "Other"


# --- queries ---


@pytest.mark.parametrize(
    "sql",
    [
        "delete from certificate",
        "insert into processconfig values ('1','2','3')",
        "update processconfig set paramvalue = 1",
        "drop table certificate",
        "create table x (y)",
        "attach database ':memory:' as other",
        "pragma query_only = off",
        "select 1; select 2",
        "vacuum",
        "selec",
        "select * from nowhere",
        "select '\x00",
        "select zeroblob(100000000)",
        "select " + "1," * 100_000 + "1",
    ],
)
def test_queries_only_read(database: NodeDatabase, sql: str) -> None:
    database.set_parameter("a", "b")
    with pytest.raises(UsageError):
        database.query(sql)
    assert database.parameter("a") == "b"


def test_queries_are_bounded(database: NodeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n{stop}) select {what} from n"
    with pytest.raises(UsageError, match="more than 10000 rows"):
        database.query(numbers.format(stop="", what="i"))
    monkeypatch.setattr("cucm.database.file.QUERY_TIMEOUT_S", 0.05)
    with pytest.raises(UsageError, match="interrupted"):
        database.query(numbers.format(stop="", what="count(*)"))
    assert database.query(numbers.format(stop=" where i < 3", what="i")).rows == ((1,), (2,), (3,))


def test_the_rows_of_a_query_are_bounded_together(database: NodeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cucm.database.file.MAX_QUERY_SIZE", 10_000)
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) select {what} from n"
    for value in ("zeroblob(1000)", "hex(zeroblob(500))"):
        assert len(database.query(sql.format(rows=10, what=value)).rows) == 10
        with pytest.raises(UsageError, match="10000 characters and bytes"):
            database.query(sql.format(rows=11, what=value))


def test_an_empty_result_still_names_its_columns(database: NodeDatabase) -> None:
    result = database.query("select name, nodeid from processnode")
    assert (result.columns, result.rows) == (("name", "nodeid"), ())


# --- the file ---


def test_the_file_is_its_owners(database: NodeDatabase) -> None:
    database.set_parameter("a", "b")
    for path in database.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_second_start_finds_what_the_first_wrote(database: NodeDatabase) -> None:
    database.set_parameter("a", "b")
    database.close()
    for start in (NodeDatabase(database.path).create, NodeDatabase(database.path).open):
        with start() as again:
            assert again.parameter("a") == "b"


def test_the_same_rows_have_the_same_pkids_in_every_run(tmp_path: Path, keys: KeyStore) -> None:
    dumps = []
    for name in ("one.db", "two.db"):
        with NodeDatabase(tmp_path / name).create() as database:
            with_group(database)
            database.put_device(PHONE)
            put(database, node(keys), Unit.PHONE_SAST_TRUST)
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            # which file this is, a copy has to know: the one value that differs from run to run
            dumps.append([line for line in connection.iterdump() if 'INTO "replicationstate"' not in line])
    assert dumps[0] == dumps[1]


STRANGERS = {
    "text": b"this is no database, but a long enough text to look at" * 100,
    "cut": b"SQLite format 3\x00" + b"\0" * 30,
    "noise": bytes(range(256)) * 64,
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(STRANGERS[kind])
    path.chmod(0o644)
    for start in (NodeDatabase(path).open, NodeDatabase(path).create):
        with pytest.raises(DatabaseError) as caught:
            start()
        assert str(path) in str(caught.value)
        assert caught.value.mend
    assert path.read_bytes() == STRANGERS[kind]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_anothers_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table diary (entry)")
    before = path.read_bytes()
    for start in (NodeDatabase(path).open, NodeDatabase(path).create):
        with pytest.raises(DatabaseError):
            start()
    assert path.read_bytes() == before


def test_a_database_of_another_version_is_not_touched(database: NodeDatabase) -> None:
    database.close()
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("pragma user_version = 99")
    for start in (NodeDatabase(database.path).open, NodeDatabase(database.path).create):
        with pytest.raises(DatabaseError, match="version 99"):
            start()


@pytest.mark.parametrize("where", ["missing.db", "no/such/folder/node.db", "."])
def test_places_without_a_database(tmp_path: Path, where: str) -> None:
    with pytest.raises(DatabaseError):
        NodeDatabase(tmp_path / where).open()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_database_says_so(database: NodeDatabase) -> None:
    database.close()
    database.close()
    for use in (database.nodes, database.data_version, lambda: database.query("select 1")):
        with pytest.raises(DatabaseError, match="is not open"):
            use()


@pytest.mark.parametrize("ttl_s", [-1, 1 << 32])
def test_a_time_to_live_that_tvs_could_not_send(database: NodeDatabase, keys: KeyStore, ttl_s: int) -> None:
    with pytest.raises(UsageError, match="time to live"):
        put(database, node(keys), Unit.PHONE_SAST_TRUST, ttl_s=ttl_s)
    put(database, node(keys), Unit.PHONE_SAST_TRUST, ttl_s=0xFFFF_FFFF)


def test_roles_have_ciscos_names(database: NodeDatabase) -> None:
    """Facts 5.1."""
    rows = database.query("select enum, name from typetrustrole where enum in (0, 21, 255) order by enum").rows
    assert rows == ((0, "SAST"), (21, "AUTHENTICATION_AUTHORIZATION"), (255, "UNKNOWN"))


def test_rows_written_by_hand_end_in_no_traceback(database: NodeDatabase, keys: KeyStore) -> None:
    put(database, node(keys), Unit.TVS)
    database.execute("insert into typecertificateservice values (99, 'x', 'x')")
    database.execute("update certificateservicecertificatemap set tkcertificateservice = 99")
    with pytest.raises(DatabaseError, match="makes no sense"):
        database.certificates()
    put(database, node(keys, "another"), Unit.TVS)  # the old one goes out of TVS, not out of what nobody knows
    database.execute("update certificate set certificate = 'no PEM'")
    database.execute("update certificateservicecertificatemap set tkcertificateservice = 14")
    for change in (
        lambda: put(database, node(keys), Unit.PHONE_SAST_TRUST),
        lambda: database.delete_certificate(Unit.PHONE_SAST_TRUST, "x"),
    ):
        with pytest.raises(DatabaseError, match="makes no sense"):
            change()


def test_a_row_that_makes_no_sense_is_named(database: NodeDatabase, keys: KeyStore) -> None:
    put(database, node(keys), Unit.PHONE_SAST_TRUST)
    with closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("update certificate set certificate = 'no PEM'")
    with pytest.raises(DatabaseError, match="makes no sense"):
        database.certificates()


def test_data_version_tells_of_every_commit(database: NodeDatabase) -> None:
    with NodeDatabase(database.path).open() as other:
        versions = [database.data_version()]
        other.set_parameter("a", "1")
        versions.append(database.data_version())
        database.set_parameter("a", "2")  # by the same object
        versions.append(database.data_version())
        database.parameter("a")
        assert database.data_version() == versions[-1]
        assert len(set(versions)) == 3


def test_a_refused_change_leaves_no_trace(database: NodeDatabase, keys: KeyStore) -> None:
    genuine = node(keys)
    put(database, genuine, Unit.CALLMANAGER_TRUST)
    before = database.data_version()
    with pytest.raises(CertificateRefused):
        put(database, wrong_key(genuine, keys.key("impostor", "secp256r1")), Unit.PHONE_SAST_TRUST)
    assert database.data_version() == before


def test_readers_go_on_while_one_writes(database: NodeDatabase) -> None:
    database.set_parameter("a", "old")
    with closing(sqlite3.connect(database.path, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute("update processconfig set paramvalue = 'new'")
        assert database.parameter("a") == "old"
        assert database.query("select paramvalue from processconfig").rows == (("old",),)
        writer.execute("commit")
    assert database.parameter("a") == "new"


def test_threads_share_one_object(database: NodeDatabase) -> None:
    def work(number: int) -> None:
        database.set_parameter(f"p{number}", str(number))
        assert database.parameter(f"p{number}") == str(number)
        database.data_version()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64)))
    assert count(database, "processconfig") == 64


def create_and_write(path: Path, barrier: Any, number: int, results: Any) -> None:
    barrier.wait(30)
    with NodeDatabase(path).create() as database:
        for step in range(20):
            database.add_node(f"n{number}-{step}", f"127.0.{number}.{step}", services=["TVS"])
    results.put(number)


def create_and_close(path: Path, barrier: Any, number: int, results: Any) -> None:
    for step in range(15):
        barrier.wait(30)
        with NodeDatabase(path.with_name(f"{step}.db")).create() as database:
            database.set_parameter(str(number), "here")
    results.put(number)


def run_processes(work: Any, path: Path) -> list[int]:
    """What three processes, started together, put into the queue; a failing one ends the test."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.SimpleQueue()
    processes = [context.Process(target=work, args=(path, barrier, number, results)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    exits = [process.exitcode for process in processes]
    for process in processes:
        process.close()
    assert exits == [0, 0, 0]
    answers = sorted(results.get() for _ in processes)
    results.close()
    return answers


def test_processes_create_the_same_files_at_once(tmp_path: Path) -> None:
    """SQLite's switch to WAL mode fails with "database is locked" when two try it together."""
    assert run_processes(create_and_close, tmp_path / "node.db") == [0, 1, 2]
    for step in range(15):
        with NodeDatabase(tmp_path / f"{step}.db").open() as database:
            assert [database.parameter(str(number)) for number in range(3)] == ["here"] * 3


def test_processes_create_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    assert run_processes(create_and_write, path) == [0, 1, 2]
    with NodeDatabase(path).open() as database:
        assert len(database.nodes()) == 60
        assert count(database, "processnodeservice") == 60


def write_until_killed(path: Path, results: Any) -> None:
    with NodeDatabase(path).open() as database:
        number = 0
        while True:
            number += 1
            database.add_node(f"n{number}", "127.0.0.1", services=["TVS", "TFTP"])
            results.put(number)


def test_a_killed_writer_leaves_whole_transactions(database: NodeDatabase) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    writer = context.Process(target=write_until_killed, args=(database.path, results))
    writer.start()
    while results.get(timeout=60) < 10:
        pass
    writer.kill()
    writer.join(30)
    writer.close()
    results.close()
    results.join_thread()
    assert count(database, "processnodeservice") == 2 * len(database.nodes()) >= 20
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    database.add_node("after", "127.0.0.1")


def test_organisation_of_the_subject_does_not_matter_to_the_cn_rule(database: NodeDatabase, keys: KeyStore) -> None:
    """Facts 11, F11: both clusters use the same host name."""
    other = node_certificate(
        keys,
        Unit.CALLMANAGER,
        "ucm11pub",
        seed=3,
        not_before=BEGIN - 10,
        subject=Organisation(company="Other").node_subject("ucm11pub"),
        kind="secp256r1",
    )
    put(database, node(keys), Unit.PHONE_SAST_TRUST)
    assert put(database, other, Unit.PHONE_SAST_TRUST) is PutOutcome.IGNORED
