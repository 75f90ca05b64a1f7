"""Our DHCP server against a client that others wrote: udhcpc, on a wire between two networks of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from network_namespace import HERE, NETWORK, THERE, WIRE, Neighbour, run_apart

from cucm.events import EventLog
from cucm.events.dhcp import DhcpAcknowledged, DhcpOffered, DhcpRefused, DhcpReleased
from lab.dhcp_pools import DhcpPool
from lab.dhcp_server import DhcpServer

PATIENCE_S = 20
SERVERS = ("192.0.2.50", "192.0.2.51")
SCRIPT = f"""#!/bin/sh
case $1 in
  deconfig) ip addr flush dev {WIRE} ;;
  bound|renew) ip addr replace $ip/$mask dev {WIRE} ;;
esac
echo "$1 ip=$ip mask=$mask server=$serverid lease=$lease tftp=$tftp servers=$opt150."
"""


def udhcpc(directory: Path, *more: str) -> list[str]:
    script = directory / "told.sh"
    script.write_text(SCRIPT)
    script.chmod(0o700)
    return ["udhcpc", "-f", "-i", WIRE, "-s", str(script), "-O", "tftp", "-O", "150", "-T", "1", *more]


def server(log: EventLog, **changes: object) -> DhcpServer:
    given: dict[str, object] = {"option_150": SERVERS, "option_66": "tftp.example", "lease_s": 600}
    pool = DhcpPool("wire", IPv4Network(NETWORK), first=THERE, last="192.0.2.9", **(given | changes))  # type: ignore[arg-type]
    return DhcpServer(HERE, pools=[pool], broadcast=True, interface=WIRE, emit=log.emitter("dhcp"))


def kinds(log: EventLog) -> list[type]:
    return [type(record.event) for record in log]


async def leased_renewed_and_released(directory: Path) -> None:
    log, released = EventLog(), asyncio.Event()
    log.subscribe(lambda record: isinstance(record.event, DhcpReleased) and released.set())
    async with Neighbour(udhcpc(directory, "-R"), directory, address=None) as client:
        dhcp = server(log)
        await dhcp.start()
        hexes = "".join(IPv4Address(address).packed.hex() for address in SERVERS)
        told = f"ip={THERE} mask=24 server={HERE} lease=600 tftp=tftp.example servers={hexes}."
        await client.says(f"bound {told}")
        assert set(kinds(log)) == {DhcpOffered, DhcpAcknowledged}  # more than one, if it was asked again
        assert (kinds(log)[0], kinds(log)[-1]) == (DhcpOffered, DhcpAcknowledged)
        dhcp.set_option_150(SERVERS[:1])
        client.signal(signal.SIGUSR1)
        await client.says(f"renew {told.replace(hexes, hexes[:8])}")
        assert kinds(log)[-1] is DhcpAcknowledged
        client.signal(signal.SIGTERM)
        await asyncio.wait_for(released.wait(), PATIENCE_S)
        assert dict(dhcp.leases) == {}
        await dhcp.stop()


async def leased_another_address_than_it_wished(directory: Path) -> None:
    """It asks for an address it has not: the server offers its own choice, which it takes."""
    log = EventLog()
    async with Neighbour(udhcpc(directory, "-r", "198.51.100.7"), directory, address=None) as client:
        dhcp = server(log, option_150=(), option_66="")
        await dhcp.start()
        await client.says(f"bound ip={THERE} mask=24 server={HERE} lease=600 tftp= servers=.")
        assert DhcpRefused not in kinds(log)
        await dhcp.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
@pytest.mark.needs("unshare", "ip", "udhcpc")
@pytest.mark.parametrize("scene", [leased_renewed_and_released, leased_another_address_than_it_wished])
def test_udhcpc_is(scene, tmp_path: Path) -> None:
    run_apart(scene, tmp_path)
