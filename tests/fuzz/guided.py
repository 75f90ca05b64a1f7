"""`python -m tests.fuzz.guided SECONDS NAME ...`: targets with atheris, which follows what its inputs reach.

A process of its own for each target, because libFuzzer takes the process over and ends it; they are forked from one
that has instrumented our packages once, which takes seconds. All packages there are would take minutes, and what
others' code does is not looked for here.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import NoReturn

import atheris

OURS = ["cucm", "tvs_server", "tftp_server", "phone_agent", "lab"]
MAX_MEMORY_MB = 2048
FOUND = 77
"""libFuzzer's exit code for a finding."""
with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=OURS):  # it names every module
    from tests.fuzz.targets import MAX_INPUT, TARGETS, Target, check


def main(seconds: str, *names: str) -> int:
    """`seconds` for each target; 1 if one of them was not clean: what was raised and the input are on stderr."""
    dirty = [target.name for target in TARGETS if target.name in names and not _is_clean(target, int(seconds))]
    named = f": {', '.join(dirty)}" if dirty else ""
    print(f"atheris: {len(names)} targets, {len(dirty)} not clean{named}", flush=True)
    return 1 if dirty else 0


def _is_clean(target: Target, seconds: int) -> bool:
    folder = Path(tempfile.mkdtemp(prefix="cucm-fuzz-"))
    try:
        said = folder / "said"
        child = os.fork()
        if child == 0:
            _end_as(lambda: _fuzz(target, seconds, folder, said))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != 0:
            print(said.read_text(errors="replace"), file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    print(f"{target.name}: {'clean' if code == 0 else 'NOT CLEAN'}", flush=True)
    return code == 0


def _end_as(run: Callable[[], None]) -> NoReturn:
    """Nothing of the parent's happens in the child, however it ends."""
    code = FOUND
    try:
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FOUND
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _write_to(path: Path) -> None:
    """All that the process and libFuzzer in it say."""
    said = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)


def _fuzz(target: Target, seconds: int, folder: Path, said: Path) -> None:
    """Ends the process or raises."""
    _write_to(said)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)

    def run(data: bytes) -> None:
        try:
            check(target, data)
        except BaseException:
            print(f"{target.name}: input {data.hex()}", file=sys.stderr)
            raise

    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MAX_MEMORY_MB}", f"-max_len={MAX_INPUT}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
