"""Trials of mutants: does anything notice the fault? First the unit tests, then simulated clusters, seed by seed.

- Everything runs in a copy of the tree, in processes whose packages are those of the copy; they check that.
- A trial ends with the first failure. What does not end within its time, or takes more than `MEMORY_BYTES`, counts as
  a failure too: a cluster that hangs is noticed by its users.
- Where the tests cannot even be collected nothing was shown, and `BadMutant` is raised: a mutant must import and start.
- The same mutant is always caught by the same thing: hash order and hypothesis are seeded.
- `Children.kill` ends all processes at once, with those that they have started.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from mutants import UNCHANGED, BadMutant, Mutant, make_copy

UNIT = ("tests/raft", "tests/kv")
CLOCKED = "tests/raft/test_core.py::test_cost_of_a_proposal"
"""Measures time, which says nothing of a mutant while another trial runs beside it: left out."""
LAST = ("tests/raft/test_chaos.py", "tests/kv/test_model.py")
"""Long random runs: most mutants are caught by a test that takes no time, so these come last."""
UNIT_LIMIT_S = 900.0
SEED_LIMIT_S = 60
"""A seed takes about 0.4 s; those of a mutant may well take longer."""
MEMORY_BYTES = 4 << 30
SAYS_MAX = 150
"""Characters of what the simulator says."""


class Plan(NamedTuple):
    """What a trial consists of: `tests` are paths of unit tests, `seeds` how many worlds; empty and 0 for none."""

    tests: tuple[str, ...] = UNIT
    seeds: int = 300


class Verdict(NamedTuple):
    """`by`: "unit", "simulator", or empty when nothing noticed the fault. `what` says more, for people."""

    mutant: Mutant
    by: str
    what: str

    def line(self) -> str:
        """One line for people."""
        if self.mutant.name == UNCHANGED.name:
            return f"the unchanged product: {f'FAILS {self.what}' if self.by else 'passes'}"
        return f"{self.mutant.name} (row {self.mutant.row}): {f'caught by {self.what}' if self.by else 'SURVIVED'}"


class Stopped(Exception):
    """`Children.kill` was called meanwhile."""


class Children:
    """The processes of all trials under way. Thread-safe."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, arguments: list[str], copy: Path, limit_s: float) -> tuple[int | None, str]:
        """(exit code, output) of a Python in `copy`; code None: it did not end in time. Raises Stopped."""
        child = self._start(arguments, copy)
        try:
            output, _ = child.communicate(timeout=limit_s)
            code: int | None = child.returncode
        except subprocess.TimeoutExpired:
            _kill(child)
            output, code = child.communicate()[0], None
        with self._lock:
            self._running.discard(child)
            if self._stopped:
                raise Stopped
        # What a test has started and not ended would go on beside the next trial.
        _kill(child)
        return code, output

    def _start(self, arguments: list[str], copy: Path) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONHASHSEED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self._lock:
            if self._stopped:
                raise Stopped
            child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=copy,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
        resource.prlimit(child.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        return child

    def kill(self) -> None:
        """End them, and let none start any more."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                _kill(child)


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group has ended by itself
        os.killpg(child.pid, signal.SIGKILL)


def attempt(mutant: Mutant, plan: Plan, children: Children) -> Verdict:
    """Let the tests and the simulator look at the mutant. Raises BadMutant or Stopped."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        copy = Path(directory)
        make_copy(mutant, copy)
        if plan.tests:
            what = _unit(mutant, tuple(dict.fromkeys((*mutant.tests, *plan.tests))), copy, children)
            if what:
                return Verdict(mutant, "unit", what)
        if plan.seeds:
            what = _simulator(plan.seeds, copy, children)
            if what:
                return Verdict(mutant, "simulator", what)
    return Verdict(mutant, "", "")


# ---------------------------------------------------------------- unit tests


def _unit(mutant: Mutant, tests: tuple[str, ...], copy: Path, children: Children) -> str:
    """The test that failed, empty if all passed."""
    arguments = [
        "-m",
        "pytest",
        *_quick_first(tests, copy),
        "--deselect",
        CLOCKED,
        "-x",
        "-vv",
        "--tb=no",
        "--hypothesis-seed=1",
        "--capture=fd",
    ]
    code, output = children.run(arguments, copy, UNIT_LIMIT_S)
    if code == 0:
        return ""
    if code is None or "+++ Timeout +++" in output:
        return f"{_last_test(output)}, which did not end"
    failed = re.search(r"^(\S+::.*?) (?:FAILED|ERROR)\b", output, re.MULTILINE)
    if failed is not None:
        return failed[1]
    if code < 0:
        return f"{_last_test(output)}, ended by {signal.Signals(-code).name}"
    raise BadMutant(f"{mutant.name}: its tests cannot be run (pytest's exit code {code}):\n{output[-2_000:]}")


def _quick_first(tests: tuple[str, ...], copy: Path) -> list[str]:
    files: list[str] = []
    for test in tests:
        directory = copy / test
        found = sorted(directory.glob("test_*.py")) if directory.is_dir() else []
        files += [str(file.relative_to(copy)) for file in found] or [test]
    return sorted(dict.fromkeys(files), key=lambda file: file in LAST)


def _last_test(output: str) -> str:
    """The test that was running when the output ended."""
    found: list[str] = re.findall(r"^(tests/\S+::\S+)", output, re.MULTILINE)
    return found[-1] if found else "the unit tests"


# ---------------------------------------------------------------- simulator


def _simulator(seeds: int, copy: Path, children: Children) -> str:
    """What a world raised and after how many seeds, empty if all passed."""
    program = copy / "tests" / "support" / "mutant_worlds.py"
    arguments = [str(program), str(seeds), str(SEED_LIMIT_S)]
    code, output = children.run(arguments, copy, SEED_LIMIT_S + 6.0 * seeds)
    lines = output.splitlines()
    if code == 0:
        return ""
    if code == 1 and lines and lines[-1].startswith("{"):
        failure = json.loads(lines[-1])
        return f"the simulator after {failure['seed']} seeds: {failure['says'][:SAYS_MAX]}"
    begun = sum(line.startswith("seed ") for line in lines)
    if code is None:
        return f"the simulator after {begun} seeds: it did not end"
    if code < 0:
        return f"the simulator after {begun} seeds: ended by {signal.Signals(-code).name}"
    raise BadMutant(f"no world can be run (exit code {code}):\n{output[-2_000:]}")
