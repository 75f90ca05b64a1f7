from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).parent.parent / "vectors"


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(directory / "check_vectors.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_vector_closes_by_arithmetic_that_knows_nothing_of_the_codec() -> None:
    result = check(VECTORS)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "2 messages and 4 files: every sum closes\n"


def test_the_check_notices_a_wrong_vector(tmp_path: Path) -> None:
    for path in VECTORS.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    vectors = tmp_path / "vectors.json"
    vectors.write_text(vectors.read_text().replace("stormin-WIN2012-CA", "stormin-WIN2012-CAs"))
    result = check(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("request, published bytes: ")
