"""`python -m tvs_server`: a TVS alone, for the certificates of a folder or of a node's database."""

from __future__ import annotations

if __name__ == "__main__":
    from cucm import quiet_start

    quiet_start.begin()

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cucm.arguments import whole_number
from cucm.certificates import node_certificate
from cucm.database import NodeDatabase
from cucm.errors import EXIT_OK, DatabaseError, LabError, UsageError
from cucm.events import EventRecord
from cucm.events.tvs import TvsServerStarted
from cucm.faults.catalogue import tcp, tls, tvs
from cucm.key_store import KeyStore
from cucm.machine import raise_descriptor_limit
from cucm.net.addresses import require_loopback
from cucm.net.listener import Limits
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.processes import MAX_PROCESSES, Share, serve_in_processes
from cucm.program import (
    add_faults,
    add_output_styles,
    end_faults,
    event_log,
    exit_code_of,
    fault_board,
    read_certificates,
    read_file,
    read_private_key,
    run,
    serve_until_stopped,
    unreadable,
)
from cucm.render.tvs_trace import TvsTrace
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.trust_list import decode_trust_list
from cucm.wire.tvs import PORT
from tvs_server.certificate_cache import CertificateCache, CertificateSource, FreshnessMode, PemFolderSource
from tvs_server.policy import DEFAULT_TTL_S
from tvs_server.server import TvsServer

POINTS: Final = (*tcp.POINTS, *tls.POINTS, *tvs.POINTS)
"""Where `--fault` can let something go wrong."""
_LAB_HOST: Final = "tvs.lab.invalid"
_DAY_S: Final = 86_400
_MAX_TTL_S: Final = 0xFFFF_FFFF


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return exit_code_of("tvs_server", lambda: _serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tvs_server",
        description="Answer phones' TVS queries (QUERY_CERT, VERIFY) for the certificates given. For labs.",
        epilog="exit codes: 0 stopped by a signal, 1 a fault that must fire has not, 2 wrong arguments or files, "
        "3 the machine lacks a port or a right",
    )
    _add_certificates(parser.add_argument_group("certificates to vouch for"))
    _add_tls(parser.add_argument_group("TLS"))
    network = parser.add_argument_group("network")
    network.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    network.add_argument(
        "--port", type=whole_number(0, 65535), default=PORT, help="default: %(default)s; 0 takes a free one"
    )
    network.add_argument(
        "--processes",
        type=whole_number(1, MAX_PROCESSES),
        default=1,
        help="that share the port, one for each CPU at most; limits and numbers of connections are each one's own "
        "(default: %(default)s)",
    )
    network.add_argument("--expose", action="store_true", help="allow an address that other machines can reach")
    _add_limits(parser.add_argument_group("limits"))
    add_faults(parser, POINTS)
    add_output_styles(parser, "--trace", "print CUCM's detailed TVS trace")
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
        "--ttl", type=whole_number(0, _MAX_TTL_S), default=DEFAULT_TTL_S, help="seconds (default: %(default)s)"
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
    counts, seconds = whole_number(1, 1_000_000), whole_number(1, 86_400)
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


def _serve(options: argparse.Namespace) -> int:
    """In this process, or in as many as are wanted, which then share certificate, key and port and nothing else."""
    warning = require_loopback(options.address, options.expose)
    if warning is not None:
        print(warning, file=sys.stderr)
    raise_descriptor_limit()
    identity = _identity(options)
    if options.processes == 1:
        return _serve_here(options, identity, None)
    if options.fault:
        raise UsageError("faults count for one process", where="--fault", mend="leave out --processes")
    return serve_in_processes(
        options.processes,
        options.address,
        options.port,
        lambda share: exit_code_of("tvs_server", lambda: _serve_here(options, identity, share)),
    )


def _serve_here(options: argparse.Namespace, identity: tuple[bytes, bytes], share: Share | None) -> int:
    log = event_log(
        TvsTrace().texts if options.trace else None, as_json=options.json, floor=share.floor if share else None
    )
    if options.trace:
        log.subscribe(_tell_readiness)
    emit = log.emitter(f"tvs:{options.address}{f'/{share.number}' if share else ''}")
    board = fault_board(options.fault, POINTS, log.emitter("faults"))
    server = TvsServer(
        options.address,
        share.port if share else options.port,
        certificate_der=identity[0],
        private_key_der=identity[1],
        cache=CertificateCache(_source(options), ctl_file=_ctl_file(options), mode=options.freshness, emit=emit),
        emit=emit,
        policy=options.client_certificate,
        client_cas=[der for path in options.client_ca for der in read_certificates(path)],
        profile=options.tls_profile,
        limits=_limits(options),
        ttl_s=options.ttl,
        faults=board,
        is_shared=share is not None,
    )
    run(serve_until_stopped(server, lifeline=share.lifeline if share else None))
    end_faults(board)
    return EXIT_OK


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
        raise unreadable(options.pem_folder, error) from error
    return source


def _ctl_file(options: argparse.Namespace) -> Path | None:
    if options.ctl_file is not None:
        try:
            decode_trust_list(read_file(options.ctl_file))
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
        return read_certificates(options.certificate)[0], read_private_key(options.private_key)
    now = time.time()
    unit = CertificateUnit.TVS
    toy = node_certificate(KeyStore(), unit, _LAB_HOST, seed=int(now), not_before=now - _DAY_S)
    return toy.certificate_der, toy.private_key_der


def _tell_readiness(record: EventRecord) -> None:
    """The trace says nothing of a start; whoever waits for it is told beside the trace."""
    if isinstance(record.event, TvsServerStarted):
        # one write: print makes two of a line, and several processes share this stream
        sys.stderr.write(f"tvs_server: listening on {record.event.address} port {record.event.port}\n")


if __name__ == "__main__":
    sys.exit(main())
