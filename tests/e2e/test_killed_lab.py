"""A lab's process, nodes and phone in it, is killed at random instants; afterwards all goes on. So is a phone's alone.

The instants are drawn from a seed: the number of events that the process, or for a phone its servers, have told of when
SIGKILL comes. What it is doing when the signal arrives differs from run to run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lab_on_sockets import PHONE, make_lab, perform, two_nodes_and_another_cluster

from cucm.roles import CertificateUnit
from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.trust_list import decode_trust_list
from lab.certificate_management import OWN_UNITS
from lab.runtime import Lab, LabOptions
from lab.scenario import load_story
from lab.topology import Topology, load_topology
from phone_agent.flash import Flash, FlashContents

ROOT = Path(__file__).parents[2]
ROUNDS = 6
CHILD = """
import asyncio, contextlib, json, sys
from ipaddress import IPv4Network
from pathlib import Path
from cucm.errors import LabError
from lab_on_sockets import perform
from lab.runtime import Lab, LabOptions
from lab.topology import Topology

async def main():
    folder, network, topology, operations = sys.argv[1:]
    lab = Lab(Topology.model_validate_json(topology), LabOptions(Path(folder), IPv4Network(network)))
    lab.events.subscribe(lambda record: print(record.event.kind, flush=True))
    async with lab:
        for operation in json.loads(operations):
            with contextlib.suppress(LabError):  # after a kill, something may be done already
                await perform(lab, **operation)

