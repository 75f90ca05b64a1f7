"""`cucm-lab tvs query` and `cucm-lab tvs verify`: ask any TVS, the lab's or another."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from cucm.wire.tvs import TvsMessage

DEFAULT_PORT: Final = 2445
DEFAULT_DEVICE: Final = "CP-8861-SEP000000000000"
DEFAULT_TIMEOUT_S: Final = 10.0
_PORT: Final = re.compile(r"[0-9]{1,5}")
FIRST_SESSION_ID: Final = 1001
"""What phones seem to begin with (facts 2.1, [inferred])."""

EPILOG: Final = """\
HOST is a name or an address, an IPv6 address in brackets: [::1]:2445. Names are written as the certificate has them,
joined with `;`: CN=ucm11pub.stormin.local;OU=IST;O=Stormin;C=AU. The server's certificate is not checked unless
--expect-server-certificate says which one it must be.
exit codes: 0 found or valid; 1 not found, not valid, or not the expected server; 2 wrong words; 3 no answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.frame import add_common_arguments
    from lab.cli.help_text import HelpFormatter

    parser.epilog = EPILOG
    questions = parser.add_subparsers(title="questions", metavar="QUESTION", dest="question", required=True)
    for name, summary in (
        ("query", "ask for the certificate with a given subject, issuer and serial number"),
        ("verify", "ask whether a certificate is good"),
    ):
        question = questions.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EPILOG,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        question.add_argument(
            "host", metavar="HOST[:PORT]", help=f"the TVS; port {DEFAULT_PORT} unless another is given"
        )
        if name == "verify":
            question.add_argument("certificate", metavar="CERTIFICATE", help="the certificate, PEM or DER")
        else:
            _add_query_arguments(question)
        _add_connection_arguments(question)
        add_common_arguments(question)


def _add_query_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--certificate", metavar="FILE", help="ask for this certificate (PEM or DER): all three at once"
    )
    parser.add_argument("--subject", help="subject of the certificate asked for")
    parser.add_argument("--issuer", help="its issuer")
    parser.add_argument("--serial", metavar="HEX", help="its serial number")
    parser.add_argument("--save", metavar="FILE", help="write the certificate that comes back to a new file, as PEM")


def _add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--client-certificate", metavar="FILE", help="show this certificate (PEM or DER), as a phone its LSC"
    )
    parser.add_argument("--client-key", metavar="FILE", help="its private key, PEM or DER, not encrypted")
    parser.add_argument("--expect-server-certificate", metavar="FILE", help="refuse any other server certificate")
    parser.add_argument(
        "--tls-profile",
        choices=("modern", "aes256-sha"),
        default="modern",
        help="modern: TLS 1.2 and 1.3; aes256-sha: what CUCM 10.5 and its phones speak (default: %(default)s)",
    )
    parser.add_argument("--device-name", default=DEFAULT_DEVICE, help="device name to give (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=_seconds, default=DEFAULT_TIMEOUT_S, metavar="S", help="seconds for all of it (default: 10)"
    )


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_NO, EXIT_OK
    from lab.cli.frame import print_json
    from lab.cli.tvs_exchange import as_json, ask, connection_of, describe_lines

    host = parse_host(arguments.host)
    request = _request(arguments)
    exchange = ask(host.name, host.port, request, connection_of(arguments), timeout_s=arguments.timeout)
    if getattr(arguments, "save", None) and exchange.certificate:
        _save(exchange.certificate, arguments.save)
    if arguments.json:
        print_json(as_json(exchange))
    else:
        print("\n".join(describe_lines(exchange)))
    return EXIT_OK if exchange.positive else EXIT_NO


class Host(NamedTuple):
    name: str
    port: int


def parse_host(text: str) -> Host:
    """`host`, `host:port`, `[::1]`, `[::1]:port`; a bare IPv6 address is taken as it is. Raises UsageError."""
    from cucm.errors import UsageError

    name, port = text, ""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"{text!r} is not HOST or HOST:PORT", mend="write an IPv6 address as [::1]:2445")
        port = rest[1:]
        if rest == ":":
            port = "none"
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
        port = port or "none"
    if not name or (port and not (_PORT.fullmatch(port) and 0 < int(port) < 65536)):
        raise UsageError(
            f"{text!r} is not HOST or HOST:PORT", mend=f"a port is a number up to 65535; {DEFAULT_PORT} is TVS's"
        )
    return Host(name, int(port) if port else DEFAULT_PORT)


def _request(arguments: argparse.Namespace) -> TvsMessage:
    from cucm.certificates import describe
    from cucm.errors import UsageError
    from cucm.wire.tvs import QueryCertificateRequest, VerifyRequest
    from lab.cli.inputs import read_certificate

    if arguments.question == "verify":
        certificate = read_certificate(arguments.certificate)
        return VerifyRequest.build(FIRST_SESSION_ID, arguments.device_name, certificate)
    parts: tuple[Any, ...] = (arguments.subject, arguments.issuer, arguments.serial)
    if arguments.certificate:
        if any(part is not None for part in parts):
            raise UsageError(
                "--certificate already says subject, issuer and serial number", mend="give one or the other"
            )
        wanted = describe(read_certificate(arguments.certificate))
        return QueryCertificateRequest.build(
            FIRST_SESSION_ID, arguments.device_name, wanted.subject, wanted.issuer, wanted.serial
        )
    if any(part is None for part in parts):
        raise UsageError(
            "a query needs --subject, --issuer and --serial", mend="or --certificate FILE, which says all three"
        )
    serial = parse_serial(arguments.serial)
    return QueryCertificateRequest.build(
        FIRST_SESSION_ID, arguments.device_name, arguments.subject, arguments.issuer, serial
    )


def parse_serial(text: str) -> bytes:
    """Serial number from hex with or without colons, spaces or 0x. Raises UsageError."""
    from cucm.errors import UsageError

    digits = text.strip().lower().removeprefix("0x").replace(":", "").replace(" ", "")
    try:
        return bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2)) or _no_serial(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a serial number", mend="write it in hex: 24000000179479B8...") from None


def _no_serial(text: str) -> bytes:
    raise ValueError(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("seconds between 0 and 3600")
    return seconds


def _save(certificate: bytes, name: str) -> None:
    from pathlib import Path

    from cryptography.hazmat.primitives.serialization import Encoding

    from cucm.errors import UsageError
    from cucm.identity import load_certificate

    pem = load_certificate(certificate).public_bytes(Encoding.PEM)
    path = Path(name)
    try:
        with path.open("xb") as file:
            file.write(pem)
    except FileExistsError:
        raise UsageError("this file exists and is not overwritten", where=name, mend="name a new file") from None
    except (OSError, ValueError) as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(f"the certificate cannot be written: {text}", where=name, mend="name another file") from None
