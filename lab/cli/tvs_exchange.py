"""One question to a TVS over TLS, and its answer in words."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from OpenSSL import SSL

from cucm.certificates import CertificateSummary, describe
from cucm.errors import EnvironmentProblem, LabError, TlsError, TrustError, TrustReason, UsageError, WireError
from cucm.key_store import PrivateKey
from cucm.names import serial_hex
from cucm.net.stream import Stream
from cucm.net.tls import TlsProfile, VerifyPeer, client_context, open_stream
from cucm.records import dataclass
from cucm.render.text import printable
from cucm.roles import SIGNS_FILES, SIGNS_TRUST_LISTS
from cucm.wire.tvs import (
    STATUS_OK,
    ConnectionClosed,
    NeedData,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsConnection,
    TvsMessage,
    VerifyResponse,
)
from lab.cli.inputs import read_certificate, read_input
from lab.cli.tvs_explanation import role_text

MAX_KEY_FILE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Connection:
    """How to connect: a TLS context, and the check of the server's certificate if there is to be one."""

    context: SSL.Context
    verify_peer: VerifyPeer | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question that was answered, and over which connection."""

    address: str
    port: int
    tls_version: str
    cipher: str
    server_certificate: bytes | None
    request: TvsMessage
    response: QueryCertificateResponse | VerifyResponse

    @property
    def positive(self) -> bool:
        """Found, or valid."""
        return self.response.status == STATUS_OK and (not self.is_query or self.certificate is not None)

    @property
    def is_query(self) -> bool:
        return isinstance(self.request, QueryCertificateRequest)

    @property
    def certificate(self) -> bytes | None:
        """DER that came back."""
        return self.response.certificate if isinstance(self.response, QueryCertificateResponse) else None


def connection_of(arguments: argparse.Namespace) -> Connection:
    """From the command's arguments. Raises UsageError for files that do not hold what they should."""
    certificate_file, key_file = arguments.client_certificate, arguments.client_key
    if bool(certificate_file) != bool(key_file):
        raise UsageError("--client-certificate and --client-key need each other", mend="give both or none")
    context = client_context(
        profile=TlsProfile(arguments.tls_profile),
        certificate_der=read_certificate(certificate_file) if certificate_file else None,
        private_key_der=_read_private_key(key_file) if key_file else None,
    )
    expected = arguments.expect_server_certificate
    return Connection(context, _only(read_certificate(expected)) if expected else None)


def ask(host: str, port: int, request: TvsMessage, connection: Connection, *, timeout_s: float) -> Exchange:
    """Connect, ask, disconnect, all within `timeout_s`.

    Raises EnvironmentProblem (no connection or no answer), TrustError (not the expected server), DecodeError (an
    answer that makes no sense).
    """
    where = f"{host} TCP port {port}"
    try:
        return asyncio.run(_ask(host, port, request, connection, timeout_s))
    except TimeoutError as error:
        text = str(error) or f"no answer within {timeout_s:g} s"
        raise EnvironmentProblem(text, where=where, mend="is this a TVS? --timeout allows more time") from error
    except OSError as error:
        mend = "check address and port, and that the service runs"
        raise EnvironmentProblem(f"cannot connect: {_words(error)}", where=where, mend=mend) from error
    except TlsError as error:
        mend = "an old TVS needs --tls-profile aes256-sha; one that asks for a certificate --client-certificate"
        raise EnvironmentProblem(f"no TLS: {error.what}", where=where, mend=mend) from error
    except LabError as error:
        error.where = f"{where}, {error.where}" if error.where else where
        raise


