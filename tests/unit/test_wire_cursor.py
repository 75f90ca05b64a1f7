from __future__ import annotations

from enum import IntEnum

import pytest

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.wire.cursor import (
    MAX_ELEMENTS,
    MAX_KNOWN,
    MAX_KNOWN_BYTES,
    MAX_VALUE_BYTES,
    Element,
    Known,
    Schema,
    element_path,
    find_field,
    need_field,
    number,
    number_bytes,
    plain_text_bytes,
    read_elements,
    text,
    text_bytes,
    write_elements,
)


class Tag(IntEnum):
    BOX = 1
    NAME = 2
    COUNT = 3
    PAD = 13


BOX = Schema(Tag, {Tag.COUNT: number(2)}, required=(Tag.COUNT,))
SCHEMA = Schema(Tag, {Tag.BOX: BOX, Tag.NAME: text}, required=(Tag.NAME,), pad_tag=Tag.PAD)
ANY = Schema(Tag, {})


def read(data: bytes, schema: Schema = SCHEMA) -> tuple[Element, ...]:
    return read_elements(data, 0, len(data), "top", schema)


def error_of(data: bytes, schema: Schema = SCHEMA) -> tuple[int, str]:
    with pytest.raises(DecodeError) as caught:
        read(data, schema)
    return caught.value.offset, caught.value.path


def test_reads_known_unknown_and_padding_in_order() -> None:
    data = b"\x02\x00\x02a\x00" + b"\r\r\r" + b"\x63\x00\x01z" + b"\r"
    elements = read(data)
    assert elements == (Element(2, b"a\0"), Element(13, b"\r\r\r"), Element(99, b"z"), Element(13, b"\r"))
    assert write_elements(elements, pad_tag=Tag.PAD) == data


def test_tag_13_is_an_ordinary_tag_where_there_is_no_padding() -> None:
    assert read(b"\x0d\x00\x01z", ANY) == (Element(13, b"z"),)
    assert write_elements([Element(13, b"z")]) == b"\x0d\x00\x01z"


@pytest.mark.parametrize(
    ("data", "offset", "path"),
    [
        (b"\x02\x00", 0, "top.NAME"),
        (b"\x02\x00\x03a\x00", 1, "top.NAME"),
        (b"\x63\x00\x03a\x00", 1, "top.tag 99"),
        (b"\x02\x00\x02a\x00\x02\x00\x02b\x00", 5, "top.NAME"),
        (b"\x02\x00\x03a\x00b", 3, "top.NAME"),
        (b"\x63\x00\x00", 0, "top.NAME"),
        (b"\x02\x00\x01a" + b"\x01\x00\x04\x03\x00\x01a", 10, "top.BOX.COUNT"),
        (b"\x02\x00\x01a" + b"\x01\x00\x04\x03\x00\x02a", 8, "top.BOX.COUNT"),
        (b"\x02\x00\x01a" + b"\x01\x00\x04\x03\x00\x02ab", 8, "top.BOX.COUNT"),
        (b"\x02\x00\x01a" + b"\x01\x00\x00", 7, "top.BOX.COUNT"),
    ],
    ids=[
        "head cut off",
        "value cut off",
        "unknown value cut off",
        "known tag twice",
        "NUL in a text",
        "required tag missing",
        "value in a container too short",
        "length beyond container and input",
        "length beyond container, within input",
        "required tag missing in a container",
    ],
)
def test_errors_carry_offset_and_path(data: bytes, offset: int, path: str) -> None:
    assert error_of(data) == (offset, path)


def test_unknown_tags_may_come_often_but_not_without_end() -> None:
    assert len(read(b"\x63\x00\x00" * MAX_ELEMENTS, ANY)) == MAX_ELEMENTS
    with pytest.raises(LimitExceeded, match="more than 64 elements"):
        read(b"\x63\x00\x00" * (MAX_ELEMENTS + 1), ANY)


