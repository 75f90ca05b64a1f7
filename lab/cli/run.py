"""`cucm-lab run NAME`: play a story on a lab of its own and say whether it ended as it should."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from cucm.errors import EXIT_NO, EXIT_OK, AddressBusy, EnvironmentProblem, UsageError
from lab.cli.inputs import AUTO, read_network

if TYPE_CHECKING:
    from lab.log_book import LogBook
    from lab.runtime import Lab, LabOptions
    from lab.scenario import Story, StoryResult

DEADLINE_S = 120.0
"""A story takes about a second; one that takes this long hangs."""


EPILOG: Final = """\
The story is played on a lab of its own, which ends with it; what is printed is what happened on its sockets.
examples:
  cucm-lab run migrate --logs
  cucm-lab run ./mine.toml --out out/mine
  cucm-lab run --failures --network auto     # beside another lab
exit codes: 0 ended as it should; 1 not; 2 wrong words, or a story that cannot be read; 3 an address is taken"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="a story of `cucm-lab scenarios`, or a TOML file")
    parser.add_argument("--failures", action="store_true", help="run all failure stories and print a table")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="makes the serial numbers (default 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="leave events, logs, flash and served files here")
    parser.add_argument(
        "--network",
        default="127.0.11.0/24",
        metavar="NET",
        help="a /24 of 127.0.0.0/8, or `auto` for a free one (default %(default)s)",
    )
    parser.add_argument("--logs", action="store_true", help="print the phone's console and the TVS traces afterwards")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 when the story (or every failure story) ended as it should, 1 when not; 128 + N after signal N."""
    if arguments.failures == (arguments.name is not None):
        raise UsageError("give either one NAME or --failures", mend="`cucm-lab scenarios` lists the names")
    if arguments.failures and arguments.logs:
        raise UsageError("--logs is for one story", mend="--out DIR keeps the logs of all")
    with _ending_in_order() as received:
        try:
            told = None if arguments.failures else _story(arguments.name)  # wrong words are told before a busy network
            with _network(arguments.network) as network:
                return _run(arguments, told, network)
        except AddressBusy as busy:
            if AUTO not in (busy.mend or ""):
                busy.mend = f"{busy.mend}; if it is a lab of yours, play beside it: --network {AUTO}"
            raise
        except KeyboardInterrupt:
            if not received:
                raise
            print(f"cucm-lab: ended by {received[0].name}", file=sys.stderr)
            return 128 + received[0]


@contextmanager
def _network(text: str) -> Iterator[IPv4Network]:
    """The one that is named, or (`auto`) one that nobody has, claimed as long as the run lasts. AddressBusy."""
    named = None if text == AUTO else read_network(text)
    from lab.network_claim import NetworkClaim

    wish = Path(tempfile.gettempdir(), f"cucm-lab run {os.getpid()}")
    with NetworkClaim.draw(wish) if named is None else NetworkClaim.take(named) as claim:
        yield claim.network


def _story(name: str) -> tuple[str, Story]:
    from lab.scenario import load_story

    return load_story(name)


def _run(arguments: argparse.Namespace, told: tuple[str, Story] | None, network: IPv4Network) -> int:
    if told is None:
        from lab.cli.failures import run_failures

        return run_failures(arguments, network)
    result = play_and_keep(*told, arguments, network, arguments.out, _Printer(arguments))
    return EXIT_OK if result.ended_as_expected else EXIT_NO


@contextmanager
def _ending_in_order() -> Iterator[list[signal.Signals]]:
    """Let SIGTERM and SIGHUP end a run as Ctrl-C does, with nothing left behind; yields those that came."""
    received: list[signal.Signals] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        signal.raise_signal(signal.SIGINT)

    # a caller that ignores one of them (nohup) has its reasons
    taken = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, interrupt)
    try:
        yield received
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)


class Listener:
    """Hears how a story goes; does nothing by itself."""

    def begin(self, name: str, story: Story) -> None:
        pass

    def watch(self, lab: Lab) -> None:
        pass

    def end(self, result: StoryResult, lab: Lab, book: LogBook, folder: Path | None) -> None:
        pass


def play_and_keep(
    name: str, story: Story, arguments: argparse.Namespace, network: IPv4Network, out: Path | None, listener: Listener
) -> StoryResult:
    """Play one story in a temporary directory; with `out`, leave its folder there."""
    from lab.run_folder import RunFolder
    from lab.runtime import LabOptions
    from lab.temporary_folder import temporary_folder

    with ExitStack() as ending:
        folder = ending.enter_context(RunFolder(out)) if out else None
        directory = ending.enter_context(temporary_folder("cucm-lab-"))
        listener.begin(name, story)
        options = LabOptions(directory, network, arguments.seed)
        result, lab, book = _play(name, story, options, listener, folder)
        if folder:
            folder.keep_flash(lab, "after")
            folder.finish(lab, book, result.as_json())
        listener.end(result, lab, book, out)
    return result


def _play(
    name: str, story: Story, options: LabOptions, listener: Listener, folder: Any
) -> tuple[StoryResult, Lab, LogBook]:
    import asyncio

    from cucm.program import run as run_on_event_loop
    from lab.scenario import play

    def after_act(lab: Lab, number: int) -> None:
        if folder and number == 1:
            folder.keep_flash(lab, "before")

    async def bounded() -> tuple[StoryResult, Lab, LogBook]:
        async with asyncio.timeout(DEADLINE_S):
            return await play(name, story, options, watch=listener.watch, after_act=after_act)

    try:
        return run_on_event_loop(bounded())
    except TimeoutError as error:
        what = f"the story did not end within {DEADLINE_S:.0f} s"
        raise EnvironmentProblem(what, where=name, mend="a busy machine? run it again, alone") from error


class _Printer(Listener):
    """The timeline while it happens, then the verdict; or one JSON object at the end."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._json: bool = arguments.json
        self._logs: bool = arguments.logs

    def begin(self, name: str, story: Story) -> None:
        if not self._json:
            print(f"{name}: {story.title}\n\n{story.teaches}")

    def watch(self, lab: Lab) -> None:
        if not self._json:
            from lab.timeline import Timeline

            timeline = Timeline(lab.topology)
            lab.events.subscribe(lambda record: _print_lines(timeline.lines(record)))

    def end(self, result: StoryResult, lab: Lab, book: LogBook, folder: Path | None) -> None:
        if self._json:
            from lab.cli.frame import print_json

            print_json(result.as_json() | {"events": len(lab.events), "out": str(folder) if folder else None})
            return
        from lab.timeline import log_section, verdict

        if self._logs:
            _print_lines(log_section(book))
        _print_lines(verdict(result))
        if folder:
            print(f"Files of this run: {folder}")


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)
