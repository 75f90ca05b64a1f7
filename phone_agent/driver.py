"""A phone on real sockets: performs what the boot asks for, with asyncio.

`Phone` has flash, a state and, while it is registered, an open connection to its CallManager. An I/O step that goes
wrong becomes a result the boot can decide about, never an exception in the middle of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar

from cucm.clock import Clock, SystemClock
from cucm.errors import FlashError, LabError, TrustReason
from cucm.events import Emit, Event, ignore
from cucm.events.phone import (
    BootAborted,
    PoweredOff,
    Registered,
    RegistrationLost,
    SecuritySettingsErased,
    StateChanged,
    StatusMessageShown,
)
from cucm.net.tls import TlsProfile
from phone_agent.address import AddressClient
from phone_agent.boot import BootOutcome, PhoneModel, boot
from phone_agent.commands import (
    Command,
    Enter,
    Fetch,
    FetchAttempt,
    FetchResult,
    FetchStatus,
    Note,
    QueryTvs,
    Register,
    RegistrationResult,
    RegistrationStatus,
    RequestTftpServers,
    Sleep,
    Store,
    StoreResult,
    TvsFailure,
)
from phone_agent.file_client import FileClient
from phone_agent.flash import FlashContents, PhoneFlash
from phone_agent.registration import Registration, RegistrationClient
from phone_agent.state import PhoneState, require_transition
from phone_agent.status_texts import ERASING_LISTS
from phone_agent.tvs_client import ClientCertificate, TvsClient, TvsDeadlines

BOOT_DEADLINE_S: Final = 300.0
"""Ours. Every step has a deadline of its own; this bounds the boot as a whole."""
MAX_STATUS_MESSAGES: Final = 100
"""Ours: how many messages the Status screen keeps."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PhonePorts:
    """Ports that a configuration does not carry; the standard ones unless the machine keeps low ports to root."""

    http: int = 6970
    tftp: int = 69


@dataclass(frozen=True, slots=True)
class PhoneSettings:
    """How a phone behaves on the network. `boot_deadline_s` covers all `attempts` of a boot together."""

    local_address: str | None = None
    ports: PhonePorts = field(default_factory=PhonePorts)
    tls_profile: TlsProfile = TlsProfile.MODERN
    tvs_deadlines: TvsDeadlines = field(default_factory=TvsDeadlines)
    boot_deadline_s: float = BOOT_DEADLINE_S
    attempts: int = 1


class BootTimedOut(LabError):
    """The boot took longer than its deadline; the phone is off."""


