"""`scripts/simulate`: many seeds over two processes, or one seed with its trace.

A worker runs its seeds one after the other and prints one JSON line for each. One that fails prints the failure (the
invariant, the last events, the command that repeats it) and ends; the command then stops the other one and exits
with 1. Exit code 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

from danube_raft.sim.run import Report, check_coverage, simulate
from danube_raft.sim.settings import NODES_MAX, Options

WORKERS = 2
PROGRESS_S = 5.0
COVERAGE_SEEDS = 60
"""From this many seeds on, every kind of fault must have had an effect."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parse(arguments)
    if given.worker:
        return _work(given)
    if given.seeds == 1:
        _say(_line(simulate(_options(given, given.seed), _say if given.trace else None)))
        return 0
    return _lead(given)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="Simulated clusters with faults, from seeds."
    )
    parser.add_argument("--seed", type=int, help="the seed, or the first of several (default: by the clock)")
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="COUNT", help="how many (default: 1 with --seed, else 100)"
    )
    parser.add_argument(
        "--nodes", type=int, default=0, choices=range(NODES_MAX + 1), help="0: the seed decides"
    )
    parser.add_argument("--minutes", type=float, default=0.2, help="virtual time with faults, per seed")
    parser.add_argument("--trace", action="store_true", help="print every event (one seed only)")
    parser.add_argument("--worker", type=int, default=0, metavar="STEP", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.seeds < 0 or given.minutes <= 0:
        parser.error("--seeds and --minutes must be positive")
    given.seeds = given.seeds or (1 if given.seed is not None else 100)
    if given.trace and given.seeds != 1:
        parser.error("--trace is for one --seed")
    if given.seed is None:
        given.seed = int(time.time())
    return given


def _options(given: argparse.Namespace, seed: int) -> Options:
    return Options(seed, given.nodes, given.minutes * 60)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _line(report: Report) -> str:
    return (
        f"seed {report.seed}: {report.nodes} nodes, {report.virtual_s:.1f} virtual s, {report.succeeded} of "
        f"{report.operations} operations succeeded, {report.elections} elections, trace {report.trace}"
    )


def _work(given: argparse.Namespace) -> int:
    for seed in range(given.seed, given.seed + given.seeds, given.worker):
        _say(json.dumps(simulate(_options(given, seed))._asdict()))
    return 0


# ---------------------------------------------------------------- many seeds


def _worker(given: argparse.Namespace, place: int) -> subprocess.Popen[str]:
    own = [
        f"--seed={given.seed + place}", f"--seeds={given.seeds - place}", f"--nodes={given.nodes}",
        f"--minutes={given.minutes}", f"--worker={WORKERS}",
    ]  # fmt: skip
    return subprocess.Popen(  # noqa: S603 -- this very module
        [sys.executable, "-m", "danube_raft.sim", *own], stdout=subprocess.PIPE, text=True
    )


def _lead(given: argparse.Namespace) -> int:
    workers = [_worker(given, place) for place in range(min(WORKERS, given.seeds))]
    try:
        reports = _collect(given, workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    if len(reports) < given.seeds:
        _say("failed; see above")
        return 1
    if len(reports) >= COVERAGE_SEEDS:
        check_coverage(reports)
    effects: Counter[str] = sum((report.effects for report in reports), Counter())
    _say("effects: " + ", ".join(f"{name} {count}" for name, count in sorted(effects.items())))
    return 0


def _collect(given: argparse.Namespace, workers: list[subprocess.Popen[str]]) -> list[Report]:
    """The reports of all workers until they are through, or until the first that ends with an error."""
    reports: list[Report] = []
    began = told = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            assert worker.stdout is not None
            selector.register(worker.stdout, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]  # the registered text stream
                if line:
                    fields = json.loads(line)
                    reports.append(Report(**{**fields, "effects": Counter(fields["effects"])}))
                    continue
                selector.unregister(key.fileobj)
                if key.data.wait():
                    return reports
            now = time.monotonic()
            if now - told > PROGRESS_S or not selector.get_map():
                told = now
                _say(_progress(given, reports, now - began))
    return reports


def _progress(given: argparse.Namespace, reports: list[Report], took_s: float) -> str:
    virtual_s = sum(report.virtual_s for report in reports)
    return (
        f"{len(reports)} of {given.seeds} seeds from {given.seed}, {len(reports) / took_s:.1f} seeds/s, "
        f"{virtual_s / 60:.1f} virtual minutes ({virtual_s / took_s:.0f} times real time), "
        f"{sum(report.succeeded for report in reports)} of {sum(report.operations for report in reports)} operations "
        f"succeeded, {sum(report.elections for report in reports)} elections"
    )


if __name__ == "__main__":
    sys.exit(main())
