"""A phone's certificate in a TLS handshake, without a TLS context for each phone.

A context costs 0.25 ms and 22 KiB; ten thousand phones share one per profile, and each shows its own certificate on its
own connection. Keys, of which a fleet has few, are parsed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from cucm.errors import LabError
from cucm.identity import Identity, load_certificate
from cucm.key_store import PrivateKey, load_private_key
from cucm.net.tls import Stream, TlsProfile, TlsStream, client_context
from phone_agent.flash import DeviceIdentity

SMALLEST_SHARED_KEY: Final = 2048
"""Bits: OpenSSL takes these under every profile. Weaker keys get a context of their own, which says what is wrong."""
KEPT_KEYS: Final = 64

OnConnected = Callable[[Stream], None]


def _nothing(_stream: Stream) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What `open_stream` needs: `present` is to be called between TCP and TLS."""

    context: SSL.Context
    present: OnConnected = _nothing


def client_tls(profile: TlsProfile, identity: DeviceIdentity | None) -> ClientTls:
    """TLS for a phone with this certificate, or without one. Raises UsageError, DecodeError for one of no use."""
    if identity is None:
        return ClientTls(_shared_context(profile))
    shown = _usable(identity)
    if shown is None:
        own = client_context(
            profile=profile, certificate_der=identity.certificate, private_key_der=identity.private_key
        )
        return ClientTls(own)

    def present(stream: Stream) -> None:
        if isinstance(stream, TlsStream):
            stream.show(shown)

    return ClientTls(_shared_context(profile), present)


@lru_cache(maxsize=len(TlsProfile))
def _shared_context(profile: TlsProfile) -> SSL.Context:
    return client_context(profile=profile)


def _usable(identity: DeviceIdentity) -> Identity | None:
    """Certificate and key where they surely go together and are strong enough."""
    try:
        certificate, key = load_certificate(identity.certificate), private_key(identity.private_key)
        public = certificate.public_key()
    except (LabError, ValueError, TypeError):
        return None
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < SMALLEST_SHARED_KEY:
        return None
    return Identity(certificate, key) if public == key.public_key() else None


@lru_cache(maxsize=KEPT_KEYS)
def private_key(der: bytes) -> PrivateKey:
    """The key of a phone of this lab. Raises UsageError."""
    return load_private_key(der, ours=True)


@lru_cache(maxsize=KEPT_KEYS)
def pkcs1_length(der: bytes) -> int:
    """Bytes of the key as PKCS#1. Raises UsageError."""
    key = private_key(der)
    return len(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
