"""What runs where in a lab now: clusters, nodes, services, replication, DHCP, SFTP and phones, as plain JSON values.

`replication` is None for a publisher; `utils dbreplication runtimestate`'s numbers are its `state`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cucm.net.addresses import PortMap
from cucm.signalling import SECURE_SIP_PORT, SIP_PORT, TVS_PORT
from lab.cluster import Cluster
from lab.dhcp_server import DhcpServer
from lab.node import Node
from lab.runtime import Lab
from lab.servers_beside import sftp_password_file
from lab.sftp_server import SftpServer
from phone_agent.driver import Phone
from phone_agent.state import PhoneState
from tftp_server.cluster_view import is_mixed_mode
from tftp_server.server import HTTP_PORT


def status_of(lab: Lab) -> dict[str, Any]:
    """The whole lab's status. Raises DatabaseError."""
    return {
        "title": lab.topology.title,
        "directory": str(lab.options.directory.absolute()),
        "network": str(lab.options.network),
        "seed": lab.options.seed,
        "clusters": [_cluster(cluster, lab.ports) for cluster in lab.clusters.values()],
        "dhcp": _dhcp(lab.dhcp),
        "sftp": _sftp(lab.sftp, sftp_password_file(lab).absolute()),
        "phones": [_phone(lab, name, phone) for name, phone in lab.phones.items()],
    }


def _cluster(cluster: Cluster, ports: PortMap) -> dict[str, Any]:
    links = _links(cluster)
    return {
        "name": cluster.name,
        "version": cluster.version,
        "security_mode": "mixed" if is_mixed_mode(cluster.publisher.database) else "non-secure",
        "nodes": [
            {
                "name": node.name,
                "address": node.address,
                "publisher": node is cluster.publisher,
                "up": node.is_up,
                "services": [_service(node, service, ports) for service in node.services],
                "replication": links.get(node.name),
            }
            for node in cluster.nodes.values()
        ],
    }


def _service(node: Node, service: str, ports: PortMap) -> dict[str, Any]:
    return {
        "name": service,
        "state": node.state_of(service).value,
        "reachability": node.reachability_of(service).value,
        "endpoints": list(endpoints(service, node.address, ports)),
    }


def endpoints(service: str, address: str, ports: PortMap) -> tuple[str, ...]:
    """`udp://127.0.11.32:69` and the like: where a service of a node listens while it runs; CAPF has no port here."""
    places = {
        "CallManager": (f"sip://{address}:{SIP_PORT}", f"sips://{address}:{SECURE_SIP_PORT}"),
        "TVS": (f"tls://{address}:{TVS_PORT}",),
        "TFTP": (f"tftp://{address}:{ports.tftp}", f"http://{address}:{HTTP_PORT}"),
    }
    return places.get(service, ())


def endpoints_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Where everything listens: `url`, `service`, and for nodes `cluster` and `node`."""
    beside = [
        {"url": f"{scheme}://{status[service]['address']}:{status[service]['port']}", "service": service.upper()}
        for service, scheme in (("dhcp", "udp"), ("sftp", "sftp"))
    ]
    return [
        *beside,
        *(
            {"url": url, "service": service["name"], "cluster": cluster["name"], "node": node["name"]}
            for cluster in status["clusters"]
            for node in cluster["nodes"]
            for service in node["services"]
            for url in service["endpoints"]
        ),
    ]


def _links(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {
        link.node: {
            "state": int(link.state),
            "state_text": link.state.name.lower().replace("_", " "),
            "behind": link.behind,
            "lag_s": link.lag_s,
            "paused": link.paused,
            "problem": link.problem,
        }
        for link in cluster.replication.status()
    }


def _dhcp(server: DhcpServer) -> dict[str, Any]:
    pools = [
        {
            "name": pool.name,
            "network": str(pool.network),
            "option_150": list(pool.option_150),
            "option_66": pool.option_66 or None,
        }
        for pool in server.pools.values()
    ]
    return {
        "address": server.address,
        "port": server.port,
        "running": server.is_running,
        "reachability": server.reachability.value,
        "pools": pools,
        "leases": len(server.leases),
    }


def _sftp(server: SftpServer, password_file: Path) -> dict[str, Any]:
    return {
        "address": server.address,
        "port": server.port,
        "running": server.is_running,
        "user": server.user,
        "password_file": str(password_file),
        "directory": str(server.directory),
        "host_key": server.host_key,
    }


def _phone(lab: Lab, name: str, phone: Phone) -> dict[str, Any]:
    registered = [cluster for cluster, held in lab.clusters.items() if name in held.registered_devices]
    return {
        "name": name,
        "model": phone.model.device_name.removesuffix(f"-{name}"),
        "address": lab.address(lab.topology.phones_named(name)[0].host),
        "on": phone.state is not PhoneState.OFF,
        "state": phone.state.value,
        "registered": registered,
    }
