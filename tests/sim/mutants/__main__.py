"""`scripts/mutants`: puts faults into copies of the product, and shows which test or world notices each.

One line per mutant as it ends, counts at the end. Exit codes: 0 all were caught, 1 one or more survived, 2 wrong usage,
a mutant that does not fit the product any more, or an unchanged product in which something is "caught".
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mutants import UNCHANGED, BadMutant, Mutant, files, load
from trials import UNIT, Children, Plan, Verdict, attempt

LOOK_S = 0.5
JOBS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parse(arguments)
    try:
        chosen = _choose(given.names)
        plan = Plan(
            () if given.only == "simulator" else tuple(given.tests or UNIT),
            0 if given.only == "unit" else given.seeds,
        )
        return _judge(_try_all(chosen, plan, given.jobs))
    except BadMutant as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description="Puts faults into copies of the product one by one: each must be caught by the unit tests or by a "
        "simulated cluster. Without a NAME the unchanged product is tried too, and must pass.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="13b-name, its number 13b, or the path of a .toml file (default: all)",
    )
    parser.add_argument(
        "--seeds", type=int, default=300, metavar="N", help="worlds at most, from seed 1 (300)"
    )
    parser.add_argument("--only", choices=("unit", "simulator"), help="ask only these whether they notice it")
    parser.add_argument(
        "--tests", action="append", metavar="PATH", help=f"unit tests in place of {' and '.join(UNIT)}"
    )
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help=f"mutants at a time ({JOBS})")
    given = parser.parse_args(arguments)
    if given.seeds < 1 or given.jobs < 1:
        parser.error("--seeds and --jobs must be positive")
    return given


def _choose(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names; of all, and the unchanged product, if there are none."""
    known = {path.stem: path for path in files()}
    if not names:
        mutants = [load(path) for path in known.values()]
        every = dict.fromkeys(test for mutant in mutants for test in mutant.tests)
        return [UNCHANGED._replace(tests=tuple(every)), *mutants]
    found = []
    for name in names:
        if name.endswith(".toml"):
            found.append(load(Path(name)))
            continue
        fit = [path for stem, path in known.items() if name in (stem, stem.split("-")[0])]
        if not fit:
            raise BadMutant(f"there is no mutant {name}; there are: {', '.join(known)}")
        found += [load(path) for path in fit]
    return found


def _try_all(mutants: list[Mutant], plan: Plan, jobs: int) -> list[Verdict]:
    children = Children()
    verdicts = []
    # Whoever ends this command ends the trials with it.
    signal.signal(signal.SIGTERM, _interrupt)
    pool = ThreadPoolExecutor(jobs)
    try:
        with _uninterrupted():
            trials = {pool.submit(attempt, mutant, plan, children) for mutant in mutants}
        while trials:
            # Not without end: an interrupt that another thread got from the system wakes nobody here.
            over, trials = wait(trials, LOOK_S, FIRST_COMPLETED)
            for future in over:
                verdict = future.result()
                verdicts.append(verdict)
                _say(verdict.line())
    finally:
        children.kill()
        pool.shutdown(cancel_futures=True)
    return verdicts


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt comes at the end: in the middle of the start of a thread it would leave one behind that its pool does
    not know, and that nobody ends."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda found, _: came.append(found)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _judge(verdicts: list[Verdict]) -> int:
    unchanged = [verdict for verdict in verdicts if verdict.mutant.name == UNCHANGED.name]
    mutants = [verdict for verdict in verdicts if verdict.mutant.name != UNCHANGED.name]
    counts = Counter(verdict.by for verdict in mutants)
    _say(
        f"{len(mutants)} mutants: {counts['unit']} caught by unit tests, {counts['simulator']} by the simulator, "
        f"{counts['']} survived"
    )
    if any(verdict.by for verdict in unchanged):
        _say("the unchanged product fails, so none of this shows anything")
        return 2
    return 1 if counts[""] else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
