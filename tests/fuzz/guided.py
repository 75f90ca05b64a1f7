"""`python -m tests.fuzz.guided NAME SECONDS`: one target with atheris, which follows what its inputs reach.

A process of its own for each target: libFuzzer takes the process over and ends it. Only our own packages are
instrumented: all there are take minutes, and what others' code does is not looked for here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

OURS = ["cucm", "tvs_server", "tftp_server", "phone_agent", "lab"]
MAX_MEMORY_MB = 2048
with atheris.instrument_imports(include=OURS):
    from tests.fuzz.targets import MAX_INPUT, TARGETS, check


def main(name: str, seconds: str) -> None:
    """Ends the process: 0 when all went well, else libFuzzer's 77, with the input on stderr."""
    target = next(one for one in TARGETS if one.name == name)
    folder = Path(tempfile.mkdtemp(prefix="cucm-fuzz-"))
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)

    def run(data: bytes) -> None:
        try:
            check(target, data)
        except BaseException:
            print(f"{name}: input {data.hex()}", file=sys.stderr)
            raise

    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MAX_MEMORY_MB}", f"-max_len={MAX_INPUT}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(folder)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
