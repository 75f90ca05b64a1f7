"""Every TCP port of a lab asks the lab's faults, and says where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from lab_on_sockets import make_lab, network_of
from silent_client import all_of

from cucm.errors import TlsError
from cucm.events.faults import FaultFired
from cucm.net.tls import TlsProfile, client_context, open_stream
from lab.runtime import Lab

DEADLINE_S = 20
NODE = "ucm105pub"


@pytest.fixture
async def lab(tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[Lab]:
    async with make_lab(tmp_path / "lab", network_of(loopback)) as running, asyncio.timeout(DEADLINE_S):
        yield running


async def test_tcp_faults_at_every_port(lab: Lab) -> None:
    node, sftp = lab.node(NODE).address, lab.sftp
    ports = [("TVS", node, 2445), ("TFTP", node, 6970), ("CallManager", node, 5060), ("CallManager", node, 5061)]
    for service, address, port in [*ports, ("SFTP", sftp.address, sftp.port)]:
        match = {"service": service, "port": str(port)}
        fault = await lab.set_fault({"point": "tcp.accept", "action": "refuse", "match": match})
        with pytest.raises(ConnectionResetError):
            await all_of(address, port)
        assert (await lab.end_fault(fault.id)).hits == 1
    fired = [record.event for record in lab.events if isinstance(record.event, FaultFired)]
    assert [event.request.get("node") for event in fired] == [NODE] * 4 + [None]
    assert {event.request.get("cluster") for event in fired} == {"source", None}


@pytest.mark.parametrize(("service", "port"), [("TVS", 2445), ("CallManager", 5061)])
async def test_tls_faults_at_both_tls_ports(lab: Lab, service: str, port: int) -> None:
    node = lab.node(NODE)
    context = client_context(profile=TlsProfile.AES256_SHA)
    alert = {"point": "tls.handshake", "action": "alert", "match": {"service": service, "port": port, "node": NODE}}
    fault = await lab.set_fault(alert)
    with pytest.raises(TlsError, match="handshake failure"):
        await open_stream(node.address, port, context=context)
    with pytest.raises(TlsError, match="handshake failure"):
        await open_stream(node.address, port, context=client_context())
    assert (await lab.end_fault(fault.id)).hits == 2


async def test_a_phone_is_known_by_its_address(lab: Lab) -> None:
    (phone,) = lab.phones.values()
    fault = await lab.set_fault(
        {"point": "tcp.accept", "action": "refuse", "match": {"phone": phone.model.name, "service": "TVS"}}
    )
    node = lab.node(NODE)
    async with await open_stream(node.address, 2445, context=client_context(profile=TlsProfile.AES256_SHA)):
        pass
    assert lab.faults.status(fault.id).hits == 0
    own = lab.address(lab.topology.phones[0].host), 0
    with pytest.raises(ConnectionResetError):
        await all_of(node.address, 2445, local_addr=own)
    assert lab.faults.status(fault.id).hits == 1
