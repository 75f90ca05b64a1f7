"""A phone on real sockets: performs what the boot asks for, with asyncio.

`Phone` has flash, a state and, while it is registered, an open connection to its CallManager. An I/O step that goes
wrong becomes a result the boot can decide about, never an exception in the middle of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final, TypeVar

from cucm.clock import Clock, SystemClock
from cucm.errors import FlashError, LabError, TrustReason
from cucm.events import Emit, Event, ignore
from cucm.events.phone import (
    BootAborted,
    LscInstalled,
    PoweredOff,
    PowerLost,
    Registered,
    RegistrationLost,
    SecuritySettingsErased,
    StateChanged,
    StatusMessageShown,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.phone import PHONE_FLASH, PHONE_STEP, PowerLoss
from cucm.net.alarms import Alarms
from phone_agent.address import AddressClient
from phone_agent.boot import BootOutcome, PhoneModel, boot, register_again
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
    Steps,
    Store,
    StoreResult,
    TvsFailure,
    step_of,
    stored_names,
)
from phone_agent.failover import Failover
from phone_agent.file_client import FileClient
from phone_agent.flash import FlashContents, PhoneFlash
from phone_agent.lsc import LscIssuer, drop_lsc, obtain_lsc
from phone_agent.memory import PhoneMemory
from phone_agent.registration import Registration, RegistrationClient
from phone_agent.settings import BOOT_DEADLINE_S, PhonePorts, PhoneSettings
from phone_agent.state import PhoneState, require_transition
from phone_agent.status_texts import ERASING_LISTS, LSC_DELETED, LSC_FAILED, LSC_INSTALLED
from phone_agent.tvs_client import ClientCertificate, TvsClient
from phone_agent.verdicts import Verdict, verdict_of

__all__ = ["BOOT_DEADLINE_S", "BootTimedOut", "Phone", "PhonePorts", "PhoneSettings", "PowerCut"]

MAX_STATUS_MESSAGES: Final = 100
"""Ours: how many messages the Status screen keeps."""
MAX_VERDICTS: Final = 200
"""Ours: how many are kept of a boot."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class BootTimedOut(LabError):
    """The boot took longer than its deadline; the phone is off."""


class PowerCut(LabError):
    """A fault took the phone's power; the phone is off."""


