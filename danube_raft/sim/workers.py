"""Many seeds over two processes, one for each core of the machines that this is meant for.

A worker runs its seeds one after the other and prints one JSON line for each: a report, or what there is to tell of a
failure. Whoever leads collects the lines, says how it goes, and adds it all up. Workers end with it, however it ends.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

from danube_raft.node.process import die_with_parent
from danube_raft.sim.run import Failure, Idle, Report, attempt, check_coverage
from danube_raft.sim.settings import Options
from danube_raft.sim.shrink import tell

WORKERS = 2
PROGRESS_S = 10.0
COVERAGE_SEEDS = 100
"""From this many seeds on, every kind of fault must have had an effect."""


class Campaign(NamedTuple):
    """Which worlds to run: `seeds` of them from `seed` on, for `limit_s` real seconds at most (0: no limit)."""

    seed: int
    seeds: int
    limit_s: float
    nodes: int
    seconds: float
    keep_going: bool


def work(campaign: Campaign, step: int) -> int:
    """Every `step`-th seed; a line for each."""
    die_with_parent(os.getppid())
    end = time.monotonic() + campaign.limit_s if campaign.limit_s else None
    failed = 0
    for seed in range(campaign.seed, campaign.seed + campaign.seeds, step):
        if end is not None and time.monotonic() >= end:
            break
        result = attempt(Options(seed, campaign.nodes, campaign.seconds))
        if isinstance(result, Failure):
            failed = 1
            say(json.dumps({"seed": seed, "failure": tell(result)}))
            if not campaign.keep_going:
                break
        else:
            say(json.dumps(result._asdict()))
    return failed


def lead(campaign: Campaign) -> int:
    """All seeds; returns the exit code."""
    tally = _Tally(campaign)
    signal.signal(signal.SIGTERM, _stop)
    workers = [_worker(campaign, place) for place in range(min(WORKERS, campaign.seeds))]
    try:
        _collect(tally, workers)
    except KeyboardInterrupt:
        say(f"interrupted\n{tally}")
        return 130
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    say(str(tally))
    effects = ", ".join(f"{name} {count}" for name, count in sorted(tally.effects.items()))
    say(f"effects: {effects}")
    if tally.failed or any(worker.returncode for worker in workers):
        say(
            f"FAILED: seeds {tally.failed}" if tally.failed else "FAILED: a worker has ended early, see above"
        )
        return 1
    if len(tally.reports) >= COVERAGE_SEEDS:
        try:
            check_coverage(tally.reports)
        except Idle as error:
            say(f"FAILED: {error}")
            return 1
    return 0


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


class _Tally:
    """What was run so far."""

    def __init__(self, campaign: Campaign) -> None:
        self.reports: list[Report] = []
        self.failed: list[int] = []
        self.campaign = campaign
        self._began = time.monotonic()

    @property
    def effects(self) -> Counter[str]:
        """Of all worlds together."""
        return sum((report.effects for report in self.reports), Counter())

    def __str__(self) -> str:
        campaign, reports = self.campaign, self.reports
        took_s = max(time.monotonic() - self._began, 1e-9)
        virtual_s = sum(report.virtual_s for report in reports)
        of_them = f" of {campaign.seeds}" if not campaign.limit_s else ""
        return (
            f"{len(reports)}{of_them} seeds from {campaign.seed} in {took_s / 60:.1f} min, "
            f"{len(reports) / took_s:.1f} seeds/s, {virtual_s / 3600:.2f} virtual hours ({virtual_s / took_s:.0f} times "
            f"real time), {sum(report.succeeded for report in reports)} of "
            f"{sum(report.operations for report in reports)} operations succeeded, "
            f"{sum(report.elections for report in reports)} elections, {sum(report.faults for report in reports)} faults, "
            f"{len(self.failed)} failed"
        )


def _collect(tally: _Tally, workers: list[subprocess.Popen[str]]) -> None:
    """Take the lines of all workers until they are through, or until the first that fails and does not go on."""
    told = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            assert worker.stdout is not None
            selector.register(worker.stdout, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]  # the registered text stream
                if line:
                    _take(tally, json.loads(line))
                    continue
                selector.unregister(key.fileobj)
                if key.data.wait() and not tally.campaign.keep_going:
                    return
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                say(str(tally))


def _take(tally: _Tally, line: dict[str, Any]) -> None:
    if "failure" in line:
        tally.failed.append(line["seed"])
        say(str(line["failure"]))
    else:
        tally.reports.append(Report(**{**line, "effects": Counter(line["effects"])}))


def _worker(campaign: Campaign, place: int) -> subprocess.Popen[str]:
    own = [
        f"--seed={campaign.seed + place}", f"--seeds={campaign.seeds - place}", f"--minutes={campaign.limit_s / 60}",
        f"--nodes={campaign.nodes}", f"--seconds={campaign.seconds}", f"--worker={WORKERS}",
        *(["--keep-going"] if campaign.keep_going else []),
    ]  # fmt: skip
    return subprocess.Popen(  # noqa: S603 -- this very package
        [sys.executable, "-m", "danube_raft.sim", *own], stdout=subprocess.PIPE, text=True
    )


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
