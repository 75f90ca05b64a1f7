"""A phone registers with one CallManager over TLS 5061 or TCP 5060, and keeps the registration alive (facts 7.6, 7.7).

Alarm (REFER), then REGISTER, if need be again with digest credentials; refreshed before it expires, ended by an
unregistration or by hanging up. Calls are not emulated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Final

from cucm.clock import Clock, SystemClock
from cucm.errors import LabError, TlsError, TrustError, TrustReason, WireError
from cucm.net.alarms import Alarm, Alarms
from cucm.net.tls import Stream, TlsProfile, open_stream
from cucm.records import dataclass
from cucm.wire.sip import expiry_of
from cucm.wire.sip_digest import Digest, first_answerable
from cucm.wire.sip_message import Response
from phone_agent.commands import Register, RegistrationResult, RegistrationStatus
from phone_agent.flash import DeviceIdentity
from phone_agent.network_trouble import words_of
from phone_agent.sip_connection import SipConnection
from phone_agent.sip_requests import EXPIRES_S, SipRequests
from phone_agent.tls_identity import client_tls

CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 10.0
"""How long a phone waits for TCP, TLS and the answer is UNKNOWN: these three are ours."""
GOODBYE_TIMEOUT_S: Final = 2.0
"""How long it waits for the answer to an unregistration; ours."""
REFRESH_EARLY_S: Final = 5
"""Seconds before its end a registration is refreshed (`timerRegisterDelta` of a configuration [recall]), but not before
half of its time is over."""

OnLost = Callable[[str], None]
"""Called once, with the reason in words, when the CallManager ends a registration or does not refresh it."""


def _nobody_cares(_why: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class RegistrationDeadlines:
    """Seconds per CallManager."""

    connect_s: float = CONNECT_TIMEOUT_S
    handshake_s: float = HANDSHAKE_TIMEOUT_S
    answer_s: float = ANSWER_TIMEOUT_S
    goodbye_s: float = GOODBYE_TIMEOUT_S


class Registration:
    """What came of an attempt; while it stands, its connection. `close` it in any case.

    Nothing runs for it between two refreshes: an alarm of the lab's clock begins the next one.
    """

    __slots__ = ("_alarm", "_alarms", "_dialogue", "_ending", "_on_lost", "_refreshing", "result")

    def __init__(
        self,
        result: RegistrationResult,
        dialogue: RegistrationDialogue | None = None,
        on_lost: OnLost = _nobody_cares,
        alarms: Alarms | None = None,
    ) -> None:
        self.result = result
        self._dialogue = dialogue
        self._on_lost = on_lost
        self._alarms = alarms
        self._alarm: Alarm | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        if dialogue is not None:
            dialogue.watch(self._end)
            self._wait_for_refresh(dialogue)

    @property
    def is_open(self) -> bool:
        """Whether the CallManager still has the connection of this registered phone."""
        return self._dialogue is not None

    async def unregister(self) -> bool:
        """Tell the CallManager (REGISTER with Expires: 0), then hang up; whether it agreed. `on_lost` is not called."""
        dialogue = self._dialogue
        if dialogue is None:
            return False
        try:
            await self._let_go()
            return await dialogue.say_goodbye()
        finally:
            await dialogue.connection.close()

    async def close(self) -> None:
        """Hang up: the CallManager sees the connection end and unregisters the phone. `on_lost` is not called.

        This and the other two leave no connection open when they are cancelled.
        """
        dialogue = self._dialogue
        try:
            await self._let_go()
        finally:
            if dialogue is not None:
                await dialogue.connection.close()

    async def abort(self) -> None:
        """Cut the connection, as a power failure does. `on_lost` is not called."""
        dialogue = self._dialogue
        try:
            await self._let_go()
        finally:
            if dialogue is not None:
                await dialogue.connection.abort()

    async def _let_go(self) -> None:
        """From now on nothing is refreshed."""
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            dialogue.watch(None)
        if self._alarm is not None:
            self._alarm.cancel()
        running = [task for task in (self._refreshing, self._ending) if task is not None]
        self._refreshing = self._ending = None
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _wait_for_refresh(self, dialogue: RegistrationDialogue) -> None:
        dialogue.connection.rest()
        if self._alarms is not None and self._ending is None:
            self._alarm = self._alarms.at(dialogue.refresh_at, self._begin_refresh)

    def _begin_refresh(self) -> None:
        if self._dialogue is not None:
            self._refreshing = asyncio.create_task(self._refresh(self._dialogue))

    async def _refresh(self, dialogue: RegistrationDialogue) -> None:
        result = await dialogue.register()
        self._refreshing = None
        if self._dialogue is not dialogue or self._ending is not None:
            return
        if result.status is RegistrationStatus.REGISTERED:
            self._wait_for_refresh(dialogue)
        else:
            self._end(f"the registration could not be refreshed: {result.detail}")

    def _end(self, why: str) -> None:
        """The registration is over, and not by the phone's wish."""
        dialogue = self._dialogue
        if dialogue is None or self._ending is not None:
            return
        dialogue.watch(None)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
        self._ending = asyncio.create_task(self._tell_lost(dialogue, why))

    async def _tell_lost(self, dialogue: RegistrationDialogue, why: str) -> None:
        with contextlib.suppress(OSError, LabError):
            await dialogue.connection.close()
        self._dialogue = self._ending = None
        self._on_lost(why)


