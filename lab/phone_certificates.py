"""The certificates that phones come with: from their maker, and from the CAPF of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cucm.certificates import ca_key_label, lsc, manufacturing_ca, mic, phone_key_label
from cucm.clock import Clock
from cucm.identity import Identity
from cucm.key_store import KeyKind, KeyStore
from lab.topology import PhoneTable
from phone_agent.flash import DeviceIdentity

ISSUED_DAYS_AGO: Final = 20
MANUFACTURING_BEGAN: Final = 1_262_304_000.0
"""2010-01-01: the emulated manufacturer's CA is the same on whatever day a lab is opened."""
PHONE_KEYS: Final = 8
"""Phones of a fleet share so many keys: making one costs more than a whole migration, and they are toys."""
_DAY_S: Final = 86_400.0

_Kind = Callable[..., Identity]


class PhoneCertificates:
    """Issues them as of some days before the clock's date."""

    def __init__(self, keys: KeyStore, clock: Clock, seed: int) -> None:
        self._keys = keys
        self._clock = clock
        self._seed = seed
        self._maker: Identity | None = None

    @property
    def maker(self) -> Identity:
        """The manufacturing CA."""
        if self._maker is None:
            self._maker = manufacturing_ca(self._keys, seed=self._seed, not_before=MANUFACTURING_BEGAN)
        return self._maker

    def prepare(self, tables: Iterable[PhoneTable]) -> None:
        """Make the keys of the maker and of these phones on all cores, before anybody waits for one."""
        self._keys.prepare([(ca_key_label(), 2048), *_keys_of(tables)])

    def mic(self, table: PhoneTable) -> DeviceIdentity:
        return self._issue(mic, self.maker, table)

    def lsc(self, table: PhoneTable, capf: Identity) -> DeviceIdentity:
        return self._issue(lsc, capf, table)

    def _issue(self, kind: _Kind, issuer: Identity, table: PhoneTable) -> DeviceIdentity:
        issued = kind(
            issuer,
            self._keys,
            model=table.model,
            mac=table.mac,
            serial_number=table.serial_number,
            seed=self._seed,
            not_before=self._clock.now() // _DAY_S * _DAY_S - ISSUED_DAYS_AGO * _DAY_S,
            key_label=_key_label(kind, table),
        )
        return DeviceIdentity(issued.certificate_der, issued.private_key_der)


def _keys_of(tables: Iterable[PhoneTable]) -> Iterator[tuple[str, KeyKind]]:
    for table in tables:
        for kind in (mic, lsc) if table.lsc_from else (mic,):
            yield _key_label(kind, table), 2048


def _key_label(kind: _Kind, table: PhoneTable) -> str:
    """A key of its own for the seed's phone and its like; phones of a range draw from a few."""
    if not table.shares_keys:
        return phone_key_label(kind.__name__, table.model, table.mac)
    return f"{kind.__name__} of a fleet {int(table.mac, 16) % PHONE_KEYS}"
