"""How help is laid out: paragraphs as wide as the terminal (or COLUMNS), lists and examples as they are written."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator

BEGINS_A_PARAGRAPH = ("exit codes:", "examples:", "example:")


class HelpFormatter(argparse.HelpFormatter):
    """Lines that begin with a space stay as they are; others are joined and wrapped until a new paragraph begins."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for paragraph in _paragraphs(text.splitlines()):
            if paragraph[:1].isspace() or not paragraph:
                lines.append(indent + paragraph)
            else:
                lines += textwrap.wrap(
                    paragraph, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
                )
        return "\n".join(lines)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    joined: list[str] = []
    for line in lines:
        is_kept = not line or line[0].isspace()
        if joined and (is_kept or line.startswith(BEGINS_A_PARAGRAPH)):
            yield " ".join(joined)
            joined = []
        if is_kept:
            yield line
        else:
            joined.append(line)
    if joined:
        yield " ".join(joined)
