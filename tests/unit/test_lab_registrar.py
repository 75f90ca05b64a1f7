"""The registrar alone: no sockets, a clock that stands still until it is moved."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cucm.clock import MovableClock
from cucm.events import Event
from cucm.events.cluster import RegistrationAccepted, RegistrationEnd, RegistrationEnded, RegistrationRefusal
from cucm.wire.alarm import DeviceTlInfo
from lab import registrar
from lab.registrar import DeviceState, Registrar, Station

DEVICE, OTHER = "SEPB000B4BA0AEE", "SEPB000B4BA0AEF"
LISTS = DeviceTlInfo(DEVICE, None, None, b"\xa3" * 20, "127.0.11.34")


@dataclass
class Scene:
    clock: MovableClock = field(default_factory=lambda: MovableClock(1000.0, frozen=True))
    events: list[Event] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registrar = Registrar("ucm11pub", self.clock.now, self.events.append, self.news.append)

    def station(self, port: int = 50_000) -> Station:
        return Station("tcp", ("127.0.11.100", port), "", "", lambda: self.cut.append(port))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_registration_and_its_refresh(scene: Scene) -> None:
    station = scene.station()
    scene.registrar.register(DEVICE, station, 120)
    scene.clock.move(100)
    scene.registrar.register(DEVICE, station, 120)
    known = scene.registrar.registered[DEVICE]
    assert (known.since, known.expires_at) == (1000.0, 1220.0)
    assert scene.news == [DEVICE]
    assert [type(event) for event in scene.events] == [RegistrationAccepted]
    status = scene.registrar.devices[DEVICE]
    assert (status.status, status.reason, status.sip_status, status.since) == ("registered", "", 200, 1000.0)


def test_what_is_not_refreshed_is_overdue_by_the_labs_clock(scene: Scene) -> None:
    scene.registrar.register(DEVICE, scene.station(), 120)
    scene.clock.move(119)
    assert scene.registrar.overdue() == ()
    scene.clock.move(1)
    assert scene.registrar.overdue() == (DEVICE,)


def test_the_old_connection_of_a_device_is_cut(scene: Scene) -> None:
    old, new = scene.station(1), scene.station(2)
    scene.registrar.register(DEVICE, old, 120)
    scene.registrar.register(DEVICE, new, 120)
    assert (scene.cut, old.devices, new.devices) == ([1], set(), {DEVICE})
    assert not scene.registrar.end(DEVICE, RegistrationEnd.CONNECTION_CLOSED, old)
    assert DEVICE in scene.registrar.registered


def test_a_connection_that_another_device_uses_is_not_cut(scene: Scene) -> None:
    shared = scene.station(1)
    scene.registrar.register(DEVICE, shared, 120)
    scene.registrar.register(OTHER, shared, 120)
    assert scene.registrar.end(DEVICE, RegistrationEnd.REGISTERED_ELSEWHERE)
    assert scene.cut == []
    assert scene.registrar.end(OTHER, RegistrationEnd.EXPIRED)
    assert scene.cut == [1]


def test_the_status_outlives_the_registration_with_the_lists_it_told_of(scene: Scene) -> None:
    station = scene.station()
    scene.registrar.heard(DEVICE, station, LISTS)
    assert scene.registrar.devices[DEVICE].status is DeviceState.UNKNOWN
    scene.registrar.register(DEVICE, station, 120)
    scene.clock.move(5)
    assert scene.registrar.end(DEVICE, RegistrationEnd.DEREGISTERED, station)
    status = scene.registrar.devices[DEVICE]
    assert (status.status, status.reason, status.sip_status, status.since) == (
        "unregistered",
        "deregistered",
        200,
        1005.0,
    )
    assert (status.ctl_signature, status.ctl_tftp_server) == ("Not Installed", None)
    assert (status.itl_signature, status.itl_tftp_server) == ("a3" * 20, "127.0.11.34")
    assert (status.node, status.peer) == ("ucm11pub", ("127.0.11.100", 50_000))
    assert isinstance(scene.events[-1], RegistrationEnded)
    assert not scene.registrar.end(DEVICE, RegistrationEnd.EXPIRED)
    assert scene.cut == []


def test_somebody_who_uses_the_name_of_a_registered_device_changes_nothing(scene: Scene) -> None:
    scene.registrar.register(DEVICE, scene.station(), 120)
    scene.registrar.refused(DEVICE, scene.station(2), RegistrationRefusal.SECURITY_MODE, 403)
    assert scene.registrar.devices[DEVICE].status is DeviceState.REGISTERED


def test_an_alarm_changes_no_status(scene: Scene) -> None:
    scene.registrar.refused(DEVICE, scene.station(), RegistrationRefusal.SECURITY_MODE, 403)
    scene.registrar.heard(DEVICE, scene.station(), None)
    status = scene.registrar.devices[DEVICE]
    assert (status.status, status.reason, status.sip_status) == ("rejected", "security-mode", 403)
    assert status.itl_signature is None


def test_names_from_the_network_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrar, "MAX_DEVICES", 3)
    scene.registrar.register(DEVICE, scene.station(), 120)
    for number in range(5):
        scene.registrar.refused(f"SEP{number:012}", scene.station(), RegistrationRefusal.UNKNOWN_DEVICE, 404)
    assert list(scene.registrar.devices) == [DEVICE, "SEP000000000003", "SEP000000000004"]


def test_an_alarm_over_another_connection_changes_nothing_until_that_one_registers(scene: Scene) -> None:
    """Anybody may claim anything over TCP; a phone that comes back over a new connection sends its alarm first."""
    owner, other = scene.station(), scene.station(50_001)
    scene.registrar.register(DEVICE, owner, 120)
    scene.registrar.heard(DEVICE, other, LISTS)
    assert scene.registrar.devices[DEVICE].itl_signature is None
    scene.registrar.register(DEVICE, other, 120)
    assert scene.registrar.devices[DEVICE].itl_signature == "a3" * 20


def test_an_alarm_of_one_device_says_nothing_of_another_on_its_connection(scene: Scene) -> None:
    station = scene.station()
    scene.registrar.heard(DEVICE, station, LISTS)
    scene.registrar.register(OTHER, station, 120)
    assert scene.registrar.devices[OTHER].itl_signature is None


def test_a_connection_that_was_cut_registers_nobody(scene: Scene) -> None:
    """A refresh may have come in before the cut, while the device has registered with another node."""
    station = scene.station()
    scene.registrar.register(DEVICE, station, 120)
    scene.registrar.end(DEVICE, RegistrationEnd.REGISTERED_ELSEWHERE)
    scene.registrar.register(DEVICE, station, 120)
    assert scene.registrar.registered == {}
    assert scene.news == [DEVICE]


def test_one_more_than_the_limit_where_all_others_are_registered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrar, "MAX_DEVICES", 1)
    scene.registrar.register(DEVICE, scene.station(), 120)
    scene.registrar.heard(OTHER, scene.station(50_001), LISTS)
    assert scene.registrar.devices[OTHER].itl_signature == "a3" * 20
    scene.registrar.refused("SEP000000000001", scene.station(50_002), RegistrationRefusal.UNKNOWN_DEVICE, 404)
    assert set(scene.registrar.devices) == {DEVICE, "SEP000000000001"}
