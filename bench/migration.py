"""One phone's migration as a whole process, next to the cryptography its own event record says it needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.floor import handshake_cost, rsa_sign_per_s, rsa_verify_per_s
from bench.machine import Placement, pinned
from bench.material import TLS_CASES, Material, TlsCase, TlsKind
from bench.servers import free_address
from cucm.key_store import CACHE_VARIABLE

STORY: Final = "migrate"
DEADLINE_S: Final = 60.0
_SIGNED: Final = frozenset({"trust_list.signed", "file.signed"})
_ACCEPTED: Final = frozenset({"phone.trust_list_accepted", "phone.configuration_accepted"})


@dataclass(frozen=True, slots=True)
class Run:
    """A process from start to end; `story_s` lies between its first and last event."""

    wall_s: float
    cpu_s: float
    story_s: float = 0.0


@dataclass(slots=True)
class Migration:
    """Runs of the story, of `cucm-lab --help` and of a bare interpreter in turn, and the floor, per round."""

    migrations: list[Run] = field(default_factory=list)
    helps: list[Run] = field(default_factory=list)
    interpreters: list[Run] = field(default_factory=list)
    floors_s: list[float] = field(default_factory=list)
    operations: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None


def measure_migration(material: Material, placement: Placement, rounds: int, floor_s: float) -> Migration:
    """The first run makes the keys and is not counted; what fails is told in `trouble`, with nothing measured."""
    migration = Migration()
    environment = os.environ | {CACHE_VARIABLE: str(material.folder / "kept-keys")}
    lab = [sys.executable, "-m", "lab.cli"]
    try:
        for number in range(rounds + 1):
            out = material.folder / f"migration-{number}"
            network = free_address().rpartition(".")[0] + ".0/24"
            run = _run([*lab, "run", STORY, "--out", str(out), "--network", network], environment)
            events = _events(out)
            if number == 0:
                migration.operations = dict(_operations(events))
                continue
            migration.migrations.append(Run(run.wall_s, run.cpu_s, events[-1]["time"] - events[0]["time"]))
            migration.helps.append(_run([*lab, "--help"], environment))
            migration.interpreters.append(_run([sys.executable, "-c", "pass"], environment))
            with pinned(placement.server):
                migration.floors_s.append(_floor_s(material, migration.operations, floor_s))
    except (subprocess.SubprocessError, OSError, LookupError) as error:
        return Migration(trouble=f"{type(error).__name__}: the story {STORY} could not be measured")
    return migration


def _run(command: list[str], environment: dict[str, str]) -> Run:
    """Wall and CPU seconds of a process. Raises CalledProcessError, TimeoutExpired."""
    before = os.times()
    begins_s = time.perf_counter()
    subprocess.run(
        command,
        env=environment,
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=True,
    )
    wall_s = time.perf_counter() - begins_s
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(wall_s, used)


def _events(out: Path) -> list[dict[str, Any]]:
    with (out / "events.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _operations(events: list[dict[str, Any]]) -> Counter[str]:
    """What the story's events say was signed, verified and shaken hands on."""
    found: Counter[str] = Counter()
    for event in events:
        kind = event["kind"]
        if kind in _SIGNED:
            found["signature"] += 1
        elif kind in _ACCEPTED and event["basis"] != "leap-of-faith":
            found["verification"] += 1
        elif kind == "tvs.handshake_done" or (kind == "registration.accepted" and event["transport"] == "tls"):
            # the call processing end demands a certificate; TVS says whether one was shown
            offered = kind == "registration.accepted" or event["client_subject"] is not None
            found[_case_of(event["cipher"], offered=offered).title] += 1
    return found


def _case_of(cipher: str, *, offered: bool) -> TlsCase:
    return TlsCase(TlsKind.RSA if cipher == "AES256-SHA" else TlsKind.TLS13, offered)


def _floor_s(material: Material, operations: dict[str, int], seconds: float) -> float:
    """CPU of these operations with nothing around them."""
    total = operations.get("signature", 0) / rsa_sign_per_s(material, seconds)
    total += operations.get("verification", 0) / rsa_verify_per_s(material, seconds)
    for case in TLS_CASES:
        if count := operations.get(case.title, 0):
            total += count * handshake_cost(material, case, seconds).both_ms / 1000
    return total
