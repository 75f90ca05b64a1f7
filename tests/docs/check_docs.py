"""The docs check of `make lint`: links lead somewhere, targets, commands and stories in docs exist, no machine paths.

Run as a program; prints every finding as `file:line: text` and exits 1 if there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)")
TARGET = re.compile(r"(?:`|^ {4})make ([a-z-]+)")
COMMAND = re.compile(r"(?:`|^ {4})(?:\.venv/bin/)?cucm-lab ([a-z]+)")
STORY = re.compile(r"(?:`|^ {4})(?:\.venv/bin/)?cucm-lab run ([a-z][a-z0-9-]+)")
MODULE = re.compile(r"python -m ([a-z_.]+)")
FORBIDDEN = re.compile(
    "/wo" + "rk/|/fa" + "rm/|/tm" + r"p/bash_jobs|pypi\.o" + r"rg|pythonhos" + r"ted|npmjs\.o" + "rg|deb\\.deb" + "ian"
)
FIDELITY_COUNT = re.compile(r"^\| (emulated|simplified|absent|unknown) \| (\d+) \|$", re.MULTILINE)


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [path for line in out.stdout.splitlines() if (path := ROOT / line).is_file()]


def findings() -> Iterator[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r'Subcommand\("([a-z]+)"', (ROOT / "lab/cli/frame.py").read_text())) | {"help"}
    stories = {path.stem for path in (ROOT / "lab/scenarios").glob("*.toml")}
    for path in tracked("*.md"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            place = f"{path.relative_to(ROOT)}:{number}"
            yield from (
                f"{place}: link leads nowhere: {link}"
                for link in LINK.findall(line)
                if not (path.parent / link).exists()
            )
            yield from (f"{place}: no make target {name}" for name in TARGET.findall(line) if name not in targets)
            yield from (
                f"{place}: no command cucm-lab {name}" for name in COMMAND.findall(line) if name not in commands
            )
            yield from (f"{place}: no story {name}" for name in STORY.findall(line) if name not in stories)
            yield from (f"{place}: no module {name}" for name in MODULE.findall(line) if not module_exists(name))
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        if FORBIDDEN.search(text):
            yield f"{path.relative_to(ROOT)}: names a machine path or a registry host"
    yield from fidelity_findings()


def module_exists(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() or name in {"venv", "pytest"}


def fidelity_findings() -> Iterator[str]:
    """The counts on the fidelity page are those of its own tables."""
    text = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    stated = {word: int(count) for word, count in FIDELITY_COUNT.findall(text)}
    for word in ("emulated", "simplified", "absent", "unknown"):
        section = re.search(rf"^## {word.capitalize()}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        rows = len(re.findall(r"^\| ", section.group(1), re.MULTILINE)) - 1 if section else 0  # less the head
        if stated.get(word) != rows:
            yield f"docs/fidelity.md: says {stated.get(word)} {word}, its table has {rows}"


if __name__ == "__main__":
    found = list(findings())
    print("\n".join(found) or "docs: links, targets, commands, stories, counts are right")
    sys.exit(bool(found))
