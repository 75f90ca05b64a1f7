"""Clusters with their nodes, and phones, as a topology describes them and as an earlier lab left them in its folder."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from cucm.database import Device
from cucm.net.tls import TlsProfile
from cucm.roles import CertificateUnit
from cucm.signalling import DeviceSecurityMode
from cucm.versions import VersionProfile, profile_of
from lab.cluster import Cluster
from lab.node import Node, NodePlan, Surroundings
from lab.topology import ClusterTable, NodeTable, PhoneTable
from phone_agent.boot import PhoneModel
from phone_agent.dhcp_client import DhcpClient
from phone_agent.driver import Phone, PhonePorts, PhoneSettings
from phone_agent.flash import Flash, FlashChanges
from tvs_server.certificate_cache import FreshnessMode

if TYPE_CHECKING:
    from lab.runtime import Lab


def build_cluster(lab: Lab, name: str, table: ClusterTable, around: Surroundings) -> Cluster:
    """Not installed yet, or as it was left; its databases are open."""
    profile = profile_of(table.version)
    cache = table.tvs_cache or FreshnessMode(profile.tvs_cache)
    nodes: list[Node] = []
    try:
        nodes += (Node(_node_plan(lab, name, table, profile, node), around, cache) for node in table.nodes)
        return Cluster(name, table, profile, nodes, around)
    except BaseException:  # nobody else knows of their open databases
        for node in nodes:
            node.database.close()
        raise


def _node_plan(lab: Lab, cluster: str, table: ClusterTable, profile: VersionProfile, node: NodeTable) -> NodePlan:
    return NodePlan(
        name=node.name,
        cluster=cluster,
        address=lab.address(node.host),
        directory=lab.options.directory / "clusters" / cluster / node.name,
        profile=profile,
        services=table.services_of(node),
        tls_profile=table.tls_profile or TlsProfile(profile.tls_profile),
        ports=lab.ports,
        is_publisher=node is table.nodes[0],
    )


def build_phone(lab: Lab, table: PhoneTable, flash: Flash) -> Phone:
    """Off; a new one comes with its certificates."""
    if flash.contents.mic is None:
        flash.store(**_certificates_of(lab, table))
    emit = lab.events.emitter(f"phone:{table.name}")
    address = lab.address(table.host)
    dhcp = DhcpClient(
        table.mac,
        table.model,
        server=(lab.address(lab.topology.dhcp.host), lab.ports.dhcp),
        local_address=address,
        port=lab.ports.dhcp,
        clock=lab.clock,
        randomness=Random(f"dhcp {table.mac}"),  # noqa: S311 (transaction identifiers, not secrets)
        emit=emit,
        alarms=lab.alarms,
    )
    settings = PhoneSettings(
        local_address=address, ports=PhonePorts(tftp=lab.ports.tftp), tls_profile=table.tls_profile
    )
    model = PhoneModel.of(table.mac, table.model)
    return Phone(
        model, flash, dhcp, settings=settings, clock=lab.clock, emit=emit, faults=lab.faults, alarms=lab.alarms
    )


def _certificates_of(lab: Lab, table: PhoneTable) -> FlashChanges:
    made: FlashChanges = {"mic": lab.phone_certificates.mic(table)}
    if table.lsc_from is not None:
        capf = lab.clusters[table.lsc_from].publisher.identity(CertificateUnit.CAPF)
        made["lsc"] = lab.phone_certificates.lsc(table, capf)
    return made


def device_of(table: PhoneTable, cluster: Cluster, pool: str) -> Device:
    """The phone as the cluster's database knows it."""
    return Device(
        name=table.name,
        model=table.model,
        description=f"{table.model} of the lab",
        security_mode=DeviceSecurityMode[table.security_mode.upper().replace("-", "_")],
        callmanager_group=cluster.callmanager_group_of_pool(pool),
        device_pool=pool,
        digest_user=table.digest_user,
        digest_password=table.digest_password,
    )
