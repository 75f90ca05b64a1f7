"""The boot of a phone as a story (facts 7.1): generators that yield commands and receive results, no I/O.

DHCP -> CTLSEP<mac>.tlv -> ITLSEP<mac>.tlv [-> ITLFile.tlv] -> SEP<mac>.cnf.xml [-> XMLDefault.cnf.xml] -> registration.
Whatever cannot be fetched or trusted leaves the old file in force, and the boot goes on (facts 7.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import Final

from cucm.clock import Clock
from cucm.events.phone import (
    BootFinished,
    BootStarted,
    Registered,
    RegistrationFailed,
    RegistrationNotPossible,
    RegistrationStarted,
)
from cucm.wire.alarm import DeviceTlInfo
from phone_agent.commands import (
    Enter,
    FetchStatus,
    Note,
    Register,
    RegistrationResult,
    RegistrationStatus,
    SignallingTransport,
    Sleep,
    Steps,
)
from phone_agent.configuration import CallManager
from phone_agent.flash import FlashContents
from phone_agent.models import PhoneModel
from phone_agent.outcome import BootOutcome, Refusal, RegistrationTarget
from phone_agent.state import PhoneState
from phone_agent.status_texts import TRANSFER_TROUBLE
from phone_agent.updates import Updates

__all__ = ["RETRY_S", "BootOutcome", "PhoneModel", "Refusal", "RegistrationTarget", "boot", "register_again"]

RETRY_S: Final = 45.0
"""A phone without usable configuration starts over about every 45 s (facts 7.1)."""


def boot(phone: PhoneModel, contents: FlashContents, clock: Clock, *, attempts: int = 1) -> Steps[BootOutcome]:
    """Boot with what flash holds. An unregistered phone starts over after `RETRY_S`, `attempts` times in all."""
    steps = _Boot(phone, contents, clock)
    yield from steps.start()
    for _ in range(attempts - 1):
        if (yield from steps.go_through()):
            break
        yield Sleep(RETRY_S)
    else:
        yield from steps.go_through()
    return (yield from steps.finish())


def register_again(
    phone: PhoneModel,
    contents: FlashContents,
    clock: Clock,
    *,
    without: str | None = None,
    only: str | None = None,
) -> Steps[RegistrationTarget | None]:
    """What an unregistered phone does by itself: its CallManagers once more, with the files it has.

    `without` names the CallManager that has just gone, `only` the one to go to; nothing happens when none is left.
    """
    return (yield from _Boot(phone, contents, clock).register_again(without, only))


class _Boot(Updates):
    """One boot's working state: the phone's own view of its flash, and what it has found out so far."""

    def __init__(self, phone: PhoneModel, contents: FlashContents, clock: Clock) -> None:
        super().__init__(phone, contents, clock)
        self._held_at_start = contents
        self._registrations: list[RegistrationResult] = []
        self._registered: RegistrationTarget | None = None

    # -- the story ---------------------------------------------------------------------------------------------

    def start(self) -> Steps[None]:
        held = self._contents
        yield Note(BootStarted(self._phone.device_name, held.ctl is not None, held.itl is not None))
        yield from self._load()

    def go_through(self) -> Steps[bool]:
        """One pass from DHCP to registration; whether the phone is registered."""
        yield Enter(PhoneState.REQUESTING_ADDRESS)
        self._barred = None
        self._tvs.servers = self._configuration.tvs_servers if self._configuration else ()
        servers = yield from self._learn_servers()
        if servers:
            yield from self._update_lists(servers)
            yield Enter(PhoneState.UPDATING_CONFIGURATION)
            yield from self._update_configuration(servers)
        else:
            yield from self._show(TRANSFER_TROUBLE[FetchStatus.ERROR])
        self._registered = yield from self._try_to_register()
        return self._registered is not None

    def _try_to_register(self) -> Steps[RegistrationTarget | None]:
        yield Enter(PhoneState.REGISTERING)
        where = None
        if self._barred is not None:
            yield Note(RegistrationNotPossible(self._barred))
        else:
            where = yield from self._register()
        yield Enter(PhoneState.REGISTERED if where else PhoneState.UNREGISTERED)
        return where

    def register_again(self, without: str | None, only: str | None) -> Steps[RegistrationTarget | None]:
        yield from self._load(tell=False)
        if self._configuration is None:
            return None
        known = self._configuration.call_managers
        others = tuple(one for one in known if one.name != without and only in (None, one.name))
        if not others:
            return None
        self._configuration = replace(self._configuration, call_managers=others)
        return (yield from self._try_to_register())

    def finish(self) -> Steps[BootOutcome]:
        where = self._registered
        outcome = BootOutcome(
            registered=where,
            ctl_changed="CTL" in self._changed,
            itl_changed="ITL" in self._changed,
            configuration_changed="configuration" in self._changed,
            configuration_name=self._contents.configuration_name if self._configuration else None,
            status_messages=tuple(self._messages),
            refusals=tuple(self._refusals),
            registrations=tuple(self._registrations),
        )
        yield Note(
            BootFinished(
                where is not None,
                where.call_manager if where else None,
                outcome.ctl_changed,
                outcome.itl_changed,
                outcome.configuration_changed,
            )
        )
        return outcome

    # -- registration ------------------------------------------------------------------------------------------

    def _register(self) -> Steps[RegistrationTarget | None]:
        """CallManagers of the configuration in force, in group order; the first that takes the phone has it."""
        transport = self._transport()
        if self._configuration is None or transport is None:
            yield Note(
                RegistrationNotPossible(
                    "no CTL with CallManager entries" if self._configuration else "no configuration"
                )
            )
            return None
        if not self._configuration.call_managers:
            yield Note(RegistrationNotPossible("the configuration names no CallManager"))
        for call_manager in self._configuration.call_managers:
            target = _target(call_manager, transport)
            if (yield from self._register_with(target)):
                return target
        return None

    def _transport(self) -> SignallingTransport | None:
        """Facts 7.7: TLS for a secure device whose CTL has the CCM entries; without a CTL such a phone keeps trying to
        get one; without any certificate of its own it tries plain TCP, and is refused.
        """
        if self._configuration is None:
            return None
        if not self._configuration.wants_tls or self._contents.active_identity is None:
            return "tcp"
        return "tls" if self._lists.call_manager_certificates else None

    def _register_with(self, target: RegistrationTarget) -> Steps[bool]:
        where = (target.call_manager, target.address, target.port, target.transport)
        yield Note(RegistrationStarted(*where))
        trusted = self._lists.call_manager_certificates if target.transport == "tls" else ()
        result: RegistrationResult = yield Register(
            target.address,
            target.port,
            target.transport,
            self._phone.name,
            trusted,
            self._alarms(),
            self._configuration.digest_user if self._configuration else "",
            self._configuration.digest_password if self._configuration else "",
        )
        self._registrations.append(result)
        if result.status is RegistrationStatus.REGISTERED:
            yield Note(Registered(*where))
            return True
        yield Note(RegistrationFailed(*where, result.status, result.sip_status, result.detail))
        return False

    def _alarms(self) -> tuple[DeviceTlInfo, ...]:
        """One alarm, or two when the lists have changed in this boot: the old ones, then the new (facts 7.6)."""
        before, now = (_lists_of(self._phone, contents) for contents in (self._held_at_start, self._contents))
        is_same = (before.ctl_signature, before.itl_signature) == (now.ctl_signature, now.itl_signature)
        return (now,) if is_same else (before, now)


def _target(call_manager: CallManager, transport: SignallingTransport) -> RegistrationTarget:
    port = call_manager.secured_sip_port if transport == "tls" else call_manager.sip_port
    return RegistrationTarget(call_manager.name, call_manager.address, port, transport)


def _lists_of(phone: PhoneModel, contents: FlashContents) -> DeviceTlInfo:
    """The server is the address the phone knows; a real one may tell a name [inferred of facts 7.6]."""
    return DeviceTlInfo(
        phone.name,
        _sha1(contents.ctl),
        contents.ctl_source if contents.ctl is not None else None,
        _sha1(contents.itl),
        contents.itl_source if contents.itl is not None else None,
    )


@lru_cache(maxsize=64)
def _sha1(data: bytes | None) -> bytes | None:
    return None if data is None else hashlib.sha1(data, usedforsecurity=False).digest()
