"""What the faults of `tls.handshake` look like on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from cucm.broken_certificates import expired, not_yet_valid, wrong_key
from cucm.certificates import node_certificate
from cucm.errors import LabError, TlsError
from cucm.faults.catalogue.tls import (
    Alert,
    ExpiredCertificate,
    NotYetValidCertificate,
    Plaintext,
    StallBefore,
    StallInside,
    WrongCertificate,
    WrongKey,
)
from cucm.faults.points import Action
from cucm.identity import Identity
from cucm.issuing import CertificateRequest, Purpose, self_signed, serial_from_seed
from cucm.key_store import CURVES, KeyKind, KeyStore, PrivateKey
from cucm.net.tls import TlsStream
from cucm.roles import CertificateUnit

STRANGER: Final = "stranger.lab.invalid"
_FALSE_KEY: Final = "false key of TLS faults"
_ALERT_RECORD: Final = bytes((21, 3, 3, 0, 2, 2))
"""Type alert, TLS 1.2 (which clients of every version take before one is agreed on), two bytes, fatal."""
_DAY_S: Final = 86_400.0
_MADE_ANEW_S: Final = 3600.0


class FalseCertificates:
    """Broken forms of a service's certificate, each made when it is first needed; `now` dates them (Unix seconds)."""

    def __init__(
        self,
        certificate_der: bytes,
        private_key_der: bytes,
        *,
        keys: KeyStore | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._der = certificate_der, private_key_der
        self._keys = keys or KeyStore()
        self._now = now
        self._made: dict[type[Action], tuple[float, Identity]] = {}

    def of(self, action: Action) -> Identity:
        """What to show instead. Raises LabError when it cannot be made."""
        moment = self._now()
        kept = self._made.get(type(action))
        if kept is None or abs(moment - kept[0]) > _MADE_ANEW_S:  # a lab's clock may have jumped
            kept = self._made[type(action)] = moment, self._make(action, moment)
        return kept[1]

    def _make(self, action: Action, moment: float) -> Identity:
        own = Identity.load(*self._der)
        false_key = self._false_key(own.private_key)
        match action:
            case ExpiredCertificate():
                return expired(own, moment, issuer=self._issuer(own, false_key, moment))
            case NotYetValidCertificate():
                return not_yet_valid(own, moment, issuer=self._issuer(own, false_key, moment))
            case WrongKey():
                return wrong_key(own, false_key)
            case _:
                return self._stranger(own.private_key, moment)

    def _stranger(self, own_key: PrivateKey, moment: float) -> Identity:
        return node_certificate(
            self._keys,
            CertificateUnit.TVS,
            STRANGER,
            seed="TLS faults",
            not_before=moment - _DAY_S,
            kind=_kind_like(own_key),
            key_label=_FALSE_KEY,
        )

    def _issuer(self, own: Identity, false_key: PrivateKey, moment: float) -> Identity | None:
        """None for a certificate that its own key signs; else somebody of the issuer's name, whose key nobody has."""
        if own.certificate.issuer == own.certificate.subject:
            return None
        request = CertificateRequest(
            subject=own.issuer,
            serial=serial_from_seed("TLS faults", own.issuer),
            not_before=moment - _DAY_S,
            purpose=Purpose.CA,
        )
        return self_signed(request, false_key)

    def _false_key(self, own: PrivateKey) -> PrivateKey:
        return self._keys.key(_FALSE_KEY, _kind_like(own))


def _kind_like(key: PrivateKey) -> KeyKind:
    """OpenSSL keeps an RSA and an EC certificate side by side: only one of the same kind takes the other's place."""
    if isinstance(key, rsa.RSAPrivateKey):
        return 2048
    return key.curve.name if key.curve.name in CURVES else CURVES[0]


def spoil_handshake(stream: TlsStream, action: Action, certificates: FalseCertificates | None) -> bool:
    """Whether the ClientHello that has begun is answered with a handshake after all."""
    match action:
        case StallBefore():
            stream.stall(0)
        case StallInside(bytes=count):
            stream.stall(count)
            return True
        case Alert(description=description):
            error = TlsError(f"alert {description} was sent instead of a ServerHello")
            stream.turn_away(_ALERT_RECORD + bytes((description,)), error)
        case Plaintext(text=text):
            stream.turn_away(text.encode(), TlsError("text was sent instead of a ServerHello"))
        case ExpiredCertificate() | NotYetValidCertificate() | WrongCertificate() | WrongKey():
            return _show(stream, action, certificates)
    return False


def _show(stream: TlsStream, action: Action, certificates: FalseCertificates | None) -> bool:
    """Where no such certificate can be made, the client gets none: never the right one."""
    if certificates is None:
        stream.turn_away(b"", TlsError(f"no {action.name} can be made: this service has not said what its own is"))
        return False
    try:
        identity = certificates.of(action)
    except LabError as error:
        stream.turn_away(b"", TlsError(f"no {action.name} can be made: {error}"))
        return False
    stream.show(identity)
    return True
