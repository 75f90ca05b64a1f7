"""One phone's SIP connection with a CallManager: REGISTER, REFER with an alarm, OPTIONS."""

from __future__ import annotations

import asyncio
from typing import Final

from cucm.errors import WireError
from cucm.events import Emit
from cucm.events.cluster import (
    AlarmReceived,
    AlarmRefused,
    RegistrationChallenged,
    RegistrationEnd,
    RegistrationRefusal,
    RegistrationRefused,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.sip import SIP_REQUEST, Close, Delay, Drop, Reject
from cucm.net.listener import Limits
from cucm.net.tls import Stream
from cucm.records import dataclass
from cucm.wire.alarm import CONTENT_TYPE, Alarm, DeviceTlInfo
from cucm.wire.sip import (
    SipReceiver,
    as_device_name,
    device_name_of,
    expiry_of,
    granted_contact,
    required_extensions,
    response_to,
)
from cucm.wire.sip_message import Request, Response
from lab.admission import Admission, Challenge, Refusal, device_in, malformed
from lab.registrar import Registrar, Station, Transport

EXPIRES_S: Final = 120
"""What is granted at most [recall: the station keepalive interval]. Less is granted as asked for: whether a CallManager
refuses short times (423) is UNKNOWN."""
METHODS: Final = "REGISTER, REFER, OPTIONS"
EXTENSIONS: Final = frozenset({"norefersub"})
"""What a request may require (facts 7.6)."""
MAX_WRONG_CREDENTIALS: Final = 3
"""On one connection, before it is closed; ours."""
UNREGISTERED_REQUESTS: Final = 6
"""A connection without a registration ends after so many request time-outs (a minute), whatever is asked; ours."""


@dataclass(slots=True)
class ServiceEnding:
    """`reason` is set once the service itself ends the connections: it stops, or has crashed."""

    reason: RegistrationEnd | None = None


@dataclass(frozen=True, slots=True)
class CallManagerParts:
    """What the connections of one CallManager share."""

    admission: Admission
    registrar: Registrar
    limits: Limits
    emit: Emit
    ending: ServiceEnding
    faults: FaultSource = NO_FAULTS


class StationConnection:
    """Its requests, and the registrations that end with it.

    Every coroutine that waits between two requests is a frame for each registered phone: there are as few as may be.
    """

    __slots__ = (
        "_bearer",
        "_parts",
        "_receiver",
        "_station",
        "_stream",
        "_transport",
        "_unregistered_until",
        "_wrong_credentials",
    )

    def __init__(self, parts: CallManagerParts, stream: Stream, transport: Transport) -> None:
        self._parts = parts
        self._stream = stream
        self._transport: Transport = transport
        self._bearer = device_in(stream.peer_certificate)
        self._station = Station(transport, stream.peer_address, stream.cipher, stream.tls_version, stream.abort)
        self._receiver = SipReceiver()
        self._wrong_credentials = 0
        self._unregistered_until: float | None = None

    async def serve(self) -> None:
        """Until the phone hangs up, errs, or (as long as it is not registered) is silent too long."""
        end = RegistrationEnd.CONNECTION_BROKEN
        try:
            while await self._serve_one():
                pass  # nothing of a request is held while a registered phone is silent
            end = RegistrationEnd.CONNECTION_CLOSED
        except TimeoutError as error:
            if not self._station.devices:
                detail = str(error) or "no request in time"
                self._tell_refused(None, Refusal(None, "", RegistrationRefusal.TIMEOUT, detail))
        finally:
            end = self._parts.ending.reason or end
            for name in tuple(self._station.devices):
                self._parts.registrar.end(name, end, self._station)

    async def _serve_one(self) -> bool:
        """Whether the connection goes on."""
        try:
            request = await self._next_request()
        except WireError as error:
            self._tell_refused(None, malformed(error))
            await self._send(response_to(None, 400, "Bad Request"))
            return False
        return request is not None and not self._station.is_cut and await self._handle(request)

    async def _next_request(self) -> Request | None:
        """None when the phone has hung up. A registered phone may be silent until its registration expires."""
        self._stream.idle_timeout_s = None
        async with asyncio.timeout_at(self._deadline()):
            while True:
                message = self._receiver.next_message()
                if isinstance(message, Request):
                    return message
                if message is None:
                    data = await self._stream.read()
                    if not data:
                        return None
                    self._receiver.receive_data(data)

    def _deadline(self) -> float | None:
        """Of the next request, in the loop's time: soon, and not for ever, as long as no device is registered."""
        if self._station.devices:
            self._unregistered_until = None
            return None
        now, patience_s = asyncio.get_running_loop().time(), self._parts.limits.request_timeout_s
        if self._unregistered_until is None:
            self._unregistered_until = now + UNREGISTERED_REQUESTS * patience_s
        return min(now + patience_s, self._unregistered_until)

    async def _handle(self, request: Request) -> bool:
        """Answer, unless a fault comes first; whether the connection goes on."""
        fault = self._parts.faults.fire(
            SIP_REQUEST, peer=self._stream.peer_address[0], method=request.method[:32], transport=self._transport
        )
        match fault:
            case Drop():
                return True
            case Close():
                return False
            case Reject(status=status):
                refusal = Refusal(status, "Rejected", RegistrationRefusal.FAULT, "by a fault of the lab")
                return await self._refuse(request, self._bearer, refusal)
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
        return await self._handle_rightly(request)

    async def _handle_rightly(self, request: Request) -> bool:
        missing = _missing_extensions(request)
        if request.method == "ACK":
            return True  # never answered (RFC 3261 17.1.1.3)
        if missing:
            detail = f"requires {', '.join(missing)[:64]}"
            return await self._refuse(
                request, None, Refusal(420, "Bad Extension", RegistrationRefusal.EXTENSION, detail)
            )
        match request.method:
            case "REGISTER":
                return await self._register(request)
            case "REFER":
                return await self._take_alarm(request)
            case "OPTIONS":
                return await self._answer(request, 200, "OK")
        what = f"{request.method[:32]} is not emulated"
        return await self._refuse(request, None, Refusal(405, "Method Not Allowed", RegistrationRefusal.METHOD, what))

    # -- REGISTER ----------------------------------------------------------------------------------------------

    async def _register(self, request: Request) -> bool:
        try:
            name = device_name_of(request)
            expires_s = min(expiry_of(request, EXPIRES_S), EXPIRES_S)
            verdict = self._judge(name, request)
        except WireError as error:
            return await self._refuse(request, None, malformed(error))
        match verdict:
            case Refusal():
                return await self._refuse(request, name, verdict)
            case Challenge():
                return await self._ask_for_credentials(request, name, verdict)
        if expires_s:
            self._parts.registrar.register(name, self._station, expires_s)
        else:
            self._parts.registrar.end(name, RegistrationEnd.DEREGISTERED, self._station)
        await self._send(_accepted(request, expires_s))
        self._stream.rest()
        return True

    def _judge(self, name: str, request: Request) -> Refusal | Challenge | None:
        """None when the device may register here and thus. Raises WireError."""
        admission = self._parts.admission
        device = admission.device(name, self._transport, self._bearer)
        if isinstance(device, Refusal):
            return device
        objection = admission.objection(device, self._transport)
        return objection or admission.challenge(device, request, self._station.peer)

    async def _ask_for_credentials(self, request: Request, name: str, asked: Challenge) -> bool:
        if asked.refusal is None:
            self._parts.emit(RegistrationChallenged(self._transport, *self._stream.peer_address, name, asked.stale))
        else:
            self._wrong_credentials += 1
            self._tell_refused(name, asked.refusal)
        response = response_to(request, 401, "Unauthorized")
        response.headers.set("WWW-Authenticate", asked.header)
        await self._send(response)
        return self._wrong_credentials < MAX_WRONG_CREDENTIALS

    async def _refuse(self, request: Request, name: str | None, refusal: Refusal) -> bool:
        """Say no; after a malformed request the connection does not go on."""
        self._tell_refused(name, refusal)
        await self._answer(request, refusal.status or 500, refusal.phrase)
        return refusal.reason is not RegistrationRefusal.MALFORMED

    def _tell_refused(self, name: str | None, refusal: Refusal) -> None:
        peer = self._stream.peer_address
        if name is not None:
            self._parts.registrar.refused(name, self._station, refusal.reason, refusal.status)
        self._parts.emit(
            RegistrationRefused(self._transport, *peer, name, refusal.reason, refusal.status, refusal.detail)
        )

    # -- REFER -------------------------------------------------------------------------------------------------

    async def _take_alarm(self, request: Request) -> bool:
        """202 for a phone's alarm [recall]; other uses of REFER are not emulated."""
        content_type = (request.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if content_type != CONTENT_TYPE:
            return await self._refuse_alarm(request, None, 415, "Unsupported Media Type", f"{content_type[:64]!r}")
        try:
            alarm = Alarm.decode(request.body)
            name, lists = _sender_of(alarm), DeviceTlInfo.of(alarm)
        except WireError as error:
            return await self._refuse_alarm(request, None, 400, "Bad Request", str(error))
        device = self._parts.admission.device(name, self._transport, self._bearer)
        if isinstance(device, Refusal):
            return await self._refuse_alarm(request, name, device.status or 500, device.phrase, device.detail)
        self._parts.registrar.heard(name, self._station, lists)
        self._parts.emit(_received(self._station, name, alarm, lists))
        return await self._answer(request, 202, "Accepted")

    async def _refuse_alarm(self, request: Request, name: str | None, status: int, phrase: str, detail: str) -> bool:
        self._parts.emit(AlarmRefused(self._transport, *self._stream.peer_address, name, status, detail))
        return await self._answer(request, status, phrase)

    # -- answers -----------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, status: int, phrase: str) -> bool:
        response = response_to(request, status, phrase)
        if status in {200, 405}:
            response.headers.set("Allow", METHODS)
        if status == 415:
            response.headers.set("Accept", CONTENT_TYPE)
        if status == 420:
            response.headers.set("Unsupported", ", ".join(_missing_extensions(request)))
        await self._send(response)
        return True

    async def _send(self, response: Response) -> None:
        self._stream.idle_timeout_s = self._parts.limits.idle_timeout_s
        self._stream.write(bytes(response))
        await self._stream.drain()


def _accepted(request: Request, expires_s: int) -> Response:
    response = response_to(request, 200, "OK")
    contacts = request.headers.getlist("Contact")
    response.headers.set("Contact", *(granted_contact(contact, expires_s) for contact in contacts))
    response.headers.set("Expires", str(expires_s))
    return response


def _missing_extensions(request: Request) -> list[str]:
    return [one for one in required_extensions(request) if one.lower() not in EXTENSIONS]


def _sender_of(alarm: Alarm) -> str:
    name = next((one.value.strip() for one in alarm.parameters if one.name == "DeviceName"), "")
    return as_device_name(name, "alarm.DeviceName")


def _received(station: Station, name: str, alarm: Alarm, lists: DeviceTlInfo | None) -> AlarmReceived:
    if lists is None:
        return AlarmReceived(station.transport, *station.peer, name, alarm.name[:64])
    return AlarmReceived(
        station.transport,
        *station.peer,
        name,
        alarm.name,
        lists.ctl_signature,
        lists.ctl_tftp_server,
        lists.itl_signature,
        lists.itl_tftp_server,
    )
