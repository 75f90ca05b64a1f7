"""A phone among real nodes: its CallManager dies, a CAPF is that of another cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from lab_on_sockets import PHONE, make_lab, network_of

from cucm.events.phone import LscInstalled, LscRefused, Registered
from cucm.identity import describe
from lab.runtime import Lab
from lab.topology import load_topology

DEADLINE_S = 60
Draw = Callable[[], str]


async def registrations(lab: Lab, phone: str, count: int) -> list[str]:
    """Names of the CallManagers that took the phone, when there are `count` of them."""
    heard = asyncio.Event()
    end = lab.events.subscribe(lambda _record: heard.set())
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(found := _registrations_so_far(lab, phone)) < count:
                heard.clear()
                await heard.wait()
    finally:
        end()
    return found


def _registrations_so_far(lab: Lab, phone: str) -> list[str]:
    mine = (record.event for record in lab.events if record.source == f"phone:{phone}")
    return [event.call_manager for event in mine if isinstance(event, Registered)]


async def test_a_callmanager_that_dies_hands_its_phones_to_the_next_of_the_group(
    tmp_path: Path, loopback: Draw
) -> None:
    async with make_lab(tmp_path, network_of(loopback), load_topology("campus")) as lab:
        phone = lab.phones_named("north")[0]
        name = phone.model.name
        await phone.boot()
        assert phone.registered_with == "src-sub1"
        await lab.node("source/src-sub1").crash_service("CallManager")
        assert await registrations(lab, name, 2) == ["src-sub1", "src-sub2"]
        assert name in lab.node("source/src-sub2").registered_devices
        await phone.reset()  # falls back to the first of its group when that is there again, and only by a reset
        assert phone.registered_with == "src-sub2"
        await lab.node("source/src-sub1").start_service("CallManager")
        await phone.reset()
        assert phone.registered_with == "src-sub1"


async def test_an_lsc_comes_only_from_the_capf_of_the_phones_lists(tmp_path: Path, loopback: Draw) -> None:
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        phone = lab.phone(PHONE)
        await phone.boot()
        source, destination = lab.capf("source"), lab.capf("destination")
        assert not await phone.install_lsc(destination)
        phone.delete_lsc()
        assert await phone.install_lsc(source)
        await phone.reset()
        assert phone.registered_with is not None
        held = phone.flash.contents.lsc
        assert held is not None
        assert describe(held.certificate).issuer == describe(source.certificate).subject
        told = [record.event for record in lab.events if isinstance(record.event, LscInstalled | LscRefused)]
        assert [type(event) for event in told] == [LscRefused, LscInstalled]