def _words(error: OSError) -> str:
    """Asyncio words a refused connection as "Connect call failed"; the system's own words say why."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


async def _ask(host: str, port: int, request: TvsMessage, connection: Connection, timeout_s: float) -> Exchange:
    async with asyncio.timeout(timeout_s):
        stream = await open_stream(
            host,
            port,
            context=connection.context,
            verify_peer=connection.verify_peer,
            connect_timeout_s=timeout_s,
            handshake_timeout_s=timeout_s,
            resolves_names=True,
        )
        try:
            response = await _response(stream, request)
        finally:
            await stream.close()
    certificate = stream.peer_certificate
    return Exchange(host, port, stream.tls_version, stream.cipher, certificate, request, response)


async def _response(stream: Stream, request: TvsMessage) -> QueryCertificateResponse | VerifyResponse:
    protocol = TvsConnection(max_messages=1)
    stream.write(protocol.send(request))
    while isinstance(event := protocol.next_event(), NeedData):
        data = await stream.read()
        protocol.receive_data(data) if data else protocol.receive_eof()
    if isinstance(event, ConnectionClosed):
        raise EnvironmentProblem(
            "the TVS closed the connection without an answer",
            mend="some do so with questions they do not like; its own log says why",
        )
    wanted = QueryCertificateResponse if isinstance(request, QueryCertificateRequest) else VerifyResponse
    if not isinstance(event, wanted):
        raise LabError(f"the TVS answered {event.type.log_name} where {wanted.type.log_name} belongs")
    return event


def _only(expected: bytes) -> VerifyPeer:
    def verify(certificate: bytes) -> None:
        if certificate != expected:
            raise TrustError(
                TrustReason.TVS_CERTIFICATE_NOT_TRUSTED,
                f"the server shows another certificate than expected: {_certificate_text(certificate)}",
            )

    return verify


def _read_private_key(name: str) -> bytes:
    """PKCS#8 DER of the unencrypted key in a PEM or DER file. Raises UsageError."""
    data = read_input(name, limit=MAX_KEY_FILE).data
    try:
        key = load_pem_private_key(data, None) if b"-----BEGIN" in data else load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(
            "this holds no private key, or an encrypted one", where=name, mend="give an unencrypted key, PEM or DER"
        ) from None
    if not isinstance(key, PrivateKey):
        raise UsageError(
            "a private key of this kind is of no use here", where=name, mend="use RSA or an elliptic curve"
        )
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def describe_lines(exchange: Exchange) -> list[str]:
    """The answer in words."""
    response = exchange.response
    lines = [
        f"{exchange.address} port {exchange.port} answered, {exchange.tls_version} with {exchange.cipher}",
        f"  its certificate: {_certificate_text(exchange.server_certificate or b'')}",
        f"  status:          {response.status} ({_status_text(exchange)})",
    ]
    if response.status == STATUS_OK:
        lines.append(f"  roles:           {', '.join(map(role_text, response.roles)) or 'none'}")
    if response.ttl_s is not None:
        lines.append(f"  time to live:    {response.ttl_s} s = {response.ttl_s / 3600:g} h")
    if exchange.certificate is not None:
        lines += [f"  {line}" for line in _certificate_lines(exchange.certificate)]
    lines += [f"  note: {note}" for note in notes_on(exchange)]
    return [printable(line) for line in lines]


def notes_on(exchange: Exchange) -> list[str]:
    """What an engineer would remark on this answer."""
    response, notes = exchange.response, []
    if response.session_id != exchange.request.session_id:
        notes.append(f"the answer has session id {response.session_id}, the question {exchange.request.session_id}")
    if response.status != STATUS_OK:
        notes.append("that this status means so is [peer] knowledge: what CUCM sends is UNKNOWN")
    elif exchange.is_query and exchange.certificate is None:
        notes.append("the status says found, but no certificate came with it")
    elif exchange.is_query:
        roles = set(response.roles)
        notes.append(
            f"a phone would take {_good_for(roles)}"
            if roles & (SIGNS_TRUST_LISTS | SIGNS_FILES)
            else "without the roles SAST and TFTP a phone takes nothing signed with it:"
            " is it in CallManager-trust only, and not in Phone-SAST-trust?"
        )
    return notes


def _good_for(roles: set[int]) -> str:
    kinds = [("CTL and ITL files", SIGNS_TRUST_LISTS), ("configuration files", SIGNS_FILES)]
    return " and ".join(kind for kind, needed in kinds if roles & needed) + " signed with it"


def _status_text(exchange: Exchange) -> str:
    if exchange.is_query:
        return "found" if exchange.response.status == STATUS_OK else "not found"
    return "valid" if exchange.response.status == STATUS_OK else "not valid"


def _summary(der: bytes) -> CertificateSummary | None:
    try:
        return describe(der)
    except WireError:
        return None


def _certificate_text(der: bytes) -> str:
    summary = _summary(der)
    return (
        f"{summary.subject}, SHA-1 {_sha1(der)}" if summary else f"{len(der)} bytes that are not a usable certificate"
    )


def _certificate_lines(der: bytes) -> list[str]:
    summary = _summary(der)
    if summary is None:
        return [f"certificate:     {len(der)} bytes that are not a usable certificate"]
    return [
        f"certificate:     {len(der)} bytes, SHA-1 {_sha1(der)}",
        f"  subject:       {summary.subject}",
        f"  issuer:        {summary.issuer}",
        f"  serial number: {serial_hex(summary.serial)}",
        f"  valid:         {_moment(summary.not_before)} to {_moment(summary.not_after)}",
    ]


def as_json(exchange: Exchange) -> dict[str, Any]:
    """The exchange as plain JSON values."""
    response = exchange.response
    return {
        "server": {
            "address": exchange.address,
            "port": exchange.port,
            "tls_version": exchange.tls_version,
            "cipher": exchange.cipher,
            "certificate": _certificate_json(exchange.server_certificate),
        },
        "question": exchange.request.type.log_name,
        "positive": exchange.positive,
        "status": response.status,
        "roles": [{"number": role, "text": role_text(role)} for role in response.roles],
        "ttl_s": response.ttl_s,
        "certificate": _certificate_json(exchange.certificate),
        "notes": notes_on(exchange),
    }


def _certificate_json(der: bytes | None) -> dict[str, Any] | None:
    if der is None:
        return None
    summary = _summary(der)
    head: dict[str, Any] = {"der": der.hex(), "sha1": _sha1(der)}
    if summary is None:
        return head
    return head | {
        "subject": summary.subject,
        "issuer": summary.issuer,
        "serial": serial_hex(summary.serial),
        "not_before": _moment(summary.not_before),
        "not_after": _moment(summary.not_after),
    }


def _sha1(der: bytes) -> str:
    return hashlib.sha1(der).hexdigest()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
