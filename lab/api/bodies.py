"""The JSON object that a request brings: read within bounds, checked, and what is wrong with it told in our words."""

from __future__ import annotations

import asyncio
import json
import math
import re
from http import HTTPStatus
from typing import Any, Final, NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from cucm.errors import EXIT_USAGE, UsageError
from cucm.validation_words import cut, told_of
from lab.api.problems import Problem

BODY_S: Final = 10.0
"""How long a body may take to arrive."""
MAX_DIGITS: Final = 100
"""Of a whole number; no field takes so many."""
_HALF_CHARACTER: Final = re.compile(rb"\\u[dD][89a-fA-F]")

Model = TypeVar("Model", bound=BaseModel)


async def body_of(request: web.Request, model: type[Model]) -> Model:
    """The request's JSON object as `model`. Raises UsageError that names what is wrong."""
    value = await json_of(request)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = [one.alias or name for name, one in model.model_fields.items()]
        mend = f"its fields are {', '.join(fields)}" if fields else "it takes none: send {} or nothing"
        raise UsageError(told_of(error, fields, whole="the body"), where=request.path, mend=mend) from None


async def json_of(request: web.Request) -> dict[str, Any]:
    """The request's JSON object; {} for no body at all. Raises UsageError, Problem when it does not come."""
    try:
        async with asyncio.timeout(BODY_S):
            data = await request.read()
    except TimeoutError:
        what = f"the body did not come within {BODY_S:g} s"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, what, mend="send it at once", exit_code=EXIT_USAGE) from None
    if not data:
        return {}
    value = _parsed(data, request.path)
    if not isinstance(value, dict):
        raise UsageError(
            "the body is no JSON object", where=request.path, mend='send one, for example {"name": "before"}'
        )
    return value


class _NoNumber(ValueError):
    """It is written as Python or a calculator would, or larger than any field may be."""


def _parsed(data: bytes, path: str) -> Any:
    try:
        value = json.loads(data.decode(), parse_int=_whole, parse_float=_finite, parse_constant=_refused)
        if _HALF_CHARACTER.search(data):
            json.dumps(value, ensure_ascii=False).encode()  # two halves are a character, one is no text
    except json.JSONDecodeError as error:
        what, where = f"the body is no JSON: {error.msg}", f"{path}, line {error.lineno}, column {error.colno}"
        raise UsageError(what, where=where, mend="send one JSON object") from None
    except _NoNumber as error:
        raise UsageError(str(error), where=path, mend="send numbers as JSON has them, of a size with a use") from None
    except UnicodeDecodeError as error:
        where = f"{path}, byte {error.start}"
        raise UsageError("the body is no text in UTF-8", where=where, mend="send it in UTF-8") from None
    except UnicodeEncodeError:
        what = "a text in the body has half a character (\\ud800 to \\udfff)"
        raise UsageError(what, where=path, mend="send both halves, or the character itself") from None
    except RecursionError:
        raise UsageError("the body is nested too deep", where=path, mend="send one JSON object") from None
    return value


def _whole(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > MAX_DIGITS:
        raise _NoNumber(f"a number in the body has {digits} digits")
    return int(text)


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise _NoNumber(f"{cut(text)} in the body is larger than a number may be")
    return value


def _refused(name: str) -> NoReturn:
    raise _NoNumber(f"{name} in the body is no number of JSON's")
