"""What a boot costs whom: the figures of the simulation's model, each with where it was measured.

CPU seconds of one core that signs 4,700 RSA-2048 a second; the bench page compares what they predict with runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from cucm.records import dataclass

OVERLAP: Final = 0.94
"""The share of the time for which a machine with servers and phones on it is busy: now and then the process of the one
waits for that of the other, most while a boot begins and ends. Fleets of 100 to 1,000, one worker, two processors.
"""


class Kind(StrEnum):
    """What a phone asks of a server."""

    DHCP = "DHCP"
    HTTP = "HTTP"
    TFTP = "TFTP"
    TVS = "TVS"
    REGISTER_TLS = "CallManager"
    REGISTER_TCP = "CallManager over TCP"

    @property
    def service(self) -> str:
        """As `NodeLoad.service` calls it."""
        return "TFTP" if self in (Kind.HTTP, Kind.TFTP) else "CallManager" if self is Kind.REGISTER_TCP else self.value


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds at the server and at the phone, and for each 512 bytes of a file at either."""

    server_s: float
    phone_s: float
    block_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """`costs` by kind; `configuration_s`: a node makes and signs a configuration; `boot_s`: what a phone does by itself
    in a boot (lists, XML, verification, flash); `round_trip_s`: of the network, once for each request.
    """

    costs: dict[Kind, Cost]
    configuration_s: float
    boot_s: float
    round_trip_s: float

    def scaled(self, servers: float, phones: float) -> Calibration:
        """For a machine on which servers take `servers` times as long, and phones `phones` times."""
        costs = {
            kind: Cost(cost.server_s * servers, cost.phone_s * phones, cost.block_s * (servers + phones) / 2)
            for kind, cost in self.costs.items()
        }
        return Calibration(costs, self.configuration_s * servers, self.boot_s * phones, self.round_trip_s)


MEASURED: Final = Calibration(
    # 1,000 phones of the story `migrate`, phones in one process beside the servers' (`cucm-lab fleet --phones 1000`):
    # a first boot took 1.6 ms CPU of the servers and 1.5 of the phone, the one that migrates 2.3 and 2.3; shared among
    # the phases as their latencies in a run in one process
    costs={
        Kind.DHCP: Cost(0.00009, 0.00011),
        Kind.HTTP: Cost(0.00010, 0.00014),
        # docs/benchmarks.md, files of 6 KB at blksize 512: a dozen blocks for 0.09 ms
        Kind.TFTP: Cost(0.00003, 0.00016, 0.000005),
        # of it 0.34 ms at either end are the handshake itself (both ends over memory, RSA with client certificate)
        Kind.TVS: Cost(0.00072, 0.00094),
        Kind.REGISTER_TLS: Cost(0.00075, 0.00064),
        # the same without the handshake
        Kind.REGISTER_TCP: Cost(0.00016, 0.00014),
    },
    configuration_s=0.00046,
    boot_s=0.00030,
    round_trip_s=0.0002,
)
"""Two cores, Python 3.11, OpenSSL 4 in `cryptography`, uvloop; the round trip is ours, that of a quiet LAN."""
