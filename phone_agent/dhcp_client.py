"""A phone's DHCP client on a UDP socket: gets a lease when the phone boots, renews it while the phone is on.

On loopback nobody hears a broadcast. There the phone speaks as a relay agent would for it (RELAY): `giaddr` is its own
address, and messages go from its own port 67 to the server's. BROADCAST is DHCP as on a real network and needs an
interface; the lease's address is not put on that interface, this is up to whoever made it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random
from typing import Final

from cucm.clock import Clock, SystemClock
from cucm.errors import LabError, UsageError, WireError
from cucm.events import Emit, ignore
from cucm.events.dhcp import LeaseExpired, LeaseNotObtained, LeaseStep
from cucm.net.addresses import bind_udp
from cucm.net.alarms import Alarm, Alarms
from cucm.net.broadcast import bind_interface
from cucm.wire.dhcp import BROADCAST_ADDRESS, CLIENT_PORT, MAX_BYTES, SERVER_PORT, decode_message, encode_message
from phone_agent.dhcp_exchange import LeaseExchange
from phone_agent.dhcp_lease import CONFIRMS_LEASE, DhcpDeadlines, DhcpIdentity, Lease, Sending, release

DATAGRAMS_PER_TURN: Final = 32
"""Read before others get their turn again."""

_log = logging.getLogger(__name__)

Address = tuple[str, int]


class DhcpForm(StrEnum):
    RELAY = "relay"
    BROADCAST = "broadcast"


class DhcpClient:
    """One phone's lease. `lease` is what it holds now, or None.

    RELAY needs `server` and `local_address`, BROADCAST an `interface` (and root's rights). `port` is the port that
    relay agents and servers use, 67 unless this may not be bound. `own_address` is what a relayed phone must be given
    where that is another one than `local_address`. `alarms` are those of `clock`: phones of one lab share them. Raises
    UsageError.
    """

    def __init__(
        self,
        mac: str,
        model: str,
        *,
        server: Address | None,
        local_address: str,
        port: int = SERVER_PORT,
        form: DhcpForm = DhcpForm.RELAY,
        own_address: str | None = None,
        interface: str | None = None,
        deadlines: DhcpDeadlines | None = None,
        clock: Clock | None = None,
        randomness: Random | None = None,
        emit: Emit = ignore,
        alarms: Alarms | None = None,
    ) -> None:
        if form is DhcpForm.RELAY and server is None:
            raise UsageError("a relayed DHCP client needs the server's address", mend="give server=(address, port)")
        if form is DhcpForm.BROADCAST and interface is None:
            raise UsageError("a broadcasting DHCP client needs an interface", mend="give interface=, like eth0")
        self.lease: Lease | None = None
        self._identity = DhcpIdentity.of(mac, model, local_address if form is DhcpForm.RELAY else None, own_address)
        self._server = server
        self._local_address = local_address
        self._form = form
        self._port = port
        self._interface = interface
        self._deadlines = deadlines or DhcpDeadlines()
        self._clock = clock or SystemClock()
        self._randomness = randomness or Random()  # noqa: S311 - transaction numbers of a lab
        self._emit = emit
        self._alarms = alarms or Alarms(self._clock, check_s=self._deadlines.check_s)
        self._alarm: Alarm | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._tried: tuple[LeaseStep | None, float] = None, 0.0
        self._turn = asyncio.Lock()

    async def tftp_servers(self) -> tuple[str, ...] | None:
        """Gets a lease, or has the one it holds confirmed, and says which TFTP servers it names; none: ().

        None: no DHCP server granted anything in time. From then on the lease is renewed, until `close`.
        """
        async with self._turn:
            await self._stop_keeping()
            lease = await self._converse(self._first_step())
            if self.lease is not None:
                self._tried = None, 0.0
                self._wait()
            return lease.tftp_servers if lease is not None else None

    async def close(self, *, release: bool) -> None:
        """Ends renewal; `release` gives the lease back as a phone does that is shut down in order."""
        async with self._turn:
            await self._stop_keeping()
            lease, self.lease = self.lease if release else None, None if release else self.lease
            if lease is not None and lease.is_running(self._clock.now()):
                await self._say_release(lease)

    # --- the lease over time

    def _first_step(self) -> LeaseStep:
        self._drop_expired()
        return LeaseStep.REBOOTING if self.lease is not None and CONFIRMS_LEASE else LeaseStep.SELECTING

    def _wait(self) -> None:
        """For the next moment at which something is to be done about the lease."""
        moment = self._next_moment(self._clock.now())
        if moment is not None:
            self._alarm = self._alarms.at(moment, self._begin_keeping)

    def _next_moment(self, now: float) -> float | None:
        """Renewed from T1 on, rebound from T2 on, asked for anew after the expiry; None for a lease that never ends.

        What was tried in vain is tried again after a while, or when the next of these moments has come.
        """
        step, lease = self._due(now), self.lease
        coming = (lease.t1, lease.t2, lease.expiry) if lease is not None else ()
        moments = [moment for moment in coming if moment is not None and moment > now]
        if step is not None:
            tried, tried_at = self._tried
            moments.append(tried_at + self._deadlines.retry_s if tried is step else now)
        return min(moments, default=None)

    def _begin_keeping(self) -> None:
        self._keeping = asyncio.create_task(self._keep(), name=f"DHCP lease of {self._identity.mac.hex()}")

    async def _keep(self) -> None:
        now = self._clock.now()
        step = self._due(now)
        if step is not None and await self._converse(step) is None:
            self._tried = step, now
            await asyncio.sleep(self._deadlines.check_s)
        else:
            self._tried = None, 0.0
        self._wait()

    def _due(self, now: float) -> LeaseStep | None:
        self._drop_expired()
        lease = self.lease
        if lease is None:
            return LeaseStep.SELECTING
        if lease.t2 is not None and now >= lease.t2:
            return LeaseStep.REBINDING
        return LeaseStep.RENEWING if lease.t1 is not None and now >= lease.t1 else None

    def _drop_expired(self) -> None:
        lease = self.lease
        if lease is not None and not lease.is_running(self._clock.now()):
            self.lease = None
            self._emit(LeaseExpired(lease.address, lease.server))

    async def _stop_keeping(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        task, self._keeping = self._keeping, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # --- one dialogue

    async def _converse(self, step: LeaseStep) -> Lease | None:
        """What was granted. What the machine or the network refuses is told, and is no lease."""
        exchange = LeaseExchange(
            self._identity,
            self.lease,
            step,
            now=self._clock.now,
            randomness=self._randomness,
            deadlines=self._deadlines,
            emit=self._emit,
            hold=self._hold,
        )
        try:
            with self._open() as channel:
                await _Dialogue(exchange, channel, self._target).run()
        except (LabError, OSError) as error:
            self._emit(LeaseNotObtained(step, str(error)))
        return exchange.lease

    def _hold(self, lease: Lease | None) -> None:
        self.lease = lease

    async def _say_release(self, lease: Lease) -> None:
        try:
            with self._open() as channel:
                sending = release(self._identity, lease, self._randomness, self._emit)
                channel.sendto(encode_message(sending.message), self._target(sending))
        except (LabError, OSError) as error:
            _log.debug("the lease of %s could not be given back: %s", lease.address, error)

    def _target(self, sending: Sending) -> Address:
        if self._form is DhcpForm.RELAY and self._server is not None:
            return self._server  # the relay agent's one server, whatever is said
        return sending.server or BROADCAST_ADDRESS, self._port

    def _open(self) -> socket.socket:
        """Raises AddressBusy, EnvironmentProblem."""
        if self._form is DhcpForm.RELAY:
            return bind_udp(self._local_address, self._port)
        return bind_interface(self._interface or "", CLIENT_PORT)


class _Dialogue:
    """Carries an exchange's messages over a socket until it is over."""

    def __init__(self, exchange: LeaseExchange, channel: socket.socket, target: Callable[[Sending], Address]) -> None:
        self._exchange = exchange
        self._channel = channel
        self._target = target
        self._advanced = asyncio.Event()

    async def run(self) -> None:
        """Raises OSError when nothing can be sent."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._on_readable)
        try:
            self._send(self._exchange.start())
            while not self._exchange.is_over:
                if not await self._wait():
                    self._send(self._exchange.handle_timeout())
        finally:
            loop.remove_reader(self._channel)

    async def _wait(self) -> bool:
        """Whether the exchange went on before its time was out."""
        self._advanced.clear()
        try:
            async with asyncio.timeout(self._exchange.timeout_s):
                await self._advanced.wait()
        except TimeoutError:
            return False
        return True

    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, peer = self._channel.recvfrom(MAX_BYTES + 1)
            except OSError:  # nothing left, or an error that belongs to an earlier datagram
                return
            self._take(data, peer[0])

    def _take(self, data: bytes, peer: str) -> None:
        try:
            message = decode_message(data)
        except WireError as error:
            self._exchange.ignore(peer, str(error))
            return
        answers = self._exchange.receive(message, peer)
        if answers or self._exchange.is_over:
            self._advanced.set()
        try:
            self._send(answers)
        except OSError as error:  # as if lost on the way: the time-out mends it
            _log.debug("a DHCP message could not be sent: %s", error)

    def _send(self, sendings: Sequence[Sending]) -> None:
        for sending in sendings:
            self._channel.sendto(encode_message(sending.message), self._target(sending))
