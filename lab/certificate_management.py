"""OS Administration > Security > Certificate Management of one cluster: list, generate, CSR, upload, delete.

What an administrator does on a node's page changes that node's disk and the publisher's database, which replicates;
CAPF-trust alone is each node's own (facts 5.5). What has to be restarted afterwards (facts 5.6) is left to the
administrator, as it is on a real cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.certificates import Organisation, capf_certificate, node_certificate
from cucm.database import PutOutcome, StoredCertificate
from cucm.database.certificates import name_in_store
from cucm.errors import CertificateRefused, LabError, UsageError
from cucm.events import Event
from cucm.events.administration import (
    CertificateDeleted,
    CertificateIgnored,
    CertificateRestored,
    CertificateStored,
    SigningRequestMade,
)
from cucm.identity import Identity, describe, load_certificate
from cucm.key_store import KeyKind, KeySource, NewKeys, private_key_der
from cucm.records import dataclass
from cucm.roles import CertificateUnit, roles_of_units
from cucm.versions import RecoveryScope, VersionProfile
from cucm.whole_files import write_private, write_whole
from lab.cluster_state import ClusterState
from lab.company_authority import authority_key, company_authority, sign_request
from lab.key_making import keys_made
from lab.node import CHANGE_NOTIFICATION, Node, Surroundings
from lab.topology import ClusterTable, NodeTable

OWN_UNITS: Final = (
    CertificateUnit.CALLMANAGER,
    CertificateUnit.TVS,
    CertificateUnit.CAPF,
    CertificateUnit.ITLRECOVERY,
    CertificateUnit.TOMCAT,
)
UPLOADABLE: Final = (
    CertificateUnit.CALLMANAGER_TRUST,
    CertificateUnit.PHONE_SAST_TRUST,
    CertificateUnit.CAPF_TRUST,
    CertificateUnit.TVS_TRUST,
    CertificateUnit.TOMCAT_TRUST,
)
"""Trust stores the lab takes uploads for."""
_OF_SERVICES: Final = (CertificateUnit.TVS, CertificateUnit.CAPF)
"""Units of which a node has a certificate only with the service of that name."""
COPIED_BY_CHANGE_NOTIFICATION: Final = (
    CertificateUnit.TOMCAT_TRUST,
    CertificateUnit.DIRECTORY_TRUST,
    CertificateUnit.PHONE_SAST_TRUST,
    CertificateUnit.CALLMANAGER_TRUST,
)
"""Trust stores of CHANGE_NOTIFICATION_UNIT (facts 5.5)."""
CACHED_GENERATIONS: Final = 3
"""How often a pair may be made anew, or requested from a CA, with a key from the user's cache: a lab that runs for days
must not fill it."""
_CHECKED_BY: Final = {
    CertificateUnit.CALLMANAGER: CertificateUnit.CALLMANAGER_TRUST,
    CertificateUnit.TVS: CertificateUnit.TVS_TRUST,
    CertificateUnit.CAPF: CertificateUnit.CAPF_TRUST,
    CertificateUnit.TOMCAT: CertificateUnit.TOMCAT_TRUST,
}
"""The trust store in which the CA of a signed certificate must lie before it can be imported [recall]."""


@dataclass(frozen=True, slots=True)
class NodeCertificates:
    """What one page needs to know of the cluster around it."""

    cluster: str
    table: ClusterTable
    profile: VersionProfile
    nodes: Mapping[str, Node]
    state: ClusterState
    around: Surroundings


OnRenewed = Callable[[CertificateUnit, Collection[Node]], Awaitable[object]]
"""Called when an own certificate of that unit is a new one on those nodes."""


class CertificateManagement:
    """One cluster's certificates. A node is named, or the publisher meant. UsageError for a name that is none.

    Keys are made in threads, before anything changes: what is written is then written without a pause.
    """

    def __init__(self, cluster: NodeCertificates, on_renewed: OnRenewed) -> None:
        self._cluster = cluster
        self._on_renewed = on_renewed
        self._around = cluster.around
        self._organisation = Organisation(**cluster.table.organization.model_dump())

    # --- looking

    def listed(self, node: str | None = None, unit: CertificateUnit | None = None) -> tuple[StoredCertificate, ...]:
        """What the node's own database says, all of it or one store's."""
        return self._node(node).database.certificates(unit)

    def own(self, unit: CertificateUnit) -> tuple[tuple[str, bytes], ...]:
        """(node, DER) of every node that has one on its disk; one entry where the cluster shares a pair."""
        found = [(node.name, node.certificate(unit)) for node in self._owners(unit) if node.has_identity(unit)]
        return tuple(found)

    # --- generating

    def install(self) -> None:
        """The certificates a new cluster has: `installed_days_ago` old."""
        moment = self._around.clock.now() // _DAY_S * _DAY_S - self._cluster.table.installed_days_ago * _DAY_S
        for unit in OWN_UNITS:
            for node in self._owners(unit):
                self._generate(unit, node, moment)

    def keys_wanted(self) -> Iterator[tuple[str, KeyKind]]:
        """Labels and kinds of the keys that `install` takes."""
        for unit in OWN_UNITS:
            for node in self._owners(unit):
                yield self._key_label(unit, node.name), self._cluster.profile.rsa_bits

    async def prepare_for(self, node: Node, service: str) -> None:
        """Make the key of the certificate that the node will want with that service, if it lacks it."""
        bits = self._cluster.profile.rsa_bits
        wanted = [unit for unit in _OF_SERVICES if unit == service and not node.has_identity(unit)]
        await keys_made(self._around.keys, [(self._key_label(unit, node.name), bits) for unit in wanted])

    def provide(self, node: Node) -> None:
        """The certificates that its services want and the node has not."""
        for unit in OWN_UNITS:
            if node in self._owners(unit) and not node.has_identity(unit):
                self._generate(unit, node, self._around.clock.now())

    async def regenerate(self, unit: CertificateUnit, node: str | None = None, *, key_bits: int | None = None) -> None:
        """A new key and certificate, on one node or on every one that has it. Raises LabError, UsageError.

        From 14 on phones reset by themselves then, unless a parameter says otherwise (facts 5.6).
        """
        bits = key_bits or self._cluster.profile.rsa_bits
        owners = self._owners_up(unit, node)
        sources = await asyncio.gather(*(self._next_key(unit, one.name, bits) for one in owners))
        self._owners_up(unit, node)  # a machine may have gone down meanwhile
        for one, keys in zip(owners, sources, strict=True):
            self._cluster.state.begin_generation(unit, one.name)
            self._generate(unit, one, self._around.clock.now(), key_bits, keys)
        await self._on_renewed(unit, owners)

    async def _next_key(self, unit: CertificateUnit, node: str, bits: int) -> KeySource:
        label = self._key_label(unit, node, bits, ahead=1)
        return await keys_made(self._keys_of(self._cluster.state.generation(unit, node) + 1), [(label, bits)])

    def _owners_up(self, unit: CertificateUnit, node: str | None) -> tuple[Node, ...]:
        owners = self._owners(unit) if node is None else (self._owner(unit, node),)
        if not owners:
            raise UsageError(f"{self._cluster.cluster} has no {unit} certificate", mend=f"it is {self._version}")
        for one in owners:
            self._require_up(one)
        return owners

    def finish_interrupted(self) -> None:
        """After a kill: what a node's disk holds goes into the database, a half-written pair is made anew."""
        for unit in OWN_UNITS:
            stored = self._publisher.database.certificates(unit)
            known = {(item.server_name, item.ip_address, item.der) for item in stored}
            for node in self._owners(unit):
                try:
                    identity = node.identity(unit)
                except LabError:
                    self._cluster.state.begin_generation(unit, node.name)
                    self._generate(unit, node, self._around.clock.now())
                    continue
                is_known = (node.name, node.address, identity.certificate_der) in known
                if not is_known or not self._all_hold(unit, node, identity):
                    self._take(unit, node, identity)

    def _all_hold(self, unit: CertificateUnit, node: Node, identity: Identity) -> bool:
        """Whether each node that is to have the pair has this one."""
        if not self._is_shared(unit):
            return True
        try:
            held = [holder.identity(unit) for holder in self._cluster.nodes.values() if holder is not node]
        except LabError:
            return False
        pair = (identity.certificate_der, identity.private_key_der)
        return all((one.certificate_der, one.private_key_der) == pair for one in held)

    def _generate(
        self,
        unit: CertificateUnit,
        node: Node,
        not_before: float,
        key_bits: int | None = None,
        keys: KeySource | None = None,
    ) -> None:
        keys = keys or self._keys_of(self._cluster.state.generation(unit, node.name))
        self._take(unit, node, self._new_identity(self._table(node), unit, not_before, key_bits, keys))

    def _take(self, unit: CertificateUnit, node: Node, identity: Identity) -> None:
        """Put an own pair in place: disk first, then the publisher's database."""
        holders = tuple(self._cluster.nodes.values()) if self._is_shared(unit) else (node,)
        for holder in holders:
            holder.write_identity(unit, identity)
        outcome = self._publisher.database.put_certificate(
            identity.certificate_der, unit, node.name, node.address, moment=self._around.clock.now()
        )
        if outcome is not PutOutcome.UNCHANGED:
            self._tell_stored(identity.certificate_der, unit, node.name)

    def _is_shared(self, unit: CertificateUnit) -> bool:
        one_pair = self._cluster.profile.recovery_scope is RecoveryScope.CLUSTER
        return unit is CertificateUnit.ITLRECOVERY and one_pair

    def _owners(self, unit: CertificateUnit) -> tuple[Node, ...]:
        """The nodes that have a certificate of their own of this unit."""
        nodes = tuple(self._cluster.nodes.values())
        if unit is CertificateUnit.ITLRECOVERY:
            if not self._cluster.profile.has_itlrecovery:
                return ()
            return nodes[:1] if self._is_shared(unit) else nodes
        if unit is CertificateUnit.CAPF:
            return tuple(node for node in nodes if "CAPF" in node.services)
        if unit is CertificateUnit.TVS:
            return tuple(node for node in nodes if "TVS" in node.services)
        # the installer makes these on every node, whatever is activated there [recall]: a publisher without phones and
        # files signs the CTL all the same (facts 6.1)
        return nodes if unit in (CertificateUnit.CALLMANAGER, CertificateUnit.TOMCAT) else ()

    def _owner(self, unit: CertificateUnit, node: str) -> Node:
        one = self._node(node)
        if one not in self._owners(unit):
            names = ", ".join(owner.name for owner in self._owners(unit)) or "no node"
            raise UsageError(f"{one.name} has no {unit} certificate of its own", mend=f"{names} has")
        return one

    def _key_label(self, unit: CertificateUnit, node: str, key_bits: int | None = None, *, ahead: int = 0) -> str:
        generation = self._cluster.state.generation(unit, node) + ahead
        return f"{unit} {node} {generation} {key_bits or self._cluster.profile.rsa_bits}"

    def _keys_of(self, generation: int) -> KeySource:
        """The user's cache for the pairs that stories make, the same in every run; later ones lie on the node alone."""
        return self._around.keys if generation <= CACHED_GENERATIONS else NewKeys()

    def _new_identity(
        self, table: NodeTable, unit: CertificateUnit, not_before: float, key_bits: int | None, keys: KeySource
    ) -> Identity:
        host = f"{table.name}.{table.domain}" if table.domain else table.name
        generation = self._cluster.state.generation(unit, table.name)
        bits = key_bits or self._cluster.profile.rsa_bits
        label = self._key_label(unit, table.name, bits)
        seed = self._around.seed
        days = self._cluster.table.certificate_days
        if unit is CertificateUnit.CAPF:
            # before CAPF had to be on the publisher alone, other nodes had one of another name
            is_first = table is self._cluster.table.nodes[0]
            return capf_certificate(
                keys,
                host,
                seed=seed,
                not_before=not_before,
                organisation=self._organisation,
                name=self._cluster.table.capf_name if is_first else None,
                key_label=label,
                kind=bits,
                **({} if days is None else {"lifetime_days": days}),
            )
        # the name of an ITLRecovery certificate is ITLRECOVERY_<host> [recall]
        common_name = f"ITLRECOVERY_{host}" if unit is CertificateUnit.ITLRECOVERY else host
        signed = table.certificate.get("CallManager") if unit is CertificateUnit.CALLMANAGER else None
        subject = signed.subject if signed else self._organisation.node_subject(common_name)
        issuer = self._authority(signed.issuer) if signed and signed.issuer else None
        first = signed if generation == 0 else None  # a regenerated certificate cannot have the old one's serial
        return node_certificate(
            keys,
            unit,
            host,
            seed=seed,
            not_before=not_before,
            subject=subject,
            serial=bytes.fromhex(first.serial) if first and first.serial else None,
            issuer=issuer,
            key_label=label,
            kind=bits,
            der_length=first.der_length if first else None,
            lifetime_days=days if unit is not CertificateUnit.ITLRECOVERY else None,
        )

    # --- signed by a CA

    async def make_signing_request(self, unit: CertificateUnit, node: str | None = None) -> bytes:
        """A CSR (PEM) with a new key, which waits on the node for the signed certificate. Raises UsageError."""
        owner = self._owner(unit, self._node(node).name)
        if unit not in _CHECKED_BY or unit is CertificateUnit.CAPF:
            raise UsageError(f"the lab makes no CSR for {unit}", mend="CallManager, TVS and tomcat can be signed")
        self._require_up(owner)
        number = self._cluster.state.generation(unit, owner.name) + 1
        wanted = (f"{unit} {owner.name} CSR {number}", self._cluster.profile.rsa_bits)
        keys = await keys_made(self._keys_of(number), [wanted])
        self._require_up(owner)
        self._cluster.state.begin_generation(unit, owner.name)
        key = keys.key(*wanted)
        name = load_certificate(owner.certificate(unit)).subject
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        pem = request.public_bytes(Encoding.PEM)
        write_private(owner.security / f"{unit}.csr.key", private_key_der(key))
        write_whole(owner.security / f"{unit}.csr", pem)
        self._emit(SigningRequestMade(self._cluster.cluster, owner.name, unit))
        return pem

    async def sign_request(self, pem: bytes, authority: str) -> tuple[bytes, bytes]:
        """What a company's CA does with a CSR: (certificate, CA certificate), both DER. Raises UsageError."""
        await keys_made(self._around.keys, [authority_key(authority)])
        issuer = self._authority(authority)
        moment = self._around.clock.now()
        return sign_request(pem, issuer, seed=self._around.seed, moment=moment), issuer.certificate_der

    async def import_signed(self, der: bytes, unit: CertificateUnit, node: str | None = None) -> None:
        """Import the certificate for the node's pending CSR. CertificateRefused unless key and CA fit [recall]."""
        owner = self._owner(unit, self._node(node).name)
        self._require_up(owner)
        try:
            key = (owner.security / f"{unit}.csr.key").read_bytes()
        except OSError as error:
            raise CertificateRefused(
                f"{owner.name} has no CSR for {unit}", mend="generate a CSR first, have that one signed"
            ) from error
        known = describe(der)
        if not any(_issued(authority.der, der) for authority in self.listed(None, _CHECKED_BY[unit])):
            raise CertificateRefused(
                f"the CA certificate {known.issuer} is not in {_CHECKED_BY[unit]}",
                where=owner.name,
                mend=f"upload the CA's certificate as {_CHECKED_BY[unit]} first",
            )
        try:
            identity = Identity.load(der, key, ours=True)
        except UsageError as error:
            raise CertificateRefused(
                "the certificate is not for the key of the CSR", where=owner.name, mend="have the newest CSR signed"
            ) from error
        if known.not_after < self._around.clock.now():
            raise CertificateRefused("the certificate has expired", where=known.subject, mend="have it signed anew")
        self._take(unit, owner, identity)
        for name in (f"{unit}.csr", f"{unit}.csr.key"):
            (owner.security / name).unlink(missing_ok=True)
        await self._on_renewed(unit, (owner,))

    def _authority(self, name: str) -> Identity:
        return company_authority(self._around.keys, name, seed=self._around.seed)

    # --- trust stores

    def upload(self, der: bytes, store: CertificateUnit, node: str | None = None) -> PutOutcome:
        """Upload to a trust store. CertificateRefused (facts 5.5), UsageError for a store that takes no uploads."""
        if store not in UPLOADABLE:
            names = ", ".join(UPLOADABLE)
            raise UsageError(f"nothing can be uploaded to {store}", mend=f"one of: {names}")
        known = describe(der)
        name = known.common_name or "unnamed"
        owner = self._node(node)
        database = owner.database if store is CertificateUnit.CAPF_TRUST else self._publisher.database
        self._require_up(owner)
        outcome = database.put_certificate(der, store, name, moment=self._around.clock.now())
        if outcome is PutOutcome.IGNORED:
            self._emit(CertificateIgnored(self._cluster.cluster, store, known.subject, known.issuer, known.serial))
        else:
            self._tell_stored(der, store, owner.name)
        return outcome

    def delete(self, unit: CertificateUnit, common_name: str, node: str | None = None) -> None:
        """Delete from a trust store: everywhere from 11.0 on, before that on this node alone (facts 5.5).

        What was deleted on one node alone comes back with the next synchronisation while another node has it.
        Raises CertificateRefused if it is not there.
        """
        if not unit.is_trust_store:
            raise UsageError(f"{unit} is a node's own certificate", mend="regenerate it instead")
        owner = self._node(node)
        self._require_up(owner)
        if not self._cluster.profile.deletes_cluster_wide:
            owner.database.delete_certificate(unit, common_name, local=True)
        elif unit is CertificateUnit.CAPF_TRUST:
            self._delete_everywhere(unit, common_name)
        else:
            self._publisher.database.delete_certificate(unit, common_name)
        self._emit(CertificateDeleted(self._cluster.cluster, owner.name, unit, common_name))

    def _delete_everywhere(self, unit: CertificateUnit, common_name: str) -> None:
        """On every node that can be reached: what is per node stays on one that is down [inferred]."""
        refusals: list[CertificateRefused] = []
        reached = [node for node in self._cluster.nodes.values() if node.is_up]
        for node in reached:
            try:
                node.database.delete_certificate(unit, common_name)
            except CertificateRefused as refusal:
                refusals.append(refusal)
        if len(refusals) == len(reached):
            raise refusals[0]

    def synchronise(self) -> None:
        """What the Certificate Change Notification services do every 1800 s: what was deleted on one node alone, and
        another node still has, comes back (facts 5.5). A node whose service does not run neither gives nor takes.
        """
        taking_part = [node for node in self._cluster.nodes.values() if node.runs(CHANGE_NOTIFICATION)]
        held = {node.name: self._copied(node) for node in taking_part}
        for node in taking_part:
            elsewhere = set().union(*(names for name, names in held.items() if name != node.name))
            wanted = elsewhere.intersection(node.database.local_deletions())
            for unit, name in node.database.restore_local_deletions(self._around.clock.now(), wanted):
                self._emit(CertificateRestored(self._cluster.cluster, node.name, unit, name))

    def _copied(self, node: Node) -> set[tuple[CertificateUnit, str]]:
        """(store, name) of the certificates that the services copy between nodes."""
        return {
            (unit, name_in_store(describe(item.der)))
            for unit in COPIED_BY_CHANGE_NOTIFICATION
            for item in node.database.certificates(unit)
        }

    # --- parts

    @property
    def _publisher(self) -> Node:
        return next(iter(self._cluster.nodes.values()))

    @property
    def _version(self) -> str:
        return self._cluster.table.version

    def _node(self, name: str | None) -> Node:
        if name is None:
            return self._publisher
        try:
            return self._cluster.nodes[name]
        except KeyError:
            known = ", ".join(self._cluster.nodes)
            raise UsageError(f"no node {name!r} in {self._cluster.cluster}", mend=f"one of: {known}") from None

    def _table(self, node: Node) -> NodeTable:
        return next(table for table in self._cluster.table.nodes if table.name == node.name)

    def _require_up(self, node: Node) -> None:
        node.require_up()
        if not self._publisher.is_up:
            raise LabError(
                f"the publisher {self._publisher.name} is down and nobody else can write the database",
                mend="start the publisher first",
            )

    def _tell_stored(self, der: bytes, store: CertificateUnit, node: str) -> None:
        summary = describe(der)
        units = next((item.units for item in self._stored_on(node, store) if item.der == der), (store,))
        roles = tuple(int(role) for role in roles_of_units(units))
        self._emit(
            CertificateStored(
                self._cluster.cluster, store, summary.subject, summary.issuer, summary.serial, roles, node
            )
        )

    def _stored_on(self, node: str, store: CertificateUnit) -> Iterator[StoredCertificate]:
        local = store is CertificateUnit.CAPF_TRUST
        database = self._cluster.nodes[node].database if local else self._publisher.database
        yield from database.certificates(store)

    def _emit(self, event: Event) -> None:
        self._around.events.emit(f"cluster:{self._cluster.cluster}", event)


_DAY_S: Final = 86_400.0


def _issued(authority_der: bytes, der: bytes) -> bool:
    try:
        load_certificate(der).verify_directly_issued_by(load_certificate(authority_der))
    except Exception:  # cryptography raises ValueError, TypeError or InvalidSignature for "no"
        return False
    return True
