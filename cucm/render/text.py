"""Text from files and the network, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with everything a terminal could take for a command written as an escape (backslash, x, two digits)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
