"""The OpenAPI description, made of the table that serves the requests: it cannot say anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lab.api.problems import MEDIA_TYPE
from lab.api.routes import EVENT_STREAM, JSON, Route
from lab.operation_words import operation_kinds

_PART: Final = re.compile(r"\{(\w+)\}")
_REFERENCE: Final = "#/components/schemas/{model}"
OPERATION: Final = "Operation"
PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "where", "mend", "exit_code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "where": {"type": ["string", "null"]},
        "mend": {"type": ["string", "null"], "description": "how to mend it"},
        "exit_code": {"type": "integer", "description": "what the command line ends with"},
    },
}


def openapi_of(routes: Sequence[Route]) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.full_path, {})[route.method.lower()] = _described(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CUCM migration lab",
            "version": version("cucm-migration-lab"),
            "description": "An emulated lab of CUCM clusters and phones. Certificates and keys in it are toys.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "where the API is bound to other than loopback addresses (`up --expose`)",
                }
            },
        },
    }


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    kinds = operation_kinds()
    told = dict.fromkeys(model for route in routes for model in (route.answer, route.body) if model is not None)
    described = [(model, _mode(model, routes)) for model in told]
    described += [(kind.model, "validation") for kind in kinds.values()]
    references, made = models_json_schema(described, by_alias=True, ref_template=_REFERENCE)
    forms = {name: references[kind.model, "validation"] for name, kind in kinds.items()}
    mapping = {name: form["$ref"] for name, form in forms.items()}
    operation = {"oneOf": list(forms.values()), "discriminator": {"propertyName": "do", "mapping": mapping}}
    return {**made.get("$defs", {}), "Problem": PROBLEM, OPERATION: operation}


def _mode(model: type[BaseModel], routes: Sequence[Route]) -> Any:
    return "serialization" if any(model is route.answer for route in routes) else "validation"


def _described(route: Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {
            str(route.status.value): {"description": "done", "content": {route.media: {"schema": _answer(route)}}},
            "default": {
                "description": "a problem document",
                "content": {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
            },
        },
    }
    if route.body is not None:
        schema = {"$ref": _REFERENCE.format(model=route.body.__name__)}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return described


def _answer(route: Route) -> dict[str, Any]:
    if route.answer is not None:
        return {"$ref": _REFERENCE.format(model=route.answer.__name__)}
    if route.media == EVENT_STREAM:
        return {"type": "string", "description": "server-sent events"}
    if route.media == JSON:
        return {"type": "object"}
    return {"type": "string", "format": "binary"}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "description": what, "schema": {"type": "string"}}
        for name, what in route.query.items()
    ]


def _identifier(route: Route) -> str:
    """`get_clusters_cluster`: unique, and a name in any language."""
    words = re.sub(r"\W+", "_", route.path).strip("_") or "overview"
    return f"{route.method.lower()}_{words}"