class Phone:
    """One phone. Not for use by two tasks at once.

    `dhcp` is closed when the power goes and asked again at the next boot; the phone's certificates (LSC, MIC) are in
    `flash`. `randomness` makes SIP's tags; by default it depends on the MAC address alone.
    """

    def __init__(
        self,
        model: PhoneModel,
        flash: PhoneFlash,
        dhcp: AddressClient,
        *,
        settings: PhoneSettings | None = None,
        clock: Clock | None = None,
        randomness: Random | None = None,
        emit: Emit = ignore,
    ) -> None:
        self.model = model
        self.flash = flash
        self._dhcp = dhcp
        self._settings = settings or PhoneSettings()
        self._clock = clock or SystemClock()
        self._tell = emit
        self._state = PhoneState.OFF
        self._messages: deque[str] = deque(maxlen=MAX_STATUS_MESSAGES)
        self._registration: Registration | None = None
        self._call_manager = ""
        self._lost_early: str | None = None
        self._randomness = randomness or Random(model.mac)  # noqa: S311 (SIP tags, not secrets)
        self._files = FileClient(
            local_address=self._settings.local_address,
            http_port=self._settings.ports.http,
            tftp_port=self._settings.ports.tftp,
        )

    @property
    def state(self) -> PhoneState:
        return self._state

    @property
    def status_messages(self) -> tuple[str, ...]:
        """What the Status screen shows, oldest first; it survives a reset, not a `Phone` object."""
        return tuple(self._messages)

    async def boot(self) -> BootOutcome:
        """Boot an unpowered phone; afterwards it is registered, or not and says why.

        Raises BootTimedOut, IllegalTransition for a phone that is on already.
        """
        require_transition(self._state, PhoneState.REQUESTING_ADDRESS)
        self._lost_early = None
        await self._hang_up()
        try:
            async with asyncio.timeout(self._settings.boot_deadline_s):
                return await self._run()
        except TimeoutError:
            text = f"the boot did not end within {self._settings.boot_deadline_s:g} s"
            self._emit(BootAborted(text))
            await self.power_off()
            raise BootTimedOut(
                text, where=self.model.name, mend="see which server hangs, or raise the deadline"
            ) from None
        except BaseException:
            await self.power_off()
            raise

    async def power_off(self) -> None:
        """Cut the power: connections close, flash stays."""
        await self._hang_up()
        await self._dhcp.close(release=False)
        if self._state is not PhoneState.OFF:
            self._enter(PhoneState.OFF)
            self._emit(PoweredOff())

    async def _hang_up(self) -> None:
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.close()

    async def reset(self) -> BootOutcome:
        """Power off and boot again, as `Reset` in CUCM Administration does."""
        await self.power_off()
        return await self.boot()

    def erase_security_settings(self) -> None:
        """The security menu's erase: both trust lists go. Raises FlashError."""
        self.flash.erase_security_settings()
        self._emit(SecuritySettingsErased())
        self._emit(StatusMessageShown(ERASING_LISTS))

    # -- performing commands -----------------------------------------------------------------------------------

    async def _run(self) -> BootOutcome:
        contents = self.flash.contents
        tvs = self._tvs_client(contents)
        steps = boot(self.model, contents, self._clock, attempts=self._settings.attempts)
        reply: Any = None
        while True:
            try:
                command = steps.send(reply)
            except StopIteration as stop:
                outcome: BootOutcome = stop.value
                break
            reply = await self._perform(command, tvs)
        if self._lost_early is not None:
            self._registration_lost(self._lost_early)
        return outcome

    async def _perform(self, command: Command, tvs: TvsClient) -> Any:
        match command:
            case Note(event=event):
                return self._emit(event)
            case Enter(state=state):
                return self._enter(state)
            case RequestTftpServers():
                return await _attempt(self._dhcp.tftp_servers(), "DHCP", lambda _detail: None)
            case Fetch():
                return await _attempt(
                    self._files.fetch(command.file_name, command.servers),
                    command.file_name,
                    lambda detail: _failed_fetch(command, detail),
                )
            case QueryTvs():
                return await _attempt(
                    tvs.query(command), "TVS", lambda detail: TvsFailure(TrustReason.TVS_UNREACHABLE, detail)
                )
            case Register():
                return await _attempt(
                    self._register(command),
                    "registration",
                    lambda detail: RegistrationResult(RegistrationStatus.UNREACHABLE, detail=detail),
                )
            case Store(changes=changes):
                return self._store(changes)
            case Sleep(seconds=seconds):
                return await asyncio.sleep(seconds)

    def _store(self, changes: Mapping[str, Any]) -> StoreResult:
        try:
            self.flash.store(**changes)
        except FlashError as error:
            return StoreResult(str(error))
        return StoreResult()

    def _tvs_client(self, contents: FlashContents) -> TvsClient:
        identity = contents.active_identity
        kind = "LSC" if contents.lsc is not None else "MIC"
        return TvsClient(
            client_certificate=ClientCertificate(identity, kind) if identity is not None else None,
            local_address=self._settings.local_address,
            profile=self._settings.tls_profile,
            deadlines=self._settings.tvs_deadlines,
            emit=self._emit,
        )

    async def _register(self, command: Register) -> RegistrationResult:
        client = RegistrationClient(
            randomness=self._randomness,
            identity=self.flash.contents.active_identity,
            local_address=self._settings.local_address,
            profile=self._settings.tls_profile,
        )
        registration = await client.register(command, self._registration_lost)
        if registration.result.status is RegistrationStatus.REGISTERED:
            self._registration = registration
        else:
            await registration.close()
        return registration.result

    def _registration_lost(self, why: str) -> None:
        if self._state is not PhoneState.REGISTERED:
            self._lost_early = why  # the boot has not even been told of the success yet
            return
        self._enter(PhoneState.UNREGISTERED)
        self._emit(RegistrationLost(self._call_manager, why))

    def _emit(self, event: Event) -> None:
        if isinstance(event, StatusMessageShown):
            self._messages.append(event.text)
        elif isinstance(event, Registered):
            self._call_manager = event.call_manager
        self._tell(event)

    def _enter(self, state: PhoneState) -> None:
        require_transition(self._state, state)
        before, self._state = self._state, state
        self._emit(StateChanged(before, state))


async def _attempt(step: Awaitable[Result], what: str, failed: Callable[[str], Result]) -> Result:
    """The step's result, or a failed one: the clients return failures, so an exception here is our own fault."""
    try:
        return await step
    except Exception as error:
        _log.exception("%s: an I/O step of the phone broke", what)
        return failed(f"{type(error).__name__}: {error}")


def _failed_fetch(command: Fetch, detail: str) -> FetchResult:
    attempts = tuple(FetchAttempt(server, "tftp", FetchStatus.ERROR, detail) for server in command.servers[:1])
    return FetchResult(FetchStatus.ERROR, attempts=attempts)