class RegistrationDialogue:
    """The REGISTERs of one connection; `refresh_at` is when the next one is due, by the lab's clock."""

    __slots__ = (
        "_answer_s",
        "_challenge",
        "_clock",
        "_command",
        "_end_in_words",
        "_goodbye_s",
        "_on_end",
        "_requests",
        "connection",
        "refresh_at",
    )

    def __init__(
        self,
        command: Register,
        connection: SipConnection,
        requests: SipRequests,
        deadlines: RegistrationDeadlines,
        clock: Clock,
    ) -> None:
        self.connection = connection
        self._command = command
        self._requests = requests
        self._answer_s = deadlines.answer_s
        self._goodbye_s = deadlines.goodbye_s
        self._clock = clock
        self._challenge: Digest | None = None
        self.refresh_at = 0.0
        self._on_end: OnLost | None = None
        self._end_in_words: str | None = None
        connection.on_end = self._has_ended

    def watch(self, on_end: OnLost | None) -> None:
        """Who hears that the other side has ended the connection; at once if it has already."""
        self._on_end = on_end
        if self._end_in_words is not None and on_end is not None:
            on_end(self._end_in_words)

    async def begin(self) -> RegistrationResult:
        """Alarms, then REGISTER, without waiting for the answers to the alarms (whether a phone waits is UNKNOWN)."""
        try:
            async with asyncio.timeout(self._answer_s):
                for lists in self._command.alarms:
                    await self.connection.tell(self._requests.alarm(lists))
        except (OSError, LabError):
            pass  # a connection that is broken already shows so again, with the reason
        return await self.register()

    async def register(self) -> RegistrationResult:
        """One registration or refresh, whatever comes of it."""
        try:
            async with asyncio.timeout(self._answer_s):
                response = await self._register_with_credentials(EXPIRES_S)
        except TimeoutError:
            return _unanswered(f"no SIP answer within {self._answer_s:g} s")
        except WireError as error:
            return _unanswered(f"no SIP answer: {error}")
        except (TlsError, OSError) as error:
            # under TLS 1.3 a client learns only now that its certificate was refused; the reset that follows
            # the server's alert may overtake it
            is_tls = self._command.transport == "tls"
            status = RegistrationStatus.TLS_FAILED if is_tls else RegistrationStatus.UNREACHABLE
            return RegistrationResult(status, detail=_words(error))
        if response is None:
            return _unanswered("the CallManager closed the connection without an answer")
        if response.code == 200:
            self.refresh_at = self._clock.now() + _refresh_after(response)
        return _result(response)

    async def say_goodbye(self) -> bool:
        """End the registration; whether the CallManager agreed."""
        try:
            async with asyncio.timeout(self._goodbye_s):
                response = await self._register_with_credentials(0)
        except (OSError, LabError):  # TimeoutError is an OSError
            return False
        return response is not None and response.code == 200

    async def _register_with_credentials(self, expires_s: int) -> Response | None:
        """A challenge is answered once, and once more if only the nonce was too old."""
        answers = 0
        while True:
            response = await self.connection.ask(self._requests.register(expires_s, self._challenge))
            if response is None or response.code != 401 or answers == 2 or not self._can_answer(response, answers):
                return response
            answers += 1

    def _can_answer(self, response: Response, answers: int) -> bool:
        """Whether to try (again) with credentials."""
        if not self._command.digest_user:
            return False
        challenge = first_answerable(response.headers.getlist("WWW-Authenticate"))
        if challenge is None:
            return False
        self._challenge = challenge
        return answers == 0 or challenge["stale"].lower() == "true"

    def _has_ended(self, error: Exception | None) -> None:
        self._end_in_words = _end_in_words(error)
        if self._on_end is not None:
            self._on_end(self._end_in_words)


