"""Which phones a fleet has: the phones of a topology, repeated until there are enough, each with a MAC of its own."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Final

from cucm.errors import UsageError
from cucm.net.tls import TlsProfile
from cucm.records import dataclass
from lab.topology import PhoneTable, Topology

FIRST_HOST: Final = 10
"""Of the fleet's network; phones are numbered from here."""
_OUI_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class FleetPhone:
    """One phone: `model` is the phone of the topology that it is made after, by device name; `address` is its own, what
    it sends comes from `sends_from`, where that is another (`lab.fleet.exposure`).
    """

    mac: str
    product: str
    address: str
    model: str
    tls_profile: TlsProfile = TlsProfile.MODERN
    sends_from: str = ""

    @property
    def local_address(self) -> str:
        return self.sends_from or self.address

    @property
    def name(self) -> str:
        return f"SEP{self.mac}"


class Population:
    """The first `count` phones: number i is made after phone i of the topology, modulo how many it has.

    MAC addresses have the maker's three bytes of the phone of the topology and then the number, from 1 on. `network`
    gives addresses; its first few hosts are left to others. Raises UsageError for a topology without phones.
    """

    def __init__(self, topology: Topology, count: int, network: IPv4Network) -> None:
        if not topology.phones:
            raise UsageError("the topology has no phones to make a fleet of", mend="add [[phones]] to it")
        self._models = topology.phones
        self.network = network
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[FleetPhone]:
        return (self.phone(number) for number in range(self.count))

    def model_of(self, number: int) -> PhoneTable:
        return self._models[number % len(self._models)]

    def phone(self, number: int) -> FleetPhone:
        table = self.model_of(number)
        return FleetPhone(
            mac=mac_of(table, number),
            product=table.model,
            address=str(self.network[FIRST_HOST + number]),
            model=table.name,
            tls_profile=table.tls_profile,
        )

    def tables(self) -> Iterator[PhoneTable]:
        """The topology's table of each phone, as if it had been written there; `host` stays the model's."""
        for number in range(self.count):
            table = self.model_of(number)
            yield table.model_copy(
                update={
                    "mac": mac_of(table, number),
                    "serial_number": f"{table.serial_number}{number:05}",
                    "shares_keys": True,
                }
            )


def number_of(device_name: str) -> int:
    """Which of a fleet a phone of this name is, from 0 on."""
    return int(device_name[-6:], 16) - 1


def mac_of(table: PhoneTable, number: int) -> str:
    return f"{table.mac[:_OUI_DIGITS]}{number + 1:06X}"
