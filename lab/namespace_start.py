"""The last step before the command of `cucm-lab exec`: its end of the wire gets an address, then it runs.

Run as a file, by an interpreter of its own inside the command's network namespace, with nothing but the standard
library: DESCRIPTOR IP-PROGRAM ADDRESS INTERFACE COMMAND ... . It waits until the descriptor says that the wire is laid.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""As shells have it."""


def main(descriptor: str, ip: str, address: str, interface: str, *command: str) -> int:
    _default_signals()
    said = os.read(int(descriptor), 1)
    os.close(int(descriptor))
    if not said:
        return 1  # the lab's side has failed and told why
    lines = ("link set lo up", f"addr add {address}/24 dev {interface}", f"link set {interface} up")
    subprocess.run([ip, "-batch", "-"], input="\n".join(lines), text=True, check=True)  # noqa: S603
    try:
        os.execvp(command[0], command)  # noqa: S606 (the user's own command)
    except OSError as error:
        print(f"cucm-lab: error: {command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def _default_signals() -> None:
    """What Python ignores, or turns into an exception, is for the command as a shell would have it."""
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
