"""`cucm-lab events`: what really happened in a running lab, one typed event after the other."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.api.client import ApiClient

PAGE: Final = "1000"
EPILOG: Final = """\
examples:
  cucm-lab events --kind 'tvs.*' --follow
  cucm-lab events --source 'phone:SEPB000B4BA0AEE' --json | jq .kind
With --json one JSON object on each line (schema, sequence, time, source, kind and the event's own fields).
exit codes: 0 told; 2 wrong words; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("--kind", metavar="PATTERN", help="only events of these kinds: 'phone.*'")
    parser.add_argument("--source", metavar="PATTERN", help="only of these parts: 'tvs:*'")
    parser.add_argument("--after", metavar="ID", help="only those behind the event with this id")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C or the lab's end")
    parser.add_argument("--json", action="store_true", help="one JSON object on each line")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from lab.cli.running import client

    lab = client(arguments)
    after = arguments.after
    for following, events in _pages(lab, arguments):
        after = following
        for event in events:
            _print(event, as_json=arguments.json)
    if arguments.follow:
        with lab.stream("events", "stream", kind=arguments.kind, source=arguments.source, after=after) as told:
            for one in told:
                if one.kind not in ("snapshot", "gap"):
                    _print(json.loads(one.data), as_json=arguments.json)
    return EXIT_OK


def _pages(lab: ApiClient, arguments: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What is kept now, page by page, each with the id to go on after."""
    after = arguments.after
    while True:
        page = lab.get("events", kind=arguments.kind, source=arguments.source, after=after, limit=PAGE)
        yield page["next"], page["events"]
        if not page["events"]:
            return
        after = page["next"]


def _print(event: dict[str, Any], *, as_json: bool) -> None:
    from datetime import UTC, datetime

    from cucm.render.text import printable

    if as_json:
        print(json.dumps(event, ensure_ascii=False), flush=True)
        return
    head = ("schema", "sequence", "time", "source", "kind")
    moment = datetime.fromtimestamp(event["time"], UTC)
    fields = " ".join(f"{name}={_short(value)}" for name, value in event.items() if name not in head)
    line = f"{event['sequence']:>6} {moment:%H:%M:%S.%f} {event['source']:<26} {event['kind']} {fields}"
    print(printable(line.rstrip()), flush=True)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
