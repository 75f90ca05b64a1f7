"""A fleet whose phones run on other machines: the networks that both sides reach.

The servers take addresses of one network, the phones of another, of which every worker has a part of its own
(`PART_VARIABLE` in its environment). Routes between them, and that a machine answers for a whole network, are the
administrator's: docs/howto/fleets-on-dask.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import Final

from cucm.errors import EnvironmentProblem, LimitExceeded, UsageError
from cucm.records import dataclass

PART_VARIABLE: Final = "CUCM_LAB_PHONES"
FIRST_HOST: Final = 10
"""Of a worker's part; the machine itself and its router are below."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """`servers` is a /24, `phones` has the parts of all workers in it. Raises UsageError."""

    servers: IPv4Network
    phones: IPv4Network

    def __post_init__(self) -> None:
        if self.servers.prefixlen != 24:
            raise UsageError(f"{self.servers} is not a /24", where="--network", mend="for example 192.168.11.0/24")
        for where, network in (("--network", self.servers), ("--expose", self.phones)):
            if network.is_loopback or not network.is_private:
                raise UsageError(
                    f"{network} is not a private network that other machines reach",
                    where=where,
                    mend="use one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 that is yours",
                )
        if self.servers.overlaps(self.phones):
            raise UsageError(f"{self.phones} and {self.servers} overlap", where="--expose", mend="take another network")

    @property
    def warning(self) -> str:
        return (
            f"WARNING: the servers of this fleet listen in {self.servers}, for other machines. Certificates and keys "
            "are toys, and whoever reaches them may talk to them; never let production phones do."
        )

    def check_parts(self, parts: Mapping[str, str | None]) -> None:
        """By worker: what its environment names. Raises EnvironmentProblem for none, a wrong one, or one twice."""
        seen: dict[IPv4Network, str] = {}
        for worker, text in parts.items():
            part = self._part(worker, text)
            for other, owner in seen.items():
                if part.overlaps(other):
                    raise _problem(worker, f"its {PART_VARIABLE}={part} overlaps that of {owner}")
            seen[part] = worker

    def _part(self, worker: str, text: str | None) -> IPv4Network:
        if not text:
            raise _problem(worker, f"it has no {PART_VARIABLE} in its environment")
        try:
            part = IPv4Network(text)
        except ValueError as error:
            raise _problem(worker, f"its {PART_VARIABLE} is no network: {error}") from error
        if not part.subnet_of(self.phones):
            raise _problem(worker, f"its {PART_VARIABLE}={part} is not in {self.phones}")
        return part


def _problem(worker: str, what: str) -> EnvironmentProblem:
    mend = f"start each worker process with a part of its own of --expose, for example {PART_VARIABLE}=10.66.1.0/24"
    return EnvironmentProblem(what, where=worker, mend=mend)


class Part:
    """A worker's addresses for phones; threads lend them."""

    def __init__(self, network: IPv4Network) -> None:
        self._network = network
        self._lock = threading.Lock()
        self._lent: set[str] = set()

    @contextmanager
    def lend(self, count: int) -> Iterator[Sequence[str]]:
        """So many addresses until the end. Raises LimitExceeded when there are not so many."""
        addresses = self._take(count)
        try:
            yield addresses
        finally:
            with self._lock:
                self._lent.difference_update(addresses)

    def _take(self, count: int) -> list[str]:
        with self._lock:
            hosts = range(FIRST_HOST, self._network.num_addresses - 1)
            every = (str(self._network[host]) for host in hosts)
            free = [address for address in every if address not in self._lent][:count]
            if len(free) < count:
                raise LimitExceeded(
                    f"{count} phones at once do not fit", where=str(self._network), mend=f"a wider {PART_VARIABLE}"
                )
            self._lent.update(free)
        return free
