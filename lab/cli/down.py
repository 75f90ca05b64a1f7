"""`cucm-lab down`: end the lab of a folder, wherever it runs."""

from __future__ import annotations

import argparse
import time
from typing import Final

PATIENCE_S: Final = 30.0
EPILOG: Final = "exit codes: 0 it has ended; 1 it does not end; 3 no lab is running"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lab.cli.running import add_directory

    parser.epilog = EPILOG
    add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    from cucm.errors import EXIT_OK, LabError
    from lab.cli.frame import print_json
    from lab.cli.running import client
    from lab.lab_folder import FolderLock

    lab, lock = client(arguments), FolderLock(arguments.directory)
    lab.post("shutdown", body={})
    ends = time.monotonic() + PATIENCE_S
    while lab.is_running() or lock.is_taken():  # the folder is let go last, and may be removed then
        if time.monotonic() > ends:
            raise LabError(
                f"the lab has not ended within {PATIENCE_S:.0f} s", mend="end its process: its pid is in up.pid"
            )
        time.sleep(0.02)
    if arguments.json:
        print_json({"ended": True, "directory": str(arguments.directory.absolute())})
    else:
        print(f"ended; {arguments.directory} stays, `cucm-lab up` there resumes it")
    return EXIT_OK