class RegistrationClient:
    """Registers one phone. `identity` (LSC or MIC) is its TLS client certificate; `randomness` makes SIP's tags.

    `alarms` are those of `clock`: phones of one lab share them.
    """

    def __init__(
        self,
        *,
        randomness: Random,
        identity: DeviceIdentity | None = None,
        local_address: str | None = None,
        profile: TlsProfile = TlsProfile.MODERN,
        deadlines: RegistrationDeadlines | None = None,
        clock: Clock | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        self._randomness = randomness
        self._identity = identity
        self._local_address = local_address
        self._profile = profile
        self._deadlines = deadlines or RegistrationDeadlines()
        self._clock = clock or SystemClock()
        self._alarms = alarms or Alarms(self._clock)

    async def register(self, command: Register, on_lost: OnLost = _nobody_cares) -> Registration:
        """One attempt at one CallManager; whatever goes wrong is in the `result`."""
        connected: list[Stream] = []
        try:
            stream = await self._open(command, connected.append)
        except (OSError, UnicodeError, LabError) as error:  # UnicodeError: the address can be no host's name
            is_tls_trouble = bool(connected) or isinstance(error, LabError)
            status = RegistrationStatus.TLS_FAILED if is_tls_trouble else RegistrationStatus.UNREACHABLE
            return Registration(RegistrationResult(status, detail=_words(error)))
        requests = SipRequests(command, stream.local_address, self._randomness)
        connection = SipConnection(stream)
        try:
            dialogue = RegistrationDialogue(command, connection, requests, self._deadlines, self._clock)
            result = await dialogue.begin()
        except BaseException:
            await connection.abort()
            raise
        if result.status is RegistrationStatus.REGISTERED:
            return Registration(result, dialogue, on_lost, self._alarms)
        await connection.close()
        return Registration(result)

    async def _open(self, command: Register, on_connected: Callable[[Stream], None]) -> Stream:
        tls = client_tls(self._profile, self._identity) if command.transport == "tls" else None

        def tcp_stands(stream: Stream) -> None:
            on_connected(stream)
            if tls is not None:
                tls.present(stream)

        return await open_stream(
            command.address,
            command.port,
            context=tls.context if tls is not None else None,
            verify_peer=_must_be_one_of(command.trusted_certificates),
            local_address=self._local_address,
            connect_timeout_s=self._deadlines.connect_s,
            handshake_timeout_s=self._deadlines.handshake_s,
            on_connected=tcp_stands,
        )


def _refresh_after(response: Response) -> float:
    """Seconds until the refresh; what cannot be read, or 0 from a CallManager that has just registered us, is what
    was asked for.
    """
    try:
        granted_s = expiry_of(response, EXPIRES_S) or EXPIRES_S
    except WireError:
        granted_s = EXPIRES_S
    return max(granted_s - REFRESH_EARLY_S, granted_s / 2)


def _end_in_words(error: Exception | None) -> str:
    return "the CallManager closed the connection" if error is None else _words(error)


def _unanswered(detail: str) -> RegistrationResult:
    return RegistrationResult(RegistrationStatus.UNREACHABLE, detail=detail)


def _result(response: Response) -> RegistrationResult:
    is_good = response.code == 200
    status = RegistrationStatus.REGISTERED if is_good else RegistrationStatus.REFUSED
    return RegistrationResult(status, response.code, f"{response.code} {response.phrase}"[:128])


def _must_be_one_of(trusted: tuple[bytes, ...]) -> Callable[[bytes], None]:
    def verify(certificate: bytes) -> None:
        if certificate not in trusted:
            raise TrustError(
                TrustReason.RECORD_KEY_MISMATCH,
                "the CallManager's certificate is not that of a CCM record of the phone's lists",
                mend="give the phone a CTL of this cluster: utils ctl update CTLFile, reset the phone",
            )

    return verify


def refused_by(alert: str) -> str:
    """What is said of a CallManager that ends the handshake with this alert."""
    return f"TLS alert: {alert}"


def _words(error: Exception) -> str:
    if isinstance(error, TlsError) and error.alert:
        return refused_by(error.alert)
    return words_of(error)
