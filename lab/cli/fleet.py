"""`cucm-lab fleet`: boot as many phones as you have, play a story with them, and report what became of each."""

from __future__ import annotations

import argparse
import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cucm.errors import EXIT_NO, EXIT_OK, UsageError
from lab.cli.inputs import read_network

if TYPE_CHECKING:
    from lab.fleet.exposure import Exposure
    from lab.fleet.queueing import Machines

DEFAULT_CORES: Final = 2


EPILOG: Final = """\
examples:
  cucm-lab fleet --phones 100 --out out/fleet
  cucm-lab fleet --phones 10000 --simulate
exit codes: 0 every phone is where the story takes or leaves it; 1 not; 2 wrong words; 3 the machine lacks something, or
an address is taken; 128 + N ended by signal N (130: Ctrl-C)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("--phones", type=int, required=True, metavar="N", help="how many phones there are")
    parser.add_argument("--story", default="migrate", metavar="S", help="what happens to them (default %(default)s)")
    parser.add_argument("--topology", metavar="T", help="clusters and kinds of phones; default: the story's own")
    parser.add_argument(
        "--concurrency", type=int, default=64, metavar="C", help="phones that boot at once (default %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="processes for phones, beside the servers' one, but no more than boot at once; 0: all in one process "
        "(default: by the number of phones)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="let the workers of a Dask scheduler run the phones, for example tcp://127.0.0.1:8786 (extra: fleet)",
    )
    parser.add_argument(
        "--simulate", action="store_true", help="no phone on sockets: real decisions and clusters in modelled time"
    )
    parser.add_argument("--cores", type=int, metavar="N", help="with --simulate: cores of each node (default 2)")
    parser.add_argument(
        "--one-machine", action="store_true", help="with --simulate: all nodes and phones share these cores"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE",
        help="with --simulate: as fast as in this fleet.json of a run on sockets",
    )
    parser.add_argument("--repair", action="store_true", help="play a failure story's last act, the repair, too")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="makes the serial numbers (default 0)")
    parser.add_argument("--network", default="auto", metavar="NET", help="a /24 for the servers (default: a free one)")
    parser.add_argument(
        "--expose",
        metavar="NET",
        help="the Dask workers are on other machines: the servers are in --network, a private /24 of yours, for all "
        "who reach it, and the phones in parts of this private network (docs/howto/fleets-on-dask.md)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="leave fleet.json and fleet.html here")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 when every phone is where the story takes or leaves it, 1 when not; 128 + N after signal N."""
    from lab.fleet.request import FleetRequest, default_workers

    workers = 0 if arguments.scheduler is not None and arguments.workers is None else arguments.workers
    request = FleetRequest(
        phones=arguments.phones,
        story=arguments.story,
        topology=arguments.topology,
        concurrency=arguments.concurrency,
        workers=default_workers(arguments.phones, os.cpu_count() or 1) if workers is None else workers,
        seed=arguments.seed,
        repair=arguments.repair,
        scheduler=arguments.scheduler,
    )
    machines = _machines(arguments)
    request.check(simulated=machines is not None)
    if arguments.scheduler is not None and arguments.workers is not None:
        raise UsageError("phones run in the workers of the scheduler", where="--workers", mend="leave it out")
    exposure = _exposure(arguments)
    network = None if exposure is not None or arguments.network == "auto" else read_network(arguments.network)
    from lab.fleet.session import FleetSession

    session = FleetSession(
        request,
        network,
        arguments.out,
        as_json=arguments.json,
        machines=machines,
        figures=arguments.figures,
        exposure=exposure,
    )
    result = session.run()
    if session.signal is not None:
        return 128 + session.signal
    return EXIT_OK if result.is_good else EXIT_NO


def _machines(arguments: argparse.Namespace) -> Machines | None:
    """On what a simulation would run; None for a fleet on sockets. Raises UsageError."""
    if not arguments.simulate:
        given_words = (
            ("--cores", arguments.cores is not None),
            ("--one-machine", arguments.one_machine),
            ("--figures", arguments.figures),
        )
        for flag, given in given_words:
            if given:
                raise UsageError("is about simulated machines", where=flag, mend="add --simulate, or leave it out")
        return None
    foreign = (("--workers", arguments.workers is not None), ("--scheduler", arguments.scheduler))
    for flag, given in (*foreign, ("--expose", arguments.expose)):
        if given:
            raise UsageError("a simulation runs in one process", where=flag, mend="leave it out")
    from lab.fleet.queueing import MAX_CORES, Machines

    cores = DEFAULT_CORES if arguments.cores is None else arguments.cores
    if not 1 <= cores <= MAX_CORES:
        raise UsageError(f"{cores} is not between 1 and {MAX_CORES}", where="--cores", mend="give the cores of a node")
    return Machines(cores, arguments.one_machine)


def _exposure(arguments: argparse.Namespace) -> Exposure | None:
    if arguments.expose is None:
        return None
    if arguments.scheduler is None:
        raise UsageError(
            "is for phones on other machines", where="--expose", mend="name the --scheduler of their workers"
        )
    if arguments.network == "auto":
        raise UsageError(
            "needs the servers' network too", where="--expose", mend="for example --network 192.168.11.0/24"
        )
    from lab.fleet.exposure import Exposure

    return Exposure(_any_network("--network", arguments.network), _any_network("--expose", arguments.expose))


def _any_network(where: str, text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise UsageError(str(error), where=where, mend="for example 10.66.0.0/16") from error
