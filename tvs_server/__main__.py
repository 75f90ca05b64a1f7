"""`python -m tvs_server`: a TVS alone, for the certificates of a folder or of a node's database."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cucm.certificates import node_certificate
from cucm.clock import SystemClock
from cucm.database import NodeDatabase
from cucm.errors import EXIT_OK, DatabaseError, LabError, UsageError
from cucm.events import EventLog, EventRecord
from cucm.events.tvs import TvsServerStarted
from cucm.key_store import KeyStore
from cucm.net.addresses import require_loopback
from cucm.net.listener import Limits
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.render.tvs_trace import TvsTrace
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.trust_list import decode_trust_list
from cucm.wire.tvs import PORT
from tvs_server.certificate_cache import CertificateCache, CertificateSource, FreshnessMode, PemFolderSource
from tvs_server.policy import DEFAULT_TTL_S
from tvs_server.server import TvsServer

_RETENTION: Final = 1000
"""Events kept in memory; standalone nobody asks for older ones."""
_MAX_FILE: Final = 4 * 1024 * 1024
_LAB_HOST: Final = "tvs.lab.invalid"
_DAY_S: Final = 86_400
_MAX_TTL_S: Final = 0xFFFF_FFFF
_PLAIN_HIDDEN: Final = frozenset({"schema", "sequence", "time", "source", "kind", "data", "certificate", "keys"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        warning = require_loopback(options.address, options.expose)
        if warning is not None:
            print(warning, file=sys.stderr)
        log = EventLog(SystemClock(), retention=_RETENTION)
        log.subscribe(_printer(options))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, log))
    except LabError as error:
        print(f"tvs_server: {error}", file=sys.stderr)
        if error.mend:
            print(f"  mend: {error.mend}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tvs_server",
        description="Answer phones' TVS queries (QUERY_CERT, VERIFY) for the certificates given. For labs.",
        epilog="exit codes: 0 stopped by a signal, 2 wrong arguments or files, 3 the machine lacks a port or a right",
    )
    _add_certificates(parser.add_argument_group("certificates to vouch for"))
    _add_tls(parser.add_argument_group("TLS"))
    network = parser.add_argument_group("network")
    network.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    network.add_argument(
        "--port", type=_number(0, 65535), default=PORT, help="default: %(default)s; 0 takes a free one"
    )
    network.add_argument("--expose", action="store_true", help="allow an address that other machines can reach")
    _add_limits(parser.add_argument_group("limits"))
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--trace", action="store_true", help="print CUCM's detailed TVS trace")
    style.add_argument("--json", action="store_true", help="print events as JSON, one per line")
    return parser


def _add_certificates(group: argparse._ArgumentGroup) -> None:
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--pem-folder", type=Path, metavar="DIR", help="all certificates in its .pem, .crt, .cer files")
    source.add_argument("--database", type=Path, metavar="FILE", help="a lab node's database (node.db)")
    group.add_argument(
        "--roles",
        type=_roles,
        default=(int(TrustRole.SAST), int(TrustRole.TFTP)),
        help="roles of the folder's certificates, names or numbers (default: sast,tftp, as Phone-SAST-trust gives)",
    )
    group.add_argument("--ctl-file", type=Path, metavar="FILE", help="a CTLFile.tlv, asked when the others do not know")
    group.add_argument(
        "--ttl", type=_number(0, _MAX_TTL_S), default=DEFAULT_TTL_S, help="seconds (default: %(default)s)"
    )
    group.add_argument(
        "--freshness",
        type=FreshnessMode,
        choices=list(FreshnessMode),
        default=FreshnessMode.CHANGE_NOTIFICATION,
        help="when changes of the folder or database count (default: %(default)s)",
    )


def _add_tls(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--certificate", type=Path, metavar="PEM", help="own certificate (default: a lab toy)")
    group.add_argument("--private-key", type=Path, metavar="PEM", help="its private key, not encrypted")
    group.add_argument(
        "--tls-profile",
        type=TlsProfile,
        choices=list(TlsProfile),
        default=TlsProfile.MODERN,
        help="aes256-sha also speaks TLS 1.0 and prefers AES256-SHA, for old phones (default: %(default)s)",
    )
    group.add_argument(
        "--client-certificate",
        type=ClientCertificatePolicy,
        choices=list(ClientCertificatePolicy),
        default=ClientCertificatePolicy.REQUESTED,
        help="default: %(default)s",
    )
    group.add_argument(
        "--client-ca",
        type=Path,
        metavar="PEM",
        action="append",
        default=[],
        help="CAPF or manufacturing CA that must have issued a client's certificate; may be repeated",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    defaults = Limits()
    counts, seconds = _number(1, 1_000_000), _number(1, 86_400)
    group.add_argument("--max-connections", type=counts, default=defaults.connections, help="default: %(default)s")
    group.add_argument(
        "--max-connections-per-address",
        type=counts,
        default=defaults.connections_per_address,
        help="default: %(default)s",
    )
    for name in ("handshake", "idle", "request"):
        seconds_now = int(getattr(defaults, f"{name}_timeout_s"))
        group.add_argument(
            f"--{name}-timeout", type=seconds, default=seconds_now, help="seconds (default: %(default)s)"
        )


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{value} is not between {lowest} and {highest}")
        return value

    return number


def _roles(text: str) -> tuple[int, ...]:
    return tuple(sorted({_role(part.strip()) for part in text.split(",") if part.strip()}))


def _role(text: str) -> int:
    if text.isdecimal() and int(text) <= 255:
        return int(text)
    try:
        return TrustRole[text.upper().replace("-", "_").replace("+", "_")]
    except KeyError:
        known = ", ".join(role.name.lower() for role in TrustRole)
        raise argparse.ArgumentTypeError(f"{text!r} is no role; a number up to 255, or one of {known}") from None


async def _serve(options: argparse.Namespace, log: EventLog) -> None:
    emit = log.emitter(f"tvs:{options.address}")
    certificate, private_key = _identity(options)
    server = TvsServer(
        options.address,
        options.port,
        certificate_der=certificate,
        private_key_der=private_key,
        cache=CertificateCache(_source(options), ctl_file=_ctl_file(options), mode=options.freshness, emit=emit),
        emit=emit,
        policy=options.client_certificate,
        client_cas=[der for path in options.client_ca for der in _pem_certificates(path)],
        profile=options.tls_profile,
        limits=_limits(options),
        ttl_s=options.ttl,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    await stop.wait()
    await server.stop()


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(
        connections=options.max_connections,
        connections_per_address=options.max_connections_per_address,
        handshake_timeout_s=options.handshake_timeout,
        idle_timeout_s=options.idle_timeout,
        request_timeout_s=options.request_timeout,
    )


def _source(options: argparse.Namespace) -> Path | CertificateSource:
    """Tried here once, so that what cannot be read ends the program instead of leaving it without certificates."""
    if options.database is not None:
        try:
            with NodeDatabase(options.database).open() as database:
                database.certificates()
        except DatabaseError as error:
            raise UsageError(
                error.what, where=str(options.database), mend="give the node.db of a lab's node"
            ) from error
        return Path(options.database)
    source = PemFolderSource(options.pem_folder, options.roles)
    try:
        if not list(source.entries()):
            raise UsageError("holds no certificate", where=str(options.pem_folder), mend="put .pem files into it")
    except OSError as error:
        raise _unreadable(options.pem_folder, error) from error
    return source


def _ctl_file(options: argparse.Namespace) -> Path | None:
    if options.ctl_file is not None:
        try:
            decode_trust_list(_read(options.ctl_file))
        except LabError as error:
            raise UsageError(
                f"is no CTL file: {error}", where=str(options.ctl_file), mend="see: show ctl FILE"
            ) from error
    return options.ctl_file  # type: ignore[no-any-return]


def _identity(options: argparse.Namespace) -> tuple[bytes, bytes]:
    """Certificate and key in DER: the given ones, or a lab toy."""
    if (options.certificate is None) != (options.private_key is None):
        raise UsageError("a certificate needs its private key", mend="give --certificate and --private-key, or neither")
    if options.certificate is not None:
        return _pem_certificates(options.certificate)[0], _pem_key(options.private_key)
    now = time.time()
    unit = CertificateUnit.TVS
    toy = node_certificate(KeyStore(), unit, _LAB_HOST, seed=int(now), not_before=now - _DAY_S)
    return toy.certificate_der, toy.private_key_der


def _pem_certificates(path: Path) -> list[bytes]:
    try:
        return [item.public_bytes(Encoding.DER) for item in x509.load_pem_x509_certificates(_read(path))]
    except ValueError as error:
        raise UsageError("holds no certificate in PEM", where=str(path), mend="convert it with openssl x509") from error


def _pem_key(path: Path) -> bytes:
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "holds no unencrypted private key in PEM", where=str(path), mend="decrypt it with openssl pkey"
        ) from error
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > _MAX_FILE:
        raise UsageError(f"is larger than {_MAX_FILE} bytes", where=str(path), mend="give the file that was meant")
    return data


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot be read: {error.strerror}", where=str(path), mend="check the path and its permissions")


def _printer(options: argparse.Namespace) -> Callable[[EventRecord], None]:
    if options.trace:
        trace = TvsTrace()
        return lambda record: _print(trace.lines(record) or _readiness(record))
    if options.json:
        return lambda record: _print([json.dumps(record.as_json())])
    return lambda record: _print([_plain_line(record)])


def _readiness(record: EventRecord) -> list[str]:
    """The trace says nothing of a start; whoever waits for it is told beside the trace."""
    if isinstance(record.event, TvsServerStarted):
        print(f"tvs_server: listening on {record.event.address} port {record.event.port}", file=sys.stderr, flush=True)
    return []


def _print(lines: Sequence[str]) -> None:
    if not lines:
        return
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:  # whoever read the output is gone: stop orderly, and say nothing more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


def _plain_line(record: EventRecord) -> str:
    values = record.as_json()
    shown = (f"{name}={value}" for name, value in values.items() if name not in _PLAIN_HIDDEN and value is not None)
    text = f"{record.event.kind} {' '.join(shown)}"
    return "".join(character if character.isprintable() else "?" for character in text)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop where it is installed; it serves more handshakes per second."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
