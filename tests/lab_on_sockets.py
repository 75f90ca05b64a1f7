"""A running lab for tests, in a /24 of its own."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from lab.runtime import Lab, LabOptions
from lab.topology import Topology, load_topology

PHONE = "SEPB000B4BA0AEE"


def network_of(loopback: Callable[[], str]) -> IPv4Network:
    return IPv4Network(loopback().rpartition(".")[0] + ".0/24")


def make_lab(directory: Path, network: IPv4Network, topology: Topology | None = None, **options: Any) -> Lab:
    """The seed's two clusters unless another topology is given; not started yet."""
    return Lab(topology or load_topology("two-clusters"), LabOptions(directory, network, **options))