class Phone:
    """One phone. Not for use by two tasks at once.

    `dhcp` is closed when the power goes and asked again at the next boot; the phone's certificates (LSC, MIC) are in
    `flash`. `randomness` makes SIP's tags; by default it depends on the MAC address alone. `alarms` are those of
    `clock`: phones of one lab share them.
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
        faults: FaultSource = NO_FAULTS,
        alarms: Alarms | None = None,
    ) -> None:
        self.model = model
        self._faults = faults.at(phone=model.name)
        self.flash = flash
        self._dhcp = dhcp
        self._settings = settings or PhoneSettings()
        self._clock = clock or SystemClock()
        self._alarms = alarms or Alarms(self._clock)
        self._tell = emit
        self.last_lsc_problem: str | None = None
        """Why the phone took no LSC when it was last to get one."""
        self._state = PhoneState.OFF
        self._messages: list[str] = []
        self._verdicts: list[Verdict] = []
        self._outcome: BootOutcome | None = None
        self._registration: Registration | None = None
        self._call_manager = ""
        self._failover = Failover(self._register_again, self._settings.failover_delays)
        self._lost_early: str | None = None
        self._randomness = randomness or Random(model.mac)  # noqa: S311 (SIP tags, not secrets)
        self._files = FileClient(
            local_address=self._settings.local_address,
            http_port=self._settings.ports.http,
            tftp_port=self._settings.ports.tftp,
            http=model.capabilities.http,
        )

    @property
    def state(self) -> PhoneState:
        return self._state

    @property
    def status_messages(self) -> tuple[str, ...]:
        """What the Status screen shows, oldest first; it survives a reset, not a `Phone` object."""
        return tuple(self._messages)

    @property
    def registered_with(self) -> str | None:
        """Name of the CallManager that has the phone, as its configuration calls it."""
        return self._call_manager if self._state is PhoneState.REGISTERED else None

    @property
    def last_outcome(self) -> BootOutcome | None:
        """What became of the last boot that came to its end; None before the first."""
        return self._outcome

    @property
    def last_verdicts(self) -> tuple[Verdict, ...]:
        """What the phone made of lists, configuration, TVS and CallManagers since its last boot began."""
        return tuple(self._verdicts)

    @property
    def memory(self) -> PhoneMemory:
        """What it knows besides its flash, to `wake` with later."""
        return PhoneMemory(
            self._state, self._call_manager, self.status_messages, self.last_verdicts, self._failover.is_running
        )

    async def wake(self, memory: PhoneMemory) -> None:
        """Go on as an unpowered phone that was never off: a lease, and its CallManager, without a boot.

        For a lab whose state is brought back. It is registered again if its CallManager takes it with the files in
        flash; one that was in the middle of a boot boots. Raises BootTimedOut.
        """
        require_transition(self._state, PhoneState.REQUESTING_ADDRESS)
        self._messages.extend(memory.status_messages[-MAX_STATUS_MESSAGES:])
        if memory.state is PhoneState.OFF:
            return
        if memory.state not in (PhoneState.REGISTERED, PhoneState.REGISTERING, PhoneState.UNREGISTERED):
            await self.boot()
            return
        self._verdicts.extend(memory.verdicts[-MAX_VERDICTS:])
        self._call_manager = memory.call_manager
        self._state = PhoneState.UNREGISTERED
        self._emit(StateChanged(PhoneState.OFF, self._state))
        await _attempt(self._dhcp.tftp_servers(), "DHCP", lambda _detail: None)
        was_registered = memory.state is PhoneState.REGISTERED
        is_registered = was_registered and await self._register_again(None, memory.call_manager)
        if not is_registered and (was_registered or memory.seeks):
            self._fail_over()

    async def boot(self) -> BootOutcome:
        """Boot an unpowered phone; afterwards it is registered, or not and says why.

        Raises BootTimedOut, PowerCut, IllegalTransition for a phone that is on already.
        """
        if self._failover.is_running:
            await self._failover.end()
        require_transition(self._state, PhoneState.REQUESTING_ADDRESS)
        self._lost_early = None
        self._verdicts.clear()
        await self._hang_up()
        try:
            async with asyncio.timeout(self._settings.boot_deadline_s):
                self._outcome = await self._run()
                return self._outcome
        except TimeoutError:
            text = f"the boot did not end within {self._settings.boot_deadline_s:g} s"
            self._emit(BootAborted(text))
            await self.power_off()
            raise BootTimedOut(
                text, where=self.model.name, mend="see which server hangs, or raise the deadline"
            ) from None
        except PowerCut:
            await self.crash()
            raise
        except BaseException:
            await self.power_off()
            raise

    async def power_off(self) -> None:
        """Cut the power: connections close, flash stays."""
        await self._failover.end()
        await self._hang_up()
        await self._end_lease()
        if self._state is not PhoneState.OFF:
            self._enter(PhoneState.OFF)
            self._emit(PoweredOff())

    async def settle(self) -> None:
        """Returns when the phone does nothing by itself: no failover attempt is under way. Not for a boot."""
        await self._failover.settle()

    async def crash(self) -> None:
        """The power fails: connections are reset, nothing is said to anybody, flash stays. Not during a boot."""
        await self._failover.end()
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.abort()
        await self._end_lease()
        if self._state is not PhoneState.OFF:
            self._enter(PhoneState.OFF)
            self._emit(PowerLost())

    async def _hang_up(self) -> None:
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.close()

    async def _unregister(self) -> None:
        """Tell the CallManager that the phone goes (facts 7.7); without power there is nobody to tell it."""
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.unregister()

    async def _end_lease(self) -> None:
        """A phone that loses its power, or is reset, keeps its lease [inferred]: no DHCPRELEASE."""
        await _attempt(self._dhcp.close(release=False), "DHCP", lambda _detail: None)

    async def reset(self) -> BootOutcome:
        """Unregister, power off and boot again, as `Reset` in CUCM Administration does."""
        await self._failover.end()
        await self._unregister()
        await self.power_off()
        return await self.boot()

    def erase_security_settings(self) -> None:
        """The security menu's erase: both trust lists go. Raises FlashError."""
        self.flash.erase_security_settings()
        self._emit(SecuritySettingsErased())
        self._emit(StatusMessageShown(ERASING_LISTS))

    # -- the phone's own certificate -----------------------------------------------------------------------------

    async def install_lsc(self, capf: LscIssuer) -> bool:
        """Get a certificate from this CAPF; events and the Status screen tell why not. TLS uses it from now on.

        The phone takes one only from a CAPF that its lists name (facts 11, F21).
        """
        event = await obtain_lsc(capf, self.model, self.flash)
        is_good = isinstance(event, LscInstalled)
        self.last_lsc_problem = None if isinstance(event, LscInstalled) else event.detail
        self._emit(event)
        self._emit(StatusMessageShown(LSC_INSTALLED if is_good else LSC_FAILED))
        return is_good

    def delete_lsc(self) -> None:
        """The MIC is used again, where there is one. Raises FlashError."""
        self._emit(drop_lsc(self.flash))
        self._emit(StatusMessageShown(LSC_DELETED))

    # -- performing commands -----------------------------------------------------------------------------------

    async def _run(self) -> BootOutcome:
        steps = boot(self.model, self.flash.contents, self._clock, attempts=self._settings.attempts)
        outcome: BootOutcome = await self._go(steps)
        self._notice_early_loss()
        return outcome

    async def _register_again(self, without: str | None, only: str | None = None) -> bool:
        """Whether a CallManager of the group has the phone, or had it for a moment."""
        self._lost_early = None
        await self._hang_up()
        try:
            steps = register_again(self.model, self.flash.contents, self._clock, without=without, only=only)
            where = await self._go(steps)
        except BaseException:
            if self._state is PhoneState.REGISTERING:
                self._enter(PhoneState.UNREGISTERED)
            raise
        self._notice_early_loss()
        return where is not None

    async def _go(self, steps: Steps[Result]) -> Result:
        tvs = self._tvs_client(self.flash.contents)
        reply: Any = None
        while True:
            try:
                command = steps.send(reply)
            except StopIteration as stop:
                outcome: Result = stop.value
                return outcome
            if type(command) is Note:  # half of all commands, and nothing to wait for
                self._emit(command.event)
                reply = None
            elif self._faults.watches(PHONE_STEP):
                reply = await self._perform_in_danger(command, tvs)
            else:
                reply = await self._perform(command, tvs)

    async def _perform_in_danger(self, command: Command, tvs: TvsClient) -> Any:
        """Raises PowerCut where a fault says so."""
        step = step_of(command)
        match self._faults.fire(PHONE_STEP, **step) if step is not None else None:
            case PowerLoss(when="before"):
                raise self._power_cut(command)
            case PowerLoss():
                await self._perform(command, tvs)
                raise self._power_cut(command)
        return await self._perform(command, tvs)

    def _power_cut(self, command: Command) -> PowerCut:
        return PowerCut(f"{self.model.name} lost its power at {' '.join((step_of(command) or {}).values())}")

    def _notice_early_loss(self) -> None:
        if self._lost_early is not None:
            self._registration_lost(self._lost_early)

    async def _perform(self, command: Command, tvs: TvsClient) -> Any:
        match command:
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
        if self._faults.fire(PHONE_FLASH, stores=stored_names(changes)) is not None:
            return StoreResult("no room is left in the flash (a fault of the lab)")
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
            clock=self._clock,
            alarms=self._alarms,
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
        self._fail_over()

    def _fail_over(self) -> None:
        if self._settings.failover:
            self._failover.start(self._call_manager)

    def _emit(self, event: Event) -> None:
        if isinstance(event, StatusMessageShown):
            self._messages.append(event.text)
            del self._messages[:-MAX_STATUS_MESSAGES]
        elif isinstance(event, Registered):
            self._call_manager = event.call_manager
        if (verdict := verdict_of(event)) is not None:
            self._verdicts.append(verdict)
            del self._verdicts[:-MAX_VERDICTS]
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
