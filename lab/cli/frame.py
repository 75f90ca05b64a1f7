"""What all `cucm-lab` commands share: the registry, the arguments, how errors are told, the exit code.

A command is a module with `add_arguments(parser)` and `run(arguments) -> exit code`. The module is imported only when
its command is asked for, so that `cucm-lab --help` costs little more than a bare interpreter. Commands raise the
classes of `cucm.errors`; this module turns them into words and exit codes (0 yes, 1 no or bad, 2 the user's words,
3 the machine). `--json` and `--debug` are given to every command.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, NoReturn

from cucm.errors import EXIT_NO, EXIT_OK, EXIT_USAGE, LabError, UsageError
from cucm.quiet_start import EXIT_INTERRUPTED
from lab.cli.help_text import HelpFormatter

PROGRAM: Final = "cucm-lab"
JSON_SCHEMA: Final = 1
OBJECTS_OF_A_START: Final = 200_000
"""More than the imports of any command leave; the collector waits for so many, and then works as ever."""
EXIT_BROKEN_PIPE: Final = 141
"""128 + SIGPIPE, what a shell reports for a program that wrote to a pipe nobody reads."""


class Subcommand(NamedTuple):
    name: str
    summary: str
    module: str


SUBCOMMANDS: Final = (
    Subcommand("scenarios", "list the stories the lab can run", "lab.cli.scenarios"),
    Subcommand("run", "run a story: two clusters, a phone and its migration, on real sockets", "lab.cli.run"),
    Subcommand("validate", "check a story or a topology of yours without running it", "lab.cli.validate"),
    Subcommand("fleet", "run a story with as many phones as you have, and report on each", "lab.cli.fleet"),
    Subcommand("up", "run a lab that stays, for other programs and other terminals", "lab.cli.up"),
    Subcommand("exec", "run a command in a network of its own, with the lab at its real addresses", "lab.cli.exec"),
    Subcommand("down", "end a running lab", "lab.cli.down"),
    Subcommand("status", "say what runs where in a running lab", "lab.cli.status"),
    Subcommand("phone", "boot, reset or erase phones of a running lab", "lab.cli.phone"),
    Subcommand("op", "do something to a running lab, as a story's step does", "lab.cli.op"),
    Subcommand("fault", "break something in a running lab on purpose, or say what can be broken", "lab.cli.fault"),
    Subcommand("wait", "come back when something is true of a running lab", "lab.cli.wait"),
    Subcommand("checkpoint", "keep the state of a running lab", "lab.cli.checkpoint"),
    Subcommand("restore", "take a running lab back to a kept state", "lab.cli.restore"),
    Subcommand("reset", "take a running lab back to how it began", "lab.cli.reset"),
    Subcommand("clock", "tell or move the date of a running lab", "lab.cli.clock"),
    Subcommand("logs", "show the logs of a running lab's machines", "lab.cli.logs"),
    Subcommand("events", "show what happened in a running lab, event by event", "lab.cli.events"),
    Subcommand("inspect", "print the whole state of a running lab, or a part of it, as JSON", "lab.cli.inspect"),
    Subcommand("truth", "tell what phones really hold and where they are registered", "lab.cli.truth"),
    Subcommand("certificates", "list, show or download certificates of a running lab", "lab.cli.certificates"),
    Subcommand("sql", "read (or write) the database of a running lab's node", "lab.cli.sql"),
    Subcommand("show", "print a CTL or ITL as CUCM's own command line does, or a phone's screens", "lab.cli.show"),
    Subcommand("verify", "say whether a phone that holds given lists would accept a file", "lab.cli.verify"),
    Subcommand("tvs", "ask any TVS for a certificate, or whether one is good", "lab.cli.tvs"),
    Subcommand("decode", "explain a TVS message from hex or from a pasted trace", "lab.cli.decode"),
    Subcommand("doctor", "say what this machine can do, and how to mend what it cannot", "lab.cli.doctor"),
)

EPILOG: Final = """\
`cucm-lab COMMAND --help` explains a command, in text; every one takes --json.
exit codes: 0 yes or done; 1 it ran and the answer is no, or the file is bad; 2 wrong words; 3 the machine or the
network lacks something. Certificates and keys of the lab are toys: never use them elsewhere."""


_WRONG_CHOICE: Final = re.compile(
    r"argument (?P<what>.*?): invalid choice: '(?P<word>.*)' \(choose from (?P<known>.*)\)"
)
RUNS_A_COMMAND: Final = "runs_a_command"
"""The default of a parser whose last words are a command of the user's."""


