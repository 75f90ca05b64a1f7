"""A cluster's nodes on disk, as the lab lays them out, for tests of what is built from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cucm.certificates import Organisation, capf_certificate, node_certificate
from cucm.database import Device, NodeDatabase
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from cucm.versions import RecoveryScope, profile_of

PUBLISHER = "ucm105pub"
SUBSCRIBER = "ucm105sub"
MORE = tuple(f"node{number:03}" for number in range(3, 101))
"""Further subscribers, for clusters of any size."""
ADDRESSES = {name: f"192.168.11.{number}" for number, name in enumerate((PUBLISHER, SUBSCRIBER, *MORE), start=32)}
PHONE = "SEPB000B4BA0AEE"
MAC = "B000B4BA0AEE"
NOW = 1_448_780_000.0
INSTALLED = NOW - 86_400
ALL_SERVICES = ("CallManager", "TFTP", "TVS", "CAPF")
UNITS = (CertificateUnit.CALLMANAGER, CertificateUnit.TVS, CertificateUnit.ITLRECOVERY, CertificateUnit.CAPF)


class ClusterOnDisk:
    """Publisher and subscribers with one database; `directory` is the publisher's, `node_directory` any node's."""

    def __init__(
        self,
        directory: Path,
        version: str = "10.5.2.11900-3",
        *,
        mixed: bool = True,
        nodes: Sequence[str] = (PUBLISHER,),
    ) -> None:
        self.directory = directory
        self.profile = profile_of(version)
        self.keys = KeyStore()
        self.identities: dict[tuple[CertificateUnit, str], Identity] = {}
        self.keys_of = {node: directory / ("security" if node == nodes[0] else f"security-{node}") for node in nodes}
        (directory / "tftp").mkdir(parents=True)
        self.database = NodeDatabase(directory / "node.db").create()
        for node in nodes:
            services = ALL_SERVICES if node == nodes[0] else ALL_SERVICES[:-1]
            self.database.add_node(node, ADDRESSES[node], services=services)
            self.keys_of[node].mkdir(exist_ok=True)
            for unit in UNITS:
                if self._has_own(unit, node):
                    self.install(unit, node)
        self.database.set_parameter("ClusterSecurityMode", "1" if mixed else "0")
        self.database.put_callmanager_group("Default", list(reversed(nodes)))
        self.database.put_device(Device(PHONE, "CP-8861", "Desk", 3, "Default"))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The publisher first."""
        return tuple(self.keys_of)

    def node_directory(self, node: str) -> Path:
        """The folder a node's TFTP service works in: files of its own, its keys, and the cluster's database, level on
        every node as after replication.
        """
        if node == self.nodes[0]:
            return self.directory
        directory = self.directory / node
        if not directory.exists():
            (directory / "tftp").mkdir(parents=True)
            (directory / "security").symlink_to(self.keys_of[node])
            (directory / "node.db").symlink_to(self.directory / "node.db")
        return directory

    def _has_own(self, unit: CertificateUnit, node: str) -> bool:
        is_publisher = node == self.nodes[0]
        if unit is CertificateUnit.ITLRECOVERY:
            scope = self.profile.recovery_scope
            return scope is not RecoveryScope.ABSENT and (is_publisher or scope is RecoveryScope.NODE)
        return unit is not CertificateUnit.CAPF or is_publisher

    def install(
        self,
        unit: CertificateUnit,
        node: str,
        *,
        label: str = "",
        not_before: float = INSTALLED,
        bits: int | None = None,
    ) -> Identity:
        """An own certificate of a node, its key on disk first, as when a certificate is regenerated.

        The key of an ITLRecovery that belongs to the cluster is put on every node.
        """
        key_label = f"{unit} {node} {label}"
        kind = bits or self.profile.rsa_bits
        if unit is CertificateUnit.CAPF:
            identity = capf_certificate(
                self.keys, node, seed=label, not_before=not_before, kind=kind, key_label=key_label
            )
        else:
            prefix = "ITLRECOVERY_" if unit is CertificateUnit.ITLRECOVERY else ""
            identity = node_certificate(
                self.keys,
                unit,
                node,
                seed=label,
                not_before=not_before,
                kind=kind,
                key_label=key_label,
                subject=Organisation().node_subject(f"{prefix}{node}"),
            )
        is_clusters = unit is CertificateUnit.ITLRECOVERY and self.profile.recovery_scope is RecoveryScope.CLUSTER
        for folder in self.keys_of.values() if is_clusters else (self.keys_of[node],):
            folder.mkdir(exist_ok=True)
            (folder / f"{unit}.key").write_bytes(identity.private_key_der)
        self.database.put_certificate(identity.certificate_der, unit, node, ADDRESSES[node], moment=NOW)
        self.identities[unit, node] = identity
        return identity
