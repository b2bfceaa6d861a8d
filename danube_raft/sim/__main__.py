"""`scripts/simulate`: many seeds over two processes, or one seed with its trace.

A seed that fails is shown with the invariant, the faults that it takes (shrunk), the last events and the command that
repeats it; then the command ends with exit code 1, or goes on to the next seeds with `--keep-going` and tells at the end
which failed. Exit code 2: wrong usage; 130: interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from danube_raft.sim.run import Report, attempt
from danube_raft.sim.settings import NODES_MAX, Options
from danube_raft.sim.shrink import tell
from danube_raft.sim.workers import Campaign, lead, say, work

SEEDS = 100
"""How many, where neither a number nor a time is given."""
UNLIMITED = 1 << 40


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parse(arguments)
    # What nodes log of damaged snapshots, failing disks and SUSPECT is wanted here.
    logging.getLogger("danube_raft").setLevel(logging.CRITICAL)
    campaign = Campaign(
        given.seed, given.seeds, given.minutes * 60, given.nodes, given.seconds, given.keep_going
    )
    if given.worker:
        return work(campaign, given.worker)
    if given.seeds == 1:
        return _one(Options(given.seed, given.nodes, given.seconds, given.faults), given.trace)
    return lead(campaign)


def _one(options: Options, trace: bool) -> int:
    result = attempt(options, say if trace else None)
    if isinstance(result, Report):
        say(_line(result))
        return 0
    say(tell(result))
    return 1


def _line(report: Report) -> str:
    return (
        f"seed {report.seed}: {report.nodes} nodes, {report.virtual_s:.1f} virtual s, {report.succeeded} of "
        f"{report.operations} operations succeeded, {report.elections} elections, trace {report.trace}"
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="Simulated clusters with faults, from seeds."
    )
    add = parser.add_argument
    add("--seed", type=int, help="the seed, or the first of several (default: by the clock)")
    add("--seeds", type=int, metavar="COUNT", help=f"how many (default: 1 with --seed, else {SEEDS})")
    add("--minutes", type=float, default=0.0, metavar="M", help="as many seeds as can be run in this time")
    add("--nodes", type=int, default=0, choices=range(NODES_MAX + 1), help="0: the seed decides")
    add("--seconds", type=float, default=Options(0).seconds, help="virtual time with faults, per seed")
    add("--faults", type=_numbers, metavar="N,N…", help="make only these of the planned faults, or none")
    add("--trace", action="store_true", help="print every event (one seed only)")
    add("--keep-going", action="store_true", help="go on after a failure")
    add("--worker", type=int, default=0, metavar="STEP", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if (given.seeds is not None and given.seeds < 1) or given.seconds <= 0 or given.minutes < 0:
        parser.error("--seeds, --seconds and --minutes must be positive")
    if given.seeds is None:
        given.seeds = UNLIMITED if given.minutes else 1 if given.seed is not None else SEEDS
    if (given.trace or given.faults is not None) and given.seeds != 1:
        parser.error("--trace and --faults are for one --seed")
    if given.seed is None:
        given.seed = int(time.time())
    return given


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(sorted(int(word) for word in text.split(",")))


if __name__ == "__main__":
    sys.exit(main())
