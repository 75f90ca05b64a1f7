"""Who asks for a lease, how long it runs, and its return."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from cucm.errors import UsageError
from cucm.events import Event
from cucm.events.dhcp import (
    LeaseReleased,
)
from cucm.wire.dhcp import INFINITE_LEASE_S, DhcpMessage
from cucm.wire.dhcp_options import (
    MessageType,
    number_option,
)
from phone_agent.dhcp_lease import DhcpIdentity, Lease, lease_times, release

NOW = 1_000_000.0
OWN, SERVER = "127.0.11.100", "127.0.11.1"
TFTP = ("127.0.11.32", "127.0.11.33")
PHONE = DhcpIdentity.of("b000b4ba0aee", "CP-8861", relay=OWN)
HELD = Lease(OWN, SERVER, TFTP, NOW - 10, NOW + 100, NOW + 200, source="150")


@pytest.mark.parametrize(
    ("lease_s", "t1", "t2", "times"),
    [
        (1000, None, None, (500, 875, 1000)),
        (1000, 100, 200, (100, 200, 1000)),
        (1000, 300, 200, (200, 200, 1000)),
        (1000, 0, 0, (500, 875, 1000)),
        (1000, 2000, 3000, (500, 875, 1000)),
        (INFINITE_LEASE_S, 100, 200, None),
    ],
)
def test_times(lease_s: int, t1: int | None, t2: int | None, times: tuple[int, int, int] | None) -> None:
    given = ((51, lease_s), (58, t1), (59, t2))
    options = tuple(number_option(code, value, 4) for code, value in given if value is not None)
    told = lease_times(DhcpMessage(2, 1, PHONE.mac, options), NOW)
    assert told == ((None,) * 3 if times is None else tuple(NOW + time for time in times))


def test_a_lease_runs_until_its_expiry() -> None:
    assert HELD.is_running(NOW)
    assert not HELD.is_running(NOW + 200)
    assert replace(HELD, expiry=None).is_running(NOW * 9)


def test_a_release_names_address_and_server() -> None:
    events: list[Event] = []
    sending = release(PHONE, HELD, Random(1), events.append)
    message = sending.message
    assert (sending.server, message.message_type, message.ciaddr) == (SERVER, MessageType.RELEASE, OWN)
    assert (message.server_identifier, message.giaddr) == (SERVER, OWN)
    assert events == [LeaseReleased(OWN, SERVER)]


@pytest.mark.parametrize("mac", ["", "b000b4ba0a", "b000b4ba0aee00", "phone"])
def test_what_is_no_mac_address(mac: str) -> None:
    with pytest.raises(UsageError, match="no MAC address"):
        DhcpIdentity.of(mac, "CP-8861")
