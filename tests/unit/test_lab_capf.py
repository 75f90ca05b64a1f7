"""CAPF issues LSCs in the seed's forms, while it can be reached; a phone takes them from a CAPF in its lists only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID
from phone_script import KEYS, MAC, NEW, NOW, OLD, PHONE, phone_identity

from cucm.clock import MovableClock
from cucm.errors import FlashError, LabError, TrustReason
from cucm.events import Event
from cucm.events.capf import LscIssued
from cucm.events.phone import LscDeleted, LscInstalled, LscRefused
from cucm.identity import Identity, describe, load_certificate
from cucm.key_store import KeyStore
from cucm.net.reachability import Reachability
from lab.capf import CertificateAuthorityProxyFunction
from phone_agent.address import FixedTftpServers
from phone_agent.driver import Phone
from phone_agent.flash import DeviceIdentity, FlashContents, MemoryFlash
from phone_agent.lsc import serial_number_of
from phone_agent.models import PhoneModel


def capf(identity: Identity = OLD.capf, told: list[Event] | None = None) -> CertificateAuthorityProxyFunction:
    emit = (lambda _event: None) if told is None else told.append
    return CertificateAuthorityProxyFunction(
        "oldpub", identity, keys=KEYS, clock=MovableClock(NOW, frozen=True), seed=1, emit=emit
    )


async def running(identity: Identity = OLD.capf, told: list[Event] | None = None) -> CertificateAuthorityProxyFunction:
    service = capf(identity, told)
    await service.start()
    return service


def phone(contents: FlashContents, told: list[Event], model: PhoneModel = PHONE) -> Phone:
    return Phone(model, MemoryFlash(contents), FixedTftpServers(()), emit=told.append)


async def test_the_names_are_those_of_the_seed() -> None:
    told: list[Event] = []
    issued = await (await running(told=told)).issue(PHONE, "FCH18198CNQ")
    certificate = load_certificate(issued.certificate)
    known = describe(issued.certificate)
    assert known.subject == f"serialNumber=PID:CP-8861 SN:FCH18198CNQ;C=AU;O=Stormin;OU=IST;CN=CP-8861-SEP{MAC}"
    assert known.issuer == OLD.capf.subject
    assert known.not_before == int(NOW)
    certificate.verify_directly_issued_by(OLD.capf.certificate)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == PHONE.device_name
    assert told == [LscIssued(PHONE.name, known.subject, known.issuer, known.serial)]


async def test_the_loop_goes_on_while_the_phones_key_is_made(tmp_path: Path) -> None:
    keys, turns = KeyStore(tmp_path), 0
    service = CertificateAuthorityProxyFunction(
        "oldpub", OLD.capf, keys=keys, clock=MovableClock(NOW, frozen=True), seed=1
    )
    await service.start()
    issuing = asyncio.create_task(service.issue(PHONE, "X"))
    while not issuing.done():
        turns += 1
        await asyncio.sleep(0)
    assert describe((await issuing).certificate).issuer == OLD.capf.subject
    assert keys.generated == 1
    assert turns > 1  # without a thread the first turn is the whole work
    stopped = asyncio.create_task(service.issue(replace(PHONE, mac=MAC[:-1] + "1"), "X"))
    await asyncio.sleep(0)
    await service.stop()
    with pytest.raises(LabError, match="does not run"):
        await stopped


async def test_it_issues_only_while_it_runs_and_can_be_reached() -> None:
    service = capf()
    with pytest.raises(LabError, match="does not run"):
        await service.issue(PHONE, "X")
    await service.start()
    service.set_reachability(Reachability.UNREACHABLE)
    with pytest.raises(LabError, match="unreachable") as caught:
        await service.issue(PHONE, "X")
    assert caught.value.mend
    service.set_reachability(Reachability.OPEN)
    assert (await service.issue(PHONE, "X")).certificate
    await service.crash()
    with pytest.raises(LabError, match="does not run"):
        await service.issue(PHONE, "X")
    await service.start()
    await service.stop()
    with pytest.raises(LabError, match="does not run"):
        await service.issue(PHONE, "X")


async def test_a_phone_takes_an_lsc_of_the_capf_in_its_lists() -> None:
    told: list[Event] = []
    agent = phone(OLD.holding(lsc=None, mic=phone_identity(OLD)), told)
    assert await agent.install_lsc(await running())
    held = agent.flash.contents
    assert held.lsc is not None
    assert held.active_identity is held.lsc
    installed = [event for event in told if isinstance(event, LscInstalled)]
    assert [event.issuer for event in installed] == [OLD.capf.subject]
    assert agent.status_messages == ("LSC installed",)


@pytest.mark.parametrize("missing", ["ctl", "itl"])
async def test_either_list_will_do(missing: str) -> None:
    agent = phone(OLD.holding(**{missing: None}), [])
    assert await agent.install_lsc(await running())


async def test_a_capf_that_is_in_no_list_is_refused() -> None:
    """F21: CAPF regenerated, lists not updated."""
    told: list[Event] = []
    agent = phone(OLD.holding(), told)
    before = agent.flash.contents
    assert not await agent.install_lsc(await running(NEW.capf))
    assert agent.flash.contents == before
    refused = [event for event in told if isinstance(event, LscRefused)]
    assert [(event.issuer, event.reason) for event in refused] == [(NEW.capf.subject, TrustReason.SIGNER_UNKNOWN)]
    assert agent.status_messages == ("LSC update failed",)


@pytest.mark.parametrize("contents", [FlashContents(), FlashContents(ctl=b"no list any more")])
async def test_a_phone_without_readable_lists_takes_any_capf(contents: FlashContents) -> None:
    assert await phone(contents, []).install_lsc(await running(NEW.capf))


async def test_a_phone_without_security_by_default_asks_its_ctl_only() -> None:
    model = PhoneModel(MAC, "7960")
    assert not await phone(OLD.holding(ctl=NEW.ctl()), [], model).install_lsc(await running(OLD.capf))
    assert await phone(OLD.holding(), [], model).install_lsc(await running(OLD.capf))


async def test_what_goes_wrong_on_the_way_is_told_and_changes_nothing() -> None:
    told: list[Event] = []
    agent = phone(OLD.holding(), told)
    assert not await agent.install_lsc(capf())
    assert isinstance(told[0], LscRefused)
    assert told[0].reason is None
    assert agent.flash.contents == OLD.holding()

    class Full(MemoryFlash):
        def store(self, **changes: object) -> None:  # type: ignore[override]
            raise FlashError("the disk is full")

    agent = Phone(PHONE, Full(OLD.holding()), FixedTftpServers(()), emit=told.append)
    assert not await agent.install_lsc(await running())
    assert agent.flash.contents.lsc == phone_identity(OLD)


class Nonsense:
    """A CAPF that answers with what is no certificate."""

    certificate = b"no certificate"

    async def issue(self, model: PhoneModel, serial_number: str) -> DeviceIdentity:
        return DeviceIdentity(b"no certificate", b"no key")


async def test_nonsense_is_not_installed() -> None:
    told: list[Event] = []
    agent = phone(FlashContents(), told)
    assert not await agent.install_lsc(Nonsense())
    assert agent.flash.contents.lsc is None
    assert isinstance(told[0], LscRefused)
    assert told[0].issuer == ""


async def test_deleting_the_lsc_leaves_the_mic() -> None:
    told: list[Event] = []
    mic = phone_identity(NEW)
    agent = phone(OLD.holding(mic=mic), told)
    agent.delete_lsc()
    assert agent.flash.contents.active_identity == mic
    agent.delete_lsc()
    assert [event for event in told if isinstance(event, LscDeleted)] == [
        LscDeleted(OLD.capf.subject),
        LscDeleted(None),
    ]
    unreadable = phone(FlashContents(lsc=DeviceIdentity(b"x", b"y")), told)
    unreadable.delete_lsc()
    assert told[-2] == LscDeleted("")


def test_the_serial_number_is_that_of_the_phones_certificates() -> None:
    identity = phone_identity(OLD)
    assert serial_number_of(PHONE, FlashContents(mic=identity)) == "FCH18198CNQ"
    assert serial_number_of(PHONE, FlashContents(lsc=identity)) == "FCH18198CNQ"
    made_up = f"LAB{MAC[-8:]}"
    assert serial_number_of(PHONE, FlashContents()) == made_up
    broken = replace(FlashContents(), mic=DeviceIdentity(b"x", b"y"))
    assert serial_number_of(PHONE, broken) == made_up
