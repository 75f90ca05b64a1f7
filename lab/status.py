"""What runs where in a lab now: clusters, nodes, services, replication, DHCP, SFTP and phones, as plain JSON values.

Parts that a lab may lack (replication, DHCP, SFTP) are None then.
"""

from __future__ import annotations

from typing import Any, Final

from cucm.net.addresses import PortMap
from cucm.signalling import SECURE_SIP_PORT, SIP_PORT, TVS_PORT
from lab.cluster import Cluster
from lab.node import Node
from lab.runtime import Lab
from phone_agent.driver import Phone
from phone_agent.state import PhoneState
from tftp_server.cluster_view import is_mixed_mode
from tftp_server.server import HTTP_PORT

RUNNING: Final = "running"
STOPPED: Final = "stopped"


def status_of(lab: Lab) -> dict[str, Any]:
    """The whole lab's status. Raises DatabaseError."""
    return {
        "title": lab.topology.title,
        "directory": str(lab.options.directory.absolute()),
        "network": str(lab.options.network),
        "seed": lab.options.seed,
        "clusters": [_cluster(cluster, _ports(lab)) for cluster in lab.clusters.values()],
        "dhcp": _dhcp(lab),
        "sftp": _sftp(lab),
        "phones": [_phone(lab, name, phone) for name, phone in lab.phones.items()],
    }


def _ports(lab: Lab) -> PortMap:
    ports = getattr(lab, "ports", None) or getattr(lab, "_ports", None)
    return ports if isinstance(ports, PortMap) else PortMap()


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
                "services": [_service(node, service, ports) for service in node.services],
                "replication": links.get(node.name),
            }
            for node in cluster.nodes.values()
        ],
    }


def _service(node: Node, service: str, ports: PortMap) -> dict[str, Any]:
    state = getattr(node, "state_of", None)
    reachability = getattr(node, "reachability_of", None)
    return {
        "name": service,
        "state": str(state(service)) if state else RUNNING if node.runs(service) else STOPPED,
        "reachability": str(reachability(service)) if reachability else "open",
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


def _links(cluster: Cluster) -> dict[str, dict[str, Any]]:
    replication = getattr(cluster, "replication", None)
    if replication is None:
        return {}
    return {
        link.node: {
            "state": int(link.state),
            "state_text": link.state.name.lower().replace("_", " "),
            "behind": link.behind,
            "lag_s": link.lag_s,
            "paused": link.paused,
            "problem": link.problem,
        }
        for link in replication.status()
    }


def _dhcp(lab: Lab) -> dict[str, Any] | None:
    server = getattr(lab, "dhcp", None)
    if server is None:
        return None
    pools = [
        {
            "name": pool.name,
            "network": str(pool.network),
            "option_150": [str(address) for address in pool.option_150],
            "option_66": pool.option_66,
        }
        for pool in server.pools
    ]
    return {"address": server.address, "port": server.port, "pools": pools, "leases": len(server.leases)}


def _sftp(lab: Lab) -> dict[str, Any] | None:
    server = getattr(lab, "sftp", None)
    if server is None:
        return None
    return {"address": server.address, "port": server.port, "user": server.user, "directory": str(server.directory)}


def _phone(lab: Lab, name: str, phone: Phone) -> dict[str, Any]:
    table = next((item for item in lab.topology.phones if item.name == name), None)
    registered = [cluster for cluster, held in lab.clusters.items() if name in held.registered_devices]
    return {
        "name": name,
        "model": phone.model.device_name.removesuffix(f"-{name}"),
        "address": str(lab.options.network[table.host]) if table else None,
        "on": phone.state is not PhoneState.OFF,
        "state": phone.state.value,
        "registered": registered,
    }
