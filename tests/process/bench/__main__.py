"""`scripts/bench`: what a node costs when much is in it, measured on real nodes of this machine.

Each scenario prints what it measured beside its target, and MISSED where that was not reached. Exit codes: 0 all
targets reached, 1 one or more missed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from scenarios import SCENARIOS, Scale


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures real nodes with much in them."
    )
    parser.add_argument(
        "names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default: all)"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        metavar="S",
        help="so much of the keys and writes, to try it (1.0)",
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in SCENARIOS]
    if unknown or not 0 < given.share <= 1:
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else "--share must be above 0 and at most 1")
    missed = 0
    for name in given.names or SCENARIOS:
        print(f"{name}: {SCENARIOS[name].__doc__}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            for measure in SCENARIOS[name](Path(directory), Scale(given.share)):
                missed += not measure.reached
                print(f"  {measure}", flush=True)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
