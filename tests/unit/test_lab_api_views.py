from __future__ import annotations

import pytest

from cucm.certificates import node_certificate
from cucm.database import NodeDatabase
from cucm.errors import UsageError
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from lab.api.views import certificates_of

NOT_BEFORE = 1_700_000_000.0
CALLMANAGER, RECOVERY, TRUST = (
    CertificateUnit.CALLMANAGER,
    CertificateUnit.ITLRECOVERY,
    CertificateUnit.PHONE_SAST_TRUST,
)


def certificate(name: str, unit: CertificateUnit = CALLMANAGER) -> bytes:
    return node_certificate(KeyStore(), unit, name, seed="views", not_before=NOT_BEFORE).certificate_der


@pytest.fixture
def database(tmp_path):
    with NodeDatabase(tmp_path / "node.db").create() as database:
        for node in ("pub", "sub"):
            database.put_certificate(certificate(node), CALLMANAGER, node, moment=NOT_BEFORE)
        database.put_certificate(certificate("pub", RECOVERY), RECOVERY, "pub", moment=NOT_BEFORE)
        database.put_certificate(certificate("other"), TRUST, "other", moment=NOT_BEFORE)
        yield database


def shown(database, node, unit=None):
    return [(one["unit"], one["server_name"]) for one in certificates_of(database, node, unit)]


def test_a_node_shows_its_own_certificates_and_everybodys_trust(database):
    assert shown(database, "pub") == [
        ("CallManager", "pub"),
        ("Phone-SAST-trust", "other"),
        ("ITLRecovery", "pub"),
    ]


def test_a_pair_of_the_whole_cluster_is_shown_on_every_node(database):
    assert shown(database, "sub", "itlrecovery") == [("ITLRecovery", "pub")]
    assert shown(database, "sub", "CallManager") == [("CallManager", "sub")]


def test_a_unit_that_is_none(database):
    with pytest.raises(UsageError, match="no certificate unit 'Callmanger'"):
        certificates_of(database, "pub", "Callmanger")


def test_roles_are_those_of_the_database(database):
    (trusted,) = certificates_of(database, "pub", "Phone-SAST-trust")
    assert (trusted["roles"], trusted["is_own"], trusted["common_name"]) == ((0, 3), False, "other")
