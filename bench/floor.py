"""The crypto floor: what the libraries need for the same cryptography with nothing around them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from OpenSSL import SSL

from bench.material import GROUP, NGINX_BODY_BYTES, Material, TlsCase, TlsKind
from cucm.net.tls import client_context, server_context
from lab.fleet.floor import cpu_s_of, shake_hands

_READ_BYTES = 65536
_FLIGHTS = 12
_MESSAGE = b"x" * 1024


@dataclass(frozen=True, slots=True)
class HandshakeCost:
    """CPU milliseconds of each end for one full handshake and one exchange of a TVS query's size."""

    server_ms: float
    client_ms: float
    negotiated: str
    group: str

    @property
    def both_ms(self) -> float:
        return self.server_ms + self.client_ms


def rsa_sign_per_s(material: Material, seconds: float) -> float:
    """RSA-2048 PKCS#1 v1.5 signatures per second of one CPU."""
    key = _server_key(material)
    return 1 / cpu_s_of(lambda: key.sign(_MESSAGE, padding.PKCS1v15(), hashes.SHA256()), seconds)


def rsa_verify_per_s(material: Material, seconds: float) -> float:
    """RSA-2048 verifications per second of one CPU."""
    key = _server_key(material)
    signature, public = key.sign(_MESSAGE, padding.PKCS1v15(), hashes.SHA256()), key.public_key()
    return 1 / cpu_s_of(lambda: public.verify(signature, _MESSAGE, padding.PKCS1v15(), hashes.SHA256()), seconds)


def _server_key(material: Material) -> rsa.RSAPrivateKey:
    key = material.server.private_key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the material's server key is RSA")
    return key


def handshake_cost(material: Material, case: TlsCase, seconds: float) -> HandshakeCost:
    """Both ends in this thread over memory BIOs, no sockets; as many as `seconds` of CPU allow, at least one."""
    server = server_context(
        material.server.certificate_der,
        material.server.private_key_der,
        profile=case.profile,
        policy=case.policy,
        client_cas=[material.capf.certificate_der] if case.client_certificate else [],
    )
    client = load_context(material, case)
    begins = time.thread_time()
    used, count = [0.0, 0.0], 0
    while True:
        ends = SSL.Connection(server, None), SSL.Connection(client, None)
        _converse(ends, used, material.query(1))
        count += 1
        if time.thread_time() - begins > seconds:
            break
    negotiated = f"{ends[1].get_protocol_version_name()} {ends[1].get_cipher_name()}"
    return HandshakeCost(1000 * used[0] / count, 1000 * used[1] / count, negotiated, ends[1].get_group_name() or "RSA")


def load_context(material: Material, case: TlsCase) -> SSL.Context:
    """A client that asks for this case's version, cipher and group and no other."""
    phone = material.phone if case.client_certificate else None
    context = client_context(
        profile=case.profile,
        certificate_der=phone.certificate_der if phone else None,
        private_key_der=phone.private_key_der if phone else None,
    )
    # pyOpenSSL's own call takes curves of cryptography's `ec` only, and X25519 is none
    if SSL._lib.SSL_CTX_set1_curves_list(context._context, GROUP.encode()) != 1:  # type: ignore[attr-defined]
        raise RuntimeError(f"this OpenSSL has no group {GROUP}")
    if case.kind is TlsKind.TLS13:
        context.set_tls13_ciphersuites(case.cipher.encode())
    else:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(f"{case.cipher}:@SECLEVEL=0".encode())
    return context


def _converse(ends: tuple[SSL.Connection, SSL.Connection], used: list[float], query: bytes) -> None:
    """Handshake, query, answer; adds each end's CPU seconds to `used`."""
    server, client = ends
    server.set_accept_state()
    client.set_connect_state()
    done = [False, False]
    for _ in range(_FLIGHTS):
        for side in (1, 0):
            begins = time.thread_time()
            done[side] = shake_hands(ends[side], ends[1 - side])
            used[side] += time.thread_time() - begins
        if all(done):
            break
    else:
        raise RuntimeError("the floor's handshake does not end")
    for side, data in ((1, query), (0, b"x" * NGINX_BODY_BYTES)):
        begins = time.thread_time()
        ends[side].send(data)
        sent = ends[side].bio_read(_READ_BYTES)
        middle = time.thread_time()
        ends[1 - side].bio_write(sent)
        ends[1 - side].recv(_READ_BYTES)
        used[side] += middle - begins
        used[1 - side] += time.thread_time() - middle
