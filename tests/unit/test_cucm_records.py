"""`cucm.records.dataclass` next to the standard library's: what they make behaves the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import sys
from typing import ClassVar

import pytest

from cucm.records import dataclass as ours

MAKERS = {"ours": ours, "standard": dataclasses.dataclass}


@ours(frozen=True, slots=True)
class Base:
    """A base without fields."""

    kind: ClassVar[str] = "base"


@ours(frozen=True, slots=True)
class Sent(Base):
    kind: ClassVar[str] = "sent"
    name: str
    size: int = 0
    parts: list[int] = dataclasses.field(default_factory=list, compare=False)
    secret: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class StandardChild(Sent):
    more: int = 1


@ours(frozen=True, slots=True, kw_only=True)
class Named:
    name: str
    size: int = 3


@ours(frozen=True, slots=True)
class Checked:
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("negative")


@ours(frozen=True, slots=True)
class WithOwnWords:
    size: int

    def __repr__(self) -> str:
        return "mine"


def test_values_compare_hash_and_tell_of_themselves():
    one = Sent("a", 1, [1], "s")
    assert (one.name, one.size, one.parts, one.secret) == ("a", 1, [1], "s")
    assert one == Sent("a", 1, [2], "s")
    assert one != Sent("a", 1, [1], "t")
    assert hash(one) == hash(Sent("a", 1, [2], "s"))
    assert repr(one) == "Sent(name='a', size=1, parts=[1])"
    assert Sent("a").parts is not Sent("a").parts
    assert Checked(1) == Checked(1) != Checked(2)
    assert len({Checked(1), Checked(1), Checked(2)}) == 2
    assert Base() == Base()
    assert Base() != Sent("a")
    assert repr(WithOwnWords(1)) == "mine"


def test_the_library_knows_them():
    one = Sent("a", 1)
    assert [field.name for field in dataclasses.fields(Sent)] == ["name", "size", "parts", "secret"]
    assert dataclasses.replace(one, size=2) == Sent("a", 2)
    assert dataclasses.asdict(one) == {"name": "a", "size": 1, "parts": [], "secret": ""}
    assert dataclasses.is_dataclass(Sent)
    match one:
        case Sent("a", size):
            assert size == 1
        case _:
            pytest.fail("should match")
    assert StandardChild("a", more=2).more == 2
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("value", [Sent("a", 1, [1], "s"), Base(), Checked(4), StandardChild("x")])
def test_copies_and_pickles(value):
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


def test_nothing_can_be_changed():
    one = Sent("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="size"):
        one.size = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="size"):
        del one.size
    with pytest.raises(dataclasses.FrozenInstanceError):
        StandardChild("a").more = 3  # type: ignore[misc]


def test_fields_that_go_by_name_and_checks_after_the_beginning():
    assert Named(name="a") == Named(name="a", size=3)
    with pytest.raises(TypeError):
        Named("a")  # type: ignore[call-arg, misc]
    with pytest.raises(TypeError, match="missing"):
        Sent()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="elsewhere it is the library's own")
@pytest.mark.parametrize(
    ("annotation", "value", "what"),
    [
        (int, dataclasses.field(init=False, default=1), "field(init=False)"),
        (dataclasses.InitVar[int], 1, "an InitVar"),
        (int, dataclasses.field(hash=False, default=1), "field(hash=...)"),
        (int, dataclasses.field(hash=True, compare=False, default=1), "field(hash=...)"),
    ],
)
def test_a_field_that_would_be_ignored_is_refused(annotation, value, what):
    body = {"__annotations__": {"size": annotation}, "size": value}
    with pytest.raises(TypeError, match=re.escape(f"Odd.size is {what}")):
        ours(frozen=True, slots=True)(type("Odd", (), dict(body)))
    base = dataclasses.dataclass(frozen=True)(type("Base", (), dict(body)))
    with pytest.raises(TypeError, match=re.escape(f"Child.size is {what}")):
        ours(frozen=True, slots=True)(type("Child", (base,), {"__annotations__": {"more": int}, "more": 2}))


def test_a_field_hashed_as_it_is_compared():
    @ours(frozen=True, slots=True)
    class Same:
        size: int = dataclasses.field(hash=True, default=1)
        note: str = dataclasses.field(hash=False, compare=False, default="")

    assert hash(Same(1, "a")) == hash(Same(1, "b")) != hash(Same(2, "a"))


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_other_kinds_are_the_librarys(maker):
    @maker
    class Plain:
        size: int = 1

    @maker(slots=True)
    class Changing:
        size: int = 1

    changing = Changing()
    changing.size = 5
    assert changing == Changing(5)
    assert Plain(2).size == 2
