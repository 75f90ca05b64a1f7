"""What is wrong with a value, in the words of somebody who writes a file or a program, and how to mend it.

pydantic finds what is wrong and names it by a type; its own sentences speak of Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
SERIAL_PATTERN: Final = r"^([0-9a-fA-F]{2}){1,20}$"
MAC_PATTERN: Final = r"^[0-9A-F]{12}$"
COUNTRY_PATTERN: Final = r"^[A-Z]{2}$"
CAPF_NAME_PATTERN: Final = r"^CAPF-[0-9a-f]{8}$"
_MEANT: Final = {
    NAME_PATTERN: "a name has letters, digits, `.`, `_` and `-`, at most 63, a letter or digit first",
    SERIAL_PATTERN: "a serial number has 1 to 20 pairs of hexadecimal digits, without colons",
    MAC_PATTERN: "a MAC address has 12 hexadecimal digits in capitals, without colons",
    COUNTRY_PATTERN: "a country has two capital letters",
    CAPF_NAME_PATTERN: "it is CAPF- and 8 hexadecimal digits in small letters",
}
_NO_TEXT: Final = ("is no text", 'write it in quotes: "..."')
_NO_WHOLE_NUMBER: Final = ("is no whole number", "write digits, without quotes")
_NO_NUMBER: Final = ("is no number", "write digits, without quotes")
_NO_LIST: Final = ("is no list", "write it in brackets: [..., ...]")
_NO_TABLE: Final = ("is no table", "write it as a [section] or { name = value }")
_NEITHER: Final = ("is neither true nor false", "write true or false, without quotes")
_FIXED: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("is missing", "it must be there"),
    "string_unicode": ("is no text", "leave out halves of characters (\\ud800 to \\udfff)"),
    "extra_forbidden": ("is no word that is known here", "take it out"),
    "union_tag_not_found": ("is missing", "it says what kind of table this is"),
    "string_type": _NO_TEXT,
    "ip_v4_address": ("is no IPv4 address", "write four numbers with dots between"),
    "int_type": _NO_WHOLE_NUMBER,
    "int_parsing": _NO_WHOLE_NUMBER,
    "int_parsing_size": ("has too many digits", "write a smaller number"),
    "int_from_float": _NO_WHOLE_NUMBER,
    "float_type": _NO_NUMBER,
    "float_parsing": _NO_NUMBER,
    "finite_number": ("is no finite number", "write digits"),
    "bool_type": _NEITHER,
    "bool_parsing": _NEITHER,
    "list_type": _NO_LIST,
    "tuple_type": _NO_LIST,
    "dict_type": _NO_TABLE,
    "model_type": _NO_TABLE,
    "model_attributes_type": _NO_TABLE,
    "dataclass_type": _NO_TABLE,
}
_OF_CONTEXT: Final[Mapping[str, Callable[[str, Mapping[str, Any]], tuple[str, str]]]] = {
    "greater_than_equal": lambda value, known: (f"{value} is too little", f"the least is {known['ge']}"),
    "greater_than": lambda value, known: (f"{value} is too little", f"it must be more than {known['gt']}"),
    "less_than_equal": lambda value, known: (f"{value} is too much", f"the most is {known['le']}"),
    "less_than": lambda value, known: (f"{value} is too much", f"it must be less than {known['lt']}"),
    "string_too_short": lambda value, known: (f"{value} is too short", f"characters: {known['min_length']} or more"),
    "string_too_long": lambda value, known: (f"{value} is too long", f"characters: {known['max_length']} at most"),
    "too_short": lambda _value, known: ("has too few entries", f"the least is {known['min_length']}"),
    "too_long": lambda _value, known: ("has too many entries", f"the most is {known['max_length']}"),
    "enum": lambda value, known: (f"there is no {value}", f"use {_choices(known)}"),
    "literal_error": lambda value, known: (f"there is no {value}", f"use {_choices(known)}"),
    "string_pattern_mismatch": lambda value, known: (
        f"{value} is not written as it should be",
        _MEANT.get(known["pattern"], f"it must match {known['pattern']}"),
    ),
}
_NO_OBJECT: Final = ("is no object", 'write it as an object: {"name": ...}')
MAX_PROBLEMS: Final = 4
"""Told of one value; the others are often their consequences."""
MAX_CHOICES: Final = 12
"""Known words that are listed when none is near the wrong one."""
_MOST_SHOWN: Final = 60


def words_of(found: Mapping[str, Any], *, json: bool = False) -> tuple[str, str]:
    """What is wrong and a hint, for one of pydantic's errors; its own sentence where nobody has thought of the type.

    The hints are for TOML, or for JSON.
    """
    kind, context = found["type"], found.get("ctx", {})
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "too_long" and isinstance(found["input"], str):
        kind = "string_too_long"
    if kind in _FIXED:
        return _NO_OBJECT if json and _FIXED[kind] is _NO_TABLE else _FIXED[kind]
    if kind in _OF_CONTEXT:
        return _OF_CONTEXT[kind](_shown(found["input"]), context)
    return f"cannot be used: {found['msg']}", "write another value, as a packaged file has it at this place"


def told_of(error: ValidationError, fields: Sequence[str], *, whole: str) -> str:
    """What is wrong with a JSON object of these `fields`, as a sentence: `phone: is missing, it must be there; ...`.

    Unknown fields come first, with the nearest known one: they explain what is missing. `whole` is what the object is
    called.
    """
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    told = [_told(dict(one), fields, whole) for one in found[:MAX_PROBLEMS]]
    rest = [f"and {len(found) - MAX_PROBLEMS} more"] if len(found) > MAX_PROBLEMS else []
    return "; ".join([*told, *rest])


def nearest(word: object, known: Sequence[str], *, most: int = MAX_CHOICES) -> str:
    """A hint for a word that is none of the known; "" when there is nothing to say. Lists `most` at most."""
    near = get_close_matches(str(word)[:_MOST_SHOWN], known, n=1)  # cut: it compares every pair of letters
    if near:
        return f"did you mean {near[0]}?"
    if not known:
        return ""
    rest = ", ..." if len(known) > most else ""
    return f"there are: {', '.join(known[:most])}{rest}"


def _told(found: Mapping[str, Any], fields: Sequence[str], whole: str) -> str:
    location = found["loc"]
    place = ".".join(str(part + 1) if isinstance(part, int) else cut(part) for part in location) or whole
    wrong, hint = words_of(found, json=True)
    if found["type"] == "extra_forbidden" and len(location) == 1:
        wrong, hint = "no such field", nearest(location[0], fields) or "there are none"
    return f"{place}: {wrong}, {hint}" if hint else f"{place}: {wrong}"


def cut(text: str) -> str:
    """A text that may be as long as a stranger likes, for a sentence."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _choices(known: Mapping[str, Any]) -> str:
    """What is expected, as it is written: pydantic tells members of an enum as Python does."""
    return re.sub(r"<\w+\.\w+: ('[^']*')>", r"\1", known["expected"])


def _shown(value: object) -> str:
    return cut(repr(value))
