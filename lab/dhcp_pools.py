"""What the DHCP server may give to whom: pools, leases, options, and the file they survive a restart in. No sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from cucm.errors import EncodeError, LabError, UsageError
from cucm.records import dataclass
from cucm.whole_files import write_whole
from cucm.wire.dhcp import INFINITE_LEASE_S, is_host_address
from cucm.wire.dhcp_options import OptionCode, text_option

DEFAULT_LEASE_S: Final = 86_400
"""Ours: a day."""
MAX_RANGE: Final = 4096
"""Addresses of one pool's range."""
MAX_LEASES: Final = 65_536
"""Of one server."""
MAX_OPTION_150: Final = 63
"""Addresses that one option's 255 bytes carry."""
OFFER_HOLD_S: Final = 60.0
"""How long an offered address is kept for the client. Ours."""
DECLINE_HOLD_S: Final = 600.0
"""How long a declined address is not given, not even to whom it is reserved (RFC 2131, 4.3.3). Ours."""
STATE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class DhcpPool:
    """Addresses of one network and what is told with them.

    `network` is where a client must be (its relay agent's address, or the server's own network). `reservations`: MAC
    address (12 hexadecimal digits) to address. `first` and `last` bound the addresses for everybody else; without them
    only reservations are served. Raises UsageError.
    """

    name: str
    network: IPv4Network
    reservations: Mapping[str, str] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    lease_s: int = DEFAULT_LEASE_S
    option_150: tuple[str, ...] = ()
    option_66: str = ""

    def __post_init__(self) -> None:
        reservations = {_mac(mac, self.name): address for mac, address in self.reservations.items()}
        object.__setattr__(self, "reservations", reservations)
        for address in reservations.values():
            self._require_inside(address)
        if len(set(reservations.values())) < len(reservations):
            raise UsageError("reserves one address twice", where=f"DHCP pool {self.name}", mend="one address a phone")
        if (self.first is None) is not (self.last is None):
            raise UsageError("has half a range", where=f"DHCP pool {self.name}", mend="give both first and last")
        if len(self.range) > MAX_RANGE:
            raise UsageError(f"range of {len(self.range)}", where=f"DHCP pool {self.name}", mend=f"at most {MAX_RANGE}")
        if not 1 <= self.lease_s <= INFINITE_LEASE_S:
            raise UsageError(
                f"{self.lease_s} s is no time of a lease", where=f"DHCP pool {self.name}", mend="e.g. 3600"
            )
        require_option_150(self.option_150)
        require_option_66(self.option_66)

    @property
    def range(self) -> range:
        """Addresses for clients without reservation, as numbers."""
        if self.first is None or self.last is None:
            return range(0)
        self._require_inside(self.first)
        self._require_inside(self.last)
        first, last = int(IPv4Address(self.first)), int(IPv4Address(self.last))
        if first > last:
            raise UsageError("its range ends before it begins", where=f"DHCP pool {self.name}", mend="swap them")
        return range(first, last + 1)

    def has(self, address: str) -> bool:
        """Whether the address is one of the pool's network."""
        return _in_network(address, self.network)

    def _require_inside(self, address: str) -> None:
        if not is_host_address(address, str(self.network.netmask)) or not self.has(address):
            where = f"DHCP pool {self.name}"
            raise UsageError(f"{address} is no address of {self.network}", where=where, mend="give one of the network")


@lru_cache(maxsize=1024)
def _in_network(address: str, network: IPv4Network) -> bool:
    """Asked several times for each message, always of the client's own address."""
    return IPv4Address(address) in network


def require_option_150(servers: Sequence[str]) -> tuple[str, ...]:
    """Raises UsageError for what is no list of IPv4 addresses."""
    if len(servers) > MAX_OPTION_150:
        raise UsageError(f"{len(servers)} addresses in option 150", mend=f"at most {MAX_OPTION_150} fit")
    for address in servers:
        try:
            IPv4Address(address)
        except AddressValueError:
            raise UsageError(
                f"{address!r} in option 150", mend="it takes IPv4 addresses; names go to option 66"
            ) from None
    return tuple(servers)


def require_option_66(text: str) -> str:
    """Raises UsageError for what option 66 cannot carry."""
    try:
        value = text_option(OptionCode.TFTP_SERVER_NAME, text).value
    except EncodeError as error:
        raise UsageError(error.what, where="option 66", mend=error.mend) from None
    if len(value) > 255 or b"\0" in value:
        raise UsageError(f"{text!r} in option 66", mend="give a name or an address of at most 255 characters")
    return text


