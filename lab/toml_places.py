"""Where in a TOML text a value stands: `tomllib` forgets, so the text is parsed once more when something is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

_LANGUAGE: Final = Language(tree_sitter_toml.language())
_KEYS: Final = frozenset({"bare_key", "quoted_key", "dotted_key"})


def place_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """The line, from 1, of the innermost part of `location` that stands in `text`; None when no part does.

    A location is keys and list indices from 0: `("acts", 0, "steps", 1, "phone")`. `text` is valid TOML.
    """
    place = _places(text)
    line = None
    for part in location:
        inner = place.parts.get(part)
        if inner is None:
            break
        place, line = inner, inner.line
    return line


@dataclass(slots=True)
class _Place:
    """A value, or a table that a header or a dotted key implies, and what lies in it."""

    line: int
    parts: dict[str | int, _Place] = field(default_factory=dict)

    def part(self, key: str | int, line: int) -> _Place:
        """The part of that name, which begins at `line` if it has not been seen before."""
        return self.parts.setdefault(key, _Place(line))

    def newest(self) -> _Place:
        """The last element of an array of tables: where `[array.table]` continues; any other place itself."""
        last = len(self.parts) - 1
        return self.parts.get(last, self) if last >= 0 else self


def _places(text: str) -> _Place:
    document = Parser(_LANGUAGE).parse(text.encode()).root_node
    root = _Place(1)
    for node in document.named_children:
        if node.type == "pair":
            _add_pair(root, node)
        elif node.type in {"table", "table_array_element"}:
            _add_table(root, node)
    return root


def _add_table(root: _Place, table: Node) -> None:
    header = next((node for node in table.named_children if node.type in _KEYS), None)
    if header is None:
        return
    line = _line(header)
    *outer, name = _keys(header)
    place = root
    for key in outer:
        place = place.part(key, line).newest()
    place = place.part(name, line)
    if table.type == "table_array_element":
        place = place.part(len(place.parts), line)
    for node in table.named_children:
        if node.type == "pair":
            _add_pair(place, node)


def _add_pair(place: _Place, pair: Node) -> None:
    key, value = _key_and_value(pair)
    if key is None:
        return
    for name in _keys(key):
        place = place.part(name, _line(key))
    if value is not None:
        _add_value(place, value)


def _add_value(place: _Place, value: Node) -> None:
    if value.type == "inline_table":
        for pair in value.named_children:
            if pair.type == "pair":
                _add_pair(place, pair)
    elif value.type == "array":
        items = [item for item in value.named_children if item.type != "comment"]
        for number, item in enumerate(items):
            _add_value(place.part(number, _line(item)), item)


def _key_and_value(pair: Node) -> tuple[Node | None, Node | None]:
    nodes = [node for node in pair.named_children if node.type != "comment"]
    if not nodes or nodes[0].type not in _KEYS:
        return None, None
    return nodes[0], nodes[1] if len(nodes) > 1 else None


def _keys(node: Node) -> Iterator[str]:
    """The parts of `a."b c".d`; a dotted key of more than two parts holds another dotted key."""
    if node.type == "dotted_key":
        for part in node.named_children:
            yield from _keys(part)
        return
    text = (node.text or b"").decode()
    if node.type == "quoted_key":
        text = next(iter(tomllib.loads(f"{text} = 0")))  # its escapes are TOML's own
    yield text


def _line(node: Node) -> int:
    return node.start_point.row + 1
