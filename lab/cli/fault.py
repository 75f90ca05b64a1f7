"""`cucm-lab fault`: set, list and end faults of a running lab, and the reference of all there are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from cucm.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from cucm.faults import FaultPoint

EPILOG: Final = """\
docs/faults.md has an example of everything that can be broken.
examples:
  cucm-lab fault points                 # all points and actions; with a POINT, what it takes
  cucm-lab fault set tvs.response drop match.node=ucm105pub times=1
  cucm-lab fault set tvs.response delay seconds=2 id=slow must_fire=true
  cucm-lab fault list
  cucm-lab fault end slow
words: match.FIELD=PATTERN; of the rule id= skip= times= every= probability= seed= must_fire=; others of the action
exit codes: 0 done; 1 the lab refused, or a fault that ended should have hit and did not; 2 wrong words; 3 no lab"""

_OF_THE_RULE: Final = ("id", "skip", "times", "every", "probability", "seed", "must_fire")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("verb", nargs="?", choices=("set", "list", "end", "points"), help="what to do")
    parser.add_argument("words", nargs="*", metavar="WORD", help="set: POINT ACTION [field=value ...]; end: ID")
    parser.add_argument("--all", action="store_true", help="with end: every fault in force")
    parser.add_argument("--markdown", action="store_true", help="print docs/faults.md")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.markdown:
        return _print_page()
    match arguments.verb:
        case "set":
            return _set(arguments)
        case "list":
            return _list(arguments)
        case "end":
            return _end(arguments)
        case "points":
            return _print_points(arguments)
    raise UsageError("say `set`, `list`, `end` or `points`", mend="`cucm-lab fault --help` shows examples")


# --- the reference


def _print_page() -> int:
    from cucm.faults.catalogue import POINTS
    from lab.fault_examples import fault_examples
    from lab.fault_page import faults_page

    print(faults_page(POINTS, fault_examples()), end="")
    return EXIT_OK


def _print_points(arguments: argparse.Namespace) -> int:
    from cucm.faults.catalogue import POINTS, fault_point
    from lab.cli.frame import print_json

    chosen = [fault_point(name) for name in arguments.words] or list(POINTS.values())
    if arguments.json:
        print_json({"points": [point.as_json() for point in chosen]})
    for point in () if arguments.json else chosen:
        print("\n".join(_point_lines(point, in_full=bool(arguments.words))))
    return EXIT_OK


def _point_lines(point: FaultPoint, *, in_full: bool) -> Iterator[str]:
    yield f"{point.name} ({'state' if point.is_state else 'request'}): {point.description}"
    if in_full:
        yield from (f"  match.{name}=...  {what}" for name, what in point.match.items())
    for action in point.actions:
        yield " ".join([f"  {action.name}", *(f"[{name}=...]" for name in action.model_fields)])
        if in_full:
            yield f"      {action.describe()}"
            for name, field in action.model_fields.items():
                yield f"      {name}: {field.description}; default {field.get_default()}"


# --- a running lab


def _set(arguments: argparse.Namespace) -> int:
    from cucm.faults.rules import fault_of
    from lab.cli.frame import print_json
    from lab.cli.running import client

    if len(arguments.words) < 2:
        raise UsageError("`set` needs a point and an action", mend="cucm-lab fault set tvs.response drop times=1")
    point, action, *words = arguments.words
    rule = rule_of(point, action, words)
    fault_of(rule)
    answer = client(arguments).post("faults", body=rule)
    if arguments.json:
        print_json({"fault": answer["fault"]})
    else:
        print(f"{answer['fault']['id']} is in force")
    return EXIT_OK


def rule_of(point: str, action: str, words: Sequence[str]) -> dict[str, Any]:
    """A fault's JSON from `field=value` words. Raises UsageError for a word that is none, or is given twice."""
    rule: dict[str, Any] = {"point": point, "action": action, "match": {}, "attributes": {}}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is not field=value", where="fault", mend="for example times=1")
        target, key = _place(rule, name)
        if key in target:
            raise UsageError(f"{name!r} is given twice", where="fault", mend="give it once")
        target[key] = text if target is rule["match"] else _value(text)
    return rule


def _place(rule: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    if name.startswith("match."):
        return rule["match"], name.removeprefix("match.")
    return (rule, name) if name in _OF_THE_RULE else (rule["attributes"], name)


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself; several with commas become a list where they are no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.split(",") if "," in text else text


def _list(arguments: argparse.Namespace) -> int:
    from lab.cli.frame import print_json
    from lab.cli.running import client, table

    faults = client(arguments).get("faults")["faults"]
    if arguments.json:
        print_json({"faults": faults})
    elif not faults:
        print("no fault is in force")
    else:
        rows = [
            [one["id"], one["point"], one["action"], _fields(one["match"]), str(one["hits"]), str(one["seen"])]
            for one in faults
        ]
        print("\n".join(table(["id", "point", "action", "match", "hits", "seen"], rows)))
    return EXIT_OK


def _fields(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _end(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_NO
    from lab.cli.frame import print_json
    from lab.cli.running import client

    if bool(arguments.words) is arguments.all or len(arguments.words) > 1:
        raise UsageError("`end` needs the id of one fault, or --all", mend="`cucm-lab fault list` shows them")
    lab = client(arguments)
    ended = lab.delete("faults")["faults"] if arguments.all else [lab.delete("faults", arguments.words[0])["fault"]]
    missed = [one["id"] for one in ended if one["must_fire"] and not one["hits"]]
    if arguments.json:
        print_json({"faults": ended, "missed": missed})
    else:
        for one in ended:
            print(f"{one['id']} ended after {one['hits']} hit{'' if one['hits'] == 1 else 's'}")
        for name in missed:
            print(f"{name} should have hit, and did not")
    return EXIT_NO if missed else EXIT_OK
