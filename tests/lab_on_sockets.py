"""A running lab for tests, in a /24 of its own."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lab.operations import AnyOperation, Operation
from lab.runtime import Lab, LabOptions
from lab.topology import Topology, load_topology

PHONE = "SEPB000B4BA0AEE"
_OPERATION: TypeAdapter[Operation] = TypeAdapter(AnyOperation)


def network_of(loopback: Callable[[], str]) -> IPv4Network:
    return IPv4Network(loopback().rpartition(".")[0] + ".0/24")


def make_lab(directory: Path, network: IPv4Network, topology: Topology | None = None, **options: Any) -> Lab:
    """The seed's two clusters unless another topology is given; not started yet."""
    return Lab(topology or load_topology("two-clusters"), LabOptions(directory, network, **options))


def topology_of(*clusters: dict[str, Any], phones: tuple[dict[str, Any], ...] = ()) -> Topology:
    """A topology of small clusters: `name`, `version`, `nodes` (names), and anything else a cluster's table takes."""
    tables = {}
    for number, given in enumerate(clusters):
        cluster = dict(given)
        name, nodes = cluster.pop("name"), cluster.pop("nodes")
        tables[name] = {
            "organization": {"unit": "U", "company": "C", "locality": "L", "state": "S", "country": "NO"},
            "capf_name": f"CAPF-{number:08x}",
            "nodes": [{"name": node, "host": 10 * (number + 1) + place} for place, node in enumerate(nodes)],
            **cluster,
        }
    first = next(iter(tables))
    return Topology.model_validate(
        {"schema": 1, "title": "of a test", "option_150": first, "clusters": tables, "phones": phones}
    )


async def perform(lab: Lab, do: str, **fields: Any) -> None:
    """An operation as a story says it: told, done, and replicated."""
    await lab.perform(_OPERATION.validate_python({"do": do} | fields))


def two_nodes_and_another_cluster() -> Topology:
    """`here` with `pub` and `sub`, which phones prefer; `there` with `other`; the seed's phone and one more."""
    phones = tuple(
        {
            "mac": f"B000B4BA0AE{last}",
            "serial_number": last,
            "host": 100 + place,
            "lsc_from": "here",
            "model": "CP-8861",
        }
        | {"provisioned_in": ["here", "there"], "group": group}
        for place, (last, group) in enumerate((("E", "east"), ("F", "west")))
    )
    return topology_of(
        {
            "name": "here",
            "version": "11.5",
            "nodes": ["pub", "sub"],
            "callmanager_groups": {"Default": ["sub", "pub"]},
        },
        {"name": "there", "version": "11.5", "nodes": ["other"]},
        phones=phones,
    )
