"""`cucm-lab up`: run a lab until Ctrl-C, and let other programs use it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.cli.inputs import AUTO

if TYPE_CHECKING:
    from lab.cli.detach import Background
    from lab.cli.up_session import Settings
    from lab.lab_folder import LabFolder, Wishes
    from lab.network_claim import NetworkClaim

DEFAULT_API_PORT: Final = 8480
DEFAULT_EVENTS: Final = 50_000
FEWEST_EVENTS: Final = 1_000
MOST_EVENTS: Final = 1_000_000
MAX_EXPOSED: Final = 16
EPILOG: Final = """\
The lab runs on loopback addresses only, in the foreground unless --detach is given. "ready" is said when every socket
is bound, every list is signed, and every phone has booted, registered or not. Ctrl-C, SIGTERM or a shutdown by its API
ends it; its folder stays, and the next `up` with the same --directory resumes it, also after a kill. What a first start
that failed has left is removed. Other terminals: cucm-lab status, op, sql, truth, certificates, show; any program: the
control socket (HTTP and JSON, `curl --unix-socket DIR/control.sock http://lab/v1/status`).
exit codes: 0 ended in order (--detach: ready); 2 wrong words, or the folder holds another lab; 3 an address is
taken; 130 ended before it was ready"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from cucm.arguments import whole_number
    from lab.cli.running import DEFAULT_DIRECTORY

    parser.epilog = EPILOG
    add = parser.add_argument
    add("topology", nargs="?", metavar="TOPOLOGY", help="a packaged topology or a TOML file (default two-clusters)")
    add("--directory", type=Path, metavar="DIR", help=f"keep the lab here (default {DEFAULT_DIRECTORY})")
    add("--temporary", action="store_true", help="delete the folder at the end; without --directory it is a new one")
    add("--network", metavar="NET", help="a /24 of 127.0.0.0/8, or `auto` for a free one (default 127.0.11.0/24)")
    add("--seed", type=int, metavar="N", help="makes the serial numbers (default 0)")
    add("--phones", choices=("on", "off"), default="on", help="whether the phones boot (default on)")
    add("--detach", action="store_true", help="go on in the background; come back when the lab is ready")
    add("--until-stdin-ends", action="store_true", help="end when standard input, a pipe, does: with who started it")
    add("--ready-file", type=Path, metavar="F", help="written when the lab is ready: a JSON object; removed at the end")
    add("--api-port", type=whole_number(1, 65535), default=DEFAULT_API_PORT, metavar="N", help="default %(default)s")
    add("--expose", metavar="ADDRESS[,...]", help="serve the API on these addresses too, with a token")
    events = whole_number(FEWEST_EVENTS, MOST_EVENTS)
    add("--events", type=events, default=DEFAULT_EVENTS, metavar="N", help="how many are kept (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import UsageError
    from lab.cli.detach import Background, go_into_background
    from lab.cli.inputs import read_network
    from lab.lab_folder import Wishes

    named = arguments.network if arguments.network != AUTO else None
    wishes = Wishes(arguments.topology, read_network(named) if named else None, arguments.seed)
    exposed = _exposed(arguments.expose)
    if arguments.detach and arguments.until_stdin_ends:
        raise UsageError("--detach and --until-stdin-ends contradict each other", mend="leave one out")
    tells_progress = sys.stderr.isatty() and not arguments.json
    background = go_into_background() if arguments.detach else None
    if background is None or isinstance(background, Background):
        settings = _settings(arguments, exposed, tells_progress=tells_progress)
        return _run(arguments, wishes, settings, background)
    return background


def _exposed(text: str | None) -> tuple[str, ...]:
    """The addresses, each checked, and warned of on stderr. Raises UsageError."""
    from ipaddress import ip_address

    from cucm.errors import UsageError
    from cucm.net.addresses import require_loopback

    addresses = tuple(dict.fromkeys(text.split(","))) if text is not None else ()
    if len(addresses) > MAX_EXPOSED:
        raise UsageError(f"{len(addresses)} addresses", where="--expose", mend=f"give at most {MAX_EXPOSED}")
    for address in addresses:
        warning = require_loopback(address, expose=True)
        if ip_address(address).is_unspecified:
            raise UsageError(f"{address} is every address", where="--expose", mend="name those that are meant")
        if warning:
            print(warning, file=sys.stderr)
    return addresses


def _settings(arguments: argparse.Namespace, exposed: tuple[str, ...], *, tells_progress: bool) -> Settings:
    from lab.cli.up_session import Settings
    from lab.ready_file import ReadyFile

    return Settings(
        arguments.events,
        arguments.phones == "on",
        arguments.api_port,
        exposed,
        ReadyFile(arguments.ready_file) if arguments.ready_file else None,
        arguments.until_stdin_ends,
        tells_progress,
    )


def _run(arguments: argparse.Namespace, wishes: Wishes, settings: Settings, background: Background | None) -> int:
    from cucm.errors import EXIT_OK
    from cucm.program import run as run_on_event_loop
    from cucm.quiet_start import EXIT_INTERRUPTED
    from lab.cli.up_session import serve
    from lab.lab_folder import LabFolder

    with LabFolder(_directory(arguments), temporary=arguments.temporary) as folder:
        printer = _Printer(arguments.json, folder, background)
        with _claimed(folder, wishes, auto=arguments.network == AUTO) as claim:
            description = folder.describe(replace(wishes, network=claim.network))
            was_ready = run_on_event_loop(serve(folder, description, settings, printer))
            _ignore_late_signals()
    return EXIT_OK if was_ready else EXIT_INTERRUPTED


def _ignore_late_signals() -> None:
    """The lab has ended, there is nothing left to end: the exit code stays what it is while the process goes."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _directory(arguments: argparse.Namespace) -> Path:
    from lab.cli.running import DEFAULT_DIRECTORY

    if arguments.directory is not None:
        return Path(arguments.directory)
    return Path(tempfile.mkdtemp(prefix="cucm-lab-")) if arguments.temporary else DEFAULT_DIRECTORY


def _claimed(folder: LabFolder, wishes: Wishes, *, auto: bool) -> NetworkClaim:
    """The network of a resumed lab is its own, also for `auto`."""
    from lab.network_claim import NetworkClaim

    if auto and not folder.is_resumed:
        return NetworkClaim.draw(folder.directory)
    return NetworkClaim.take(folder.describe(wishes).network)


class _Printer:
    """Says where everything is, as text or as one JSON object; then lets a parent go that waits for it."""

    def __init__(self, as_json: bool, folder: LabFolder, background: Background | None) -> None:
        from lab.lab_folder import LOG_NAME

        self._json = as_json
        self._resumed = folder.is_resumed
        self._log = folder.directory / LOG_NAME
        self._background = background

    def ready(self, about: Mapping[str, Any], status: dict[str, Any]) -> None:
        """`about` is what the ready file says."""
        from lab.cli.frame import print_json

        if self._json:
            print_json({"ready": True, "resumed": self._resumed, **about, **status})
        else:
            print("\n".join([*self._lines(about, status), "ready"]))
        sys.stdout.flush()
        if self._background is not None:
            self._background.ready(self._log)

    def ending(self, why: str) -> None:
        if not self._json:
            with suppress(BrokenPipeError):
                print(f"ending ({why})", flush=True)

    def _lines(self, about: Mapping[str, Any], status: dict[str, Any]) -> list[str]:
        from lab.cli.status import endpoint_lines

        how = "resumed" if self._resumed else "new"
        folder = f"folder   {status['directory']} ({how})"
        registered = sum(bool(phone["registered"]) for phone in status["phones"])
        phones = f"phones   {registered} of {len(status['phones'])} registered"
        api = [f"API      {about['api']}"] if about["api"] else []
        return [status["title"], folder, *endpoint_lines(status), phones, *api, f"control  {about['control']}"]
