"""Operations by name: which there are, what each takes, and how one is made of `field=value` words or of JSON.

Everything here is read from the operations' own models, so that a new operation needs no line in this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from cucm.errors import UsageError
from cucm.records import dataclass
from cucm.validation_words import cut, nearest, told_of
from lab.operations import AnyOperation, Operation
from lab.operations.pem import file_context
from lab.topology import Refers

REFERENCES: Final = {
    "cluster": "a cluster",
    "node": "a node",
    "phone": "a phone (SEP...)",
    "phones": "a group of phones, a phone, or all",
    "pool": "a DHCP pool",
    "server": "a plain call server",
}
"""Words for the parts of a topology that a field may name."""
_COMMON_FIELDS: Final = ("do", "note", "refused")
"""Every operation has them."""


@dataclass(frozen=True, slots=True)
class OperationField:
    """`kind` in words: `text`, `number`, `yes or no`, `one of ...`, `list of ...`; `default` as JSON."""

    name: str
    kind: str
    required: bool
    default: Any
    takes_many: bool

    def as_json(self) -> dict[str, Any]:
        default = {} if self.required else {"default": self.default}
        return {"name": self.name, "kind": self.kind, "required": self.required, **default}


@dataclass(frozen=True, slots=True)
class OperationKind:
    """One verb: its name in stories (`upload-certificate`), what it does, and its fields but those all have."""

    name: str
    description: str
    fields: tuple[OperationField, ...]
    model: type[Operation]

    @property
    def usage(self) -> str:
        """`name field=... [field=...]`."""
        words = (f"{one.name}=..." if one.required else f"[{one.name}=...]" for one in self.fields)
        return " ".join((self.name, *words))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "fields": [field.as_json() for field in self.fields],
        }


@cache
def operation_kinds() -> Mapping[str, OperationKind]:
    """Every operation of `AnyOperation`, by name. Made once: the models' schemas cost more than an operation."""
    kinds = sorted((_kind(model) for model in _models(AnyOperation)), key=lambda kind: kind.name)
    return MappingProxyType({kind.name: kind for kind in kinds})


def operation_kind(name: str) -> OperationKind:
    """Raises UsageError with the nearest name."""
    kinds = operation_kinds()
    if name in kinds:
        return kinds[name]
    raise UsageError(f"there is no operation {cut(name)!r}", mend=nearest(name, list(kinds), most=len(kinds)))


def operation_of(value: object, *, files_from: Path | None = None) -> Operation:
    """The operation of a JSON object such as `{"do": "boot-phone", "phone": "SEP..."}`. Raises UsageError.

    `@FILE` in a certificate's field is read where `files_from` names the folder that a relative path starts from:
    never for what came over a wire.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("do"), str):
        raise UsageError(
            "an operation is an object with its name in `do`", mend='for example {"do": "boot-phone", ...}'
        )
    kind = operation_kind(value["do"])
    try:
        return kind.model.model_validate(value, context=None if files_from is None else file_context(files_from))
    except ValidationError as error:
        told = told_of(error, [field.name for field in kind.fields], whole="the operation")
        raise UsageError(told, where=kind.name, mend=f"it is written {kind.usage}") from error


def operation_from_words(name: str, words: Sequence[str]) -> dict[str, Any]:
    """The JSON object of `name field=value ...`, checked.

    A field that takes many values is written with commas or given several times, an object as JSON; `@FILE`
    in a certificate's field stands for the file's content. UsageError.
    """
    kind = operation_kind(name)
    fields = {field.name: field for field in kind.fields}
    value: dict[str, Any] = {"do": name}
    for word in words:
        field_name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not field=value", where=name, mend=f"it is written {kind.usage}")
        _put(value, field_name, text, many=field_name in fields and fields[field_name].takes_many)
    operation = operation_of(value, files_from=Path())
    return operation.model_dump(mode="json", by_alias=True)


def _put(value: dict[str, Any], name: str, text: str, *, many: bool) -> None:
    if name == "do" or (name in value and not many):
        raise UsageError(f"{name!r} is given twice", where=str(value["do"]), mend="give every field once")
    parsed = _parsed(text)
    if many:
        items = parsed if isinstance(parsed, list) else [item.strip() for item in text.split(",") if item.strip()]
        value[name] = [*value.get(name, []), *items]
    else:
        value[name] = parsed


def _parsed(text: str) -> Any:
    """JSON for objects and lists, else the text itself: the model makes numbers of texts."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _models(annotation: Any) -> Iterator[type[Operation]]:
    """The classes of a union, also of one inside `Annotated` or another union."""
    if isinstance(annotation, type) and issubclass(annotation, Operation):
        yield annotation
        return
    for part in get_args(annotation):
        if not isinstance(part, str):
            yield from _models(part)


def _kind(model: type[Operation]) -> OperationKind:
    (name,) = get_args(model.model_fields["do"].annotation)
    schema = model.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    named = {info.alias or field: _reference(info) for field, info in model.model_fields.items()}
    fields = tuple(
        _field(field, details, field in required, schema.get("$defs", {}), named[field])
        for field, details in schema["properties"].items()
        if field not in _COMMON_FIELDS
    )
    return OperationKind(name, " ".join((model.__doc__ or "").split()), fields, model)


def _field(
    name: str,
    details: Mapping[str, Any],
    required: bool,
    definitions: Mapping[str, Mapping[str, Any]],
    reference: str | None,
) -> OperationField:
    forms = [_resolved(form, definitions) for form in details.get("anyOf", [details])]
    many = any(form.get("type") == "array" for form in forms)
    texts = [_words(form, definitions) for form in forms if form.get("type") != "null"]
    kind = " or ".join(dict.fromkeys(texts)) or "nothing"
    if reference is not None:
        kind = kind.replace("text", REFERENCES.get(reference, reference), 1)
    if description := details.get("description"):
        kind += f" ({' '.join(description.split())})"
    return OperationField(name, kind, required, details.get("default"), many)


def _reference(field: FieldInfo) -> str | None:
    """What part of the topology the field names (`Refers` in `lab.topology`); None if it names none."""
    found = next(_marks((field.annotation, *field.metadata)), None)
    return found.kind if found else None


def _marks(parts: Iterable[Any]) -> Iterator[Refers]:
    for part in parts:
        if isinstance(part, Refers):
            yield part
        else:
            yield from _marks((*get_args(part), *getattr(part, "__metadata__", ())))


def _resolved(form: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    reference = form.get("$ref")
    return definitions.get(reference.rpartition("/")[2], form) if isinstance(reference, str) else form


def _words(form: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> str:
    form = _resolved(form, definitions)
    if "const" in form:
        return str(form["const"])
    if "enum" in form:
        return f"one of {', '.join(map(str, form['enum']))}"
    match form.get("type"):
        case "array":
            item = form.get("items") or form.get("prefixItems", [{}])[0]
            return f"a list with commas, each {_words(item, definitions)}"
        case "integer" | "number":
            return f"a number{_bounds(form)}"
        case "boolean":
            return "true or false"
        case "object":
            return "an object as JSON"
        case _:
            return "text"


def _bounds(form: Mapping[str, Any]) -> str:
    low, high = form.get("minimum", form.get("exclusiveMinimum")), form.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f", at least {low}" if low is not None else f", at most {high}" if high is not None else ""
