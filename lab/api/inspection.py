"""The whole lab as one JSON object, and conditions on it in JMESPath."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from cucm.errors import UsageError
from lab.api.feed import EventFeed
from lab.running_lab import RunningLab
from lab.status import status_of
from lab.truth import truths_of

MAX_EXPRESSION: Final = 4096


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
        return jmespath.compile(expression)
    except (JMESPathError, RecursionError) as error:
        text = " ".join(str(error).split())[:300]
        mend = "JMESPath: names with `-` need quotes, texts are in '...': phones.SEP000000000001.registered == 'source'"
        raise UsageError(f"the expression cannot be read: {text}", where=expression[:100], mend=mend) from None


def value_of(expression: ParsedResult, document: dict[str, Any]) -> Any:
    """Raises UsageError for one that does not fit the document: a function of the wrong type, say."""
    try:
        return expression.search(document)
    except (JMESPathError, RecursionError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the expression does not fit: {text}", where="JMESPath", mend="look at `cucm-lab inspect`"
        ) from None


def is_true(value: Any) -> bool:
    """As JMESPath has it: false, null, "", [], {} are false; 0 is true there, and false here."""
    return bool(value)


def _node(node: dict[str, Any]) -> dict[str, Any]:
    return node | {"services": {service["name"]: service for service in node["services"]}}
