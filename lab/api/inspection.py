"""The whole lab as one JSON object, and conditions on it in JMESPath."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.parser import ParsedResult
from jmespath.visitor import TreeInterpreter

from cucm.errors import UsageError
from lab.api.feed import EventFeed
from lab.running_lab import RunningLab
from lab.status import status_of
from lab.truth import truths_of

MAX_EXPRESSION: Final = 4096
MAX_WORK: Final = 2_000_000
"""Steps of an expression and parts of the values it makes, in all: `[@,@]|[@,@]|...` doubles with every six letters."""
_LETTERS_A_PART: Final = 16
LASTS_S: Final = 0.2
"""How long a document is looked at again when nothing has happened."""
COST_FACTOR: Final = 4
"""A document is looked at for so many times as long as it took to make it, whatever happens."""


def inspect(running: RunningLab, feed: EventFeed) -> dict[str, Any]:
    """Everything by name, so that a path leads to each thing. Raises DatabaseError."""
    lab = running.lab
    status = status_of(lab)
    truths = truths_of(lab)
    return {
        "title": status["title"],
        "ready": running.is_ready,
        "network": status["network"],
        "clusters": {
            cluster["name"]: cluster | {"nodes": {node["name"]: _node(node) for node in cluster["nodes"]}}
            for cluster in status["clusters"]
        },
        "phones": {
            phone["name"]: {name: value for name, value in phone.items() if name != "registered"}
            | truths[phone["name"]].as_json()
            for phone in status["phones"]
        },
        "dhcp": status["dhcp"],
        "sftp": status["sftp"],
        "faults": {fault.fault.id: fault.as_json() for fault in lab.faults},
        "clock": clock_of(running),
        "events": dict(feed.counts),
        "checkpoints": [one.name for one in running.checkpoints()],
    }


class Documents:
    """The document for all who wait: made anew for each look it would cost a large lab all its time."""

    def __init__(self, running: RunningLab, feed: EventFeed) -> None:
        self._running = running
        self._feed = feed
        self._document: dict[str, Any] = {}
        self._made_at = float("-inf")
        self._cost_s = 0.0
        self._position = -1

    def since(self, moment: float) -> dict[str, Any]:
        """Made after `moment` (of `time.monotonic`) and while the lab was whole. Raises DatabaseError."""
        age = time.monotonic() - self._made_at
        lasts = max(LASTS_S if self._position == self._feed.position else 0.0, COST_FACTOR * self._cost_s)
        if self._made_at < moment or age > lasts:
            began = time.monotonic()
            self._position = self._feed.position
            self._document = inspect(self._running, self._feed)
            self._made_at = time.monotonic()
            self._cost_s = self._made_at - began
        return self._document


def clock_of(running: RunningLab) -> dict[str, Any]:
    """The lab's date."""
    now = running.clock.now()
    return {
        "now": round(now, 3),
        "date": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "moved_s": round(running.clock.moved_s, 3),
    }


def compiled(expression: str) -> ParsedResult:
    """Raises UsageError with the place of what is wrong."""
    if len(expression) > MAX_EXPRESSION:
        raise UsageError(f"an expression of {len(expression)} characters", mend=f"use at most {MAX_EXPRESSION}")
    try:
        with warnings.catch_warnings():  # of old ways to write a literal
            warnings.simplefilter("ignore")
            return jmespath.compile(expression)
    except (JMESPathError, RecursionError) as error:
        text = " ".join(str(error).split())[:300]
        mend = "JMESPath: names with `-` need quotes, texts are in '...': phones.SEP000000000001.registered == 'source'"
        raise UsageError(f"the expression cannot be read: {text}", where=expression[:100], mend=mend) from None


def value_of(expression: ParsedResult, document: dict[str, Any]) -> Any:
    """Raises UsageError for one that does not fit the document (a function of the wrong type), or costs too much."""
    try:
        value = _BoundedInterpreter().visit(expression.parsed, document)
        json.dumps(value, allow_nan=False)  # an expression reference (&name) is a value to functions only
    except (JMESPathError, RecursionError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the expression does not fit: {text}", where="JMESPath", mend="look at `cucm-lab inspect`"
        ) from None
    return value


class _Work:
    """What an evaluation may still cost."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise ValueError(f"it takes more than {MAX_WORK} steps")

    def pay_for(self, value: Any) -> None:
        """For all its parts; one that is there twice is two."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            self.spend(1 + (len(one) // _LETTERS_A_PART if isinstance(one, str) else 0))
            if isinstance(one, dict):
                waiting += one.values()
            elif isinstance(one, list):
                waiting += one


class _BoundedInterpreter(TreeInterpreter):
    """Ends an expression that would keep the lab from everything else. For one evaluation."""

    def __init__(self) -> None:
        self._work = _Work()
        super().__init__(jmespath.Options(custom_functions=_BoundedFunctions(self._work)))

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._work.spend(1)
        value = super().visit(node, *args, **kwargs)
        if node["type"] in _MAKING:
            self._work.pay_for(value)
        return value


class _BoundedFunctions(Functions):
    """They look at all of what they are given."""

    def __init__(self, work: _Work) -> None:
        self._work = work

    def call_function(self, function_name: str, resolved_args: Iterable[Any]) -> Any:
        given = list(resolved_args)
        self._work.pay_for(given)
        return super().call_function(function_name, given)


_MAKING: Final = frozenset({"multi_select_list", "multi_select_dict", "flatten", "function_expression"})
"""Kinds of nodes whose value is no part of what was there before."""


def is_true(value: Any) -> bool:
    """As JMESPath has it: false, null, "", [], {} are false; 0 is true there, and false here."""
    return bool(value)


def _node(node: dict[str, Any]) -> dict[str, Any]:
    return node | {"services": {service["name"]: service for service in node["services"]}}
