from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cucm.errors import LabError, UsageError
from cucm.wire.dhcp import INFINITE_LEASE_S
from lab import dhcp_pools
from lab.dhcp_pools import DECLINE_HOLD_S, OFFER_HOLD_S, DhcpPool, LeaseBook, NoAddress

NETWORK = IPv4Network("127.0.11.0/24")
NOW = 1000.0
A, B, C = "B00000000001", "B00000000002", "B00000000003"


def pool(**changes: object) -> DhcpPool:
    given: dict[str, object] = {"name": "Default", "network": NETWORK, "first": "127.0.11.100", "last": "127.0.11.101"}
    return DhcpPool(**(given | changes))  # type: ignore[arg-type]


def choose(book: LeaseBook, client: str, wish: str | None = None, now: float = NOW) -> str:
    return book.choose(client, tuple(book.pools.values()), wish, now).address


def grant(book: LeaseBook, client: str, wish: str | None = None, now: float = NOW) -> str:
    lease = book.choose(client, tuple(book.pools.values()), wish, now)
    book.grant(lease, now)
    return lease.address


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"reservations": {"x": "127.0.11.5"}}, "'x' is no MAC address"),
        ({"reservations": {A: "127.0.12.5"}}, "127.0.12.5 is no address of 127.0.11.0/24"),
        ({"reservations": {A: "127.0.11.255"}}, "127.0.11.255 is no address"),
        ({"reservations": {A: "127.0.11.5", B: "127.0.11.5"}}, "reserves one address twice"),
        ({"last": None}, "half a range"),
        ({"first": "127.0.12.1"}, "127.0.12.1 is no address"),
        ({"last": "127.0.11.99"}, "ends before it begins"),
        ({"network": IPv4Network("127.0.0.0/8"), "first": "127.1.0.1", "last": "127.1.16.1"}, "range of 4097"),
        ({"lease_s": 0}, "no time of a lease"),
        ({"option_150": ("tftp.example",)}, "'tftp.example' in option 150"),
        ({"option_150": ("10.0.0.1",) * 64}, "64 addresses in option 150"),
        ({"option_66": "x" * 256}, "in option 66"),
        ({"option_66": "a\0b"}, "in option 66"),
        ({"option_66": "☎"}, "not latin-1"),
    ],
)
def test_pools_that_cannot_be(changes: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        pool(**changes)


def test_a_reservation_is_the_clients_alone() -> None:
    book = LeaseBook([pool(reservations={A.lower(): "127.0.11.100"})], None)
    assert choose(book, A, wish="127.0.11.101") == "127.0.11.100"
    assert choose(book, B) == "127.0.11.101"
    assert choose(book, B, wish="127.0.11.100") == "127.0.11.101"
    assert book.knows(A, tuple(book.pools.values()))
    assert not book.knows(B, tuple(book.pools.values()))


def test_a_reservation_of_a_later_pool_comes_before_a_range_of_an_earlier_one() -> None:
    book = LeaseBook([pool(), pool(name="lobby", first=None, last=None, reservations={A: "127.0.11.5"})], None)
    assert book.choose(A, book.pools_of("127.0.11.9"), None, NOW).pool == "lobby"
    assert book.pools_of("127.0.12.9") == ()


def test_an_address_offered_or_leased_stays_with_its_client_for_its_time() -> None:
    book = LeaseBook([pool(lease_s=100)], None)
    offered = book.choose(A, tuple(book.pools.values()), "127.0.11.101", NOW)
    book.offer(offered, NOW)
    assert offered.address == "127.0.11.101"
    assert choose(book, A) == "127.0.11.101"
    assert choose(book, B, wish="127.0.11.101") == "127.0.11.100"
    assert choose(book, B, wish="127.0.11.101", now=NOW + OFFER_HOLD_S) == "127.0.11.101"
    book.withdraw_offer(A)
    assert grant(book, B, wish="127.0.11.101") == "127.0.11.101"
    assert grant(book, A) == "127.0.11.100"
    with pytest.raises(NoAddress, match="no free address"):
        choose(book, C)
    assert grant(book, C, now=NOW + 100) == "127.0.11.100"
    assert set(book.leases) == {B, C}  # A's time had run out


def test_a_declined_address_rests() -> None:
    book = LeaseBook([pool()], None)
    book.decline(grant(book, A), NOW)
    book.end(A)
    assert choose(book, A) == "127.0.11.101"
    assert choose(book, A, now=NOW + DECLINE_HOLD_S) == "127.0.11.100"


def test_a_reserved_address_that_was_declined_rests_too() -> None:
    book = LeaseBook([pool(reservations={A: "127.0.11.5"})], None)
    book.decline(grant(book, A), NOW)
    book.end(A)
    assert choose(book, A) == "127.0.11.100"  # as anybody else meanwhile
    assert choose(book, B, wish="127.0.11.5") == "127.0.11.100"  # and it stays A's
    assert choose(book, A, now=NOW + DECLINE_HOLD_S) == "127.0.11.5"
    alone = LeaseBook([pool(first=None, last=None, reservations={A: "127.0.11.5"})], None)
    alone.decline(grant(alone, A), NOW)
    with pytest.raises(NoAddress, match="no free address"):
        choose(alone, A, now=NOW + DECLINE_HOLD_S - 1)


def test_a_wish_outside_the_range_is_not_granted() -> None:
    assert choose(LeaseBook([pool()], None), A, wish="10.0.0.1") == "127.0.11.100"


def test_the_book_is_bounded_and_makes_room_of_what_has_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp_pools, "MAX_LEASES", 1)
    book = LeaseBook([pool(lease_s=100)], None)
    grant(book, A)
    with pytest.raises(LabError, match="all this server keeps"):
        grant(book, B)
    grant(book, B, now=NOW + 100)
    assert set(book.leases) == {B}


