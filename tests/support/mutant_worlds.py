"""Worlds of the simulator one after the other, from seed 1, until one of them fails.

    python mutant_worlds.py COUNT LIMIT_S

Prints a line before each seed. When a world raises, or has not ended after LIMIT_S seconds, the last line is JSON,
{"seed": …, "says": …}, and the exit code 1. Whatever is raised counts: an assertion of the product, a check of the
simulator, and `Idle`, a world in which too little came about; its name is told.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import danube_raft
from danube_raft.sim.run import simulate
from danube_raft.sim.settings import Options

TREE = Path(__file__).parent.parent.parent


class Endless(BaseException):
    """The time of a seed is up. Not an Exception, so that nothing on the way takes it for an error of its own."""


def _stop(number: int, frame: Any) -> None:
    raise Endless("it did not end")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(count: int, limit_s: int) -> int:
    """The exit code."""
    assert danube_raft.__file__ is not None
    assert Path(danube_raft.__file__).is_relative_to(TREE), (
        f"{danube_raft.__file__} is not the package of {TREE}"
    )
    signal.signal(signal.SIGALRM, _stop)
    for seed in range(1, count + 1):
        _say(f"seed {seed}")
        signal.alarm(limit_s)
        try:
            simulate(Options(seed))
        except (Exception, Endless) as error:  # noqa: BLE001 -- whatever a fault leads to
            signal.alarm(0)
            first = str(error).strip().split("\n", 1)[0]
            _say(json.dumps({"seed": seed, "says": f"{type(error).__name__}: {first}"}))
            return 1
        signal.alarm(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
