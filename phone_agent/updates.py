"""What a phone holds, and how it comes by something newer: lists and configuration, fetched, verified, stored.

The steps are generators like the boot that is made of them (`phone_agent.boot`): commands out, results in, no I/O.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Final

from cucm.clock import Clock
from cucm.errors import TrustError, TrustReason, WireError
from cucm.events.phone import (
    ConfigurationAccepted,
    ConfigurationKept,
    ConfigurationRefused,
    FileNotReceived,
    FileReceived,
    FileRequested,
    FlashFailed,
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
    RequestTftpServers,
    Steps,
    Store,
    StoreResult,
)
from phone_agent.configuration import PhoneConfiguration, parse_configuration
from phone_agent.flash import FlashContents
from phone_agent.models import PhoneModel
from phone_agent.outcome import Refusal
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

DEFAULT_CONFIGURATION: Final = "XMLDefault.cnf.xml"


class Updates:
    """A running phone's view of its flash, and the steps that bring it up to date.

    `_barred` says why the phone does not register although it has a configuration: a list too large to load (F19).
    """

    def __init__(self, phone: PhoneModel, contents: FlashContents, clock: Clock) -> None:
        self._phone = phone
        self._capabilities = phone.capabilities
        self._contents = contents
        self._lists = InstalledLists()
        self._configuration: PhoneConfiguration | None = None
        self._tvs = TvsVerifier(phone.device_name, contents.tvs_cache, clock)
        self._changed: set[str] = set()
        self._messages: list[str] = []
        self._refusals: list[Refusal] = []
        self._refused_list: TrustReason | None = None
        self._barred: str | None = None

    # -- what flash holds --------------------------------------------------------------------------------------

    def _load(self, *, tell: bool = True) -> Steps[None]:
        """Lists and configuration from flash; a phone without security by default has no ITL."""
        held = self._contents
        ctl = yield from self._load_list("CTL", held.ctl, tell=tell)
        itl = None
        if self._capabilities.security_by_default:
            itl = yield from self._load_list("ITL", held.itl, tell=tell)
        self._lists = InstalledLists(ctl, itl)
        if held.configuration is not None:
            yield from self._load_configuration(held.configuration)

    def _load_list(self, name: str, data: bytes | None, *, tell: bool) -> Steps[InstalledList | None]:
        """A list that cannot be read any more counts as not installed [inferred]."""
        why = "not installed"
        if data is not None:
            try:
                return InstalledList.load(data, name)
            except WireError as error:
                why = str(error)
        if tell:
            yield Note(TrustListNotLoaded(name, why))
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
        self._tvs.closed_by = self._refused_list = None
        ctl_held, itl_held = self._lists.ctl is not None, self._lists.itl is not None
        ctl = yield from self._fetch(f"CTL{self._phone.name}.tlv", servers, "/tmp/CTLFile.tlv", NOT_SECURE)  # noqa: S108
        if ctl.status is FetchStatus.NOT_FOUND:
            yield from self._show(CTL_NOT_FOUND)  # not in mixed mode: harmless (facts 7.5)
        failed = yield from self._take_list("CTL", ctl, missing_is_failure=False)
        if self._capabilities.security_by_default:
            failed |= yield from self._update_itl(servers)
        self._tvs.closed_by = self._refused_list
        yield from self._tell_of_lists(failed and (ctl_held or itl_held))

    def _update_itl(self, servers: tuple[str, ...]) -> Steps[bool]:
        """Whether the update failed."""
        yield Enter(PhoneState.UPDATING_ITL)
        itl = yield from self._fetch(f"ITL{self._phone.name}.tlv", servers, "/tmp/ITLFile.tlv", NOT_SECURE)  # noqa: S108
        if itl.status is FetchStatus.NOT_FOUND:
            itl = yield from self._fetch("ITLFile.tlv", servers, "/tmp/ITLFile.tlv", NOT_SECURE)  # noqa: S108
        return (yield from self._take_list("ITL", itl, missing_is_failure=True))

    def _tell_of_lists(self, failed: bool) -> Steps[None]:
        if failed:
            yield from self._show(TRUST_LIST_UPDATE_FAILED)
        if self._changed & {"CTL", "ITL"}:
            yield from self._show(TRUST_LIST_UPDATED)
        if self._lists.empty and self._capabilities.security_by_default:
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
            verified = yield from verify_trust_list(name, fetched.data, self._lists, self._tvs, self._capabilities)
        except TrustError as error:
            if error.reason is TrustReason.TOO_LARGE:
                self._barred = f"the {name} is too large to be loaded"  # "registration fails" (facts 3.5, F19)
            self._refused_list = self._refused_list or error.reason
            self._refusals.append(Refusal(name, error.reason, str(error)))
            yield Note(TrustListRefused(name, f"/tmp/{name}File.tlv", error.reason, str(error)))  # noqa: S108
            return True
        return not (yield from self._install_list(name, fetched.data, fetched.server, verified))

    def _install_list(self, name: str, data: bytes, server: str | None, verified: VerifiedList) -> Steps[bool]:
        key = name.lower()
        if not (yield from self._store(**{key: data, f"{key}_source": server, "tvs_cache": ()})):
            return False
        installed = InstalledList.load(data, name)
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

        Without a CTL beside the blank ITL no list names a signer of files, so that its own cluster's signed file is
        refused too: it then takes the plain one, or it would have no new configuration while the parameter is set.
        """
        names = [name] if self._lists.empty else [f"{name}.sgn"]
        if self._lists.itl_is_blank:
            names.append(name)
        refused = False
        for file_name in names:
            fetched = yield from self._fetch(file_name, servers, f"/tmp/{name}", SECURE_IF_TRUST_LIST)  # noqa: S108
            if fetched.data is not None:
                refused = not (yield from self._take_configuration(name, file_name, fetched.data))
                if not refused or self._lists.ctl is not None:
                    break
            elif fetched.status is not FetchStatus.NOT_FOUND:
                break
        if refused:
            yield from self._keep_configuration()
        return FetchStatus.OK if refused else fetched.status

    def _take_configuration(self, name: str, file_name: str, data: bytes) -> Steps[bool]:
        """Whether it was to be believed and made sense."""
        try:
            verified = yield from verify_configuration(data, self._lists, self._tvs, self._capabilities)
            configuration = parse_configuration(verified.content)
        except TrustError as error:
            yield from self._refuse_configuration(name, file_name, error.reason, str(error))
        except WireError as error:
            yield from self._refuse_configuration(name, file_name, None, str(error))
        else:
            yield from self._install_configuration(name, verified, configuration)
            return True
        return False

    def _refuse_configuration(self, name: str, file_name: str, reason: TrustReason | None, detail: str) -> Steps[None]:
        self._refusals.append(Refusal("configuration", reason, detail))
        yield Note(ConfigurationRefused(file_name, f"/tmp/{name}", reason, detail))  # noqa: S108
        yield from self._show(CONFIGURATION_INVALID.format(name=file_name))

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


def _accepted(name: str, data: bytes, verified: VerifiedList) -> TrustListAccepted:
    trust_list = verified.trust_list
    return TrustListAccepted(
        trust_list=name,
        basis=verified.basis,
        signer=trust_list.signer.subject,
        version=trust_list.version,
        sha1=hashlib.sha1(data, usedforsecurity=False).digest(),
    )
