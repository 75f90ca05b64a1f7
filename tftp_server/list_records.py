"""Records of a cluster's trust lists: which node has which, in the form of the maker of the list.

Sources: facts 6.1 and 6.3 (which records), 3.2 (the two forms), 7.3 (the rollback ITL). Names and addresses come from
the database, keys are not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from cucm.database import NodeDatabase, ProcessNode, StoredCertificate
from cucm.errors import LabError
from cucm.identity import describe
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.trust_list import Record, SignerId, blank_record
from tftp_server.cluster_view import (
    CALLMANAGER_SERVICE,
    CAPF_SERVICE,
    TFTP_SERVICE,
    TVS_SERVICE,
    is_mixed_mode,
    nodes_running,
    prepares_rollback,
    runs,
)

NO_ADDRESS: Final = str(IPv4Address(0))
"""IPADDRESS of a token's record: that there is one follows from the sums (facts 3.2), its value is UNKNOWN."""


class Maker(Enum):
    """Who makes a list, which decides how its records are written (facts 3.2 [calc])."""

    CLUSTER = "the CLI and the TFTP service"
    """DNSNAME is the host name, SIGNATURE the certificate's."""
    CTL_CLIENT = "the CTL client with tokens"
    """DNSNAME is the address as text, and no record has a SIGNATURE."""

    def record(self, stored: StoredCertificate, function: TrustRole, node: ProcessNode) -> Record:
        return self.certificate_record(stored.der, function, self._dns_name(node), node.ip_address)

    def certificate_record(self, der: bytes, function: TrustRole, dns_name: str, ip_address: str | None) -> Record:
        known = describe(der)
        return Record.build(
            dns_name=dns_name,
            subject=known.subject,
            function=function,
            issuer=known.issuer,
            serial=known.serial,
            public_key=known.public_key_record,
            signature=known.signature if self is Maker.CLUSTER else None,
            certificate=der,
            ip_address=ip_address,
        )

    def blank(self, function: TrustRole, node: ProcessNode) -> Record:
        return blank_record(function, dns_name=self._dns_name(node), ip_address=node.ip_address)

    def _dns_name(self, node: ProcessNode) -> str:
        return node.name if self is Maker.CLUSTER else node.ip_address


def own_certificates(database: NodeDatabase, unit: CertificateUnit, node_name: str) -> Iterator[StoredCertificate]:
    """The node's own certificate of that unit: one, or none."""
    return (stored for stored in database.certificates(unit) if stored.server_name == node_name)


def required_certificate(database: NodeDatabase, unit: CertificateUnit, node_name: str) -> StoredCertificate:
    """Raises LabError when the node has none."""
    for stored in own_certificates(database, unit, node_name):
        return stored
    raise LabError(
        f"{node_name} has no {unit} certificate",
        where=str(database.path),
        mend=f"regenerate {unit} on {node_name}, or wait for replication",
    )


def sast_records(
    database: NodeDatabase, units: tuple[CertificateUnit, ...], publisher: ProcessNode, maker: Maker
) -> list[Record]:
    """The publisher's certificates of these units as SAST, in that order; a unit it has none of is left out."""
    own = (stored for unit in units for stored in own_certificates(database, unit, publisher.name))
    return [maker.record(stored, TrustRole.SAST, publisher) for stored in own]


def foreign_sast_records(database: NodeDatabase, listed: set[bytes]) -> list[Record]:
    """Certificates of Phone-SAST-trust, which `utils ctl update CTLFile` of 12.x copies (facts 6.3, [inferred])."""
    foreign = (item for item in database.certificates(CertificateUnit.PHONE_SAST_TRUST) if item.der not in listed)
    return [
        Maker.CLUSTER.certificate_record(stored.der, TrustRole.SAST, stored.server_name, _ipv4(stored.ip_address))
        for stored in foreign
    ]


def _ipv4(text: str | None) -> str | None:
    try:
        return str(IPv4Address(text or ""))
    except ValueError:
        return None


def ctl_callmanager_records(database: NodeDatabase, node: ProcessNode, maker: Maker) -> list[Record]:
    """One CCM+TFTP record for a CallManager or TFTP node; blank in a cluster put back to non-secure mode."""
    if not runs(database, node, CALLMANAGER_SERVICE, TFTP_SERVICE):
        return []
    if not is_mixed_mode(database):
        return [maker.blank(TrustRole.CALLMANAGER_TFTP, node)]
    own = own_certificates(database, CertificateUnit.CALLMANAGER, node.name)
    return [maker.record(stored, TrustRole.CALLMANAGER_TFTP, node) for stored in own]


def capf_records(database: NodeDatabase, maker: Maker) -> list[Record]:
    return [
        maker.record(stored, TrustRole.CAPF, node)
        for node in nodes_running(database, CAPF_SERVICE)
        for stored in own_certificates(database, CertificateUnit.CAPF, node.name)
    ]


def itl_service_records(database: NodeDatabase, callmanager: StoredCertificate, node: ProcessNode) -> list[Record]:
    """The TFTP section and the TVS section; both blank while the cluster prepares for a rollback (facts 7.3).

    The layout of the blank sections is UNKNOWN (facts 14): a blank record in the place of each real one, as the CTL of
    a cluster put back to non-secure mode has them.
    """
    function = TrustRole.CALLMANAGER_TFTP if is_mixed_mode(database) else TrustRole.TFTP
    sections = [(callmanager, function, node)]
    for tvs_node in nodes_running(database, TVS_SERVICE):
        own = own_certificates(database, CertificateUnit.TVS, tvs_node.name)
        sections += [(stored, TrustRole.TVS, tvs_node) for stored in own]
    if prepares_rollback(database):
        return [Maker.CLUSTER.blank(role, each) for _, role, each in sections]
    return [Maker.CLUSTER.record(stored, role, each) for stored, role, each in sections]


def token_record(certificate: bytes) -> Record:
    """A USB token's SAST record: a DNSNAME of the NUL alone and no SIGNATURE (facts 3.2)."""
    known = describe(certificate)
    name = token_signer(certificate)
    return Record.build(
        dns_name="",
        subject=name.subject,
        function=TrustRole.SAST,
        issuer=name.issuer,
        serial=known.serial,
        public_key=known.public_key_record,
        certificate=certificate,
        ip_address=NO_ADDRESS,
    )


def token_signer(certificate: bytes) -> SignerId:
    """A token as headers and records name it: types in small letters, and cut (`cn="SAST-ADN0054f509 ..";..`).

    The cut names are in the file, not only in its printing: the published header closes with their lengths (facts 3.4
    [calc]). That they are cut at the comma of an organisation like "Cisco Systems, Inc." is [inferred].
    """
    known = describe(certificate)
    return SignerId(_token_name(known.subject), known.serial, _token_name(known.issuer))


_ATTRIBUTE_TYPE: Final = re.compile(r"(?:^|(?<=;))[A-Za-z]+(?==)")


def _token_name(name: str) -> str:
    return _ATTRIBUTE_TYPE.sub(lambda kind: kind.group().lower(), name).partition(",")[0]
