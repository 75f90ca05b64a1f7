"""`cucm-lab sql CLUSTER[/NODE] "select ..."`: the database of a running lab's node, as `run sql` on a real one."""

from __future__ import annotations

import argparse
from typing import Any, Final

EPILOG: Final = """\
Without NODE the publisher's database is read. --write takes one INSERT, UPDATE or DELETE; write on the publisher, it
replicates.
examples:
  cucm-lab sql source "select paramname,paramvalue from processconfig where paramname='ClusterSecurityMode'"
  cucm-lab sql source/ucm105pub "select servername,subjectname from certificate"
exit codes: 0 done; 1 refused; 2 wrong words or wrong SQL; 3 no lab is running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument("place", metavar="CLUSTER[/NODE]", help="whose database; without NODE the publisher's")
    parser.add_argument("sql", metavar="SQL", help="one statement, quoted for the shell")
    parser.add_argument("--write", action="store_true", help="the statement changes rows")
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from lab.api.client import cluster_and_node
    from lab.cli.frame import print_json
    from lab.cli.running import client

    cluster, node = cluster_and_node(arguments.place)
    body = {"cluster": cluster, "node": node, "sql": arguments.sql, "write": arguments.write}
    answer = client(arguments).post("sql", body=body)
    if arguments.json:
        print_json({name: value for name, value in answer.items() if name != "schema"})
    elif arguments.write:
        print(f"{_count(answer['changed'])} changed")
    else:
        print("\n".join(_lines(answer)))
    return EXIT_OK


def _lines(answer: dict[str, Any]) -> list[str]:
    from lab.cli.running import table

    rows = [[_cell(cell) for cell in row] for row in answer["rows"]]
    return [*table(answer["columns"], rows), "", _count(len(rows))]


def _cell(value: Any) -> str:
    return "NULL" if value is None else str(value)


def _count(number: int) -> str:
    return f"{number} row{'' if number == 1 else 's'}"
