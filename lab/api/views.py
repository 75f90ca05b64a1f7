"""Views of a node and of a phone for the API: trust list files, certificate lists, screens."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from typing import Any, Final

from cucm.database import NodeDatabase, StoredCertificate
from cucm.errors import UsageError
from cucm.render.show_certificates import ShownCertificate
from cucm.roles import CertificateUnit
from cucm.wire.trust_list import CTL_FILE_NAME, ITL_FILE_NAME
from lab.api.problems import NO_FILE, Problem
from lab.node import Node
from lab.runtime import Lab

MAX_FILE: Final = 16 * 1024 * 1024
FILES: Final = (CTL_FILE_NAME, ITL_FILE_NAME)
"""What may be asked for of a node's `tftp` folder: names come from outside, no path is made of them."""


def node_of(lab: Lab, cluster: str, node: str | None) -> Node:
    """The named node, or the publisher. Raises UsageError."""
    found = lab.cluster(cluster)
    if node is None:
        return found.publisher
    if node not in found.nodes:
        raise UsageError(f"no node {node!r} in cluster {cluster}", mend=f"one of: {', '.join(found.nodes)}")
    return found.nodes[node]


def database_of(lab: Lab, cluster: str, node: str | None) -> NodeDatabase:
    """Of the named node, or of the publisher. Raises UsageError, LabError while the node is down."""
    found = node_of(lab, cluster, node)
    found.require_up()
    return found.database


def trust_list_file(node: Node, name: str) -> tuple[bytes, float]:
    """The file `show ctl` or `show itl` reads, and when it was modified. Raises Problem (404) if there is none."""
    if name not in FILES:
        raise Problem.not_found(f"no file {name!r} to be shown", mend=f"one of: {', '.join(FILES)}")
    try:
        with (node.directory / "tftp" / name).open("rb") as file:
            return file.read(MAX_FILE), os.fstat(file.fileno()).st_mtime
    except OSError:
        mend = "is TFTP active there, and the cluster in mixed mode?"
        raise Problem.not_found(f"{node.name} has no {name}", mend=mend, kind=NO_FILE) from None


def certificates_of(database: NodeDatabase, node: str, unit: str | None) -> list[dict[str, Any]]:
    """Certificates of one unit or, with None, of all: one entry for each store a certificate lies in.

    Own ones are those of `node`, although the database has the other nodes' too. Raises UsageError.
    """
    units = tuple(CertificateUnit) if unit is None else (_unit(unit),)
    return [_certificate(stored, one) for one in units for stored in _shown_on(database, node, one)]


def stores_of(database: NodeDatabase, node: str) -> list[dict[str, Any]]:
    """Every unit with how many certificates are listed in it."""
    return [
        {"name": unit.value, "certificates": len(_shown_on(database, node, unit)), "per_node": not unit.is_trust_store}
        for unit in CertificateUnit
    ]


def files_of(lab: Lab, node: Node) -> list[dict[str, Any]]:
    """What the node's file server has handed out since the lab began, newest contents, by name."""
    return [
        {"name": name, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for server, name, data in lab.served
        if server == node.name
    ]


def _shown_on(database: NodeDatabase, node: str, unit: CertificateUnit) -> list[StoredCertificate]:
    stored = list(database.certificates(unit))
    if unit.is_trust_store:
        return stored
    own = [one for one in stored if one.server_name == node]
    # one ITLRecovery pair may be the whole cluster's; it is listed with the publisher's name (facts 6.2)
    return stored if not own and unit is CertificateUnit.ITLRECOVERY else own


def _unit(text: str) -> CertificateUnit:
    for unit in CertificateUnit:
        if unit.value.lower() == text.lower():
            return unit
    raise UsageError(f"there is no certificate unit {text!r}", mend=f"one of: {', '.join(CertificateUnit)}")


def _certificate(stored: StoredCertificate, unit: CertificateUnit) -> dict[str, Any]:
    shown = ShownCertificate.of(
        stored.der,
        unit.value,
        is_own=not unit.is_trust_store,
        server_name=stored.server_name,
        roles=[int(role) for role in stored.roles],
    )
    return asdict(shown)