asyncio.run(main())
"""


def migration() -> list[dict[str, Any]]:
    _, story = load_story("migrate")
    return [step.model_dump(mode="json", by_alias=True) for act in story.acts for step in act.steps]


def administration() -> list[dict[str, Any]]:
    """All that writes keys, certificates, lists and service activations, on a cluster of two nodes."""
    here = {"cluster": "here"}
    return [
        {"do": "boot-phone", "phone": PHONE},
        {"do": "regenerate-certificate", "certificate": "CallManager", **here},
        {"do": "update-ctl-file", **here},
        {"do": "sign-certificate", "certificate": "TVS", "authority": "CN=a CA", "node": "sub", **here},
        {"do": "activate-service", "service": "CAPF", "nodes": ["sub"], **here},
        {"do": "export-recovery-pair", **here},
        {"do": "regenerate-certificate", "certificate": "ITLRecovery", **here},
        {"do": "set-cluster-non-secure-mode", **here},
        {"do": "reset-itl", "key": "remotekey", **here},
        {"do": "set-cluster-mixed-mode", **here},
        {"do": "restart-service", "service": "TFTP", **here},
        {"do": "reset-phone", "phone": PHONE},
        {"do": "deactivate-service", "service": "CAPF", "nodes": ["sub"], **here},
        {"do": "set-option-150", "nodes": ["sub", "pub"]},
    ] * 3


def kill_after(
    events: int, directory: Path, network: IPv4Network, topology: Topology, operations: list[dict[str, Any]]
) -> int:
    """Let a lab run in a process of its own until it has told of so many events; how many were told."""
    words = [str(directory), str(network), topology.model_dump_json(by_alias=True), json.dumps(operations)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )
    assert child.stdout is not None
    with child.stdout:
        told = sum(1 for _ in zip(range(events), child.stdout, strict=False))
        child.send_signal(signal.SIGKILL)
    child.wait(30)
    return told


def require_signed(data: bytes, what: str) -> None:
    verify_trust_list(data, anchors_of(decode_trust_list(data), what))


def require_whole(directory: Path) -> None:
    """Every database is consistent, every list whole and signed, every flash readable, as the kill left them."""
    for path in directory.rglob("node.db"):
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()
    for path in directory.glob("clusters/*/*/tftp/*.tlv"):
        if not path.name.startswith("."):
            require_signed(path.read_bytes(), path.name)
    for path in directory.glob("phones/*"):
        require_readable(Flash(path).contents)
    for path in directory.rglob("*.json"):
        if not path.name.startswith("."):
            json.loads(path.read_bytes())


def require_readable(contents: FlashContents) -> None:
    for held in (contents.ctl, contents.itl):
        if held is not None:
            require_signed(held, "flash")
    if contents.configuration is not None:
        assert b"<device" in contents.configuration


async def require_consistent(lab: Lab) -> None:
    """What was opened again: keys fit, all databases say what lies on the disks, nothing is half-written."""
    await lab.settle()
    for cluster in lab.clusters.values():
        for unit in OWN_UNITS:
            pairs = {der for _, der in cluster.certificates.own(unit)}
            for node in cluster.nodes.values():
                assert {item.der for item in node.database.certificates(unit)} == pairs
        for node in cluster.nodes.values():
            assert all(node.runs(service) for service in node.services)
            assert set(node.services) - {"CertificateChangeNotification"} == set(
                cluster.publisher.database.services_of(node.name)
            )
    assert [path for path in lab.options.directory.rglob(".new-*") if "phones" not in path.parts] == []


@pytest.mark.timeout(300)
async def test_a_migration_is_completed_after_kills_at_random_instants(tmp_path: Path, network: IPv4Network) -> None:
    draw = random.Random(3)
    directory, told, topology = tmp_path / "lab", 0, load_topology("two-clusters")
    for _ in range(ROUNDS):
        told += kill_after(draw.randrange(1, 130), directory, network, topology, migration())
        require_whole(directory)
    assert told > ROUNDS  # it did get somewhere
    async with Lab(topology, LabOptions(directory, network)) as lab:
        await require_consistent(lab)
        for step in migration():
            await perform(lab, **step)
        assert lab.cluster("destination").registered_devices == {PHONE}
        assert lab.served.node_of(lab.phone(PHONE).flash.contents.ctl or b"") == "ucm11pub"
    require_whole(directory)


@pytest.mark.timeout(300)
async def test_a_cluster_whose_administration_is_killed_again_and_again_can_be_administered(
    tmp_path: Path, network: IPv4Network
) -> None:
    draw = random.Random(11)
    directory, topology = tmp_path / "lab", two_nodes_and_another_cluster()
    for _ in range(ROUNDS):
        assert kill_after(draw.randrange(40, 160), directory, network, topology, administration()) > 0
        require_whole(directory)
        async with make_lab(directory, network, topology) as lab:
            await require_consistent(lab)
    async with make_lab(directory, network, topology) as lab:
        if lab.node("pub").database.parameter("ClusterSecurityMode") == "0":
            await perform(lab, "set-cluster-mixed-mode", cluster="here")
        await perform(lab, "regenerate-certificate", cluster="here", certificate="CallManager", node="pub")
        await perform(lab, "update-ctl-file", cluster="here")
        for service in ("TVS", "TFTP", "CallManager"):
            await perform(lab, "restart-service", cluster="here", service=service)
        await perform(lab, "erase-security-settings", phone=PHONE)
        await perform(lab, "reset-phone", phone=PHONE)
        assert lab.cluster("here").registered_devices == {PHONE}
        assert lab.phone(PHONE).flash.contents.ctl == lab.node("sub").ctl_file.read_bytes()
        signer = decode_trust_list(lab.node("pub").ctl_file.read_bytes()).signer
        assert signer.serial == lab.node("pub").identity(CertificateUnit.CALLMANAGER).serial


# --- a phone alone


async def phone_process(flash: Path, servers: tuple[str, ...], address: str) -> asyncio.subprocess.Process:
    words = ["--mac", PHONE[3:], "--json", "--tls-profile", "aes256-sha", "--flash", str(flash), "--address", address]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "phone_agent", *words, "--tftp", *servers, stdout=subprocess.PIPE, cwd=ROOT
    )


async def boot_killed_at(lab: Lab, flash: Path, event: int | None) -> int:
    """A phone as a process of its own boots at the destination; SIGKILL comes with that event of the lab's servers.

    They are in this process: the phone cannot have seen what follows. How many events there were.
    """
    child = await phone_process(flash, lab.cluster("destination").tftp_addresses, lab.address(101))
    told = 0

    def count(_record: object) -> None:
        nonlocal told
        told += 1
        if told == event:
            child.kill()

    end = lab.events.subscribe(count)
    try:
        await child.communicate()
    finally:
        end()
    assert child.returncode == (0 if event is None else -signal.SIGKILL)
    return told


@pytest.mark.timeout(240)
async def test_a_phone_killed_while_it_migrates_has_the_old_or_the_new_files_and_ends_at_the_destination(
    tmp_path: Path, network: IPv4Network
) -> None:
    draw, kept = random.Random(2), tmp_path / "flash of the source"
    async with make_lab(tmp_path / "lab", network) as lab:
        for step in migration():
            if step["do"] == "set-option-150":
                break
            await perform(lab, **step)
        await perform(lab, "power-off-phone", phone=PHONE)
        shutil.copytree(tmp_path / "lab" / "phones" / PHONE, kept)
        old = Flash(kept).contents
        publisher = lab.cluster("destination").publisher
        new = [(publisher.directory / "tftp" / name).read_bytes() for name in ("CTLFile.tlv", "ITLFile.tlv")]
        await boot_killed_at(lab, Path(shutil.copytree(kept, tmp_path / "first")), None)  # signs what the others get
        events = await boot_killed_at(lab, Path(shutil.copytree(kept, tmp_path / "whole")), None)
        seen = set()
        for event in draw.sample(range(1, events), ROUNDS):  # the last is its end
            flash = Path(shutil.copytree(kept, tmp_path / f"flash {event}"))
            await boot_killed_at(lab, flash, event)
            contents = Flash(flash).contents
            assert contents.ctl in (old.ctl, new[0])
            assert contents.itl in (old.itl, new[1])
            assert (contents.mic, contents.lsc) == (old.mic, old.lsc)
            require_readable(contents)
            seen.add((contents.ctl == old.ctl, contents.itl == old.itl))
            await boot_killed_at(lab, flash, None)
            contents = Flash(flash).contents
            assert [contents.ctl, contents.itl] == new
        assert seen <= {(True, True), (False, True), (False, False)}  # the CTL comes first (facts 7.1)
        assert len(seen) > 1