def test_find_field_counts_the_offset_through_padding() -> None:
    elements = (Element(13, b"\r\r"), Element(99, b"abc"), Element(3, b"\x01"))
    with pytest.raises(DecodeError) as caught:
        find_field(elements, Tag.COUNT, number(2), "top", SCHEMA, 100)
    assert (caught.value.offset, caught.value.path) == (100 + 2 + 6 + 3, "top.COUNT")


def test_need_field_says_what_is_missing() -> None:
    with pytest.raises(DecodeError, match="is missing") as caught:
        need_field((), Tag.COUNT, number(2), "top", SCHEMA, 7)
    assert (caught.value.offset, caught.value.path) == (7, "top.COUNT")


@pytest.mark.parametrize(("value", "expected"), [(b"a;b\0", "a;b"), (b"\0", ""), (b"", ""), (b"no nul", "no nul")])
def test_text(value: bytes, expected: str) -> None:
    assert text(value) == expected


def test_a_nul_in_the_middle_of_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL at byte 4 of 10"):
        text(b"good\0evil\0")


def test_paths_without_a_beginning() -> None:
    assert element_path("", Tag, 2) == "NAME"
    assert element_path("record[3]", Tag, 200) == "record[3].tag 200"


def test_largest_value_fits_and_a_larger_one_does_not() -> None:
    assert len(write_elements([Element(255, bytes(MAX_VALUE_BYTES))])) == MAX_VALUE_BYTES + 3
    with pytest.raises(EncodeError, match="65536 bytes"):
        write_elements([Element(255, bytes(MAX_VALUE_BYTES + 1))])


@pytest.mark.parametrize("tag", [-1, 256])
def test_tags_must_fit_one_byte(tag: int) -> None:
    with pytest.raises(EncodeError, match=f"tag {tag} "):
        write_elements([Element(tag, b"")])


def test_text_bytes() -> None:
    assert text_bytes("CN=Zoé", "subject") == b"CN=Zo\xe9\0"
    assert plain_text_bytes("abc", "device name") == b"abc"


@pytest.mark.parametrize("value", ["a\0b", "\0", "Ł"])
def test_text_that_does_not_fit(value: str) -> None:
    with pytest.raises(EncodeError) as caught:
        text_bytes(value, "subject")
    assert caught.value.where == "subject"
    assert caught.value.mend


@pytest.mark.parametrize(("value", "size"), [(-1, 1), (256, 1), (1 << 32, 4)])
def test_numbers_that_do_not_fit(value: int, size: int) -> None:
    with pytest.raises(EncodeError, match=f"does not fit {size} bytes"):
        number_bytes(value, size, "ttl_s")


def test_of_what_is_known_there_is_no_more_than_may_be() -> None:
    known = Known[int]()
    for number_of in range(MAX_KNOWN + 1):
        assert known.keep(number_bytes(number_of, 4, "a"), number_of) == number_of
    assert known == {number_bytes(MAX_KNOWN, 4, "a"): MAX_KNOWN}
    assert known.keep(bytes(MAX_KNOWN_BYTES + 1), 1) == 1
    assert known.keep(bytes(MAX_KNOWN_BYTES), 2) == 2
    assert set(map(len, known)) == {4, MAX_KNOWN_BYTES}


def test_a_container_is_wrong_again_and_again() -> None:
    """What is known is only what was good; the place of what is not is told each time as it is."""
    good, bad = write_elements([Element(Tag.COUNT, b"\0\1")]), write_elements([Element(Tag.COUNT, b"\0")])
    for _ in range(2):
        read(write_elements([Element(Tag.NAME, b"a\0"), Element(Tag.BOX, good)]))
        for name, offset in (b"a\0", 11), (b"ab\0", 12):
            with pytest.raises(DecodeError) as caught:
                read(write_elements([Element(Tag.NAME, name), Element(Tag.BOX, bad)]))
            assert caught.value.offset == offset
