"""A cluster: its nodes, and what an administrator does to its stores, lists and parameters."""

from __future__ import annotations

from typing import Final

from cucm.certificates import CertificateAuthority, Organisation, capf_certificate, node_certificate
from cucm.database import Device, PutOutcome
from cucm.events.administration import CertificateIgnored, CertificateStored, ParameterSet
from cucm.identity import Identity, describe
from cucm.roles import CertificateUnit, roles_of_units
from cucm.versions import VersionProfile
from lab.node import OWN_UNITS, Node, Surroundings
from lab.topology import ClusterTable, NodeTable
from tftp_server.cluster_view import SECURITY_MODE_PARAMETER
from tftp_server.node_files import write_ctl
from tftp_server.trust_list_builder import KeyFolder, build_ctl, trust_list_signed
from tvs_server.certificate_cache import FreshnessMode

CALLMANAGER_GROUP: Final = "Default"
_DAY_S: Final = 86_400.0
INSTALLED_DAYS_AGO: Final = 30
"""How old a lab cluster is when the lab starts: its certificates begin then."""


class Cluster:
    """The publisher's database is the cluster's; `nodes` by name, the publisher first."""

    def __init__(
        self, name: str, table: ClusterTable, profile: VersionProfile, nodes: list[Node], surroundings: Surroundings
    ) -> None:
        self.name = name
        self.version = table.version
        self.profile = profile
        self.nodes = {node.name: node for node in nodes}
        self.publisher = nodes[0]
        self._table = table
        self._around = surroundings
        self._organisation = Organisation(**table.organization.model_dump())
        self._generation: dict[CertificateUnit, int] = {}

    # --- installation

    def install(self) -> None:
        """What the installer and the first administrator leave behind: nodes, groups, certificates, mixed mode."""
        database = self.publisher.database
        for node in self.nodes.values():
            database.add_node(node.name, node.address, services=node.services)
        database.put_callmanager_group(CALLMANAGER_GROUP, [node.name for node in self.nodes_running("CallManager")])
        installed = self._around.clock.now() // _DAY_S * _DAY_S - INSTALLED_DAYS_AGO * _DAY_S
        for node_table in self._table.nodes:
            for unit in OWN_UNITS:
                self._install_certificate(node_table, unit, installed)
        self.set_parameter(SECURITY_MODE_PARAMETER, "1" if self._table.security_mode == "mixed" else "0")
        if self._table.security_mode == "mixed":
            self.update_ctl_file()

    def _install_certificate(self, table: NodeTable, unit: CertificateUnit, not_before: float) -> None:
        if unit is CertificateUnit.ITLRECOVERY and not self.profile.has_itlrecovery:
            return
        identity = self._new_identity(table, unit, not_before)
        self.nodes[table.name].install_identity(unit, identity)
        self._tell_stored(identity.certificate_der, unit)

    def _new_identity(self, table: NodeTable, unit: CertificateUnit, not_before: float) -> Identity:
        host = f"{table.name}.{table.domain}" if table.domain else table.name
        generation = self._generation.get(unit, 0)
        label = f"{unit} {table.name} {generation}"
        keys, seed = self._around.keys, self._around.seed
        if unit is CertificateUnit.CAPF:
            return capf_certificate(
                keys,
                host,
                seed=seed,
                not_before=not_before,
                organisation=self._organisation,
                name=self._table.capf_name,
                key_label=label,
            )
        # the name of an ITLRecovery certificate is ITLRECOVERY_<host> [recall]
        common_name = f"ITLRECOVERY_{host}" if unit is CertificateUnit.ITLRECOVERY else host
        signed = table.certificate.get("CallManager") if unit is CertificateUnit.CALLMANAGER else None
        subject = signed.subject if signed else self._organisation.node_subject(common_name)
        issuer = signed and CertificateAuthority.self_signed(keys, signed.issuer, seed=seed, not_before=not_before)
        first = signed if generation == 0 else None  # a regenerated certificate cannot have the old one's serial
        return node_certificate(
            keys,
            unit,
            host,
            seed=seed,
            not_before=not_before,
            subject=subject,
            serial=bytes.fromhex(first.serial) if first and first.serial else None,
            issuer=issuer.identity if issuer else None,
            key_label=label,
            der_length=first.der_length if first else None,
        )

    # --- OS Administration > Security > Certificate Management

    def upload_certificate(self, der: bytes, store: CertificateUnit) -> None:
        """Upload to a trust store of the publisher. Raises CertificateRefused (facts 5.5)."""
        known = describe(der)
        outcome = self.publisher.database.put_certificate(
            der, store, known.common_name or "unnamed", moment=self._around.clock.now()
        )
        if outcome is PutOutcome.IGNORED:
            ignored = CertificateIgnored(self.name, store, known.subject, known.issuer, known.serial)
            self._around.events.emit(f"cluster:{self.name}", ignored)
        else:
            self._tell_stored(der, store)

    def regenerate_certificate(self, unit: CertificateUnit) -> None:
        """A new key and certificate on every node. What to restart afterwards is the administrator's business."""
        self._generation[unit] = self._generation.get(unit, 0) + 1
        for table in self._table.nodes:
            self._install_certificate(table, unit, self._around.clock.now())

    def _tell_stored(self, der: bytes, store: CertificateUnit) -> None:
        summary = describe(der)
        stored = self.publisher.database.certificates(store)
        units = next((item.units for item in stored if item.der == der), (store,))
        roles = tuple(int(role) for role in roles_of_units(units))
        self._around.events.emit(
            f"cluster:{self.name}",
            CertificateStored(self.name, store, summary.subject, summary.issuer, summary.serial, roles),
        )

    # --- the CLI and CM Administration

    def update_ctl_file(self) -> None:
        """`utils ctl update CTLFile`: build and sign the CTL anew and put it on every node."""
        keys = KeyFolder(self.publisher.directory / "security")
        data = build_ctl(self.publisher.database, keys, self.profile, self._around.clock.now())
        for node in self.nodes.values():
            write_ctl(node.directory, data)
        self._around.events.emit(f"cluster:{self.name}", trust_list_signed(data))

    def set_parameter(self, name: str, value: str) -> None:
        self.publisher.database.set_parameter(name, value)
        self._around.events.emit(f"cluster:{self.name}", ParameterSet(self.name, name, value))

    def add_device(self, device: Device) -> None:
        self.publisher.database.put_device(device)

    def remove_device(self, name: str) -> None:
        self.publisher.database.delete_device(name)

    async def set_tvs_cache(self, mode: FreshnessMode) -> None:
        """How fresh TVS's certificate cache is, from its next start on; TVS is restarted for it."""
        for node in self.nodes_running("TVS"):
            node.tvs_cache = mode
            await node.restart_service("TVS")

    # --- views

    def nodes_running(self, service: str) -> list[Node]:
        """Nodes on which a service is activated, whether it is up or not."""
        return [node for node in self.nodes.values() if service in node.services]

    @property
    def tftp_addresses(self) -> tuple[str, ...]:
        return tuple(node.address for node in self.nodes_running("TFTP"))

    @property
    def registered_devices(self) -> frozenset[str]:
        return frozenset().union(*(node.registered_devices for node in self.nodes.values()))
