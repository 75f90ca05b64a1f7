"""Bounded reading and writing of elements: tag u8, length u16 big-endian, value (facts 2.3, 3).

Plain functions over one `bytes` and a span instead of a reader object: a trust list is some sixty elements, and the
object's method calls would cost more than the parsing. Every check is against the enclosing span, never against the
end of the input alone, and every error carries the offset in the whole input and the path of names leading to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeVar

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.records import dataclass

HEAD_BYTES: Final = 3
"""Tag and length before every value."""
MAX_VALUE_BYTES: Final = 0xFFFF
MAX_KNOWN: Final = 64
MAX_KNOWN_BYTES: Final = 1024
"""Values whose meaning is known, and the length of each; ours."""
MAX_ELEMENTS: Final = 64
"""Most elements in one message, header, container or record. Real ones have at most about a dozen; ours."""

T = TypeVar("T")


class Element(NamedTuple):
    """One tag and its value, as on the wire. In trust lists, tag 13 stands for a run of pad bytes, kept verbatim."""

    tag: int
    value: bytes


_element: Final = tuple.__new__
"""Half the price of `Element(...)`, for the hot path."""

Parser = Callable[[bytes], Any]
"""Turns a value into what it means; a `ValueError` says why it cannot."""


class Known(dict[bytes, T]):
    """What short values mean that come again and again, as a signer's name in every file; not more than MAX_KNOWN."""

    def keep(self, value: bytes, meaning: T) -> T:
        if len(value) <= MAX_KNOWN_BYTES:
            if len(self) >= MAX_KNOWN:
                self.clear()
            self[value] = meaning
        return meaning


@dataclass(frozen=True, slots=True)
class Schema:
    """What is known of a message, header, container or record.

    `fields` maps a known tag to the parser of its value, to the Schema of a container, or to None for a value that may
    be anything. Known tags come at most once, `required` ones must be there, unknown ones are kept unread. Bytes equal
    to `pad_tag` where a tag should be are padding. `known` are containers that were read and are good.
    """

    names: type[IntEnum]
    fields: Mapping[int, Parser | Schema | None]
    required: Collection[int] = frozenset()
    pad_tag: int | None = None
    known: Known[bool] = field(default_factory=lambda: Known(), repr=False, compare=False)

    def __post_init__(self) -> None:
        # plain integers: looking up an IntEnum's equal costs a rich comparison for every element read
        object.__setattr__(self, "fields", {int(tag): parser for tag, parser in self.fields.items()})
        object.__setattr__(self, "required", frozenset(map(int, self.required)))


def element_path(path: str, names: type[IntEnum], tag: int) -> str:
    """`path` extended by the tag's name, or by `tag 29` for a tag the format does not know."""
    name = names(tag).name if tag in names._value2member_map_ else f"tag {tag}"
    return f"{path}.{name}" if path else name


def read_elements(data: bytes, start: int, end: int, path: str, schema: Schema) -> tuple[Element, ...]:
    """Elements that fill `data[start:end]` exactly, every known one checked, so that none fails to parse later.

    Raises DecodeError when an element does not fit the span, does not parse, comes twice or is missing; LimitExceeded
    above MAX_ELEMENTS. One loop does it all, because this is the hot path of every decoder.
    """
    fields, pad_tag = schema.fields, schema.pad_tag
    elements: list[Element] = []
    seen: set[int] = set()
    position = start
    for _ in range(MAX_ELEMENTS):
        if position >= end:
            break
        tag = data[position]
        if tag == pad_tag:
            value_start, value_end = position, _end_of_run(data, position, end)
        else:
            value_start = position + HEAD_BYTES
            if value_start > end:
                raise _too_short(position, end, element_path(path, schema.names, tag))
            value_end = value_start + (data[position + 1] << 8 | data[position + 2])
            if value_end > end:
                raise _too_long(position, value_end, end, element_path(path, schema.names, tag))
        value = data[value_start:value_end]
        if tag in fields:
            if tag in seen:
                raise DecodeError("comes a second time", offset=position, path=element_path(path, schema.names, tag))
            seen.add(tag)
            parse = fields[tag]
            if parse is None:
                pass
            elif isinstance(parse, Schema):
                if value not in parse.known:
                    read_elements(data, value_start, value_end, element_path(path, schema.names, tag), parse)
                    parse.known.keep(value, True)
            else:
                try:
                    parse(value)
                except ValueError as problem:
                    where = element_path(path, schema.names, tag)
                    raise DecodeError(str(problem), offset=value_start, path=where) from None
        elements.append(_element(Element, (tag, value)))
        position = value_end
    if position < end:
        raise LimitExceeded(f"more than {MAX_ELEMENTS} elements", where=f"offset {position}, {path}")
    if not seen.issuperset(schema.required):
        missing = min(set(schema.required) - seen)
        raise DecodeError("is missing", offset=start, path=element_path(path, schema.names, missing))
    return tuple(elements)


