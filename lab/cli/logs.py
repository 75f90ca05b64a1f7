"""`cucm-lab logs`: the logs of a running lab's machines, as an engineer finds them there."""

from __future__ import annotations

import argparse
from typing import Final

EPILOG: Final = """\
Without NAME the names there are. A phone's or a node's name will do where the form is said.
examples:
  cucm-lab logs SEPB000B4BA0AEE                 # the phone's console
  cucm-lab logs ucm105pub --as tvs --follow     # TVS's detailed trace, as it is written
  cucm-lab logs ucm105pub --as plain            # everything on that node, in plain words
exit codes: 0 told; 2 there is no such log; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from cucm.arguments import whole_number
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="a log, a phone or a node")
    parser.add_argument("--as", dest="form", choices=("console", "tvs", "tftp", "plain"), help="the form of its lines")
    parser.add_argument("--tail", type=whole_number(0, 100_000), default=1000, metavar="N", help="default %(default)s")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C or the lab's end")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from lab.cli.frame import print_json
    from lab.cli.running import client

    lab = client(arguments)
    if arguments.name is None:
        names = lab.get("logs")["logs"]
        if arguments.json:
            print_json({"logs": names})
        else:
            print("\n".join(names))
        return EXIT_OK
    answer = lab.get("logs", arguments.name, **{"as": arguments.form, "tail": str(arguments.tail)})
    if arguments.json and not arguments.follow:
        print_json({name: value for name, value in answer.items() if name != "schema"})
        return EXIT_OK
    for line in answer["lines"]:
        _print(line, as_json=arguments.json)
    if arguments.follow:
        more = {"as": arguments.form, "after": str(answer["next"])}
        with lab.stream("logs", arguments.name, "stream", **more) as events:
            for event in events:
                _print(event.data, as_json=arguments.json)
    return EXIT_OK


def _print(line: str, *, as_json: bool) -> None:
    import json

    from cucm.render.text import printable

    print(json.dumps({"line": line}) if as_json else printable(line), flush=True)
