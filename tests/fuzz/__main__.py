"""`python -m tests.fuzz [NAME ...] --seconds N`: fuzz for as long as wanted, with atheris where it is installed.

Without atheris (the extra `fuzz`) inputs are mutated by chance, from a seed that is printed.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from importlib.util import find_spec

from tests.fuzz.targets import TARGETS, Target, check


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="targets (default: all, one after the other)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all together (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the chances, without atheris")
    parser.add_argument("--list", action="store_true", help="name the targets")
    options = parser.parse_args()
    chosen = [target for target in TARGETS if not options.names or target.name in options.names]
    if options.list or not chosen:
        print("\n".join(target.name for target in TARGETS))
        return 0 if options.list else 2
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    share = options.seconds / len(chosen)
    if find_spec("atheris") is not None:
        words = [sys.executable, "-m", "tests.fuzz.guided", str(max(1, round(share)))]
        return subprocess.run([*words, *(target.name for target in chosen)], check=False).returncode
    print(f"without atheris: inputs are changed by chance, seed {seed}")
    for target in chosen:
        fuzz(target, share, seed)
    return 0


def fuzz(target: Target, seconds: float, seed: int) -> None:
    """Raises what a target may not, with the input on stderr."""
    dice, seeds = random.Random(seed), target.seeds()
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        data = _changed(dice, dice.choice(seeds))
        count += 1
        try:
            check(target, data)
        except BaseException:
            print(f"{target.name}: input {data.hex()}", file=sys.stderr)
            raise
    print(f"{target.name}: {count} inputs")


def _changed(dice: random.Random, start: bytes) -> bytes:
    data = bytearray(start)
    for _ in range(dice.randint(1, 8)):
        at, size = dice.randint(0, len(data)), dice.randint(1, 32)
        match dice.randrange(4):
            case 0:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = dice.randbytes(size)
            case _:
                data[at:at] = data[max(0, at - size) : at] * dice.randint(1, 30)
    return bytes(data)


if __name__ == "__main__":
    raise SystemExit(main())
