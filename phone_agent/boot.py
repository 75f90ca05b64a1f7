"""The boot of a phone as a story (facts 7.1): generators that yield commands and receive results, no I/O.

DHCP -> CTLSEP<mac>.tlv -> ITLSEP<mac>.tlv [-> ITLFile.tlv] -> SEP<mac>.cnf.xml [-> XMLDefault.cnf.xml] -> registration.
Whatever cannot be fetched or trusted leaves the old file in force, and the boot goes on (facts 7.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Final

from cucm.clock import Clock
from cucm.errors import TrustError, TrustReason, WireError
from cucm.events.phone import (
    BootFinished,
    BootStarted,
    ConfigurationAccepted,
    ConfigurationKept,
    ConfigurationRefused,
    FileNotReceived,
    FileReceived,
    FileRequested,
    FlashFailed,
    Registered,
    RegistrationFailed,
    RegistrationNotPossible,
    RegistrationStarted,
    StatusMessageShown,
    TftpServersLearned,
    TrustListAccepted,
    TrustListNotLoaded,
    TrustListRefused,
    TrustListUnchanged,
    TvsCacheFlushed,
)
from phone_agent.commands import (
    NOT_SECURE,
    SECURE_IF_TRUST_LIST,
    Enter,
    Fetch,
    FetchResult,
    FetchStatus,
    Note,
    Register,
    RegistrationResult,
    RegistrationStatus,
    RequestTftpServers,
    SignallingTransport,
    Sleep,
    Steps,
    Store,
    StoreResult,
)
from phone_agent.configuration import CallManager, PhoneConfiguration, parse_configuration
from phone_agent.flash import FlashContents
from phone_agent.outcome import BootOutcome, PhoneModel, Refusal, RegistrationTarget
from phone_agent.state import PhoneState
from phone_agent.status_texts import (
    CONFIGURATION_INVALID,
    CONFIGURATION_NOT_FOUND,
    CTL_NOT_FOUND,
    DEFAULT_IN_USE,
    NO_TRUST_LIST,
    TRANSFER_TROUBLE,
    TRUST_LIST_UPDATE_FAILED,
    TRUST_LIST_UPDATED,
)
from phone_agent.verification import (
    InstalledList,
    InstalledLists,
    TvsVerifier,
    VerifiedFile,
    VerifiedList,
    verify_configuration,
    verify_trust_list,
)

__all__ = ["RETRY_S", "BootOutcome", "PhoneModel", "Refusal", "RegistrationTarget", "boot"]

RETRY_S: Final = 45.0
"""A phone without usable configuration starts over about every 45 s (facts 7.1)."""
DEFAULT_CONFIGURATION: Final = "XMLDefault.cnf.xml"


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


class _Boot:
    """One boot's working state: the phone's own view of its flash, and what it has found out so far."""

    def __init__(self, phone: PhoneModel, contents: FlashContents, clock: Clock) -> None:
        self._phone = phone
        self._contents = contents
        self._lists = InstalledLists()
        self._configuration: PhoneConfiguration | None = None
        self._tvs = TvsVerifier(phone.device_name, contents.tvs_cache, clock)
        self._changed: set[str] = set()
        self._messages: list[str] = []
        self._refusals: list[Refusal] = []
        self._registrations: list[RegistrationResult] = []
        self._registered: RegistrationTarget | None = None

    # -- the story ---------------------------------------------------------------------------------------------

    def start(self) -> Steps[None]:
        held = self._contents
        yield Note(BootStarted(self._phone.device_name, held.ctl is not None, held.itl is not None))
        self._lists = InstalledLists(
            ctl=(yield from self._load_list("CTL", held.ctl)), itl=(yield from self._load_list("ITL", held.itl))
        )
        if held.configuration is not None:
            yield from self._load_configuration(held.configuration)

    def go_through(self) -> Steps[bool]:
        """One pass from DHCP to registration; whether the phone is registered."""
        yield Enter(PhoneState.REQUESTING_ADDRESS)
        self._tvs.servers = self._configuration.tvs_servers if self._configuration else ()
        servers = yield from self._learn_servers()
        if servers:
            yield from self._update_lists(servers)
            yield Enter(PhoneState.UPDATING_CONFIGURATION)
            yield from self._update_configuration(servers)
        else:
            yield from self._show(TRANSFER_TROUBLE[FetchStatus.ERROR])
        yield Enter(PhoneState.REGISTERING)
        self._registered = yield from self._register()
        yield Enter(PhoneState.REGISTERED if self._registered else PhoneState.UNREGISTERED)
        return self._registered is not None

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

    # -- what flash holds --------------------------------------------------------------------------------------

    def _load_list(self, name: str, data: bytes | None) -> Steps[InstalledList | None]:
        """A list that cannot be read any more counts as not installed [inferred]."""
        if data is None:
            yield Note(TrustListNotLoaded(name, "not installed"))
            return None
        try:
            return InstalledList.load(data, name)
        except WireError as error:
            yield Note(TrustListNotLoaded(name, str(error)))
            return None

    def _load_configuration(self, data: bytes) -> Steps[None]:
        try:
            self._configuration = parse_configuration(data)
        except WireError as error:
            name = self._contents.configuration_name or ""
            yield Note(ConfigurationRefused(name, name, None, f"the stored configuration: {error}"))

    def _store(self, **changes: Any) -> Steps[bool]:
        """Write to flash; whether it took it. What flash did not take is not in force."""
        result: StoreResult = yield Store(changes)
        if result.error is not None:
            yield Note(FlashFailed(result.error))
            return False
        self._contents = replace(self._contents, **changes)
        return True

    def _show(self, text: str) -> Steps[None]:
        self._messages.append(text)
        yield Note(StatusMessageShown(text))

    # -- servers and files -------------------------------------------------------------------------------------

    def _learn_servers(self) -> Steps[tuple[str, ...]]:
        """Option 150; without an answer (or without the option [inferred]) the servers known from last time."""
        offered: tuple[str, ...] | None = yield RequestTftpServers()
        if offered and offered != self._contents.tftp_servers:
            yield from self._store(tftp_servers=offered)
        servers = offered or self._contents.tftp_servers
        yield Note(TftpServersLearned(servers, bool(offered)))
        return servers

    def _fetch(self, name: str, servers: tuple[str, ...], destination: str, secure: int) -> Steps[FetchResult]:
        yield Note(FileRequested(name, destination, secure))
        result: FetchResult = yield Fetch(name, servers, destination, secure)
        if result.data is not None:
            yield Note(FileReceived(name, result.server or "", result.transport or "", len(result.data)))
        else:
            attempts = tuple(f"{one.transport} {one.server}: {one.detail}" for one in result.attempts)
            yield Note(FileNotReceived(name, result.status, attempts))
            if result.status in TRANSFER_TROUBLE:
                yield from self._show(TRANSFER_TROUBLE[result.status])
        return result

    # -- trust lists -------------------------------------------------------------------------------------------

    def _update_lists(self, servers: tuple[str, ...]) -> Steps[None]:
        yield Enter(PhoneState.UPDATING_CTL)
        ctl_held, itl_held = self._lists.ctl is not None, self._lists.itl is not None
        ctl = yield from self._fetch(f"CTL{self._phone.name}.tlv", servers, "/tmp/CTLFile.tlv", NOT_SECURE)  # noqa: S108
        if ctl.status is FetchStatus.NOT_FOUND:
            yield from self._show(CTL_NOT_FOUND)  # not in mixed mode: harmless (facts 7.5)
        failed = yield from self._take_list("CTL", ctl, missing_is_failure=False)
        yield Enter(PhoneState.UPDATING_ITL)
        itl = yield from self._fetch(f"ITL{self._phone.name}.tlv", servers, "/tmp/ITLFile.tlv", NOT_SECURE)  # noqa: S108
        if itl.status is FetchStatus.NOT_FOUND:
            itl = yield from self._fetch("ITLFile.tlv", servers, "/tmp/ITLFile.tlv", NOT_SECURE)  # noqa: S108
        failed |= yield from self._take_list("ITL", itl, missing_is_failure=True)
        yield from self._tell_of_lists(failed and (ctl_held or itl_held))

    def _tell_of_lists(self, failed: bool) -> Steps[None]:
        if failed:
            yield from self._show(TRUST_LIST_UPDATE_FAILED)
        if self._changed & {"CTL", "ITL"}:
            yield from self._show(TRUST_LIST_UPDATED)
        if self._lists.empty:
            yield from self._show(NO_TRUST_LIST)

    def _take_list(self, name: str, fetched: FetchResult, *, missing_is_failure: bool) -> Steps[bool]:
        """Verify and install a downloaded list; whether the update failed."""
        if fetched.data is None:
            return missing_is_failure or fetched.status is not FetchStatus.NOT_FOUND
        held = self._lists.ctl if name == "CTL" else self._lists.itl
        if held is not None and held.data == fetched.data:
            yield Note(TrustListUnchanged(name))
            return False
        try:
            verified = yield from verify_trust_list(name, fetched.data, self._lists, self._tvs)
        except TrustError as error:
            self._refusals.append(Refusal(name, error.reason, str(error)))
            yield Note(TrustListRefused(name, f"/tmp/{name}File.tlv", error.reason, str(error)))  # noqa: S108
            return True
        return not (yield from self._install_list(name, fetched.data, fetched.server, verified))

    def _install_list(self, name: str, data: bytes, server: str | None, verified: VerifiedList) -> Steps[bool]:
        key = name.lower()
        if not (yield from self._store(**{key: data, f"{key}_source": server, "tvs_cache": ()})):
            return False
        installed = InstalledList.of(data, verified.trust_list, name)
        self._lists = replace(self._lists, ctl=installed) if name == "CTL" else replace(self._lists, itl=installed)
        self._changed.add(name)
        yield Note(_accepted(name, data, verified))
        if flushed := self._tvs.flush():
            yield Note(TvsCacheFlushed(flushed))
        return True

    # -- configuration -----------------------------------------------------------------------------------------

    def _update_configuration(self, servers: tuple[str, ...]) -> Steps[None]:
        own = f"{self._phone.name}.cnf.xml"
        for name in (own, DEFAULT_CONFIGURATION):
            status = yield from self._try_configuration(name, servers)
            if status is not FetchStatus.NOT_FOUND:
                break
        else:
            yield from self._show(CONFIGURATION_NOT_FOUND)
        if status is not FetchStatus.OK:
            yield from self._keep_configuration()
        if self._configuration is not None:
            in_use = self._contents.configuration_name
            yield from self._show(DEFAULT_IN_USE if in_use == DEFAULT_CONFIGURATION else in_use or own)

    def _try_configuration(self, name: str, servers: tuple[str, ...]) -> Steps[FetchStatus]:
        """A phone with lists asks for the signed file; one with a blank ITL also takes the plain one, which is what
        the rollback parameter is for [inferred].
        """
        names = [name] if self._lists.empty else [f"{name}.sgn"]
        if self._lists.itl_is_blank:
            names.append(name)
        for file_name in names:
            fetched = yield from self._fetch(file_name, servers, f"/tmp/{name}", SECURE_IF_TRUST_LIST)  # noqa: S108
            if fetched.data is not None:
                yield from self._take_configuration(name, file_name, fetched.data)
                return FetchStatus.OK
            if fetched.status is not FetchStatus.NOT_FOUND:
                break
        return fetched.status

    def _take_configuration(self, name: str, file_name: str, data: bytes) -> Steps[None]:
        try:
            verified = yield from verify_configuration(data, self._lists, self._tvs)
            configuration = parse_configuration(verified.content)
        except TrustError as error:
            yield from self._refuse_configuration(name, file_name, error.reason, str(error))
        except WireError as error:
            yield from self._refuse_configuration(name, file_name, None, str(error))
        else:
            yield from self._install_configuration(name, verified, configuration)

    def _refuse_configuration(self, name: str, file_name: str, reason: TrustReason | None, detail: str) -> Steps[None]:
        self._refusals.append(Refusal("configuration", reason, detail))
        yield Note(ConfigurationRefused(file_name, f"/tmp/{name}", reason, detail))  # noqa: S108
        yield from self._show(CONFIGURATION_INVALID.format(name=file_name))
        yield from self._keep_configuration()

    def _keep_configuration(self) -> Steps[None]:
        yield Note(ConfigurationKept(self._contents.configuration_name if self._configuration else None))

    def _install_configuration(
        self, name: str, verified: VerifiedFile, configuration: PhoneConfiguration
    ) -> Steps[None]:
        held = self._contents
        changed = (held.configuration, held.configuration_name) != (verified.content, name)
        if changed:
            if not (yield from self._store(configuration=verified.content, configuration_name=name)):
                yield from self._keep_configuration()
                return
            self._changed.add("configuration")
        self._configuration = configuration
        yield Note(ConfigurationAccepted(name, verified.basis, configuration.version_stamp, changed))

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
            target.address, target.port, target.transport, self._phone.name, trusted
        )
        self._registrations.append(result)
        if result.status is RegistrationStatus.REGISTERED:
            yield Note(Registered(*where))
            return True
        yield Note(RegistrationFailed(*where, result.status, result.sip_status, result.detail))
        return False


def _target(call_manager: CallManager, transport: SignallingTransport) -> RegistrationTarget:
    port = call_manager.secured_sip_port if transport == "tls" else call_manager.sip_port
    return RegistrationTarget(call_manager.name, call_manager.address, port, transport)


def _accepted(name: str, data: bytes, verified: VerifiedList) -> TrustListAccepted:
    trust_list = verified.trust_list
    return TrustListAccepted(
        trust_list=name,
        basis=verified.basis,
        signer=trust_list.signer.subject,
        version=trust_list.version,
        sha1=hashlib.sha1(data, usedforsecurity=False).digest(),
    )
