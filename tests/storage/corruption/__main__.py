"""`scripts/corruption`: damages one file of one node of three, in every way and over and over, and starts the node.

With `--real` the nodes are real processes, clients write meanwhile, and there are fewer trials.

A line per trouble, with the command that repeats it; then the table of outcomes. Exit codes: 0 no wrong read, no silent
loss, nothing else that must not be; 1 there was; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import corrupt_damage
import corrupt_origin
from corrupt_origin import AGES, CONFIG, YOUNG, Origin
from corrupt_trial import BAD, LOST, Result, Trial, fork, result_of
from stepped_cluster import ClusterNode

PROGRESS_S = 10
_Key = tuple[str, str]
"""Kind of file and damage."""


def main() -> int:
    """The command; returns the exit code."""
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="corruption-") as directory:
        return _real(Path(directory), given) if given.real else _stepped(Path(directory), given)


def _stepped(scratch: Path, given: argparse.Namespace) -> int:
    """Node 1 on real disks, stepped by hand, with the others in memory; a process for each trial."""
    _make_origin(scratch)
    origin = corrupt_origin.load(scratch)
    trials = _plan(origin, given)
    if not trials:
        return _nothing(f"{age} {kind}" for age in AGES for kind in corrupt_damage.kinds(origin.of(age)[0]))
    others = [
        ClusterNode(number, CONFIG, origin.truth.now, disk)
        for number, disk in zip((2, 3), origin.disks, strict=True)
    ]
    return _tell_all(_run(trials, origin, others, scratch, given.jobs))


def _real(scratch: Path, given: argparse.Namespace) -> int:
    """Three real nodes under load, a trial after the other."""
    # Not above: no process with threads may fork, and this one is full of them.
    from corrupt_cluster import REAL, RealTrials

    outcomes: dict[_Key, Counter[str]] = {}
    with RealTrials(scratch, given.seed) as real:
        planned = real.plan(given.kind, given.damage)
        if not planned:
            return _nothing((REAL,))
        for kind, name in planned[:: given.every]:
            trial = Trial(REAL, kind, name, f"{given.seed} {REAL} {kind} {name}")
            result = real.attempt(trial)
            _note(outcomes, trial, result)
            print(f"{kind}, {name}: {result.outcome}", flush=True)
        wrong = real.check()
        if wrong:
            outcomes.setdefault(("real, all of them", "any"), Counter())[LOST] += 1
            print(f"{LOST}: {wrong}", flush=True)
    return _tell_all(outcomes)


def _nothing(kinds: Iterable[str]) -> int:
    sys.stderr.write(f"error: no such kind or damage; the kinds are: {', '.join(kinds)}\n")
    return 2


def _tell_all(outcomes: dict[_Key, Counter[str]]) -> int:
    print(_table(outcomes), flush=True)
    bad = Counter({name: sum(found[name] for found in outcomes.values()) for name in BAD})
    trials = sum(found.total() for found in outcomes.values())
    print(f"{trials} trials; " + ", ".join(f"{bad[name]} {name}" for name in BAD))
    return 1 if bad.total() else 0


def _note(outcomes: dict[_Key, Counter[str]], trial: Trial, result: Result) -> None:
    outcomes.setdefault((f"{trial.age} {trial.kind}", trial.damage), Counter())[result.outcome] += 1
    if result.outcome in BAD:
        _tell(trial, result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/corruption",
        description="Damages one file of one node of three; nothing may be read wrong or be lost in silence.",
    )
    parser.add_argument("--per-kind", type=int, default=3, metavar="N", help="trials per file and damage (3)")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only each N-th file and damage (1)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of where the damage is (1)")
    parser.add_argument(
        "--kind", default="", metavar="NAME", help="only kinds of file whose name has this in it"
    )
    parser.add_argument("--damage", default="", metavar="NAME", help="only damages whose name has this in it")
    parser.add_argument(
        "--real", action="store_true", help="three real nodes under load; one trial per damage"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="trials at a time (2)")
    given = parser.parse_args()
    if min(given.per_kind, given.every, given.jobs) < 1:
        parser.error("--per-kind, --every and --jobs must be positive")
    return given


def _make_origin(scratch: Path) -> None:
    """In a child: no process that has had a RocksDB open may fork."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            corrupt_origin.make(scratch)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the nodes' life before the damage went wrong"


def _plan(origin: Origin, given: argparse.Namespace) -> list[Trial]:
    """Round by round, so that whoever ends it early has seen a bit of everything."""
    found = [
        (age, kind, name)
        for age in AGES
        for kind, paths in corrupt_damage.kinds(origin.of(age)[0]).items()
        for name in corrupt_damage.names(kind, paths, origin.of(age)[0], origin.old)
        # A young node has no past.
        if (age, name) != (YOUNG, corrupt_damage.OLD_COPY)
        if given.kind.lower() in f"{age} {kind}".lower() and given.damage.lower() in name.lower()
    ]
    return [
        Trial(*each, f"{given.seed + round_} {' '.join(each)}")
        for round_ in range(given.per_kind)
        for each in found[:: given.every]
    ]


def _run(
    trials: list[Trial], origin: Origin, others: list[ClusterNode], scratch: Path, jobs: int
) -> dict[_Key, Counter[str]]:
    outcomes: dict[_Key, Counter[str]] = {}
    running: dict[int, tuple[Trial, Path]] = {}
    said_at, done, waiting = time.monotonic(), 0, trials[::-1]
    while waiting or running:
        while waiting and len(running) < jobs:
            trial = waiting.pop()
            own = scratch / f"trial-{len(waiting)}"
            running[fork(trial, origin, others, own)] = (trial, own)
        pid, status = os.waitpid(-1, 0)
        trial, own = running.pop(pid)
        _note(outcomes, trial, result_of(own, status))
        done += 1
        if time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            print(f"{done} of {len(trials)} trials", flush=True)
    return outcomes


def _tell(trial: Trial, result: Result) -> None:
    seed = trial.seed.split(" ", 1)[0]
    file = f"{trial.age} {trial.kind}"
    how = "--real" if trial.age == "real" else "--per-kind 1"
    again = f'scripts/corruption --seed {seed} {how} --kind "{file}" --damage "{trial.damage}"'
    print(f"{result.outcome}: {file}, {trial.damage} ({result.done}): {result.said}\n    {again}", flush=True)


def _table(outcomes: dict[_Key, Counter[str]]) -> str:
    columns = sorted(
        {name for found in outcomes.values() for name in found}, key=lambda name: (name in BAD, name)
    )
    width = max(len(kind) for kind, _ in outcomes) + 2
    wide = max(len(name) for _, name in outcomes) + 2
    lines = [f"{'file':{width}}{'damage':{wide}}" + "".join(f"{name:>{len(name) + 2}}" for name in columns)]
    last = ""
    for (kind, name), found in sorted(outcomes.items()):
        cells = "".join(f"{found[column] or '.':>{len(column) + 2}}" for column in columns)
        lines.append(f"{kind if kind != last else '':{width}}{name:{wide}}{cells}")
        last = kind
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
