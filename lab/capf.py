"""Certificate Authority Proxy Function: signs the LSCs of a cluster's phones. Its wire protocol (3804) is not spoken.

A phone reaches it by a call inside the lab, and only while the service runs and the network lets its packets through.
"""

from __future__ import annotations

from typing import Final

from cucm.certificates import lsc
from cucm.clock import Clock
from cucm.errors import LabError
from cucm.events import Emit, ignore
from cucm.events.capf import LscIssued
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.net.reachability import Reachability
from cucm.signalling import CAPF_PORT
from lab.key_making import keys_made
from phone_agent.flash import DeviceIdentity
from phone_agent.models import PhoneModel

LSC_KEYS: Final = 8
"""Ours: as many as `lab.runtime` gives a fleet."""


class CertificateAuthorityProxyFunction:
    """A `lab.node_services.RunningService`, and the `phone_agent.lsc.LscIssuer` of the phones.

    `identity` is the CAPF's own certificate and key as they are when the service starts. A real phone makes a key pair
    of its own for each LSC; here phones share `LSC_KEYS` of `keys`, for making one costs more than a whole migration.
    """

    def __init__(
        self, node_name: str, identity: Identity, *, keys: KeyStore, clock: Clock, seed: int, emit: Emit = ignore
    ) -> None:
        self._node_name = node_name
        self._identity = identity
        self._keys = keys
        self._clock = clock
        self._seed = seed
        self._emit = emit
        self._is_running = False
        self._reachability = Reachability.OPEN

    @property
    def certificate(self) -> bytes:
        return self._identity.certificate_der

    async def start(self) -> None:
        self._is_running = True

    async def stop(self) -> None:
        self._is_running = False

    async def crash(self) -> None:
        self._is_running = False

    def set_reachability(self, how: Reachability) -> None:
        self._reachability = how

    async def issue(self, model: PhoneModel, serial_number: str) -> DeviceIdentity:
        """A certificate from now on, in the seed's forms (facts 7.7). Raises LabError when CAPF cannot be reached."""
        self._require_reachable()
        label = f"lsc of a fleet {int(model.mac, 16) % LSC_KEYS}"
        await keys_made(self._keys, [(label, 2048)])
        self._require_reachable()
        issued = lsc(
            self._identity,
            self._keys,
            model=f"CP-{model.model}",
            mac=model.mac,
            serial_number=serial_number,
            seed=self._seed,
            not_before=self._clock.now(),
            key_label=label,
        )
        self._emit(LscIssued(model.name, issued.subject, issued.issuer, issued.serial))
        return DeviceIdentity(issued.certificate_der, issued.private_key_der)

    def _require_reachable(self) -> None:
        if self._is_running and self._reachability is Reachability.OPEN:
            return
        why = "does not run" if not self._is_running else f"cannot be reached ({self._reachability})"
        raise LabError(
            f"CAPF {why}",
            where=f"{self._node_name} port {CAPF_PORT}",
            mend="start the service on the publisher, and let the network pass its port",
        )
