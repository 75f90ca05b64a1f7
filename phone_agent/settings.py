"""How a phone behaves on the network: addresses, ports, deadlines, and what it does when its CallManager goes."""

from __future__ import annotations

from dataclasses import field
from typing import Final

from cucm.net.tls import TlsProfile
from cucm.records import dataclass
from phone_agent.failover import FailoverDelays
from phone_agent.tvs_client import TvsDeadlines

BOOT_DEADLINE_S: Final = 300.0
"""Ours. Every step has a deadline of its own; this bounds the boot as a whole."""


@dataclass(frozen=True, slots=True)
class PhonePorts:
    """Ports that a configuration does not carry; the standard ones unless the machine keeps low ports to root."""

    http: int = 6970
    tftp: int = 69


@dataclass(frozen=True, slots=True)
class PhoneSettings:
    """`boot_deadline_s` covers all `attempts` of a boot together. Without `failover` a phone that has lost its
    CallManager stays unregistered until somebody resets it.
    """

    local_address: str | None = None
    ports: PhonePorts = field(default_factory=PhonePorts)
    tls_profile: TlsProfile = TlsProfile.MODERN
    tvs_deadlines: TvsDeadlines = field(default_factory=TvsDeadlines)
    boot_deadline_s: float = BOOT_DEADLINE_S
    attempts: int = 1
    failover: bool = True
    failover_delays: FailoverDelays = field(default_factory=FailoverDelays)
