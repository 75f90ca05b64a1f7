"""Text from files and the network, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with everything a terminal could take for a command written as an escape (backslash, x, two digits)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def duration(seconds: float) -> str:
    """2593800.0 -> `+30d 30m`: in the units that `cucm-lab clock` takes, a fraction of a second as it is."""
    left, parts = round(abs(seconds)), []
    if 0 < abs(seconds) < 1:
        return f"{seconds:+g}s"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return ("-" if seconds < 0 else "+") + " ".join(parts) if parts else "0s"
