"""`scripts/crashpoints`: ends the log-writer's work at every call that makes something durable, before and after it, and
opens what each kind of power failure would leave.

One line per trouble, counts at the end. Exit codes: 0 nothing was lost, 1 something was, 2 wrong usage or no C compiler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crash_image import TAILS
from crash_trial import WHEN, Crash, build_shim, judge, run

JOBS = 2


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/crashpoints",
        description="Crashes at every durable call of a fixed workload; nothing that was promised may be missing.",
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th call (1)")
    parser.add_argument("--call", type=int, default=0, metavar="N", help="only this call")
    given = parser.parse_args()
    if given.every < 1:
        parser.error("--every must be positive")
    with tempfile.TemporaryDirectory() as scratch:
        shim = build_shim(Path(scratch))
        if shim is None:
            sys.stderr.write(
                "error: no C compiler (cc) found, which the library that counts calls is built with\n"
            )
            return 2
        _, calls = run(shim, Path(scratch) / "whole", None)
        numbers = [given.call] if given.call else list(range(1, calls + 1, given.every))
        crashes = [Crash(number, when) for number in numbers for when in WHEN]
        with ThreadPoolExecutor(JOBS) as pool:
            found = list(pool.map(lambda crash: _try(shim, Path(scratch), crash), crashes))
    problems = [problem for each in found for problem in each]
    for problem in problems:
        print(problem)
    print(
        f"{calls} durable calls; {len(crashes)} crashes, each with {len(TAILS)} outcomes: "
        f"{len(crashes) * len(TAILS)} starts, {len(problems)} in trouble"
    )
    return 1 if problems else 0


def _try(shim: Path, scratch: Path, crash: Crash) -> list[str]:
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        work = Path(own) / "work"
        promised, _ = run(shim, work, crash)
        return judge(work, crash, promised)


if __name__ == "__main__":
    sys.exit(main())