def test_leases_and_options_survive_a_restart_offers_do_not(tmp_path: Path) -> None:
    file = tmp_path / "dhcp.json"
    pools = [pool(option_150=("10.0.0.1",)), pool(name="forever", lease_s=INFINITE_LEASE_S)]
    book = LeaseBook(pools, file)
    book.save()
    assert not file.exists()  # nothing has changed
    grant(book, A)
    book.offer(book.choose(B, tuple(book.pools.values()), None, NOW), NOW)
    book.set_option_150(["10.0.0.9"], "Default")
    book.set_option_66("tftp.example", "forever")
    book.save()
    again = LeaseBook(pools, file)
    assert dict(again.leases) == dict(book.leases)
    assert choose(again, C) == "127.0.11.101"
    assert again.pools["Default"].option_150 == ("10.0.0.9",)
    assert (again.pools["forever"].option_150, again.pools["forever"].option_66) == ((), "tftp.example")
    moved = LeaseBook([pool(network=IPv4Network("127.0.0.0/8"), first="127.0.12.1", last="127.0.12.9")], file)
    assert moved.pools["Default"].option_150 == ("10.0.0.9",)
    assert LeaseBook([], file).leases == {}


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"[]",
        b'{"version": 2, "options": {}, "leases": []}',
        b'{"version": 1, "options": {}}',
        b'{"version": 1, "options": {}, "leases": [["A"]]}',
        b'{"version": 1, "options": {}, "leases": [["A", "x", "Default", 1]]}',
        b'{"version": 1, "options": {"Default": {"option_150": ["x"]}}, "leases": []}',
        b'{"version": 1, "options": {"Default": []}, "leases": []}',
    ],
)
def test_a_state_file_that_is_none(tmp_path: Path, state: bytes) -> None:
    file = tmp_path / "dhcp.json"
    file.write_bytes(state)
    with pytest.raises(LabError, match="no state of a DHCP server") as broken:
        LeaseBook([pool()], file)
    assert broken.value.where == str(file)
    assert "delete the file" in (broken.value.mend or "")


def test_the_state_file_is_json_that_people_can_read(tmp_path: Path) -> None:
    book = LeaseBook([pool(lease_s=100)], tmp_path / "dhcp.json")
    grant(book, A)
    book.save()
    state = json.loads((tmp_path / "dhcp.json").read_text())
    assert state == {"version": 1, "options": {}, "leases": [[A, "127.0.11.100", "Default", NOW + 100]]}


def test_options_of_a_pool_that_is_not_there() -> None:
    book = LeaseBook([pool()], None)
    with pytest.raises(UsageError, match="no DHCP pool 'lobby'") as unknown:
        book.set_option_150([], "lobby")
    assert unknown.value.mend == "one of: Default"
