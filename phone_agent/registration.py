"""A phone registers with one CallManager: TLS 5061 or TCP 5060, one SIP REGISTER, and the connection kept (facts 7.7).

The rest of the SIP dialogue (the alarm before REGISTER, refreshing, calls) is not emulated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from OpenSSL import SSL
from sipmessage import URI, Address, CSeq, Parameters, Request, Response, Via

from cucm.errors import LabError, TlsError, TrustError, TrustReason, WireError
from cucm.net.tls import Stream, TlsProfile, client_context, open_stream
from cucm.wire.sip import DEVICE_NAME_PARAMETER, SipReceiver
from phone_agent.commands import Register, RegistrationResult, RegistrationStatus
from phone_agent.flash import DeviceIdentity

CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 10.0
"""How long a phone waits for TCP, TLS and the answer is UNKNOWN: these three are ours."""
FIRST_SEQUENCE: Final = 101
"""CSeq of a phone's first request [recall]."""
EXPIRES_S: Final = 3600
"""What the phone asks for [recall]."""

OnLost = Callable[[str], None]
"""Called once, with the reason in words, when the CallManager ends a registration."""


def _nobody_cares(_why: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class RegistrationDeadlines:
    """Seconds per CallManager."""

    connect_s: float = CONNECT_TIMEOUT_S
    handshake_s: float = HANDSHAKE_TIMEOUT_S
    answer_s: float = ANSWER_TIMEOUT_S


class Registration:
    """What came of an attempt; while it stands, its connection. `close` it in any case."""

    def __init__(
        self, result: RegistrationResult, stream: Stream | None = None, on_lost: OnLost = _nobody_cares
    ) -> None:
        self.result = result
        self._stream = stream
        self._on_lost = on_lost
        self._watch = asyncio.create_task(self._wait_for_end(stream)) if stream is not None else None

    @property
    def is_open(self) -> bool:
        """Whether the CallManager still has the connection of this registered phone."""
        return self._stream is not None

    async def close(self) -> None:
        """Hang up: the CallManager sees the connection end and unregisters the phone. `on_lost` is not called."""
        stream, self._stream = self._stream, None
        try:
            if self._watch is not None:
                self._watch.cancel()
                await asyncio.wait([self._watch])
        finally:
            if stream is not None:
                await stream.close()

    async def abort(self) -> None:
        """The phone has lost its power: the connection is reset, nothing is said. `on_lost` is not called."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    async def _wait_for_end(self, stream: Stream) -> None:
        why = "the CallManager closed the connection"
        try:
            while await stream.read():
                pass  # later requests of a CallManager (NOTIFY ...) are not emulated
        except (OSError, LabError) as error:
            why = str(error)
        await stream.close()
        self._stream = None
        self._on_lost(why)


class RegistrationClient:
    """Registers one phone. `identity` (LSC or MIC) is its TLS client certificate; `randomness` makes SIP's tags."""

    def __init__(
        self,
        *,
        randomness: Random,
        identity: DeviceIdentity | None = None,
        local_address: str | None = None,
        profile: TlsProfile = TlsProfile.MODERN,
        deadlines: RegistrationDeadlines | None = None,
    ) -> None:
        self._randomness = randomness
        self._identity = identity
        self._local_address = local_address
        self._profile = profile
        self._deadlines = deadlines or RegistrationDeadlines()

    async def register(self, command: Register, on_lost: OnLost = _nobody_cares) -> Registration:
        """One attempt at one CallManager; whatever goes wrong is in the `result`."""
        connected = asyncio.Event()
        try:
            stream = await self._open(command, connected)
        except (OSError, UnicodeError, LabError) as error:  # UnicodeError: the address can be no host's name
            is_tls_trouble = connected.is_set() or isinstance(error, LabError)
            status = RegistrationStatus.TLS_FAILED if is_tls_trouble else RegistrationStatus.UNREACHABLE
            return Registration(RegistrationResult(status, detail=_words(error)))
        try:
            result = await self._ask(stream, command)
        except BaseException:
            stream.abort()
            raise
        if result.status is RegistrationStatus.REGISTERED:
            return Registration(result, stream, on_lost)
        await stream.close()
        return Registration(result)

    async def _open(self, command: Register, connected: asyncio.Event) -> Stream:
        is_tls = command.transport == "tls"
        return await open_stream(
            command.address,
            command.port,
            context=self._context() if is_tls else None,
            verify_peer=_must_be_one_of(command.trusted_certificates),
            local_address=self._local_address,
            connect_timeout_s=self._deadlines.connect_s,
            handshake_timeout_s=self._deadlines.handshake_s,
            on_connected=lambda _stream: connected.set(),
        )

    def _context(self) -> SSL.Context:
        identity = self._identity
        if identity is None:
            return client_context(profile=self._profile)
        return client_context(
            profile=self._profile, certificate_der=identity.certificate, private_key_der=identity.private_key
        )

    async def _ask(self, stream: Stream, command: Register) -> RegistrationResult:
        request = register_request(command, stream.local_address, self._randomness)
        try:
            async with asyncio.timeout(self._deadlines.answer_s):
                stream.write(bytes(request))
                await stream.drain()
                response = await _final_response(stream, request)
        except TimeoutError:
            detail = f"no SIP answer within {self._deadlines.answer_s:g} s"
            return RegistrationResult(RegistrationStatus.UNREACHABLE, detail=detail)
        except WireError as error:
            return RegistrationResult(RegistrationStatus.UNREACHABLE, detail=f"no SIP answer: {error}")
        except (TlsError, ConnectionError) as error:
            # under TLS 1.3 a client learns only now that its certificate was refused; the reset that follows
            # the server's alert may overtake it
            is_tls = command.transport == "tls"
            status = RegistrationStatus.TLS_FAILED if is_tls else RegistrationStatus.UNREACHABLE
            return RegistrationResult(status, detail=_words(error))
        return _result(response)


def register_request(command: Register, local: tuple[str, int], randomness: Random) -> Request:
    """The REGISTER for this device from this local address and port.

    The user part of a phone's address is UNKNOWN where the facts stop; here it is the MAC address in lower case.
    `+sip.instance` and the device name in Contact are [recall].
    """
    user = command.device_name.removeprefix("SEP").lower()
    mine = URI("sip", command.address, user=user)
    request = Request("REGISTER", URI("sip", command.address))
    branch = Parameters(branch=f"z9hG4bK{randomness.getrandbits(64):016x}")
    request.via = [Via(command.transport.upper(), _host(local[0]), local[1], branch)]
    request.from_address = Address(mine, parameters=Parameters(tag=f"{randomness.getrandbits(64):016x}"))
    request.to_address = Address(mine)
    request.call_id = f"{randomness.getrandbits(64):016x}@{_host(local[0])}"
    request.cseq = CSeq(FIRST_SEQUENCE, "REGISTER")
    request.max_forwards = 70
    request.headers.set("Contact", _contact(command, user, local))
    request.expires = EXPIRES_S
    request.content_length = 0
    return request


def _contact(command: Register, user: str, local: tuple[str, int]) -> str:
    """Written by hand: `sipmessage` would percent-encode the quotes and the `+` of these parameters."""
    instance = f"<urn:uuid:00000000-0000-0000-0000-{user}>"
    return (
        f"<sip:{user}@{_host(local[0])}:{local[1]};transport={command.transport}>"
        f';+sip.instance="{instance}";{DEVICE_NAME_PARAMETER}="{command.device_name}"'
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _final_response(stream: Stream, request: Request) -> Response | None:
    """The answer to `request`, None when there came none; what is provisional or no answer to us is passed over."""
    receiver = SipReceiver()
    while True:
        while (message := receiver.next_message()) is not None:
            if isinstance(message, Response) and message.code >= 200 and _answers(message, request):
                return message
        data = await stream.read()
        if not data:
            return None
        receiver.receive_data(data)


def _answers(response: Response, request: Request) -> bool:
    """Whether it is ours; a 400 to what could not be read repeats nothing of it."""
    wanted = (request.headers.get("Call-ID"), request.headers.get("CSeq"))
    return (response.headers.get("Call-ID"), response.headers.get("CSeq")) == wanted or response.code == 400


def _result(response: Response | None) -> RegistrationResult:
    if response is None:
        detail = "the CallManager closed the connection without an answer"
        return RegistrationResult(RegistrationStatus.UNREACHABLE, detail=detail)
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


def _words(error: Exception) -> str:
    if isinstance(error, TlsError) and error.alert:
        return f"TLS alert: {error.alert}"
    return str(error) or type(error).__name__
