"""TLS contexts: profiles, client certificate policies, and who checks a peer's certificate."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key
from OpenSSL import SSL, crypto

from cucm.errors import DecodeError, TrustError, TrustReason, UsageError
from cucm.identity import CertificateSummary, describe, load_certificate
from cucm.net.tls_session import limit_groups

VerifyPeer = Callable[[bytes], None]
"""Called with the DER of the peer's certificate during the handshake; raises TrustError to refuse it."""


class TlsProfile(StrEnum):
    MODERN = "modern"
    """TLS 1.2 and 1.3 with forward secrecy."""
    AES256_SHA = "aes256-sha"
    """TLS 1.0 to 1.2, `AES256-SHA` first, as an 8861 and TVS 10.5.2 agree on (facts 2.9)."""


_VERSIONS: Final = {
    TlsProfile.MODERN: (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION),
    TlsProfile.AES256_SHA: (SSL.TLS1_VERSION, SSL.TLS1_2_VERSION),
}
_CIPHERS: Final = {
    TlsProfile.MODERN: b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL",
    # level 0: OpenSSL otherwise leaves out TLS 1.0 and RSA key exchange whatever else is asked for
    TlsProfile.AES256_SHA: b"AES256-SHA:ALL:!aNULL:!eNULL:@SECLEVEL=0",
}


_GROUPS: Final = b"X25519:P-256:X448:P-384:P-521:ffdhe2048:ffdhe3072"
"""OpenSSL's own list without ML-KEM, which is younger than every phone and CUCM of this lab [inferred]. Its keys would
cost each handshake an eighth of its CPU, and stay: 8 KiB in the client and 6 in the server for each connection.
"""


class ClientCertificatePolicy(StrEnum):
    """What a server does about client certificates. What the real TVS does is UNKNOWN (facts 2.9)."""

    OFF = "off"
    REQUESTED = "requested"
    """Taken if offered, checked against the given CAs if there are any; a stranger's is refused with an alert."""
    REQUIRED = "required"
    """As REQUESTED, and a client without one is refused."""


