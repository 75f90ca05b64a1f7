"""What a booting phone tells its CallManager besides REGISTER: which lists it holds, and its digest credentials."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from phone_script import MAC, NEW, OLD, PHONE, World, moving, vouch

from cucm.wire.alarm import DeviceTlInfo
from phone_agent.commands import FetchStatus, RegistrationStatus
from phone_agent.flash import FlashContents


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()


NEW_LISTS = DeviceTlInfo(PHONE.name, sha1(NEW.ctl()), NEW.address, sha1(NEW.itl()), NEW.address)


def test_a_phone_whose_lists_stay_tells_of_them_once() -> None:
    world = World(files=OLD.files(), contents=OLD.holding(ctl_source="192.0.2.1"), dhcp=(OLD.address,))
    world.boot()
    (command,) = world.registered_with
    assert command.alarms == (DeviceTlInfo(PHONE.name, sha1(OLD.ctl()), OLD.address, sha1(OLD.itl()), None),)


def test_a_phone_that_migrates_tells_of_the_old_lists_and_then_of_the_new_ones() -> None:
    world = moving(tvs=[vouch(NEW.call_manager)])
    world.boot()
    (command,) = world.registered_with
    old, new = command.alarms
    assert (old.ctl_signature, old.itl_signature) == (sha1(OLD.ctl()), sha1(OLD.itl()))
    assert new == NEW_LISTS
    world.boot()
    assert world.registered_with[0].alarms == (NEW_LISTS,)


def test_every_call_manager_that_is_tried_hears_both() -> None:
    files = NEW.files(configuration=NEW.signed(NEW.configuration(call_managers=(NEW.address, "198.51.100.2"))))
    world = moving(files, tvs=[vouch(NEW.call_manager)], registrations={NEW.address: RegistrationStatus.UNREACHABLE})
    world.boot()
    first, second = world.registered_with
    assert first.alarms == second.alarms
    assert len(second.alarms) == 2


def test_a_phone_without_lists_says_so() -> None:
    world = World(files={f"SEP{MAC}.cnf.xml": NEW.configuration(mode=1)}, contents=FlashContents(ctl_source="gone"))
    world.boot()
    assert world.registered_with[0].alarms == (DeviceTlInfo(PHONE.name, None, None, None, None),)


def test_lists_that_did_not_come_are_no_change() -> None:
    world = World(files={f"ITLSEP{MAC}.tlv": FetchStatus.TIMEOUT}, contents=OLD.holding())
    world.boot()
    assert len(world.registered_with[0].alarms) == 1


def test_the_credentials_are_those_of_the_configuration() -> None:
    line = b"<line><authName>me</authName><authPassword>it</authPassword></line>"
    profile = b"<sipProfile><sipLines>" + line + b"</sipLines></sipProfile>"
    text = NEW.configuration(mode=1).replace(b"</device>", profile + b"</device>")
    world = World(files={f"SEP{MAC}.cnf.xml": text})
    world.boot()
    (command,) = world.registered_with
    assert (command.digest_user, command.digest_password) == ("me", "it")
    assert "it'" not in repr(replace(command, alarms=()))
