"""What a file server asks its node's database about the cluster: nodes, services, parameters."""

from __future__ import annotations

from typing import Final

from cucm.database import Device, NodeDatabase, ProcessNode
from cucm.errors import LabError, UsageError
from cucm.signalling import DeviceSecurityMode
from cucm.versions import VersionProfile
from cucm.wire.trust_list import DigestAlgorithm

SECURITY_MODE_PARAMETER: Final = "ClusterSecurityMode"
ROLLBACK_PARAMETER: Final = "Prepare Cluster for Rollback to pre 8.0"
SIGNATURE_ALGORITHM_PARAMETER: Final = "TFTP File Signature Algorithm"

CALLMANAGER_SERVICE: Final = "CallManager"
TFTP_SERVICE: Final = "TFTP"
TVS_SERVICE: Final = "TVS"
CAPF_SERVICE: Final = "CAPF"

DIGESTS: Final = {"SHA-1": DigestAlgorithm.SHA1, "SHA-512": DigestAlgorithm.SHA512}
"""Values of "TFTP File Signature Algorithm" (facts 8)."""


def nodes_of(database: NodeDatabase) -> tuple[ProcessNode, ...]:
    """The cluster's nodes, the publisher first. Raises LabError when there is none."""
    nodes = database.nodes()
    if not nodes:
        raise LabError("the cluster has no node", where=str(database.path), mend="add the publisher to the database")
    return nodes


def node_named(database: NodeDatabase, name: str) -> ProcessNode:
    """Raises LabError with the names there are."""
    nodes = nodes_of(database)
    for node in nodes:
        if node.name == name:
            return node
    names = ", ".join(node.name for node in nodes)
    raise LabError(f"the cluster has no node {name!r}", where=str(database.path), mend=f"one of: {names}")


def runs(database: NodeDatabase, node: ProcessNode, *services: str) -> bool:
    """Whether any of the services is activated on the node."""
    return not set(services).isdisjoint(database.services_of(node.name))


def nodes_running(database: NodeDatabase, service: str) -> tuple[ProcessNode, ...]:
    """Nodes on which the service is activated, the publisher first."""
    return tuple(node for node in nodes_of(database) if runs(database, node, service))


def is_mixed_mode(database: NodeDatabase) -> bool:
    """Whether `ClusterSecurityMode` is 1 (facts 4.3)."""
    return database.parameter(SECURITY_MODE_PARAMETER) == "1"


def security_mode_of(device: Device, *, mixed: bool) -> DeviceSecurityMode:
    """The device's mode as it counts now: in a non-secure cluster every device is non-secure, whatever its profile says
    [recall]. What its configuration tells the phone and what CallManager demands of it are this one.
    """
    return DeviceSecurityMode(device.security_mode) if mixed else DeviceSecurityMode.NON_SECURE


def prepares_rollback(database: NodeDatabase) -> bool:
    """Whether "Prepare Cluster for Rollback to pre 8.0" is True (facts 7.3), in any case of letters [inferred]."""
    return (database.parameter(ROLLBACK_PARAMETER) or "").casefold() == "true"


def digest_of(database: NodeDatabase, profile: VersionProfile) -> DigestAlgorithm:
    """What "TFTP File Signature Algorithm" says, for lists and files alike (facts 8). UsageError for other values."""
    value = database.parameter(SIGNATURE_ALGORITHM_PARAMETER)
    if value is None:
        return profile.default_digest
    if value not in DIGESTS:
        raise UsageError(
            f"{value!r} is no signature algorithm",
            where=f'parameter "{SIGNATURE_ALGORITHM_PARAMETER}"',
            mend=f"set it to one of: {', '.join(DIGESTS)}",
        )
    return DIGESTS[value]
