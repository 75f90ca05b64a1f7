"""What a lab's folder says it was built from, so that nobody goes on there with something else."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from cucm.errors import EnvironmentProblem, UsageError
from cucm.whole_files import remove_unfinished, write_whole
from lab.topology import Topology

LAB_FILE: Final = "lab.json"
MAX_LAB_FILE: Final = 4 * 1024 * 1024


def claim_folder(directory: Path, topology: Topology, network: IPv4Network, seed: int) -> None:
    """Make the folder this lab's, or find that it is. UsageError for another lab's, EnvironmentProblem."""
    wanted = {"network": str(network), "seed": seed, "topology": topology.model_dump(mode="json", by_alias=True)}
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be made: {error.strerror}", where=str(directory), mend="name another folder for the lab"
        ) from error
    found = _read(directory / LAB_FILE)
    if found is None:
        write_whole(directory / LAB_FILE, json.dumps(wanted).encode())
        return
    different = [key for key, value in wanted.items() if found.get(key) != value]
    if different:
        raise UsageError(
            f"is the folder of a lab with another {' and '.join(different)}",
            where=str(directory),
            mend="resume it as it was, name another folder, or delete this one",
        )
    remove_unfinished(directory)


def _read(path: Path) -> dict[str, Any] | None:
    """None when no lab was begun here. UsageError."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_LAB_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("cannot be read", where=str(path), mend="delete the lab's folder") from error
    return found if isinstance(found, dict) else {}
