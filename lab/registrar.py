"""What a CallManager knows of devices: which are registered, until when, and what became of all it has heard of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import field, replace
from enum import StrEnum
from typing import Final, Literal

from cucm.events import Emit
from cucm.events.cluster import RegistrationAccepted, RegistrationEnd, RegistrationEnded, RegistrationRefusal
from cucm.records import dataclass
from cucm.wire.alarm import NOT_INSTALLED, DeviceTlInfo

MAX_DEVICES: Final = 65_536
"""Ours. Names come from the network: of more, those not registered are forgotten, the oldest news first."""

Transport = Literal["tls", "tcp"]
Peer = tuple[str, int]
"""The phone's IP address and port."""


class DeviceState(StrEnum):
    """As real-time information has them [recall]."""

    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    """It has sent an alarm and not (yet) tried to register."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The last that `node` knows of a device; it outlives the device's connection.

    `reason` is a value of RegistrationRefusal or RegistrationEnd, empty for a registered device; `sip_status` the last
    answer to a REGISTER, None where there was none. `since` (Unix seconds) dates `status` and `reason`. Signatures are
    SHA-1 in lower-case hex or "Not Installed", None before the first alarm; so are the servers, None also for "N/A".
    """

    device: str
    status: DeviceState
    reason: str
    sip_status: int | None
    node: str
    transport: Transport
    peer: Peer
    since: float
    ctl_signature: str | None = None
    itl_signature: str | None = None
    ctl_tftp_server: str | None = None
    itl_tftp_server: str | None = None


@dataclass(frozen=True, slots=True)
class RegisteredDevice:
    """`since` and `expires_at` are Unix seconds of the lab's clock; a refresh moves only the latter."""

    transport: Transport
    peer: Peer
    since: float
    expires_at: float


@dataclass(slots=True, eq=False)
class Station:
    """One connection as the registrar sees it; `devices` are registered over it, `hang_up` cuts it.

    `lists` is what its last alarm told, and of whom, until that device registers over it. After `is_cut` nothing that
    it still brings counts.
    """

    transport: Transport
    peer: Peer
    cipher: str
    tls_version: str
    hang_up: Callable[[], None]
    devices: set[str] = field(default_factory=set)
    lists: tuple[str, DeviceTlInfo] | None = None
    is_cut: bool = False


class Registrar:
    """One node's. `on_registered` hears of each device that was not registered here before."""

    def __init__(
        self, node_name: str, now: Callable[[], float], emit: Emit, on_registered: Callable[[str], object]
    ) -> None:
        self.registered: dict[str, RegisteredDevice] = {}
        self.devices: dict[str, DeviceStatus] = {}
        self._node_name = node_name
        self._now = now
        self._emit = emit
        self._on_registered = on_registered
        self._stations: dict[str, Station] = {}
        self._none_before = 0.0
        """Unix seconds before which no registration is overdue; never later than the first end of one."""

    def register(self, name: str, station: Station, expires_s: int) -> None:
        """New, or refreshed; a device that comes over a new connection leaves its old one.

        Not over a connection that was cut: what came in before could win a device back that has just gone elsewhere.
        """
        if station.is_cut:
            return
        now = self._now()
        known = self.registered.get(name)
        if known is not None and self._stations[name] is station:
            self._none_before = min(self._none_before, now + expires_s)
            self.registered[name] = replace(known, expires_at=now + expires_s)
            return
        self._leave(name)
        self._stations[name] = station
        station.devices.add(name)
        self._none_before = min(self._none_before, now + expires_s)
        self.registered[name] = RegisteredDevice(station.transport, station.peer, now, now + expires_s)
        self._note(name, station, DeviceState.REGISTERED, "", 200)
        if station.lists is not None and station.lists[0] == name:
            self._keep_lists(*station.lists)
            station.lists = None
        self._emit(RegistrationAccepted(station.transport, *station.peer, name, station.cipher, station.tls_version))
        self._on_registered(name)

    def end(self, name: str, end: RegistrationEnd, station: Station | None = None) -> bool:
        """End a registration (only if it is that of `station`, where one is given); whether there was one."""
        holder = self._stations.get(name)
        if holder is None or (station is not None and holder is not station):
            return False
        self._leave(name, hang_up=station is None)
        status = 200 if end is RegistrationEnd.DEREGISTERED else None
        self._note(name, holder, DeviceState.UNREGISTERED, end, status)
        self._emit(RegistrationEnded(holder.transport, *holder.peer, name, end))
        return True

    def overdue(self) -> tuple[str, ...]:
        """Devices whose registration should have been refreshed by now."""
        now = self._now()
        if now < self._none_before:
            return ()
        found = tuple(name for name, device in self.registered.items() if device.expires_at <= now)
        if not found:  # of ten thousand, asked four times a second, all are looked at when one may be overdue
            self._none_before = min((device.expires_at for device in self.registered.values()), default=0.0)
        return found

    def refused(self, name: str, station: Station, reason: RegistrationRefusal, sip_status: int | None) -> None:
        """A device was turned away; one that is registered is not less so because somebody else used its name."""
        if name not in self.registered:
            self._note(name, station, DeviceState.REJECTED, reason, sip_status)

    def heard(self, name: str, station: Station, lists: DeviceTlInfo | None) -> None:
        """An alarm came. Of a device registered over another connection it counts once this one has registered it: an
        alarm proves nothing over TCP.
        """
        if lists is not None:
            station.lists = (name, lists)
        if self._stations.get(name, station) is not station:
            return
        if name not in self.devices:
            self._note(name, station, DeviceState.UNKNOWN, "", None)
        if lists is not None:
            self._keep_lists(name, lists)

    def _keep_lists(self, name: str, lists: DeviceTlInfo) -> None:
        self.devices[name] = replace(
            self.devices[name],
            ctl_signature=_text(lists.ctl_signature),
            itl_signature=_text(lists.itl_signature),
            ctl_tftp_server=_shared(lists.ctl_tftp_server),
            itl_tftp_server=_shared(lists.itl_tftp_server),
        )

    def _leave(self, name: str, *, hang_up: bool = True) -> None:
        """Forget the registration; a connection that has none left is cut, if it is not its own wish."""
        station = self._stations.pop(name, None)
        self.registered.pop(name, None)
        if station is not None:
            station.devices.discard(name)
            if hang_up and not station.devices:
                station.is_cut = True
                station.hang_up()

    def _note(self, name: str, station: Station, state: DeviceState, reason: str, sip_status: int | None) -> None:
        """The newest stands last. What the phone told of its lists stays."""
        old = self.devices.pop(name, None)
        new = DeviceStatus(
            name, state, str(reason), sip_status, self._node_name, station.transport, station.peer, self._now()
        )
        if old is not None:
            new = replace(
                new,
                ctl_signature=old.ctl_signature,
                itl_signature=old.itl_signature,
                ctl_tftp_server=old.ctl_tftp_server,
                itl_tftp_server=old.itl_tftp_server,
            )
        self.devices[name] = new
        if len(self.devices) > MAX_DEVICES:
            self._forget_one(name)

    def _forget_one(self, newest: str) -> None:
        oldest = next((name for name in self.devices if name not in self.registered), newest)
        if oldest != newest:  # else all others are registered
            del self.devices[oldest]


def _text(digest: bytes | None) -> str:
    return NOT_INSTALLED if digest is None else sys.intern(digest.hex())


def _shared(text: str | None) -> str | None:
    """Thousands of phones tell the same: one string for all of them."""
    return None if text is None else sys.intern(text)
