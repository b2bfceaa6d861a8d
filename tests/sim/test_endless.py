"""A world that never ends is told like any other failure, and soon; and no process stays behind when it is not waited for.

Without limits the run that finds an endless loop hangs, with its seed in nobody's hands.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from danube_raft.sim import __main__ as command
from danube_raft.sim.endless import Endless, Hung, at_most
from danube_raft.sim.run import Failure, attempt
from danube_raft.sim.schedule import EVENTS_MAX, SECOND, Schedule
from danube_raft.sim.settings import Options
from danube_raft.sim.shrink import tell
from danube_raft.sim.world import World

ROOT = Path(__file__).parent.parent.parent


def circle(schedule: Schedule, delay: int) -> None:
    schedule.after(delay, circle, schedule, delay)


@pytest.mark.parametrize("delay", [0, 1])
def test_events_that_lead_to_each_other_without_end_are_told(delay: int) -> None:
    schedule = Schedule()
    circle(schedule, delay)
    with pytest.raises(Endless, match="events without end, such as circle"):
        schedule.run_until(10 * SECOND)


def test_many_events_in_a_long_time_are_none_of_that() -> None:
    schedule = Schedule()
    circle(schedule, 2 * SECOND // EVENTS_MAX)
    schedule.run_until(4 * SECOND)


class Circling(World):
    """A world whose events go round in circles after its last fault."""

    def _heal(self) -> None:
        super()._heal()
        circle(self.schedule, 0)


class Looping(World):
    """A world in which one call does not come back."""

    def _heal(self) -> None:
        while True:
            pass


@pytest.mark.parametrize(
    ("world", "signature"), [(Circling, "Endless: events"), (Looping, "Hung: one event")]
)
def test_a_world_that_does_not_end_is_a_failure_that_can_be_told(
    world: type[World], signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("danube_raft.sim.run.World", world)
    monkeypatch.setattr("danube_raft.sim.run.WORLD_S", 0.5)
    monkeypatch.setattr("danube_raft.sim.shrink.BUDGET_S", 5.0)
    failure = attempt(Options(1, 3, 0.5))
    assert isinstance(failure, Failure)
    assert failure.signature.startswith(signature)
    assert "repeat with: scripts/simulate --seed 1" in tell(failure)


def test_a_world_that_hung_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(Options(1), Hung("planted"), "Hung: planted", (), "")
    runs: list[Options] = []
    monkeypatch.setattr("danube_raft.sim.shrink.attempt", runs.append)
    monkeypatch.setattr("danube_raft.sim.shrink.shrink", runs.append)
    assert "planted" in tell(failure)
    assert runs == []


def test_the_command_for_one_seed_ends_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("danube_raft.sim.run.World", Looping)
    monkeypatch.setattr("danube_raft.sim.run.WORLD_S", 0.5)
    assert command.main(["--seed", "1", "--nodes", "3", "--seconds", "0.5"]) == 1
    assert "seed 1 FAILED: Hung" in capsys.readouterr().out


def test_the_alarm_is_off_after_the_block_and_leaves_no_handler() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with at_most(60.0):
        pass
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) is before


# ---------------------------------------------------------------- workers


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def eventually(is_met: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not is_met():
        assert time.monotonic() < end
        os.sched_yield()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command(number: signal.Signals) -> None:
    """Else they would keep the cores busy with worlds that nobody hears of, as long as such a world takes."""
    arguments = [sys.executable, "-m", "danube_raft.sim", "--seeds", "2", "--seconds", "20000"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL) as leader:
        eventually(lambda: len(children(leader.pid)) == 2)
        workers = children(leader.pid)
        # Once a worker has taken up its first world, it is tied to its parent.
        eventually(lambda: all(computed(worker) > 100 for worker in workers))
        leader.send_signal(number)
        leader.wait(30.0)
    eventually(lambda: not any(runs(worker) for worker in workers))


def computed(pid: int) -> int:
    """User time, in ticks of a hundredth of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