_REMEMBERED_CERTIFICATES: Final = 4096
"""As many connections as a service holds at once."""
_VERIFY_MODES: Final = {
    ClientCertificatePolicy.OFF: SSL.VERIFY_NONE,
    ClientCertificatePolicy.REQUESTED: SSL.VERIFY_PEER,
    ClientCertificatePolicy.REQUIRED: SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


def server_context(
    certificate_der: bytes,
    private_key_der: bytes,
    *,
    profile: TlsProfile = TlsProfile.MODERN,
    policy: ClientCertificatePolicy = ClientCertificatePolicy.REQUESTED,
    client_cas: Sequence[bytes] = (),
    now: Callable[[], float] = time.time,
) -> SSL.Context:
    """A context for any number of server connections; make it once, 22 KiB and 0.2 ms each.

    `private_key_der` is unencrypted PKCS#8 or PKCS#1; `client_cas` are DER certificates whose holder must have
    issued an offered client certificate; `now` (Unix seconds) dates those. What a certificate may be used for (key
    usages) is not looked at; whether CUCM does so is UNKNOWN. Raises UsageError.
    """
    context = _context(profile)
    _use_identity(context, certificate_der, private_key_der)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_verify(_VERIFY_MODES[policy], _verify)
    if client_cas:
        context.set_app_data(client_check(client_cas, now))
    return context


def client_check(client_cas: Sequence[bytes], now: Callable[[], float]) -> VerifyPeer:
    """What a server with these CAs (DER) says to a client certificate. Raises UsageError for what is no certificate."""
    return _issued_by([_load_certificate(der) for der in client_cas], now)


def client_context(
    *,
    profile: TlsProfile = TlsProfile.MODERN,
    certificate_der: bytes | None = None,
    private_key_der: bytes | None = None,
) -> SSL.Context:
    """A context for any number of client connections, with the client's certificate and key if it has them.

    Raises UsageError.
    """
    context = _context(profile)
    if certificate_der is not None and private_key_der is not None:
        _use_identity(context, certificate_der, private_key_der)
    context.set_verify(SSL.VERIFY_PEER, _verify)
    return context


def _context(profile: TlsProfile) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    lowest, highest = _VERSIONS[profile]
    context.set_min_proto_version(lowest)
    context.set_max_proto_version(highest)
    context.set_cipher_list(_CIPHERS[profile])
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    limit_groups(context, _GROUPS)
    return context


def _use_identity(context: SSL.Context, certificate_der: bytes, private_key_der: bytes) -> None:
    try:
        key: Any = load_der_private_key(private_key_der, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError) as error:
        raise UsageError("this is not an unencrypted private key in DER", mend="give PKCS#8 or PKCS#1") from error
    try:
        context.use_certificate(_load_certificate(certificate_der))
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise UsageError(
            f"the certificate cannot be used for TLS: {reason_of(error) or 'no reason given'}",
            mend="give the private key of that certificate; weak keys need the aes256-sha profile",
        ) from error


def _load_certificate(der: bytes) -> x509.Certificate:
    try:
        return load_certificate(der)
    except DecodeError as error:
        raise UsageError("this is not a certificate in DER", mend="convert it: openssl x509 -outform DER") from error


def _issued_by(authorities: Sequence[x509.Certificate], now: Callable[[], float]) -> VerifyPeer:
    known: dict[bytes, tuple[int, int]] = {}

    def validity(der: bytes) -> tuple[int, int]:
        """What does not change: a phone comes again, and its certificate's signature is what it was.

        Kept by a hash, for a certificate would be 2 KB. Raises TrustError, which is not remembered: strangers can make
        as many certificates as they like.
        """
        digest = hashlib.sha256(der).digest()
        found = known.get(digest)
        if found is None:
            certificate, summary = _parse_offered(der)
            if not any(_is_issuer(authority, certificate) for authority in authorities):
                what = f"client certificate is not of a known CA: issuer {summary.issuer}"
                raise TrustError(TrustReason.SIGNER_UNKNOWN, what)
            if len(known) >= _REMEMBERED_CERTIFICATES:
                del known[next(iter(known))]
            found = known[digest] = summary.not_before, summary.not_after
        return found

    def verify(der: bytes) -> None:
        not_before, not_after = validity(der)
        moment = now()
        if moment > not_after:
            raise TrustError(TrustReason.CERTIFICATE_EXPIRED, "client certificate has expired")
        if moment < not_before:
            raise TrustError(TrustReason.CERTIFICATE_NOT_YET_VALID, "client certificate is not yet valid")

    return verify


def _parse_offered(der: bytes) -> tuple[x509.Certificate, CertificateSummary]:
    """OpenSSL takes certificates that no phone has and our library does not read: of a version 7, say."""
    try:
        return load_certificate(der), describe(der)
    except DecodeError as error:
        raise TrustError(TrustReason.MALFORMED, "client certificate cannot be read") from error


def _is_issuer(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


CLIENT_REFUSED: Final = "tlsv1 alert unknown ca"
"""What a client hears whose certificate the callback below refuses, whatever for: no context has CAs of OpenSSL's own,
so that is the error OpenSSL has in mind."""


def _verify(connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int) -> bool:
    """OpenSSL's verify callback. Chains say nothing in this system; the peer's own certificate is looked at."""
    check = connection.get_app_data()
    return depth > 0 or check is None or check.accepts(certificate)


class PeerCheck:
    """One connection's verdict on its peer's certificate; OpenSSL asks several times, the question is put once.

    `der` is that certificate, once it was shown.
    """

    __slots__ = ("der", "refusal", "verify")

    def __init__(self, verify: VerifyPeer) -> None:
        self.verify = verify
        self.der: bytes | None = None
        self.refusal: TrustError | None = None

    def accepts(self, certificate: crypto.X509) -> bool:
        if self.der is None:
            self.der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            try:
                self.verify(self.der)
            except TrustError as refusal:
                self.refusal = refusal
        return self.refusal is None


def reason_of(error: SSL.Error) -> str | None:
    """The innermost reason text of an OpenSSL error (`ssl/tls alert bad certificate`)."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return str(queue[-1][-1])
    return str(error) or None
