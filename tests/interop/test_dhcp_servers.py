"""Our phone's DHCP client against servers that others wrote: dnsmasq, Kea, ISC dhcpd, each in a network of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from random import Random

import pytest
from network_namespace import HERE, NETWORK, THERE, WIRE, Neighbour, run_apart

from cucm.clock import MovableClock
from cucm.events import Event, EventLog
from cucm.events.dhcp import LeaseAcknowledged, LeaseRefused, LeaseReleased, LeaseStep
from phone_agent.dhcp_client import DhcpClient, DhcpForm
from phone_agent.dhcp_lease import DhcpDeadlines

MAC = "B000B4BA0AEE"
COLONS = "b0:00:b4:ba:0a:ee"
OLD, NEW = ("192.0.2.50", "192.0.2.51"), ("192.0.2.60",)
PATIENCE_S = 20


class Phone:
    """A phone at HERE whose reserved address is HERE."""

    def __init__(self, form: DhcpForm = DhcpForm.RELAY) -> None:
        self.clock = MovableClock()
        self.log = EventLog(self.clock)
        self._arrived = asyncio.Event()
        self.log.subscribe(lambda _record: self._arrived.set())
        self.client = DhcpClient(
            MAC,
            "CP-8861",
            server=(THERE, 67),
            local_address=HERE,
            form=form,
            interface=WIRE if form is DhcpForm.BROADCAST else None,
            deadlines=DhcpDeadlines(check_s=0.05, first_s=2.0),
            clock=self.clock,
            randomness=Random(3),
            emit=self.log.emitter("phone"),
        )

    async def told(self, step: LeaseStep) -> LeaseAcknowledged:
        """The first acknowledgement of this step, now or soon."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._arrived.clear()
                for event in self.all(LeaseAcknowledged):
                    if isinstance(event, LeaseAcknowledged) and event.step is step:
                        return event
                await self._arrived.wait()

    def all(self, kind: type[Event]) -> list[Event]:
        return [record.event for record in self.log if isinstance(record.event, kind)]


async def lives_through_a_lease(phone: Phone) -> None:
    """Leased, confirmed after a reboot, renewed, rebound, given back."""
    assert await phone.client.tftp_servers() == OLD
    lease = phone.client.lease
    assert lease is not None
    assert (lease.address, lease.server, lease.source) == (HERE, THERE, "150")
    assert await phone.client.tftp_servers() == OLD
    assert [event.step for event in phone.all(LeaseAcknowledged)] == [LeaseStep.REQUESTING, LeaseStep.REBOOTING]
    assert phone.client.lease.t1 is not None
    phone.clock.move(phone.client.lease.t1 - phone.clock.now())
    assert (await phone.told(LeaseStep.RENEWING)).tftp_servers == OLD
    assert phone.client.lease.t2 is not None
    phone.clock.move(phone.client.lease.t2 - phone.clock.now())
    await phone.told(LeaseStep.REBINDING)
    await phone.client.close(release=True)
    assert len(phone.all(LeaseReleased)) == 1
    assert phone.all(LeaseRefused) == []


# --- dnsmasq


def dnsmasq(directory: Path) -> list[str]:
    return [
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0"),  # a daemon would change its user
        *("--log-facility=-", "--log-dhcp", "--bind-interfaces", f"--interface={WIRE}", "--pid-file"),
        f"--dhcp-leasefile={directory}/leases",
        f"--dhcp-range={NETWORK.partition('/')[0]},static,255.255.255.0,1h",
        f"--dhcp-host={COLONS},{HERE}",
        f"--dhcp-option=150,{','.join(OLD)}",
        "--dhcp-option-force=66,tftp.example",
        "--dhcp-authoritative",
    ]


async def relayed_by_dnsmasq(directory: Path) -> None:
    async with Neighbour(dnsmasq(directory), directory, address=THERE) as server:
        await server.says("DHCP, static leases only")
        await lives_through_a_lease(Phone())
        await server.says("DHCPRELEASE")
        assert "vendor class: Cisco Systems, Inc. IP Phone CP-8861" in server.output
        assert f"client provides name: SEP{MAC}" in server.output


async def broadcast_to_dnsmasq(directory: Path) -> None:
    async with Neighbour(dnsmasq(directory), directory, address=THERE) as server:
        await server.says("DHCP, static leases only")
        await lives_through_a_lease(Phone(DhcpForm.BROADCAST))
        await server.says("DHCPRELEASE")


# --- ISC dhcpd


