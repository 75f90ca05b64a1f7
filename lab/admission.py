"""Whom a CallManager lets register: certificate, database, security mode and digest credentials (facts 7.7)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from cryptography.x509.oid import NameOID

from cucm.database import Device, NodeDatabase
from cucm.errors import DecodeError, LabError, WireError
from cucm.events.cluster import RegistrationRefusal
from cucm.identity import load_certificate
from cucm.records import dataclass
from cucm.signalling import DeviceSecurityMode
from cucm.wire.sip_digest import Digest, challenge, is_right
from cucm.wire.sip_message import Request
from lab.registrar import Peer, Transport
from tftp_server.cluster_view import is_mixed_mode, security_mode_of

REALM: Final = "ccmsipline"
"""Of CallManager's challenges to phones [recall]."""
NONCE_VALIDITY_S: Final = 600
"""Default of a phone security profile [recall]."""


MAX_KNOWN: Final = 256
"""Devices that a node remembers of its database; ours."""


class DeviceDatabase(Protocol):
    def device(self, name: str) -> Device | None:
        """The device of this name, None if it is not provisioned."""
        ...


class ClusterDevices:
    """A node's devices with the security mode that the cluster's own leaves them, as their configurations have it."""

    def __init__(self, database: NodeDatabase) -> None:
        self._database = database
        self._version: int | None = None
        self._is_mixed_mode = False
        self._known: dict[str, Device] = {}

    def device(self, name: str) -> Device | None:
        """A phone that registers is asked about three times: as long as nobody writes, the database is asked once."""
        version = self._database.data_version()
        if version != self._version or len(self._known) >= MAX_KNOWN:
            self._version, self._is_mixed_mode = version, is_mixed_mode(self._database)
            self._known.clear()
        if name not in self._known:
            found = self._database.device(name)
            if found is None:
                return None
            mode = security_mode_of(found, mixed=self._is_mixed_mode)
            self._known[name] = found if mode == found.security_mode else replace(found, security_mode=mode)
        return self._known[name]


@dataclass(frozen=True, slots=True)
class Refusal:
    """`status` is None where nothing is answered."""

    status: int | None
    phrase: str
    reason: RegistrationRefusal
    detail: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """401. `refusal` is set when the device has shown credentials and they are wrong."""

    header: str
    stale: bool
    refusal: Refusal | None


class Admission:
    """`secret` makes nonces: no state is kept of them, and who does not know it cannot foresee them.

    A nonce is that of one connection, so that what an onlooker on TCP has seen registers nothing over another one.
    """

    def __init__(self, database: DeviceDatabase, now: Callable[[], float], secret: bytes) -> None:
        self._database = database
        self._now = now
        self._secret = hashlib.sha256(secret).digest()

    def device(self, name: str, transport: Transport, bearer: str | None) -> Device | Refusal:
        """The device of that name, if whoever says so may: over TLS its certificate must name it (`bearer`)."""
        if transport == "tls" and bearer != name:
            detail = f"the certificate is that of {bearer}"
            return Refusal(403, "Forbidden", RegistrationRefusal.CERTIFICATE_NAME, detail)
        try:
            device = self._database.device(name)
        except LabError as error:
            return Refusal(500, "Server Internal Error", RegistrationRefusal.DATABASE, str(error))
        if device is None:
            # auto-registration is off; the status is [recall]
            return Refusal(404, "Not Found", RegistrationRefusal.UNKNOWN_DEVICE, "not in this cluster's database")
        return device

    def objection(self, device: Device, transport: Transport) -> Refusal | None:
        """Why the device may not register over this transport."""
        demanded: Transport = "tcp" if device.security_mode == DeviceSecurityMode.NON_SECURE else "tls"
        if demanded == transport:
            return None
        # 403 on 5060 for a secure profile: facts 7.7; the other way round [inferred]
        detail = f"security mode {device.security_mode} demands {demanded}"
        return Refusal(403, "Forbidden", RegistrationRefusal.SECURITY_MODE, detail)

    def challenge(self, device: Device, request: Request, peer: Peer) -> Challenge | None:
        """What a device with digest credentials has to answer first, None once it has; `peer` is the other end of its
        connection. Raises WireError.
        """
        if not device.digest_user:
            return None
        text = request.headers.get("Authorization")
        if text is None:
            return self._challenge(peer)
        given = Digest.parse(text)
        if given["realm"] != REALM or not is_right(given, request.method, device.digest_user, device.digest_password):
            return self._challenge(peer, refusal=_wrong(given))
        return None if self._is_fresh(given["nonce"], peer) else self._challenge(peer, stale=True)

    @staticmethod
    def refuses_credentials(device: Device, user: str, password: str) -> Refusal | None:
        """What a device that answers its challenge with these comes to, without the digest's arithmetic."""
        if not device.digest_user or (user, password) == (device.digest_user, device.digest_password):
            return None
        return Refusal(401, "Unauthorized", RegistrationRefusal.DIGEST, "wrong or no digest credentials")

    def _challenge(self, peer: Peer, *, stale: bool = False, refusal: Refusal | None = None) -> Challenge:
        return Challenge(challenge(REALM, self._nonce(int(self._now()), peer), stale=stale), stale, refusal)

    def _nonce(self, moment: int, peer: Peer) -> str:
        text = f"{moment} {peer[0]} {peer[1]}"
        return f"{moment:x}-{hmac.digest(self._secret, text.encode(), 'sha256').hex()[:32]}"

    def _is_fresh(self, nonce: str, peer: Peer) -> bool:
        """Ours, and no older than it may be."""
        head = nonce.partition("-")[0]
        try:
            moment = int(head[:16], 16)
        except ValueError:
            return False
        own = hmac.compare_digest(nonce.encode(), self._nonce(moment, peer).encode())
        return own and 0 <= int(self._now()) - moment <= NONCE_VALIDITY_S


def _wrong(given: Digest) -> Refusal:
    detail = f"wrong digest credentials of user {given['username'][:64]!r} in realm {given['realm'][:64]!r}"
    return Refusal(401, "Unauthorized", RegistrationRefusal.DIGEST, detail)


def malformed(error: WireError) -> Refusal:
    return Refusal(400, "Bad Request", RegistrationRefusal.MALFORMED, str(error))


def device_in(certificate: bytes | None) -> str | None:
    """`SEPB000B4BA0AEE` of a LSC or MIC whose CN is `CP-8861-SEPB000B4BA0AEE` (facts 7.7)."""
    if certificate is None:
        return None
    try:
        names = load_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except DecodeError:
        return None
    return str(names[0].value).rsplit("-", 1)[-1] if names else None