class Parser(argparse.ArgumentParser):
    """argparse that raises `UsageError` instead of leaving the process, and knows what was meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options are looked at first, but for those of a subcommand: what is missing is often what was misspelt."""
        if self._subparsers is None:
            self._require_known_options(list(args or ()))
        return super().parse_known_args(args, namespace)

    def _require_known_options(self, words: list[str]) -> None:
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        own = self._own_words(words)
        for word in words[own:]:
            if word.startswith("-"):
                raise UsageError(f"{word!r} stands behind a command", mend=f"put `--` before {words[own]}")
        for word in words[: words.index("--")] if "--" in words else words[:own]:
            option = word.partition("=")[0]
            if option.startswith("--") and " " not in word and option not in known:  # a space: SQL with a comment
                raise UsageError(f"there is no option {option!r}", mend=self._meant(option, known))

    def _own_words(self, words: list[str]) -> int:
        """How many are options of this program and their values, where the rest is another's command (`exec`)."""
        if not self.get_default(RUNS_A_COMMAND) or "--" in words:
            return len(words)
        is_value = False
        for place, word in enumerate(words):
            if not is_value and not word.startswith("-"):
                return place
            action = self._option_string_actions.get(word)
            is_value = not is_value and action is not None and action.nargs != 0
        return len(words)

    def error(self, message: str) -> NoReturn:
        wrong = _WRONG_CHOICE.fullmatch(message)
        if wrong is None:
            raise UsageError(message, mend=f"`{self.prog} --help` lists the words it takes")
        known = re.findall(r"[^\s,']+", wrong["known"])
        what = f"there is no {wrong['word']!r}"
        raise UsageError(what, where=wrong["what"], mend=self._meant(wrong["word"], known, or_else=", ".join(known)))

    def _meant(self, word: str, known: Sequence[str], *, or_else: str = "") -> str:
        from difflib import get_close_matches

        near = get_close_matches(word, known, n=1)
        if near:
            return f"did you mean {near[0]}?"
        return f"use {or_else}" if or_else else f"`{self.prog} --help` lists the words it takes"


