"""What is secret never stands in an event or a log: passwords, private keys, tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from lab_on_sockets import PHONE, make_lab, network_of, perform

from cucm.clock import MovableClock
from lab.log_book import LogBook
from lab.topology import Topology, load_topology

SFTP_PASSWORD = "hush-sftp-4711"
DIGEST_PASSWORD = "hush-digest-4711"
OTHER_PASSWORD = "hush-wrong-4711"


def topology() -> Topology:
    """Two clusters whose phone registers by digest, and an SFTP server with a password of its own."""
    tables = load_topology("non-secure").model_dump(mode="json", by_alias=True)
    tables["sftp"]["password"] = SFTP_PASSWORD
    for phone in tables["phones"]:
        phone |= {"digest_user": "somebody", "digest_password": DIGEST_PASSWORD}
    return Topology.model_validate(tables)


def private_keys(directory: Path) -> Iterator[bytes]:
    for path in directory.rglob("*.key"):
        yield path.read_bytes()


async def test_no_secret_is_told(tmp_path: Path, loopback: Callable[[], str]) -> None:
    lab = make_lab(tmp_path / "lab", network_of(loopback), topology())
    lab.clock = MovableClock()
    book = LogBook(lab.events, lab.trace_dialects)
    async with lab:
        await perform(lab, "boot-phone", phones="all")
        clusters = list(lab.clusters)
        for cluster in clusters:
            await perform(lab, "set-bulk-sftp", cluster=cluster)
            await perform(lab, "bulk-export", cluster=cluster)
        await perform(lab, "set-bulk-sftp", cluster=clusters[0], password=OTHER_PASSWORD, refused="password")
        await lab.set_fault({"point": "sftp.login", "action": "refuse-login", "match": {"user": "bulk"}})
        await perform(lab, "reset-phone", phones="all")
        assert any(PHONE in str(record.event) or record.event.kind == "phone.registered" for record in lab.events)
        told = "\n".join(json.dumps(record.as_json()) for record in lab.events)
        written = "\n".join(line for log in book.names for line in book.lines(log))
        keys = [key[len(key) // 2 :][:24].hex() for key in private_keys(lab.options.directory)]
    assert keys
    for secret in (SFTP_PASSWORD, DIGEST_PASSWORD, OTHER_PASSWORD, *keys):
        assert secret not in told
        assert secret not in written
