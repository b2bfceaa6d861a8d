"""Whole clusters from seeds: those that once failed, the first 200, and that a seed means the same everywhere.

What a world checks is told in `danube_raft/sim/`; `scripts/simulate` runs more of them. A seed that fails here goes into
seeds.txt with a line that says what it showed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.run import NEEDED, Idle, Report, check_coverage, command, simulate
from danube_raft.sim.settings import Options
from danube_raft.sim.world import World

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 900
"""200 seeds take three minutes of two cores beside other tests, and five times that beside another simulation."""


def known_seeds() -> list[Options]:
    lines = (ROOT / "tests" / "sim" / "seeds.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [Options(int(row[0]), int(row[1]), float(row[2])) for row in rows]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "danube_raft.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("options", known_seeds(), ids=lambda options: f"seed {options.seed}")
def test_a_seed_that_once_failed_passes(options: Options) -> None:
    simulate(options)


@pytest.mark.timeout(LIMIT_S)
def test_seeds_pass_and_every_kind_of_fault_happens() -> None:
    """The command checks the coverage of so many seeds itself."""
    done = run("--seed", "1", "--seeds", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 of 200 seeds" in done.stdout
    assert "effects: " in done.stdout


@pytest.mark.timeout(LIMIT_S)
def test_a_seed_gives_the_same_trace_whatever_the_hash_seed() -> None:
    """Byte for byte, every event, every message and the state in the end: else a failure could not be repeated, and
    replicas of one process, which share its hash seed, would agree on what real ones would not."""
    arguments = ("--seed", "21", "--nodes", "3", "--seconds", "18", "--trace")
    one = run(*arguments, PYTHONHASHSEED="1")
    other = run(*arguments, PYTHONHASHSEED="4711")
    assert one.returncode == other.returncode == 0, one.stderr + other.stderr
    assert one.stdout.count("\n") > 2_000
    assert one.stdout == other.stdout


DIGESTS = """
from danube_raft.sim.run import simulate
from danube_raft.sim.settings import Options
for seed in range(1, 13):
    report = simulate(Options(seed, 3, 6.0))
    print(seed, report.trace, report.effects["prefixes_deleted"])
"""


@pytest.mark.timeout(LIMIT_S)
def test_seeds_of_all_kinds_give_the_same_trace_whatever_the_hash_seed() -> None:
    """Order among the keys of one prefix is where hashing would show."""
    found = []
    for hash_seed in ("1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        found.append(done.stdout)
    assert found[0] == found[1]
    assert any(int(line.split()[2]) > 2 for line in found[0].splitlines())


def test_another_seed_is_another_world() -> None:
    assert simulate(Options(1, 3, 3.0)).trace != simulate(Options(2, 3, 3.0)).trace


class Broken(World):
    """A world whose check fails at some moment."""

    def _check_history(self) -> None:
        raise AssertionError("planted")


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.sim.run.World", Broken)
    with pytest.raises(AssertionError, match="planted") as caught:
        simulate(Options(3, 1, 2.0))
    (note,) = caught.value.__notes__
    assert "the last events:" in note
    assert note.endswith("repeat with: scripts/simulate --seed 3 --nodes 1 --seconds 2 --trace")


def test_the_command_that_repeats_a_world_runs_that_world() -> None:
    options = Options(5, 3, 3.0)
    words = command(options).split()
    assert words[0] == "scripts/simulate"
    assert simulate(options).trace in run(*words[1:]).stdout


def test_a_world_in_which_nothing_succeeds_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.sim.world.OPERATIONS_MIN", 10_000)
    with pytest.raises(Violation, match="missing 10000 operations to succeed: waited 15000 ms"):
        simulate(Options(1, 3, 2.0))


def report(**effects: int) -> Report:
    return Report(1, 3, 10.0, 100, 90, 2, 4, Counter(effects), "")


def test_faults_that_never_happened_are_a_failure() -> None:
    everything = dict.fromkeys(NEEDED, 1)
    check_coverage([report(**everything)])
    with pytest.raises(Idle, match="in no world: isolate"):
        check_coverage([report(**{**everything, "isolate": 0})])
    with pytest.raises(Idle, match="no leader was ever followed"):
        check_coverage([report(**everything)._replace(elections=1)])


def test_the_command_fails_when_a_seed_fails() -> None:
    """A world of no time has no faults in it."""
    done = run("--seed", "1", "--seeds", "4", "--seconds", "0.01", "--nodes", "3")
    assert done.returncode == 1
    assert "FAILED: Idle in run._check_activity" in done.stdout
    assert "repeat with: scripts/simulate --seed" in done.stdout
    assert "FAILED: seeds [" in done.stdout


def test_the_command_may_go_on_and_tell_all_that_failed() -> None:
    done = run("--seed", "1", "--seeds", "4", "--seconds", "0.01", "--nodes", "3", "--keep-going")
    assert done.returncode == 1
    found = re.search(r"FAILED: seeds \[(.*)\]", done.stdout)
    assert found is not None
    assert sorted(found[1].split(", ")) == ["1", "2", "3", "4"]


def test_the_command_stops_when_its_time_is_over() -> None:
    done = run("--seed", "1", "--minutes", "0.02", "--seconds", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    seeds = int(re.search(r"(\d+) seeds from 1", done.stdout)[1])  # type: ignore[index]
    assert 1 <= seeds < 1_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nodes", "9"),
        ("--seeds", "-1"),
        ("--trace", "--seeds", "2"),
        ("--minutes", "-1"),
        ("--faults", "1", "--seeds", "2"),
        ("--seconds", "0"),
        ("--faults", "x"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2
