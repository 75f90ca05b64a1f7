"""What is measured while a fleet boots: how long each phase took, by the phones' events; what each node had to do, by
the servers' events; which cryptography was needed, by both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from cucm.events import Event, EventRecord
from cucm.events.cluster import RegistrationAccepted, RegistrationRefused
from cucm.events.files import FileNotFound, FileRefused, FileServed, TransferFailed
from cucm.events.phone import (
    ConfigurationAccepted,
    StateChanged,
    TrustListAccepted,
    TvsConnecting,
    TvsQueryFailed,
    TvsResponseReceived,
)
from cucm.events.trust_lists import FileSigned, TrustListSigned
from cucm.events.tvs import TvsHandshakeDone, TvsHandshakeFailed, TvsRequestRefused, TvsResponseSent
from lab.fleet.result import NodeLoad, Phase, Stage
from phone_agent.state import PhoneState

SIGNATURE: Final = "signature"
VERIFICATION: Final = "verification"
_BEGINS: Final[dict[str, Phase]] = {
    PhoneState.REQUESTING_ADDRESS: Phase.ADDRESS,
    PhoneState.UPDATING_CTL: Phase.CTL,
    PhoneState.UPDATING_ITL: Phase.ITL,
    PhoneState.UPDATING_CONFIGURATION: Phase.CONFIGURATION,
    PhoneState.REGISTERING: Phase.REGISTRATION,
}
_LEAP_OF_FAITH: Final = "leap-of-faith"


class PhoneMeter:
    """What one phone tells its events to; outside of a stage it only forgets them."""

    __slots__ = ("_asked_s", "_phase", "_since_s", "stage")

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self._phase: Phase | None = None
        self._since_s = 0.0
        self._asked_s = 0.0

    def __call__(self, event: Event) -> None:
        stage = self.stage
        if stage is None:
            return
        stage.events += 1
        act = _OF_PHONES.get(type(event))
        if act is not None:
            act(self, stage, event)

    def _enter(self, stage: Stage, event: Event) -> None:
        if not isinstance(event, StateChanged):
            return
        now_s = time.perf_counter()
        if self._phase is not None:
            stage.latency(self._phase).add(now_s - self._since_s)
        self._phase, self._since_s = _BEGINS.get(event.after), now_s

    def _ask(self, _stage: Stage, _event: Event) -> None:
        self._asked_s = time.perf_counter()

    def _answered(self, stage: Stage, _event: Event) -> None:
        stage.latency(Phase.TVS).add(time.perf_counter() - self._asked_s)

    def _accepted(self, stage: Stage, event: Event) -> None:
        if isinstance(event, TrustListAccepted | ConfigurationAccepted) and event.basis != _LEAP_OF_FAITH:
            stage.operations[VERIFICATION] += 1


_OF_PHONES: Final[dict[type[Event], Callable[[PhoneMeter, Stage, Event], None]]] = {
    StateChanged: PhoneMeter._enter,
    TvsConnecting: PhoneMeter._ask,
    TvsResponseReceived: PhoneMeter._answered,
    TvsQueryFailed: PhoneMeter._answered,
    TrustListAccepted: PhoneMeter._accepted,
    ConfigurationAccepted: PhoneMeter._accepted,
}


def handshake(cipher: str, *, with_certificate: bool) -> str:
    """What a full TLS handshake of this cipher is called in `Stage.operations`."""
    kind = "RSA" if cipher == "AES256-SHA" else "ECDHE"
    return f"handshake {kind}{' with client certificate' if with_certificate else ''}"


class LoadMeter:
    """Hears every event of the servers; `stage` is the one whose cryptography is counted."""

    def __init__(self, cluster_of: dict[str, str]) -> None:
        self.cluster_of = cluster_of
        self._loads: dict[tuple[str, str], NodeLoad] = {}
        self._this_second: Counter[tuple[str, str]] = Counter()
        self._second = 0
        self.stage: Stage | None = None

    def __call__(self, record: EventRecord) -> None:
        if self.stage is not None:
            self.stage.events += 1
        act = _OF_SERVERS.get(type(record.event))
        if act is not None:
            act(self, record)

    def loads(self) -> list[NodeLoad]:
        """By service, then as the nodes first had something to do."""
        self._end_second()
        return sorted(self._loads.values(), key=lambda load: (load.service, load.cluster, load.node))

    def _load(self, record: EventRecord, service: str) -> NodeLoad:
        node = record.source.partition(":")[2]
        key = (service, node)
        known = self._loads.get(key)
        if known is None:
            known = self._loads[key] = NodeLoad(self.cluster_of.get(node, node), node, service)
        return known

    def _request(self, record: EventRecord, service: str, size: int = 0) -> None:
        load = self._load(record, service)
        load.requests += 1
        load.bytes += size
        second = int(time.monotonic())
        if second != self._second:
            self._end_second()
            self._second = second
        self._this_second[service, load.node] += 1

    def _end_second(self) -> None:
        for key, count in self._this_second.items():
            self._loads[key].busiest = max(self._loads[key].busiest, count)
        self._this_second.clear()

    def _count(self, operation: str) -> None:
        if self.stage is not None:
            self.stage.operations[operation] += 1

    def _served(self, record: EventRecord) -> None:
        if isinstance(record.event, FileServed):
            self._request(record, "TFTP", record.event.size)

    def _file_failed(self, record: EventRecord) -> None:
        self._load(record, "TFTP").failures += 1

    def _answered(self, record: EventRecord) -> None:
        self._request(record, "TVS")

    def _tvs_failed(self, record: EventRecord) -> None:
        self._load(record, "TVS").failures += 1

    def _registered(self, record: EventRecord) -> None:
        self._request(record, "CallManager")
        event = record.event
        if isinstance(event, RegistrationAccepted) and event.transport == "tls":
            self._count(handshake(event.cipher, with_certificate=True))

    def _refused(self, record: EventRecord) -> None:
        self._load(record, "CallManager").failures += 1

    def _shook_hands(self, record: EventRecord) -> None:
        if isinstance(record.event, TvsHandshakeDone):
            self._count(handshake(record.event.cipher, with_certificate=record.event.client_subject is not None))

    def _signed(self, _record: EventRecord) -> None:
        self._count(SIGNATURE)


_OF_SERVERS: Final[dict[type[Event], Callable[[LoadMeter, EventRecord], None]]] = {
    FileServed: LoadMeter._served,
    FileNotFound: LoadMeter._file_failed,
    FileRefused: LoadMeter._file_failed,
    TransferFailed: LoadMeter._file_failed,
    TvsResponseSent: LoadMeter._answered,
    TvsHandshakeDone: LoadMeter._shook_hands,
    TvsHandshakeFailed: LoadMeter._tvs_failed,
    TvsRequestRefused: LoadMeter._tvs_failed,
    RegistrationAccepted: LoadMeter._registered,
    RegistrationRefused: LoadMeter._refused,
    FileSigned: LoadMeter._signed,
    TrustListSigned: LoadMeter._signed,
}
