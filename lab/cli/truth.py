"""`cucm-lab truth phones`: what the phones' flash holds and where they are registered, whatever anybody says."""

from __future__ import annotations

import argparse
from typing import Any, Final

EPILOG: Final = """\
Lists and hashes are read from the phones' flash, registrations from the CallManagers. A CTL or ITL is named by the
cluster whose node served it and by the first digits of its SHA-1.
exit codes: 0 told; 2 no such phone; 3 no lab is running"""
HASH_DIGITS: Final = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("what", choices=("phones",), help="what the truth is wanted of")
    parser.add_argument("phone", nargs="?", metavar="SEP...", help="one phone, with everything known of it")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from cucm.render.text import printable
    from lab.cli.frame import print_json
    from lab.cli.running import client

    phones = client(arguments).get("truth", "phones", phone=arguments.phone)["phones"]
    if arguments.json:
        print_json({"phones": phones})
    elif arguments.phone:
        print("\n".join(printable(line) for line in detail_lines(arguments.phone, phones[arguments.phone])))
    else:
        print("\n".join(table_lines(phones)))
    return EXIT_OK


def table_lines(phones: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each phone."""
    from lab.cli.running import table

    head = ("phone", "state", "registered", "node", "CTL", "ITL", "configuration", "refused because of")
    rows = [
        (
            name,
            truth["state"],
            truth["registered"],
            truth["node"] or "-",
            _list(truth["ctl"], truth["ctl_list"]),
            _list(truth["itl"], truth["itl_list"]),
            truth["configuration"],
            ", ".join(truth["reasons"]) or "-",
        )
        for name, truth in phones.items()
    ]
    return table(head, rows)


def _list(origin: str, installed: dict[str, Any] | None) -> str:
    return origin if installed is None else f"{origin} {installed['sha1'][:HASH_DIGITS]}"


def detail_lines(name: str, truth: dict[str, Any]) -> list[str]:
    """Everything about one phone."""
    node = f" ({truth['node']})" if truth["node"] else ""
    lines = [f"{name}: {truth['state']}, registered: {truth['registered']}{node}"]
    for kind in ("ctl", "itl"):
        lines += _installed(kind.upper(), truth[kind], truth[f"{kind}_list"])
    lines.append(f"configuration  {truth['configuration_name'] or 'none'} (from: {truth['configuration']})")
    lines += [f"CallManager    {_standing(one)}" for one in truth["call_managers"]]
    lines += [f"last boot      {' - '.join(filter(None, one.values()))}" for one in truth["trust_verdicts"]]
    lines += [f"refused        {reason}" for reason in truth["reasons"]]
    return lines + [f"status         {text}" for text in truth["status_messages"]]


def _installed(kind: str, origin: str, installed: dict[str, Any] | None) -> list[str]:
    if installed is None:
        return [f"{kind}            none"]
    return [
        f"{kind}            {installed['sha1']}, {installed['length']} bytes, from: {origin}",
        f"  signer       {installed['signer']}, serial number {installed['serial']}",
        f"  signed in    {installed['signer_cluster']}; fetched from {installed['served_by'] or 'unknown'}",
    ]


def _standing(one: dict[str, Any]) -> str:
    status = f", SIP {one['sip_status']}" if one["sip_status"] else ""
    reason = f": {one['reason']}" if one["reason"] else ""
    return f"{one['cluster']}/{one['node']} {one['status']}{status}{reason}"
