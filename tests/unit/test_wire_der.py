from __future__ import annotations

import pytest

from cucm.errors import DecodeError
from cucm.wire.der import MAX_DEPTH, MAX_ELEMENTS, Element, integers_within, read_elements


def test_elements_one_behind_the_other() -> None:
    long = b"\x04\x81\x80" + bytes(128)
    assert read_elements(b"\x02\x01\x05" + long + b"\x05\x00") == [
        Element(2, b"\x05"),
        Element(4, bytes(128)),
        Element(5, b""),
    ]
    assert read_elements(b"") == []


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"\x02", 0),
        (b"\x02\x02\x05", 0),
        (b"\x05\x00\x02\x05\x00", 2),
        (b"\x30\x80\x00\x00", 0),
        (b"\x1f\x01\x00", 0),
        (b"\x04\x85\x00\x00\x00\x00\x00", 0),
        (b"\x04\x84\xff\xff\xff\xff", 0),
    ],
)
def test_what_is_no_der_is_refused_with_its_place(data: bytes, offset: int) -> None:
    with pytest.raises(DecodeError) as refused:
        read_elements(data)
    assert refused.value.offset == offset


def test_elements_are_counted() -> None:
    assert len(read_elements(b"\x05\x00" * MAX_ELEMENTS)) == MAX_ELEMENTS
    with pytest.raises(DecodeError, match="more than"):
        read_elements(b"\x05\x00" * (MAX_ELEMENTS + 1))


def test_integers_are_found_in_constructed_elements_only() -> None:
    inner = b"\x30\x03\x02\x01\x07"
    outer = Element(0x30, b"\x02\x02\x01\x00" + inner + b"\x04\x03\x02\x01\x09")
    assert list(integers_within(outer)) == [256, 7]


def test_nesting_is_bounded() -> None:
    data = b"\x02\x01\x01"
    for _ in range(MAX_DEPTH + 1):
        data = b"\x30" + bytes([len(data)]) + data
    (element,) = read_elements(data)
    with pytest.raises(DecodeError, match="nested"):
        list(integers_within(element))
