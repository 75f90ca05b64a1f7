"""`cucm-lab op NAME field=value ...`: do something to a running lab, as a story's step does."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.operation_words import OperationKind

EPILOG: Final = """\
`cucm-lab op --list` names all operations, `cucm-lab op NAME --help` explains the fields of one, in text; for programs
`cucm-lab op --list --json` has all fields of all.
examples:
  cucm-lab op boot-phone phone=SEPB000B4BA0AEE
  cucm-lab op upload-certificate certificate=CallManager from=destination to=source \\
      stores=CallManager-trust,Phone-SAST-trust
exit codes: 0 done; 1 the emulated system refused; 2 wrong words; 3 no lab is running"""
HELP_WIDTH: Final = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="the operation, as in a story's `do`")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="its fields; several values with commas")
    parser.add_argument("--list", action="store_true", help="name all operations")
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this, or with NAME what that operation takes")
    add_directory(parser)


class _Help(argparse.Action):
    """Help on the operation named before it, else on the command."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object, **__: object
    ) -> None:
        name = getattr(namespace, "name", None)
        if name is None:
            parser.print_help()
        else:
            from lab.operation_words import operation_kind

            print("\n".join(help_lines(operation_kind(name))))
        parser.exit()


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import UsageError

    if arguments.list:
        return _list(arguments)
    if arguments.name is None:
        raise UsageError("no operation is named", mend="`cucm-lab op --list` names them all")
    return _perform(arguments)


def _list(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from lab.cli.frame import print_json
    from lab.operation_words import operation_kinds

    kinds = operation_kinds().values()
    if arguments.json:
        print_json({"operations": [kind.as_json() for kind in kinds]})
    else:
        print("\n".join(kind.usage for kind in kinds))
    return EXIT_OK


def _perform(arguments: argparse.Namespace) -> int:
    from lab.cli.running import client
    from lab.operation_words import operation_from_words

    operation = operation_from_words(arguments.name, arguments.fields)
    return tell(client(arguments).perform(operation), as_json=arguments.json)


def tell(answer: dict[str, Any], *, as_json: bool) -> int:
    """What was done and what came of it; the exit code it stands for."""
    from cucm.errors import EXIT_OK
    from cucm.render.text import printable
    from lab.cli.frame import print_json

    if as_json:
        print_json({name: value for name, value in answer.items() if name != "schema"})
    else:
        print("\n".join(printable(line) for line in lines(answer)))
    return EXIT_OK


def lines(answer: dict[str, Any]) -> list[str]:
    """What was done, then what came of it, in seconds since."""
    told = answer["timeline"]
    if not told:
        return [answer["says"]]
    began = told[0]["time"]
    timeline = [f"{one['time'] - began:8.3f}  {one['source']:<28} {one['text']}" for one in told]
    if not answer["left_out"]:
        return timeline
    return [answer["says"], f"... {answer['left_out']} lines left out: `cucm-lab events` has them", *timeline]


def help_lines(kind: OperationKind) -> list[str]:
    """Usage, what it does, and what each field takes."""
    import textwrap

    lines = [f"usage: cucm-lab op {kind.usage}"]
    if kind.description:
        lines += ["", *textwrap.wrap(kind.description, HELP_WIDTH)]
    if kind.fields:
        lines += ["", "fields:"]
    width = max((len(field.name) for field in kind.fields), default=0)
    for field in kind.fields:
        default = "" if field.required else f"; default {_default(field.default)}"
        text = f"  {field.name:<{width}}  {field.kind}{default}"
        lines += textwrap.wrap(text, HELP_WIDTH, subsequent_indent=" " * (width + 4), break_on_hyphens=False)
    return [
        *lines,
        "",
        "every operation also takes note=... (a remark) and refused=... (words of the refusal that is expected)",
    ]


def _default(value: Any) -> str:
    match value:
        case None | "":
            return "none"
        case bool():
            return str(value).lower()
        case list():
            return ",".join(map(str, value)) or "none"
        case _:
            return str(value)
