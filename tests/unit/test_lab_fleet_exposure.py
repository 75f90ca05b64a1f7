from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from cucm.errors import EnvironmentProblem, LimitExceeded, UsageError
from lab.fleet.exposure import FIRST_HOST, Exposure, Part

SERVERS, PHONES = IPv4Network("192.168.11.0/24"), IPv4Network("10.66.0.0/16")


@pytest.mark.parametrize(
    ("servers", "phones", "what"),
    [
        ("192.168.11.0/25", "10.66.0.0/16", "is not a /24"),
        ("127.0.11.0/24", "10.66.0.0/16", "is not a private network"),
        ("192.168.11.0/24", "8.8.0.0/16", "is not a private network"),
        ("10.66.3.0/24", "10.66.0.0/16", "overlap"),
    ],
)
def test_networks_that_cannot_be_exposed(servers: str, phones: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Exposure(IPv4Network(servers), IPv4Network(phones))


def test_every_worker_has_a_part_of_its_own() -> None:
    Exposure(SERVERS, PHONES).check_parts({"a": "10.66.1.0/24", "b": "10.66.2.0/24"})


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (None, "has no CUCM_LAB_PHONES"),
        ("10.66.1.7", "overlaps that of a"),
        ("10.66.0.0/16", "overlaps that of a"),
        ("10.67.1.0/24", "is not in 10.66.0.0/16"),
        ("ten", "is no network"),
    ],
)
def test_parts_that_do_not_do(part: str | None, what: str) -> None:
    with pytest.raises(EnvironmentProblem, match=what):
        Exposure(SERVERS, PHONES).check_parts({"a": "10.66.1.0/24", "b": part})


def test_addresses_are_lent_once_at_a_time() -> None:
    part = Part(IPv4Network("10.66.1.0/28"))
    room = 15 - FIRST_HOST
    with part.lend(2) as some, part.lend(room - 2) as others:
        assert len({*some, *others}) == room
        with pytest.raises(LimitExceeded, match="1 phones at once do not fit"), part.lend(1):
            pass
    with part.lend(room) as again:
        assert {*again} == {*some, *others}
