"""Reading the lab's TOML files with errors a writer of them can use: place, line, what is wrong, what was meant."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cucm.errors import UsageError
from cucm.records import dataclass
from cucm.validation_words import MAX_PROBLEMS, nearest, words_of

MAX_TOML: Final = 1024 * 1024

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]
"""Keys and list indices from 0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`text` is wrong at `location` (in `line`, from 1, where known); `hint` says what may have been meant."""

    location: Location
    text: str
    hint: str = ""
    line: int | None = None

    @property
    def place(self) -> str:
        """`acts[1].steps[2].phone`, counted from 1."""
        parts = (f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in self.location)
        return "".join(parts).removeprefix(".") or "the whole file"

    def __str__(self) -> str:
        line = "" if self.line is None else f" (line {self.line})"
        place = f"{self.place}{line}: " if self.location else ""
        return f"{place}{self.text}{f'; {self.hint}' if self.hint else ''}"


class TomlProblems(UsageError):
    """A file is not as it should be: all `problems`; the text tells of the first few."""

    def __init__(self, problems: Sequence[Problem], *, where: str, mend: str) -> None:
        told = [str(problem) for problem in problems[:MAX_PROBLEMS]]
        rest = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        super().__init__("; ".join([*told, *rest]), where=where, mend=mend)
        self.problems = tuple(problems)


def read_toml(path: Path, model: type[Model], context: dict[str, Any] | None = None) -> Model:
    """Read and check one TOML file, in a validation context of the model's if it has one.

    Raises UsageError (TomlProblems for what is written in it) with the file.
    """
    text, data = read_tables(path)
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        problems = with_lines(text, problems_in(error, data, model))
        raise TomlProblems(problems, where=str(path), mend="mend these places, counted from 1") from error


def read_tables(path: Path) -> tuple[str, dict[str, Any]]:
    """The file's text, and what TOML says it means. Raises UsageError, TomlProblems."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOML + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), mend="name a readable file") from error
    if len(content) > MAX_TOML:
        raise UsageError(f"is larger than {MAX_TOML} bytes", where=str(path), mend="name a TOML file")
    try:
        text = content.decode("utf-8")
        return text, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = Problem((), f"is not TOML: {error}", line=_line_told(error))
        raise TomlProblems([problem], where=str(path), mend="mend the syntax at that place") from error


def with_lines(text: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with the line of the innermost place that stands in `text`, which is valid TOML."""
    from lab.toml_places import place_of  # only a wrong file needs the parser

    return [Problem(one.location, one.text, one.hint, place_of(text, one.location)) for one in problems]


def problems_in(error: ValidationError, data: Any, model: type[BaseModel]) -> list[Problem]:
    """What is wrong with `data` as a `model`, the unknown words first: they explain what is missing."""
    found = error.errors(include_url=False)
    # a list is "too short" when its items are wrong: only the innermost place is the reader's
    told = [one for one in found if not any(_is_inside(other["loc"], one["loc"]) for other in found)]
    told.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    return [_problem(dict(one), data, model) for one in told]


def _problem(found: dict[str, Any], data: Any, model: type[BaseModel]) -> Problem:
    location = _in_file(found["loc"], data)
    context = found.get("ctx", {})
    text, hint = words_of(found)
    match found["type"]:
        case "extra_forbidden":
            return Problem(location, text, nearest(location[-1], _keys_at(model, found["loc"][:-1])) or hint)
        case "union_tag_invalid":
            key = context["discriminator"].strip("'")
            text = f"there is no {context['tag']!r}"
            return Problem((*location, key), text, nearest(context["tag"], _words(context["expected_tags"])))
        case "union_tag_not_found":
            return Problem((*location, context["discriminator"].strip("'")), text, hint)
        case "enum" | "literal_error":
            return Problem(location, text, nearest(found["input"], _words(context["expected"])) or hint)
        case _:
            return Problem(location, text, hint)


def _words(listed: str) -> list[str]:
    """Pydantic's list of what it expects: `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", listed)


def _is_inside(place: Location, outer: Location) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _in_file(location: Location, data: Any) -> Location:
    """Pydantic's location without its remarks (`[key]`, the tag of a union): what stands in the file, and one more."""
    result: list[str | int] = []
    for number, part in enumerate(location):
        if part == "[key]":
            continue
        is_there = part in data if isinstance(data, dict) else isinstance(data, list | tuple) and isinstance(part, int)
        if is_there and (isinstance(data, dict) or int(part) < len(data)):
            data = data[part]
            result.append(part)
        elif number == len(location) - 1 and isinstance(data, dict) and isinstance(part, str):
            result.append(part)
    return tuple(result)


def _line_told(error: Exception) -> int | None:
    line = re.search(r"at line (\d+)", str(error))
    return int(line[1]) if line else None


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The words a table at that place may use; none when it is no table with fixed words."""
    found: Any = model
    for part in location:
        found = _inside(found, part)
    found = _bare(found)
    members = get_args(found) if get_origin(found) in {Union, UnionType} else (found,)  # `Table | None`
    tables = [table for member in members if _is_model(table := _bare(member))]
    return [field.alias or name for table in tables for name, field in table.model_fields.items()]


def _inside(annotation: Any, part: str | int) -> Any:
    """The annotation of a part of what `annotation` describes; None when there is no such part."""
    annotation = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return next((one for member in arguments if (one := _inside(member, part)) is not None), None)
    if _is_model(annotation):
        for name, field in annotation.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
            if get_origin(field.annotation) is Literal and part in get_args(field.annotation):
                return annotation  # the tag by which pydantic tells the members of a union apart
        return None
    if origin is dict and isinstance(part, str):
        return arguments[1]
    return arguments[0] if origin in {tuple, list} and isinstance(part, int) else None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
