"""`cucm-lab status`: what runs where in a running lab."""

from __future__ import annotations

import argparse
from typing import Any, Final

EPILOG: Final = """\
The replication table follows `utils dbreplication runtimestate` [recall]; only its columns that mean something in the
lab are there, and the last two are the lab's own.
exit codes: 0 told; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from cucm.render.text import printable
    from lab.cli.frame import print_json
    from lab.cli.running import client

    status = client(arguments).get("status")
    if arguments.json:
        print_json({name: value for name, value in status.items() if name != "schema"})
    else:
        print("\n".join(printable(line) for line in status_lines(status)))
    return EXIT_OK


def status_lines(status: dict[str, Any]) -> list[str]:
    """The whole status as text."""
    lines = [status["title"], f"folder   {status['directory']}"]
    for cluster in status["clusters"]:
        lines += ["", f"cluster {cluster['name']}: CUCM {cluster['version']}, {cluster['security_mode']}"]
        lines += [line for node in cluster["nodes"] for line in _node_lines(node)]
        lines += _replication_lines(cluster)
    return [*lines, "", *_server_lines(status), *_phone_lines(status["phones"])]


def endpoint_lines(status: dict[str, Any]) -> list[str]:
    """Every address a service listens on."""
    lines = [
        f"{cluster['name']:<12} {node['name']:<16} {service['name']:<12} {' '.join(service['endpoints'])}"
        for cluster in status["clusters"]
        for node in cluster["nodes"]
        for service in node["services"]
        if service["endpoints"]
    ]
    return lines + _server_lines(status)


def _node_lines(node: dict[str, Any]) -> list[str]:
    kind = ("publisher" if node["publisher"] else "subscriber") + ("" if node["up"] else ", down")
    lines = [f"  {node['name']} {node['address']} ({kind})"]
    for service in node["services"]:
        how = "" if service["reachability"] == "open" else f", {service['reachability']}"
        lines.append(f"    {service['name']:<30} {service['state']}{how}".rstrip())
    return lines


def _replication_lines(cluster: dict[str, Any]) -> list[str]:
    from lab.cli.running import table

    if not any(node["replication"] for node in cluster["nodes"]):
        return []
    rows = [_replication_row(node) for node in cluster["nodes"]]
    head = ("SERVER-NAME", "IP ADDRESS", "REPL. QUEUE", "REPLICATION SETUP (RTMT)", "lag", "remark")
    return ["", *(f"  {line}" for line in table(head, rows))]


def _replication_row(node: dict[str, Any]) -> tuple[str, ...]:
    link = node["replication"]
    if link is None:  # the publisher
        return (node["name"], node["address"], "0", "(2) publisher", "-", "")
    remark = ", ".join(filter(None, ("paused" if link["paused"] else "", link["problem"] or "")))
    setup = f"({link['state']}) {link['state_text']}"
    return (node["name"], node["address"], str(link["behind"]), setup, f"{link['lag_s']:g} s", remark)


def _server_lines(status: dict[str, Any]) -> list[str]:
    dhcp, sftp = status["dhcp"], status["sftp"]
    return [
        f"DHCP   udp://{dhcp['address']}:{dhcp['port']}{_how(dhcp)}, {dhcp['leases']} leases",
        *(f"  pool {pool['name']}: {_options(pool)}" for pool in dhcp["pools"]),
        f"SFTP   sftp://{sftp['user']}@{sftp['address']}:{sftp['port']}{_how(sftp)}, host key {sftp['host_key']}",
        f"  password in {sftp['password_file']}",
    ]


def _how(server: dict[str, Any]) -> str:
    """Nothing for a server in order."""
    if not server["running"]:
        return " (stopped)"
    reachability = server.get("reachability", "open")
    return "" if reachability == "open" else f" ({reachability})"


def _options(pool: dict[str, Any]) -> str:
    name = f", option 66 = {pool['option_66']}" if pool["option_66"] else ""
    return f"option 150 = {', '.join(pool['option_150']) or 'none'}{name}"


def _phone_lines(phones: list[dict[str, Any]]) -> list[str]:
    from lab.cli.running import table

    if not phones:
        return ["no phones"]
    rows = [
        (one["name"], one["model"], one["address"] or "-", one["state"], " and ".join(one["registered"]) or "nowhere")
        for one in phones
    ]
    return table(("phone", "model", "address", "state", "registered"), rows)
