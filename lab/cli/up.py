"""`cucm-lab up`: run a lab until Ctrl-C, and let other programs use it."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.control import ControlServer
    from lab.lab_folder import Description, LabFolder
    from lab.runtime import Lab

EPILOG: Final = """\
The lab runs in the foreground, on loopback addresses only. "ready" is said when every socket is bound and every list
is signed. Ctrl-C or SIGTERM ends it; its folder stays, and the next `up` with the same --directory resumes it, also
after a kill. Other terminals: cucm-lab status, op, sql, truth, certificates, show; any program: the control socket
(HTTP and JSON, `curl --unix-socket DIR/control.sock http://lab/v1/status`).
exit codes: 0 ended in order; 2 wrong words, or the folder holds another lab; 3 an address is taken"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    parser.add_argument(
        "topology", nargs="?", metavar="TOPOLOGY", help="a packaged topology or a TOML file (default two-clusters)"
    )
    add_directory(parser, "keep the lab here")
    parser.add_argument("--network", metavar="NET", help="a /24 of 127.0.0.0/8 (default 127.0.11.0/24)")
    parser.add_argument("--seed", type=int, metavar="N", help="makes the serial numbers (default 0)")


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK
    from cucm.program import run as run_on_event_loop
    from lab.cli.inputs import read_network
    from lab.lab_folder import LabFolder, Wishes

    network = read_network(arguments.network) if arguments.network else None
    wishes = Wishes(arguments.topology, network, arguments.seed)
    with LabFolder(arguments.directory) as folder:
        resumed = folder.is_resumed
        description = folder.describe(wishes)
        run_on_event_loop(_serve(folder, description, _Printer(arguments.json, resumed)))
    return EXIT_OK


class _Printer:
    """Says where everything is, as text or as one JSON object."""

    def __init__(self, as_json: bool, resumed: bool) -> None:
        self._json = as_json
        self._resumed = resumed

    def ready(self, status: dict[str, Any], control: str) -> None:
        from lab.cli.frame import print_json

        if self._json:
            print_json({"ready": True, "resumed": self._resumed, "control": control, **status})
        else:
            print("\n".join([*self._lines(status, control), "ready"]))
        _flush()

    def ending(self, received: signal.Signals) -> None:
        if not self._json:
            print(f"ending ({received.name})")
            _flush()

    def _lines(self, status: dict[str, Any], control: str) -> list[str]:
        from lab.cli.status import endpoint_lines

        how = "resumed" if self._resumed else "new"
        folder = f"folder   {status['directory']} ({how})"
        return [status["title"], folder, *endpoint_lines(status), f"control  {control}"]


def _flush() -> None:
    import sys

    sys.stdout.flush()


async def _serve(folder: LabFolder, description: Description, printer: _Printer) -> None:
    """Start, say ready, wait for a signal, end. A signal during the start ends that too."""
    from lab.runtime import Lab

    ended = _signalled()
    lab = Lab(description.topology, description.options(folder.directory), clock=folder.clock())
    async with AsyncExitStack() as running:
        starting = asyncio.create_task(_start(lab, folder, running, printer))
        await asyncio.wait((starting, ended), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
            printer.ending(ended.result())
            return
        starting.result()
        printer.ending(await ended)


async def _start(lab: Lab, folder: LabFolder, running: AsyncExitStack, printer: _Printer) -> ControlServer:
    from lab.control import ControlServer
    from lab.control_socket import SOCKET_NAME
    from lab.status import status_of

    await running.enter_async_context(lab)
    control = ControlServer(lab, folder.directory)
    await control.start()
    running.push_async_callback(control.stop)
    printer.ready(status_of(lab), str(folder.directory.absolute() / SOCKET_NAME))
    return control


def _signalled() -> asyncio.Future[signal.Signals]:
    """Becomes the first SIGINT, SIGTERM or SIGHUP that arrives."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def receive(number: signal.Signals) -> None:
        if not received.done():
            received.set_result(number)

    # a caller that ignores one of them (nohup) has its reasons
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, receive, number)
    return received