def dhcpd(directory: Path) -> list[str]:
    configuration = directory / "dhcpd.conf"
    configuration.write_text(
        "authoritative; default-lease-time 3600; ping-check false;\n"
        "option tftp-addresses code 150 = array of ip-address;\n"
        "subnet 192.0.2.0 netmask 255.255.255.0 {\n"
        f'  option tftp-addresses {", ".join(OLD)}; option tftp-server-name "tftp.example";\n'
        f"  host phone {{ hardware ethernet {COLONS}; fixed-address {HERE}; }}\n"
        "}\n"
    )
    leases = directory / "dhcpd.leases"
    leases.touch()
    return ["dhcpd", "-4", "-f", "-d", "-cf", str(configuration), "-lf", str(leases), "--no-pid", WIRE]


async def relayed_by_dhcpd(directory: Path) -> None:
    async with Neighbour(dhcpd(directory), directory, address=THERE) as server:
        await server.says("Server starting service")
        await lives_through_a_lease(Phone())
        await server.says("DHCPRELEASE")


async def broadcast_to_dhcpd(directory: Path) -> None:
    async with Neighbour(dhcpd(directory), directory, address=THERE) as server:
        await server.says("Server starting service")
        await lives_through_a_lease(Phone(DhcpForm.BROADCAST))
        await server.says("DHCPRELEASE")


# --- Kea, told at run time to name other servers


def kea_configuration(directory: Path, servers: tuple[str, ...]) -> dict[str, object]:
    option = {"name": "tftp-addresses", "code": 150, "space": "dhcp4", "data": ", ".join(servers)}
    return {
        "Dhcp4": {
            "interfaces-config": {"interfaces": [WIRE]},
            "control-socket": {"socket-type": "unix", "socket-name": str(directory / "kea.sock")},
            "lease-database": {"type": "memfile", "persist": False},
            "valid-lifetime": 3600,
            "renew-timer": 1800,
            "rebind-timer": 3150,
            "authoritative": True,
            "option-def": [
                {"name": "tftp-addresses", "code": 150, "type": "ipv4-address", "array": True, "space": "dhcp4"}
            ],
            "subnet4": [
                {
                    "id": 1,
                    "subnet": NETWORK,
                    "option-data": [option],
                    "reservations": [{"hw-address": COLONS, "ip-address": HERE}],
                }
            ],
            "loggers": [{"name": "kea-dhcp4", "output_options": [{"output": "stdout"}], "severity": "INFO"}],
        }
    }


def kea(directory: Path) -> list[str]:
    configuration = directory / "kea.json"
    configuration.write_text(json.dumps(kea_configuration(directory, OLD)))
    return ["kea-dhcp4", "-c", str(configuration)]


async def repoint(directory: Path, servers: tuple[str, ...]) -> None:
    reader, writer = await asyncio.open_unix_connection(directory / "kea.sock")
    command = {"command": "config-set", "arguments": kea_configuration(directory, servers)}
    writer.write(json.dumps(command).encode())
    writer.write_eof()
    answer = json.loads(await asyncio.wait_for(reader.read(), PATIENCE_S))
    writer.close()
    await writer.wait_closed()
    assert answer["result"] == 0, answer


async def repointed_by_kea(directory: Path) -> None:
    async with Neighbour(kea(directory), directory, address=THERE) as server:
        await server.says("DHCP4_STARTED")
        phone = Phone()
        assert await phone.client.tftp_servers() == OLD
        await repoint(directory, NEW)
        assert phone.client.lease is not None
        assert phone.client.lease.t1 is not None
        phone.clock.move(phone.client.lease.t1 - phone.clock.now())
        assert (await phone.told(LeaseStep.RENEWING)).tftp_servers == NEW
        await repoint(directory, OLD)
        assert await phone.client.tftp_servers() == OLD
        await phone.client.close(release=True)
        await server.says("DHCP4_RELEASE")


async def relayed_by_kea(directory: Path) -> None:
    async with Neighbour(kea(directory), directory, address=THERE) as server:
        await server.says("DHCP4_STARTED")
        await lives_through_a_lease(Phone())


async def broadcast_to_kea(directory: Path) -> None:
    async with Neighbour(kea(directory), directory, address=THERE) as server:
        await server.says("DHCP4_STARTED")
        await lives_through_a_lease(Phone(DhcpForm.BROADCAST))


SCENES = [
    pytest.param(scene, marks=pytest.mark.needs("unshare", "ip", program), id=scene.__name__)
    for program, scene in [
        ("dnsmasq", relayed_by_dnsmasq),
        ("dnsmasq", broadcast_to_dnsmasq),
        ("dhcpd", relayed_by_dhcpd),
        ("dhcpd", broadcast_to_dhcpd),
        ("kea-dhcp4", relayed_by_kea),
        ("kea-dhcp4", broadcast_to_kea),
        ("kea-dhcp4", repointed_by_kea),
    ]
]


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
@pytest.mark.parametrize("scene", SCENES)
def test_the_phone_and(scene, tmp_path: Path) -> None:
    run_apart(scene, tmp_path)
