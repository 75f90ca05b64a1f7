"""`python -m phone_agent`: one phone alone, against any file server, TVS and CallManager."""

from __future__ import annotations

if __name__ == "__main__":
    from cucm import quiet_start

    quiet_start.begin()

import argparse
import ipaddress
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cucm.arguments import whole_number
from cucm.errors import EXIT_NO, EXIT_OK, UsageError
from cucm.events import SCHEMA_VERSION
from cucm.net.addresses import bind_tcp
from cucm.net.tls import TlsProfile
from cucm.program import (
    add_output_styles,
    event_log,
    exit_code_of,
    read_certificates,
    read_private_key,
    run,
)
from cucm.render.phone_console import PhoneConsole
from cucm.render.plain import PlainLines
from cucm.render.text import printable
from cucm.render.trace_writer import each
from phone_agent.address import FixedTftpServers
from phone_agent.boot import BootOutcome, PhoneModel
from phone_agent.driver import Phone, PhonePorts, PhoneSettings
from phone_agent.flash import DeviceIdentity, Flash, MemoryFlash, PhoneFlash

_MAX_BOOTS: Final = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Boot the phone. Returns the exit code: 0 registered after the last boot, 1 not, 2 wrong arguments, 3 machine."""
    options = _parser().parse_args(arguments)
    return exit_code_of("phone_agent", lambda: _boot(options))


def _boot(options: argparse.Namespace) -> int:
    outcomes = run(_boots(_phone(options), options.boots))
    for outcome in outcomes:
        print(_verdict(outcome, as_json=options.json))
    return EXIT_OK if outcomes[-1].registered else EXIT_NO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m phone_agent",
        description="Boot an emulated 8861: CTL, ITL, configuration, TVS when needed, registration. For labs.",
        epilog="exit codes: 0 registered after the last boot, 1 not registered, 2 wrong arguments or files, "
        "3 the machine lacks an address or a right",
    )
    parser.add_argument("--mac", required=True, help="MAC address, for example B000B4BA0AEE")
    parser.add_argument("--model", default="8861", help="default: %(default)s")
    parser.add_argument(
        "--tftp", nargs="+", required=True, metavar="ADDRESS", help="what DHCP option 150 says: TFTP servers in order"
    )
    parser.add_argument("--flash", type=Path, metavar="DIR", help="keep the flash here; without it, it is forgotten")
    parser.add_argument(
        "--identity",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="LSC to put into flash: a PEM file with certificate and key, or two files (key in PEM or DER)",
    )
    parser.add_argument("--address", help="local IP address to connect from (default: the system's choice)")
    parser.add_argument(
        "--tls-profile",
        type=TlsProfile,
        choices=list(TlsProfile),
        default=TlsProfile.MODERN,
        help="aes256-sha is what an 8861 with firmware 10.3.1 negotiates (default: %(default)s)",
    )
    parser.add_argument(
        "--http-port", type=whole_number(1, 65535), default=PhonePorts().http, help="default: %(default)s"
    )
    parser.add_argument(
        "--tftp-port", type=whole_number(1, 65535), default=PhonePorts().tftp, help="default: %(default)s"
    )
    parser.add_argument(
        "--boots", type=whole_number(1, _MAX_BOOTS), default=1, help="boot, reset ... (default: %(default)s)"
    )
    add_output_styles(parser, "--console", "print what the phone's console would show")
    return parser


def _phone(options: argparse.Namespace) -> Phone:
    model = PhoneModel.of(options.mac, options.model)
    servers = tuple(_ip_address(text) for text in options.tftp)
    address = None if options.address is None else _local_address(options.address)
    flash: PhoneFlash = MemoryFlash() if options.flash is None else Flash(options.flash)
    if options.identity is not None:
        flash.store(lsc=_identity(options.identity))

    log = event_log(each((PhoneConsole() if options.console else PlainLines()).lines), as_json=options.json)
    settings = PhoneSettings(
        local_address=address,
        ports=PhonePorts(http=options.http_port, tftp=options.tftp_port),
        tls_profile=options.tls_profile,
    )
    return Phone(model, flash, FixedTftpServers(servers), settings=settings, emit=log.emitter(f"phone:{model.name}"))


async def _boots(phone: Phone, boots: int) -> list[BootOutcome]:
    try:
        return [await phone.reset() for _ in range(boots)]
    finally:
        await phone.power_off()


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"{text!r} is not an IP address", mend="option 150 has addresses, like 127.0.11.51") from None


def _local_address(text: str) -> str:
    """Raises AddressBusy when the machine does not have it: better now than as every connection's failure."""
    address = _ip_address(text)
    bind_tcp(address, 0, backlog=1).close()
    return address


def _identity(files: Sequence[Path]) -> DeviceIdentity:
    if len(files) > 2:
        raise UsageError(f"--identity with {len(files)} files", mend="give one PEM file, or a certificate and a key")
    return DeviceIdentity(read_certificates(files[0])[0], read_private_key(files[-1]))


def _verdict(outcome: BootOutcome, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"schema": SCHEMA_VERSION, "kind": "phone.boot_outcome"} | asdict(outcome))
    where = outcome.registered
    if where is not None:
        return printable(f"registered with {where.call_manager} ({where.address} port {where.port}, {where.transport})")
    return printable("not registered: " + ("; ".join(_troubles(outcome)) or "no CallManager to register with"))


def _troubles(outcome: BootOutcome) -> list[str]:
    refused = [f"{refusal.file} refused ({refusal.reason or 'content'})" for refusal in outcome.refusals]
    return [*outcome.status_messages, *refused, *(f"{one.status}: {one.detail}" for one in outcome.registrations)]


if __name__ == "__main__":
    sys.exit(main())
