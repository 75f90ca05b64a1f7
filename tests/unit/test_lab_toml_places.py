from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.toml_places import place_of

TEXT = '''\
title = "a story"
server.name = "one"        # 2

[clusters.source]
nodes = [
    { name = "pub", host = 32 },
    # a comment is no node
    { name = "sub", host = 33 },

]
[clusters.source.certificate."Call\\u004danager"]
serial = "00"              # 12

[[acts]]
title = "first"
expect.SEP1 = { registered = "source" }  # 16

[[acts]]
steps = [{ do = "a" },
  { do = "b", stores = ["x",
     "y"] }]               # 21
[acts.notes]
deep.er.still = [[1], [2,
  3]]                      # 24
[[acts.more]]
one = 1                    # 26
[[acts.more]]
two = """
[[acts]]
"""
'''


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("title",), 1),
        (("server",), 2),
        (("server", "name"), 2),
        (("server", "port"), 2),
        (("clusters",), 4),
        (("clusters", "source", "version"), 4),
        (("clusters", "source", "nodes"), 5),
        (("clusters", "source", "nodes", 0, "host"), 6),
        (("clusters", "source", "nodes", 1), 8),
        (("clusters", "source", "nodes", 1, "services"), 8),
        (("clusters", "source", "nodes", 2), 5),
        (("clusters", "source", "certificate", "CallManager"), 11),
        (("clusters", "source", "certificate", "CallManager", "serial"), 12),
        (("clusters", "destination", "nodes"), 4),
        (("acts", 0, "title"), 15),
        (("acts", 0, "expect", "SEP1", "registered"), 16),
        (("acts", 0, "steps"), 14),
        (("acts", 1, "title"), 18),
        (("acts", 1, "steps", 0, "do"), 19),
        (("acts", 1, "steps", 1, "stores", 1), 21),
        (("acts", 1, "notes", "deep", "er", "still"), 23),
        (("acts", 1, "notes", "deep", "er", "still", 1, 1), 24),
        (("acts", 1, "more", 0, "one"), 26),
        (("acts", 1, "more", 1, "two"), 28),
        (("acts", 2), 14),
        (("nowhere", 1), None),
        ((), None),
    ],
)
def test_the_innermost_place_that_exists(location: tuple[str | int, ...], line: int | None) -> None:
    tomllib.loads(TEXT)  # a text that is not TOML would prove nothing
    assert place_of(TEXT, location) == line


KEYS = st.text("abc-_1 .\"'\\é\n", min_size=1, max_size=6)


def quoted(key: str) -> str:
    return '"' + "".join(f"\\u{ord(one):04x}" if not one.isalnum() else one for one in key) + '"'


@given(st.dictionaries(KEYS, st.lists(st.dictionaries(KEYS, st.integers(0, 9), max_size=3), max_size=3), max_size=4))
def test_each_value_is_found_in_its_line(tree: dict[str, list[dict[str, int]]]) -> None:
    lines = []
    where: dict[tuple[str | int, ...], int] = {}
    for name, tables in tree.items():
        for number, table in enumerate(tables):
            lines.append(f"[[{quoted(name)}]]")
            for key, value in table.items():
                lines.append(f"{quoted(key)} = {value}")
                where[name, number, key] = len(lines)
    text = "\n".join(lines)
    read: dict[str, Any] = tomllib.loads(text)
    assert read == {name: tables for name, tables in tree.items() if tables}
    assert {location: place_of(text, location) for location in where} == where
