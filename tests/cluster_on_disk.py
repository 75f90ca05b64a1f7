"""A cluster's nodes on disk, as the lab lays them out, for tests of what is built from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cucm.certificates import Organisation, capf_certificate, node_certificate
from cucm.database import Device, NodeDatabase
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from cucm.versions import profile_of

PUBLISHER = "ucm105pub"
SUBSCRIBER = "ucm105sub"
ADDRESSES = {PUBLISHER: "192.168.11.32", SUBSCRIBER: "192.168.11.33"}
PHONE = "SEPB000B4BA0AEE"
MAC = "B000B4BA0AEE"
NOW = 1_448_780_000.0
INSTALLED = NOW - 86_400
ALL_SERVICES = ("CallManager", "TFTP", "TVS", "CAPF")
UNITS = (CertificateUnit.CALLMANAGER, CertificateUnit.TVS, CertificateUnit.ITLRECOVERY, CertificateUnit.CAPF)


class ClusterOnDisk:
    """Publisher and subscriber with one database; `directory` is that of the node whose files are served."""

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
            self.keys_of[node].mkdir()
            for unit in UNITS if node == nodes[0] else UNITS[:-1]:
                self.install(unit, node)
        self.database.set_parameter("ClusterSecurityMode", "1" if mixed else "0")
        self.database.put_callmanager_group("Default", list(reversed(nodes)))
        self.database.put_device(Device(PHONE, "CP-8861", "Desk", 3, "Default"))

    def install(self, unit: CertificateUnit, node: str, *, label: str = "", not_before: float = INSTALLED) -> Identity:
        """An own certificate of a node, its key on disk first, as when a certificate is regenerated."""
        key_label = f"{unit} {node} {label}"
        if unit is CertificateUnit.CAPF:
            identity = capf_certificate(self.keys, node, seed=label, not_before=not_before, key_label=key_label)
        else:
            prefix = "ITLRECOVERY_" if unit is CertificateUnit.ITLRECOVERY else ""
            identity = node_certificate(
                self.keys,
                unit,
                node,
                seed=label,
                not_before=not_before,
                key_label=key_label,
                subject=Organisation().node_subject(f"{prefix}{node}"),
            )
        (self.keys_of[node] / f"{unit}.key").write_bytes(identity.private_key_der)
        self.database.put_certificate(identity.certificate_der, unit, node, ADDRESSES[node], moment=NOW)
        self.identities[unit, node] = identity
        return identity