def _mac(text: str, pool: str) -> str:
    try:
        mac = bytes.fromhex(text)
    except ValueError:
        mac = b""
    if len(mac) != 6:
        raise UsageError(f"{text!r} is no MAC address", where=f"DHCP pool {pool}", mend="give 12 hexadecimal digits")
    return mac.hex().upper()


@dataclass(frozen=True, slots=True)
class DhcpLease:
    """`client` is the hardware address in upper-case hex; `expiry` in Unix seconds of the lab's clock, None: never."""

    client: str
    address: str
    pool: str
    expiry: float | None

    def is_running(self, now: float) -> bool:
        return self.expiry is None or now < self.expiry


class NoAddress(LabError):
    """The pools have nothing for this client: every address is taken, or it is in no reservation."""


class LeaseBook:
    """Pools with what is leased, offered and declined. `save` after changes; a restart loads what was saved.

    Options that were set outlive the server too: they come before those of `pools`. Raises LabError for a state file
    that cannot be read, UsageError for two pools of one name.
    """

    def __init__(self, pools: Iterable[DhcpPool], state_file: Path | None) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self._state_file = state_file
        self._leases: dict[str, DhcpLease] = {}
        self._holders: dict[str, str] = {}
        """Who was granted an address last: not to look through all leases for each. May name one who has left."""
        self._offers: dict[str, DhcpLease] = {}
        self._declined: dict[str, float] = {}
        self._set: dict[str, dict[str, Any]] = {}
        self._is_changed = False
        self.load()

    # --- pools and options

    def pools_of(self, address: str) -> tuple[DhcpPool, ...]:
        """Pools that serve the network of this address."""
        return tuple(pool for pool in self.pools.values() if pool.has(address))

    def named(self, name: str | None) -> tuple[DhcpPool, ...]:
        """The pool of that name, all for None. Raises UsageError."""
        if name is None:
            return tuple(self.pools.values())
        if name not in self.pools:
            raise UsageError(f"no DHCP pool {name!r}", mend=f"one of: {', '.join(self.pools) or 'none'}")
        return (self.pools[name],)

    def set_option_150(self, servers: Sequence[str], pool: str | None) -> None:
        """Raises UsageError."""
        checked = require_option_150(servers)
        for named in self.named(pool):
            self.pools[named.name] = replace(named, option_150=checked)
            self._set.setdefault(named.name, {})["option_150"] = list(checked)
            self._is_changed = True

    def set_option_66(self, text: str, pool: str | None) -> None:
        """Raises UsageError."""
        checked = require_option_66(text)
        for named in self.named(pool):
            self.pools[named.name] = replace(named, option_66=checked)
            self._set.setdefault(named.name, {})["option_66"] = checked
            self._is_changed = True

    # --- addresses

    @property
    def leases(self) -> Mapping[str, DhcpLease]:
        """By hardware address in upper-case hex; also those that have run out and not been given to another."""
        return self._leases

    def choose(self, client: str, pools: Sequence[DhcpPool], wish: str | None, now: float) -> DhcpLease:
        """The address this client gets: reserved, leased or offered before, wished for, or the first free one.

        A reserved one that was declined rests too; meanwhile the client is as anybody else. Raises NoAddress.
        """
        for pool in pools:
            reserved = pool.reservations.get(client)
            if reserved is not None and self._declined.get(reserved, now) <= now:
                return self._granted(client, reserved, pool, now)
        for pool in pools:
            address = self._address_in(pool, client, wish, now)
            if address is not None:
                return self._granted(client, address, pool, now)
        raise NoAddress("no free address", where=f"DHCP pools {', '.join(pool.name for pool in pools)}")

    def knows(self, client: str, pools: Sequence[DhcpPool]) -> bool:
        """Whether this server has anything to say about the client's address."""
        lease = self._leases.get(client)
        names = {pool.name for pool in pools}
        return any(client in pool.reservations for pool in pools) or (lease is not None and lease.pool in names)

    def offer(self, lease: DhcpLease, now: float) -> None:
        """Keep the address for the client a while. Raises LabError when the book is full."""
        self._make_room(self._offers, now)
        self._offers[lease.client] = replace(lease, expiry=now + OFFER_HOLD_S)

    def grant(self, lease: DhcpLease, now: float) -> None:
        """Raises LabError when the book is full."""
        if lease.client not in self._leases:
            self._make_room(self._leases, now)
        other = self._leases.get(self._holders.get(lease.address, ""))
        if other is not None and other.address == lease.address:  # its time ran out, or the reservation is another's
            del self._leases[other.client]
        self._leases[lease.client] = lease
        self._holders[lease.address] = lease.client
        self._offers.pop(lease.client, None)
        self._is_changed = True

    def withdraw_offer(self, client: str) -> None:
        self._offers.pop(client, None)

    def end(self, client: str) -> None:
        """The client has given its address back or declined it."""
        self._leases.pop(client, None)
        self._offers.pop(client, None)
        self._is_changed = True

    def decline(self, address: str, now: float) -> None:
        """Somebody else seems to have this address."""
        if len(self._declined) < MAX_LEASES:
            self._declined[address] = now + DECLINE_HOLD_S

    def _granted(self, client: str, address: str, pool: DhcpPool, now: float) -> DhcpLease:
        expiry = None if pool.lease_s == INFINITE_LEASE_S else now + pool.lease_s
        return DhcpLease(client, address, pool.name, expiry)

    def _address_in(self, pool: DhcpPool, client: str, wish: str | None, now: float) -> str | None:
        taken = self._taken(client, now)
        for known in (self._leases.get(client), self._offers.get(client)):
            if known is not None and known.address not in taken and int(IPv4Address(known.address)) in pool.range:
                return known.address
        if wish is not None and int(IPv4Address(wish)) in pool.range and wish not in taken:
            return wish
        candidates = (str(IPv4Address(number)) for number in pool.range)
        return next((address for address in candidates if address not in taken), None)

    def _taken(self, client: str, now: float) -> set[str]:
        """Addresses that this client cannot have."""
        taken = {address for pool in self.pools.values() for mac, address in pool.reservations.items() if mac != client}
        for book in (self._leases, self._offers):
            taken |= {lease.address for lease in book.values() if lease.client != client and lease.is_running(now)}
        self._declined = {address: until for address, until in self._declined.items() if now < until}
        return taken | self._declined.keys()

    def _make_room(self, book: dict[str, DhcpLease], now: float) -> None:
        if len(book) < MAX_LEASES:
            return
        for lease in tuple(book.values()):
            if not lease.is_running(now):
                del book[lease.client]
        if len(book) >= MAX_LEASES:
            raise LabError(f"{MAX_LEASES} leases are all this server keeps", mend="shorten the leases")

    # --- across restarts

    def load(self) -> None:
        """What the file says; offers and declined addresses are forgotten. Raises LabError."""
        self._leases, self._holders, self._offers, self._declined, self._is_changed = {}, {}, {}, {}, False
        if self._state_file is None or not self._state_file.exists():
            return
        try:
            state = json.loads(self._state_file.read_bytes())
            self._read_state(state)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            raise LabError(
                f"no state of a DHCP server: {error}",
                where=str(self._state_file),
                mend="delete the file: leases and options that were set are forgotten",
            ) from error

    def _read_state(self, state: dict[str, Any]) -> None:
        if state["version"] != STATE_VERSION:
            raise ValueError(f"version {state['version']}")
        for name, options in state["options"].items():
            if name in self.pools:
                self.set_option_150(options.get("option_150", self.pools[name].option_150), name)
                self.set_option_66(options.get("option_66", self.pools[name].option_66), name)
        self._set = {name: dict(options) for name, options in state["options"].items()}
        for client, address, pool, expiry in state["leases"]:
            if pool in self.pools and self.pools[pool].has(address):
                self._leases[client] = DhcpLease(client, address, pool, None if expiry is None else float(expiry))
                self._holders[address] = client
        self._is_changed = False

    def save(self) -> None:
        """Write what has changed. Raises EnvironmentProblem."""
        if self._state_file is None or not self._is_changed:
            return
        leases = [[lease.client, lease.address, lease.pool, lease.expiry] for lease in self._leases.values()]
        state = {"version": STATE_VERSION, "options": self._set, "leases": leases}
        write_whole(self._state_file, json.dumps(state, indent=1).encode() + b"\n")
        self._is_changed = False
