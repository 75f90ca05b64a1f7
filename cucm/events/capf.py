"""What the Certificate Authority Proxy Function does."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class LscIssued(Event):
    """CAPF has signed a certificate for a phone; whether the phone keeps it is the phone's business."""

    kind: ClassVar[str] = "capf.lsc_issued"
    device_name: str
    subject: str
    issuer: str
    serial: bytes