def _tell_version(*, as_json: bool) -> int:
    """Read from the installed distribution only when it is asked for."""
    from importlib.metadata import version

    number = version("cucm-migration-lab")
    if as_json:
        print_json({"program": PROGRAM, "version": number})
    else:
        print(PROGRAM, number)
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code; never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _seldom_collecting():
        return _main(words)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """What is imported stays for the life of the process, so looking for garbage in it is an eighth of the start.

    `cucm.program.run` sets the usual pace again, for commands that go on with an event loop.
    """
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS_OF_A_START)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _main(words: list[str]) -> int:
    _open_closed_streams()
    _print_anything(sys.stdout)
    _print_anything(sys.stderr)
    as_json, debug = _asks_for(words, "--json"), _asks_for(words, "--debug")
    try:
        exit_code = _dispatch(words)
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _tell(error, as_json=as_json, debug=debug)
    return exit_code


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout, with `"schema"` first."""
    import json

    text = json.dumps({"schema": JSON_SCHEMA, **value}, indent=2, ensure_ascii=False)
    rest = memoryview(f"{text}\n".encode(errors=sys.stdout.errors or "strict"))
    sys.stdout.flush()
    # with PYTHONUNBUFFERED nothing below `print` writes again what a signal has cut short
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]


def _dispatch(words: list[str]) -> int:
    if not words:
        _parser(None).print_help(sys.stderr)
        return EXIT_USAGE
    if words[0].startswith("-") and "--version" in words:
        return _tell_version(as_json="--json" in words)
    if words[0] == "help":
        words = [*words[1:], "--help"]
    chosen = None if words[0].startswith("-") else _find(words[0])
    try:
        arguments, unknown = _parser(chosen).parse_known_args(words)
    except SystemExit as finished:
        sys.stdout.flush()
        return int(finished.code or 0)
    if unknown:
        raise UsageError(
            f"unrecognized arguments: {' '.join(unknown)}",
            mend=f"`{PROGRAM} {words[0]} --help` lists the words it takes",
        )
    exit_code: int = arguments.run(arguments)
    return exit_code


def _find(name: str) -> Subcommand:
    for subcommand in SUBCOMMANDS:
        if subcommand.name == name:
            return subcommand
    from difflib import get_close_matches

    names = [subcommand.name for subcommand in SUBCOMMANDS]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean `{PROGRAM} {near[0]}`?" if near else f"the commands are {', '.join(names)}"
    raise UsageError(f"there is no command {name!r}", mend=hint)


def _parser(chosen: Subcommand | None) -> Parser:
    """The whole command line, in which only the `chosen` command knows its arguments."""
    parser = Parser(
        prog=PROGRAM,
        description="Rehearse moving Cisco IP phones between secure CUCM clusters, and look into the bytes.",
        usage=f"{PROGRAM} [--help] [--version] COMMAND ...",
        epilog=f"commands:\n{_listing()}\n\n{EPILOG}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    # argparse would break the line behind the longest name: the listing is in the epilog
    commands = parser.add_subparsers(
        prog=PROGRAM, metavar="COMMAND", dest="command", required=True, help=argparse.SUPPRESS
    )
    for subcommand in SUBCOMMANDS:
        command = commands.add_parser(
            subcommand.name,
            description=f"{subcommand.summary[0].upper()}{subcommand.summary[1:]}.",
            formatter_class=HelpFormatter,
            conflict_handler="resolve",  # a command may word --json its own way
            allow_abbrev=False,
        )
        if subcommand is chosen:
            _complete(command, subcommand)
    return parser


def _listing() -> str:
    width = max(len(subcommand.name) for subcommand in SUBCOMMANDS) + 2
    return "\n".join(f"  {subcommand.name:<{width}}{subcommand.summary}" for subcommand in SUBCOMMANDS)


def _complete(parser: argparse.ArgumentParser, subcommand: Subcommand) -> None:
    from importlib import import_module

    module = import_module(subcommand.module)
    parser.set_defaults(run=module.run)
    add_common_arguments(parser)
    module.add_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--debug`; a command with subcommands of its own calls this for each of them."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an internal error")


def _asks_for(words: list[str], flag: str) -> bool:
    return flag in (words[: words.index("--")] if "--" in words else words)


def _tell(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Tell `error` on stderr, and as an object on stdout for `--json`; returns the exit code it stands for."""
    if debug and not isinstance(error, LabError):
        import traceback

        traceback.print_exception(error)
    told = error if isinstance(error, LabError) else _as_lab_error(error)
    try:
        if as_json:
            print_json({"error": {"what": told.what, "where": told.where, "mend": told.mend}})
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    except OSError:  # a full disk behind stdout: what is told on stderr may be just that
        _give_up_stdout()
    _print_error(told)
    return told.exit_code


def _print_error(error: LabError) -> None:
    print(f"{PROGRAM}: error: {error.what}", file=sys.stderr)
    for label, text in (("where", error.where), ("mend", error.mend)):
        if text:
            print(f"  {label}: {text}", file=sys.stderr)


class _InternalError(LabError):
    exit_code = EXIT_NO


def _as_lab_error(error: Exception) -> LabError:
    """An error nobody foresaw: the machine's own words for an `OSError`, else a request to report it."""
    if isinstance(error, OSError):
        from cucm.machine import machine_problem

        return machine_problem(error)
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f"{os.path.basename(last.tb_frame.f_code.co_filename)}:{last.tb_lineno}" if last else None  # noqa: PTH119
    return _InternalError(
        f"internal error: {type(error).__name__}: {error}",
        where=where,
        mend="this is a bug of ours: please report it with what the same command prints when --debug is added",
    )


def _broken_pipe() -> int:
    """The reader of our output left (`| head`): leave quietly, also when the interpreter flushes stdout at its end."""
    _give_up_stdout()
    return EXIT_BROKEN_PIPE


def _give_up_stdout() -> None:
    """What stdout still holds goes nowhere, and the interpreter says nothing of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """A caller may have closed stdout or stderr (`>&-`): Python has None there then."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (for the whole run)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _print_anything(stream: object) -> None:
    """Names in trust lists may hold letters the terminal's encoding lacks: print those escaped, never fail on them."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
