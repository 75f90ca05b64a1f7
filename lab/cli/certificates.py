"""`cucm-lab certificates list|show|download`: the certificates of a running lab's node."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cucm.render.show_certificates import ShownCertificate

EPILOG: Final = """\
Without NODE the publisher's are shown. UNIT is a store: CallManager, TVS, CAPF, ITLRecovery, tomcat, or one of the
trust stores (CallManager-trust, Phone-SAST-trust, ...); NAME the common name where a store holds several.
The list has the form of `show cert list` for releases before 10.0 and the columns of the web page for later ones;
--format picks one. All forms are from memory [recall].
examples:
  cucm-lab certificates list source
  cucm-lab certificates download destination CallManager --out CallManager.pem
exit codes: 0 done; 2 no such certificate; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("what", choices=("list", "show", "download"), help="a list, one as CUCM prints it, or its PEM")
    parser.add_argument("place", metavar="CLUSTER[/NODE]", help="whose certificates; without NODE the publisher's")
    parser.add_argument("unit", nargs="?", metavar="UNIT", help="the store; needed but for list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="common name of the certificate")
    parser.add_argument("--format", choices=("cli", "web"), help="form of the list (default: that of the release)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="download into this new file instead of printing")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK, UsageError
    from lab.api.client import cluster_and_node
    from lab.cli.frame import print_json
    from lab.cli.running import client

    if arguments.what != "list" and arguments.unit is None:
        raise UsageError("which certificate?", mend=f"cucm-lab certificates {arguments.what} CLUSTER[/NODE] UNIT")
    cluster, node = cluster_and_node(arguments.place)
    path = ("clusters", cluster, *(("nodes", node) if node else ()), "certificates")
    answer = client(arguments).get(*path, unit=arguments.unit)
    found = [one for one in answer["certificates"] if arguments.name in (None, one["common_name"])]
    if arguments.what != "list":
        found = [_the_one(found, arguments)]
    if arguments.what == "download" and arguments.out:
        _write_new(arguments.out, found[0]["pem"])
    if arguments.json:
        print_json({**{name: answer[name] for name in ("cluster", "node", "version")}, "certificates": found})
    elif lines := _lines(arguments, answer["version"], [_shown(one) for one in found]):
        print("\n".join(lines))
    return EXIT_OK


def _lines(arguments: argparse.Namespace, version: str, certificates: list[ShownCertificate]) -> list[str]:
    from cucm.render.show_certificates import CertificateListForm, certificate_lines, form_of, list_lines
    from cucm.versions import profile_of

    match arguments.what:
        case "list":
            numbers = profile_of(version).numbers
            form = CertificateListForm(arguments.format) if arguments.format else form_of(numbers)
            return list_lines(certificates, form, numbers)
        case "show":
            return certificate_lines(certificates[0].pem)
        case _:
            return [f"{arguments.out} written"] if arguments.out else certificates[0].pem.splitlines()


def _the_one(found: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    from cucm.errors import UsageError

    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"{arguments.place} has no such certificate",
            where=" ".join(filter(None, (arguments.unit, arguments.name))),
            mend=f"cucm-lab certificates list {arguments.place}",
        )
    names = ", ".join(sorted({one["common_name"] for one in found}))
    raise UsageError(f"{arguments.unit} holds {len(found)}", where=arguments.place, mend=f"name one: {names}")


def _shown(one: dict[str, Any]) -> ShownCertificate:
    from cucm.render.show_certificates import ShownCertificate

    return ShownCertificate(**{**one, "roles": tuple(one["roles"])})


def _write_new(path: Path, pem: str) -> None:
    """Never over a file that is there."""
    from cucm.errors import UsageError

    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="ascii") as file:
            file.write(pem)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", where=str(path), mend="name a new file with --out"
        ) from error