def _too_short(position: int, end: int, path: str) -> DecodeError:
    what = f"{end - position} bytes left where tag and length need {HEAD_BYTES}"
    return DecodeError(what, offset=position, path=path)


def _too_long(position: int, value_end: int, end: int, path: str) -> DecodeError:
    value_start = position + HEAD_BYTES
    what = f"length {value_end - value_start}, but only {end - value_start} bytes are left"
    return DecodeError(what, offset=position + 1, path=path)


def _end_of_run(data: bytes, start: int, end: int) -> int:
    """First position after `start` whose byte differs from the one there."""
    run = data[start:end]
    return end - len(run.lstrip(run[:1]))


def write_elements(elements: Iterable[Element], *, pad_tag: int | None = None) -> bytes:
    """The elements' bytes, whatever they are; an element with `pad_tag` is its value alone.

    Raises EncodeError for a tag above 255 or a value above 65535 bytes.
    """
    parts: list[bytes] = []
    for tag, value in elements:
        if tag != pad_tag:
            parts.append(element_head(tag, len(value)))
        parts.append(value)
    return b"".join(parts)


def element_head(tag: int, length: int) -> bytes:
    """Tag and length. Raises EncodeError when one of them does not fit."""
    if not 0 <= tag <= 0xFF:
        raise EncodeError(f"tag {tag} does not fit one byte", mend="use a tag from 0 to 255")
    if length > MAX_VALUE_BYTES:
        raise EncodeError(f"value of {length} bytes", where=f"tag {tag}", mend=f"at most {MAX_VALUE_BYTES} bytes fit")
    return bytes((tag, length >> 8, length & 0xFF))


def element_length(element: Element, *, pad_tag: int | None = None) -> int:
    """Bytes that the element takes on the wire."""
    return len(element.value) if element.tag == pad_tag else HEAD_BYTES + len(element.value)


def find_field(
    elements: Sequence[Element], tag: int, parse: Callable[[bytes], T], path: str, schema: Schema, base: int = 0
) -> T | None:
    """The first element with `tag`, parsed, or None. `base` is the offset of the first element.

    Raises DecodeError when its value does not parse, which no value that `read_elements` gave does.
    """
    for index, element in enumerate(elements):
        if element[0] == tag:
            try:
                return parse(element[1])
            except ValueError as problem:
                offset = base + sum(element_length(e, pad_tag=schema.pad_tag) for e in elements[:index]) + HEAD_BYTES
                raise DecodeError(str(problem), offset=offset, path=element_path(path, schema.names, tag)) from None
    return None


def need_field(
    elements: Sequence[Element], tag: int, parse: Callable[[bytes], T], path: str, schema: Schema, base: int = 0
) -> T:
    """As `find_field`; raises DecodeError when there is no such element either."""
    value = find_field(elements, tag, parse, path, schema, base)
    if value is None:
        raise DecodeError("is missing", offset=base, path=element_path(path, schema.names, tag))
    return value


def as_bytes(value: bytes) -> bytes:
    """Parser for values that may be anything."""
    return value


def text_end(value: bytes) -> int:
    """Where the text of a NUL-terminated value ends; alone, a check that costs less than `text`.

    A missing NUL is tolerated (others' files); a NUL before the end is not: C code and we would read different names.
    """
    nul = value.find(0)
    if nul < 0:
        return len(value)
    if nul != len(value) - 1:
        raise ValueError(f"NUL at byte {nul} of {len(value)}, in the middle of a text")
    return nul


def text(value: bytes) -> str:
    """Parser for NUL-terminated text, read as latin-1."""
    end = len(value) - 1
    if value.find(0) == end:  # as nearly all have it; otherwise `text_end` has its say
        return value[:end].decode("latin-1")
    return value[: text_end(value)].decode("latin-1")


def number(size: int) -> Callable[[bytes], int]:
    """Parser for a big-endian unsigned number of exactly `size` bytes."""

    def parse(value: bytes) -> int:
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes where {size} are needed")
        return int.from_bytes(value, "big")

    return parse


def text_bytes(value: str, what: str) -> bytes:
    """`value` with the NUL behind it. Raises EncodeError for a NUL inside or characters outside latin-1."""
    return plain_text_bytes(value, what) + b"\0"


def plain_text_bytes(value: str, what: str) -> bytes:
    """`value` without a NUL behind it. Raises EncodeError for a NUL inside or characters outside latin-1."""
    if "\0" in value:
        raise EncodeError(f"NUL inside {value!r}", where=what, mend="names end at the first NUL: leave it out")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise EncodeError(f"{value!r} is not latin-1", where=what, mend="use ASCII or latin-1 characters") from None


def number_bytes(value: int, size: int, what: str) -> bytes:
    """`value` as `size` bytes, big-endian. Raises EncodeError when it does not fit."""
    if not 0 <= value < 1 << 8 * size:
        raise EncodeError(f"{value} does not fit {size} bytes", where=what, mend=f"use 0 to {(1 << 8 * size) - 1}")
    return value.to_bytes(size, "big")
