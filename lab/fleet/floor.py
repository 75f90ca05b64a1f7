"""The crypto floor of a fleet: what the libraries need for the same cryptography with nothing around it.

Measured in the run that is compared with it, with the fleet's own kinds of keys and TLS profiles: both ends of a
handshake in one thread over memory BIOs, no sockets, no events; signatures and verifications as files are signed.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from OpenSSL import SSL

from cucm.identity import Identity
from cucm.net.tls import ClientCertificatePolicy, TlsProfile, client_context, server_context
from lab.fleet.measure import SIGNATURE, VERIFICATION, handshake

MEASURE_S: Final = 0.15
"""CPU seconds for each kind of operation."""
_MESSAGE: Final = b"x" * 4096
_READ_BYTES: Final = 65536
_FLIGHTS: Final = 12


class Floor:
    """CPU seconds of each operation, measured once and then kept. `nodes` are a CallManager's certificate and key
    for each TLS profile that there is, `phone` is one that `authority` issued, for a phone with this profile. Keys may
    be too weak for another.
    """

    def __init__(
        self, nodes: Mapping[TlsProfile, Identity], phone: Identity, authority: Identity, profile: TlsProfile
    ) -> None:
        self._nodes = nodes
        self._phone = phone
        self._profile = profile
        self._authority = authority
        self._known: dict[str, float] = {}

    def seconds(self, operations: Counter[str]) -> float:
        """Of so many operations, by the names of `lab.fleet.measure`."""
        return sum(count * self._one(name) for name, count in operations.items())

    def as_json(self) -> dict[str, float]:
        """Milliseconds of CPU of each operation that was asked for."""
        return {name: round(1000 * seconds, 4) for name, seconds in sorted(self._known.items())}

    def _one(self, name: str) -> float:
        if name not in self._known:
            self._known[name] = cpu_s_of(self._operation(name), MEASURE_S)
        return self._known[name]

    def _operation(self, name: str) -> Callable[[], object]:
        key = self._node(TlsProfile.MODERN).private_key
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("a CallManager's key is RSA")
        if name == SIGNATURE:
            return lambda: key.sign(_MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        if name == VERIFICATION:
            public, signature = key.public_key(), key.sign(_MESSAGE, padding.PKCS1v15(), hashes.SHA256())
            return lambda: public.verify(signature, _MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        return self._handshake(name)

    def _node(self, profile: TlsProfile) -> Identity:
        """One with this profile; where there is none, any other."""
        return self._nodes.get(profile) or next(iter(self._nodes.values()))

    def _handshake(self, name: str) -> Callable[[], object]:
        kinds = {
            handshake(cipher, with_certificate=with_certificate): (profile, with_certificate)
            for profile, cipher in ((TlsProfile.AES256_SHA, "AES256-SHA"), (TlsProfile.MODERN, "ECDHE"))
            for with_certificate in (False, True)
        }
        profile, with_certificate = kinds[name]
        node = self._node(profile)
        contexts = (
            server_context(
                node.certificate_der,
                node.private_key_der,
                profile=profile,
                policy=ClientCertificatePolicy.REQUIRED if with_certificate else ClientCertificatePolicy.OFF,
                client_cas=[self._authority.certificate_der] if with_certificate else [],
            ),
            client_context(
                profile=self._profile if profile is TlsProfile.MODERN else profile,
                certificate_der=self._phone.certificate_der if with_certificate else None,
                private_key_der=self._phone.private_key_der if with_certificate else None,
            ),
        )
        return lambda: _handshake_over_memory(*contexts)


def cpu_s_of(operation: Callable[[], object], seconds: float) -> float:
    """CPU seconds of this thread for one operation; goes on for `seconds` of it, but does at least two."""
    operation()
    begins_s = time.thread_time()
    count, used_s = 0, 0.0
    while used_s <= seconds:
        operation()
        count += 1
        used_s = time.thread_time() - begins_s
    return used_s / count


def _handshake_over_memory(server_context: SSL.Context, client_context: SSL.Context) -> None:
    server, client = SSL.Connection(server_context, None), SSL.Connection(client_context, None)
    server.set_accept_state()
    client.set_connect_state()
    done = [False, False]
    for _ in range(_FLIGHTS):
        done = [shake_hands(client, server), shake_hands(server, client)]
        if all(done):
            return
    raise RuntimeError("the floor's handshake does not end")


def shake_hands(end: SSL.Connection, other: SSL.Connection) -> bool:
    """One step of one end; what it has to say goes to the other. Whether its handshake is done."""
    try:
        end.do_handshake()
        is_done = True
    except SSL.WantReadError:
        is_done = False
    with contextlib.suppress(SSL.WantReadError):
        other.bio_write(end.bio_read(_READ_BYTES))
    return is_done
