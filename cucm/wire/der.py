"""The little of DER that is needed to look into a file before a library is let loose on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from cucm.errors import DecodeError

MAX_ELEMENTS: Final = 4096
"""Elements on one level."""
MAX_DEPTH: Final = 16
_CONSTRUCTED: Final = 0x20
_INTEGER: Final = 0x02
_LONG_FORM: Final = 0x80


class Element(NamedTuple):
    """`tag` is the identifier octet."""

    tag: int
    content: bytes


def read_elements(data: bytes) -> list[Element]:
    """The elements that lie one behind the other in `data`. DecodeError for anything but DER, or too many."""
    elements: list[Element] = []
    at = 0
    while at < len(data):
        if len(elements) == MAX_ELEMENTS:
            raise DecodeError(f"more than {MAX_ELEMENTS} elements", offset=at, path="DER")
        start, length = _head(data, at)
        if start + length > len(data):
            raise DecodeError("an element is longer than what holds it", offset=at, path="DER")
        elements.append(Element(data[at], data[start : start + length]))
        at = start + length
    return elements


def _head(data: bytes, at: int) -> tuple[int, int]:
    """Where the content begins, and its length; multi-byte tags and indefinite lengths do not occur where we look."""
    first = data[at + 1] if at + 1 < len(data) else _LONG_FORM
    if data[at] & 0x1F == 0x1F or first == _LONG_FORM or first > _LONG_FORM + 4:
        raise DecodeError("not DER", offset=at, path="DER")
    if first < _LONG_FORM:
        return at + 2, first
    end = at + 2 + first - _LONG_FORM
    return end, int.from_bytes(data[at + 2 : end])


def integers_within(element: Element, depth: int = 0) -> Iterator[int]:
    """Every INTEGER in an element, itself or nested. DecodeError when it nests too deep."""
    if depth > MAX_DEPTH:
        raise DecodeError(f"nested deeper than {MAX_DEPTH}", offset=0, path="DER")
    if element.tag == _INTEGER:
        yield int.from_bytes(element.content)
    elif element.tag & _CONSTRUCTED:
        for inner in read_elements(element.content):
            yield from integers_within(inner, depth + 1)
