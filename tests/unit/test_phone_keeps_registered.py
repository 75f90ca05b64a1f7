"""A phone and the lab's CallManager, both whole: what one does to a registration the other one sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from phone_script import MAC, NOW, PHONE

from cucm.certificates import node_certificate
from cucm.clock import MovableClock
from cucm.database import Device, NodeDatabase
from cucm.events import Event
from cucm.events import cluster as told_by_cluster
from cucm.events import phone as told_by_phone
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from cucm.signalling import DeviceSecurityMode
from lab.call_processing import CallProcessing
from phone_agent.address import FixedTftpServers
from phone_agent.driver import Phone, PhoneSettings
from phone_agent.flash import FlashContents, MemoryFlash
from tftp_server.configuration import CallManagerGroup, DeviceSettings, ServerAddress, device_configuration

DEVICE = f"SEP{MAC}"


class Bench:
    def __init__(self, address: str, phone_address: str, database: NodeDatabase) -> None:
        clock = MovableClock(NOW, frozen=True)
        identity = node_certificate(KeyStore(), CertificateUnit.CALLMANAGER, "pub", seed=1, not_before=NOW - 60)
        self.events: list[Event] = []
        self.heard = asyncio.Event()
        self.node = CallProcessing(
            "pub",
            address,
            database,
            (identity.certificate_der, identity.private_key_der),
            client_cas=list,
            now=clock.now,
            emit=self.hear,
        )
        settings = DeviceSettings(
            "desk",
            "Default",
            CallManagerGroup("Default", (ServerAddress("pub", address),), ()),
            (),
            DeviceSecurityMode.NON_SECURE,
            digest_user="me",
            digest_password="it, or \\ so",
        )
        contents = FlashContents(configuration=device_configuration(settings), configuration_name=f"{DEVICE}.cnf.xml")
        self.phone = Phone(
            PHONE,
            MemoryFlash(contents),
            FixedTftpServers(None),
            settings=PhoneSettings(local_address=phone_address, failover=False),
            clock=clock,
            emit=self.hear,
        )

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.heard.set()

    async def until(self, kind: type[Event]) -> None:
        async with asyncio.timeout(10):
            while not any(isinstance(event, kind) for event in self.events):
                self.heard.clear()
                await self.heard.wait()

    def ends(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, told_by_cluster.RegistrationEnded)]


@pytest.fixture
async def bench(tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[Bench]:
    with NodeDatabase(tmp_path / "node.db").create() as database:
        address = loopback()
        database.add_node("pub", address, services=())
        database.put_callmanager_group("Default", ["pub"])
        database.put_device(Device(DEVICE, "8861", "", 1, "Default", digest_user="me", digest_password="it, or \\ so"))
        made = Bench(address, loopback(), database)
        await made.node.start()
        await made.phone.boot()
        yield made
        await made.phone.power_off()
        await made.node.stop()


async def test_the_credentials_of_the_database_come_to_the_phone_and_back(bench: Bench) -> None:
    assert DEVICE in bench.node.registered
    order = [type(event) for event in bench.events if isinstance(event, told_by_cluster.CallProcessingEvent)]
    assert order == [
        told_by_cluster.AlarmReceived,
        told_by_cluster.RegistrationChallenged,
        told_by_cluster.RegistrationAccepted,
    ]
    assert bench.node.devices[DEVICE].ctl_signature == "Not Installed"


async def test_a_reset_unregisters_and_registers_again(bench: Bench) -> None:
    await bench.phone.reset()
    assert bench.ends() == ["deregistered"]
    assert DEVICE in bench.node.registered


async def test_a_phone_without_power_says_nothing(bench: Bench) -> None:
    await bench.phone.power_off()
    await bench.until(told_by_cluster.RegistrationEnded)
    assert bench.ends() == ["connection-closed"]


async def test_a_crashed_call_manager_loses_the_phone(bench: Bench) -> None:
    await bench.node.crash()
    await bench.until(told_by_phone.RegistrationLost)
    assert bench.ends() == ["service-crashed"]


async def test_a_phone_that_is_released_notices(bench: Bench) -> None:
    assert bench.node.release(DEVICE)
    await bench.until(told_by_phone.RegistrationLost)
    assert bench.node.devices[DEVICE].reason == "registered-elsewhere"
