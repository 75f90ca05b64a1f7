"""`docs/api.md`, made of the API's own description: `python -m lab.api.page > docs/api.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lab.api.openapi import OPERATION
from lab.api.server import ApiServer
from lab.lab_folder import KeptClock
from lab.running_lab import RunningLab
from lab.runtime import Lab, LabOptions
from lab.topology import load_topology

INTRODUCTION: Final = Path(__file__).with_name("page.md")
"""What no description tells: where the API is, who may ask, streams and waiting."""
_NOWHERE: Final = Path("no-lab")

Object = Mapping[str, Any]


def document() -> dict[str, Any]:
    """The description as every lab serves it. No lab is started, and no file touched."""
    lab = Lab(load_topology("two-clusters"), LabOptions(_NOWHERE))
    return ApiServer(RunningLab(lab, KeptClock(_NOWHERE / "clock.json"))).description()


def page_of(described: Object) -> str:
    """The page in Markdown."""
    lines = [INTRODUCTION.read_text(encoding="utf-8").rstrip(), "", "## Resources", ""]
    lines += ["| | what | query | body | answer |", "|---|---|---|---|---|", *_resource_lines(described)]
    lines += ["", "## JSON", "", *_schema_lines(_named_by(described["paths"], described["components"]["schemas"]))]
    return "\n".join(lines).rstrip() + "\n"


def _resource_lines(described: Object) -> Iterator[str]:
    for path, methods in sorted(described["paths"].items()):
        for method, one in methods.items():
            query = ", ".join(f"`{each['name']}`" for each in one["parameters"] if each["in"] == "query")
            body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            status, response = next(iter(one["responses"].items()))
            media, content = next(iter(response["content"].items()))
            answer = _type_of(content["schema"]) if media == "application/json" else f"`{media}`"
            cells = [f"`{method.upper()} {path}`", one["summary"], query, _type_of(body) if body else ""]
            yield _row([*cells, answer if status == "200" else f"{status}: {answer}"])


def _named_by(value: Any, schemas: Object) -> dict[str, Any]:
    """The schemas that it refers to, and those that these refer to; operations have a list of their own."""
    found: dict[str, Any] = {}
    waiting = [value]
    while waiting:
        match waiting.pop():
            case {"$ref": str(reference)} if (name := reference.rpartition("/")[2]) not in {*found, OPERATION}:
                found[name] = schemas[name]
                waiting.append(schemas[name])
            case dict(members):
                waiting += members.values()
            case list(items):
                waiting += items
    return found


def _schema_lines(schemas: Object) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield from (f"### {name}", "")
        if text := schema.get("description"):
            yield from (" ".join(text.split()), "")
        if members := schema.get("properties"):
            yield from ("| member | type | what |", "|---|---|---|")
            needed = schema.get("required", ())
            for member, one in members.items():
                optional = "" if member in needed else " (optional)"
                yield _row([f"`{member}`{optional}", _type_of(one), one.get("description", "")])
        else:
            yield _type_of(schema)
        yield ""


def _type_of(schema: Object) -> str:
    """In words."""
    match schema:
        case {"$ref": reference}:
            name = str(reference).rpartition("/")[2]
            return f"[{name}](#{name.lower()})" if name != OPERATION else "an operation: `GET /v1/operations`"
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"anyOf": forms}:
            return " or ".join(map(_type_of, forms))
        case {"type": "array", "items": items}:
            return f"list of {_type_of(items)}"
        case {"type": "object", "additionalProperties": dict(values)} if values:
            return f"object of {_type_of(values)}"
        case {"type": [*kinds]}:
            return " or ".join(map(str, kinds))
        case {"type": kind}:
            return str(kind) + _bounds(schema)
        case _:
            return "any"


def _bounds(schema: Object) -> str:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if low is None and high is None:
        return ""
    return f" from {low}" if high is None else f" up to {high}" if low is None else f" from {low} to {high}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


if __name__ == "__main__":
    sys.stdout.write(page_of(document()))
