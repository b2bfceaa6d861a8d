"""A failure is told so that somebody can begin with it: few faults, readable events, one command."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.checks.once import check_once
from danube_raft.sim.describe import describe, describe_event
from danube_raft.sim.faults import Fault, Told
from danube_raft.sim.run import Failure, Report, _signature, attempt, command
from danube_raft.sim.schedule import SECOND
from danube_raft.sim.settings import Options
from danube_raft.sim.shrink import BUDGET_S, shrink, tell
from danube_raft.sim.world import World
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_NOOP, NO_ORIGIN, Entry

PASS = Report(1, 3, 1.0, 1, 1, 1, 1, {}, "")  # type: ignore[arg-type]


def failing(numbers: tuple[int, ...], signature: str = "Violation in x.take") -> Failure:
    told = tuple(Told(Fault(number, number * SECOND, "crash"), "node 1") for number in numbers)
    return Failure(Options(1, faults=numbers), AssertionError("planted"), signature, told, "")


def needs(*wanted: int) -> tuple[Callable[[Options], Report | Failure], list[tuple[int, ...]]]:
    """A world that fails whenever it has all these faults."""
    runs: list[tuple[int, ...]] = []

    def run(options: Options) -> Report | Failure:
        assert options.faults is not None
        runs.append(options.faults)
        return failing(options.faults) if set(wanted) <= set(options.faults) else PASS

    return run, runs


@pytest.mark.parametrize("wanted", [(), (0,), (13,), (3, 4), (0, 7, 13), tuple(range(14))])
def test_only_the_faults_that_it_takes_are_left(wanted: tuple[int, ...]) -> None:
    run, runs = needs(*wanted)
    found = shrink(failing(tuple(range(14))), run)
    assert tuple(told.fault.number for told in found.faults) == wanted
    assert len(runs) < 100


def test_a_failure_without_faults_needs_none() -> None:
    run, runs = needs()
    assert shrink(failing(()), run).options.faults == ()
    assert runs == [()]


def test_another_failure_is_not_taken_for_this_one() -> None:
    def run(options: Options) -> Report | Failure:
        assert options.faults is not None
        return failing(
            options.faults, "Idle in run.check" if 5 not in options.faults else "Violation in x.take"
        )

    found = shrink(failing(tuple(range(10))), run)
    assert [told.fault.number for told in found.faults] == [5]


def test_it_ends_in_time_with_the_best_that_was_found() -> None:
    now = [0.0]

    def run(options: Options) -> Report | Failure:
        now[0] += BUDGET_S / 3
        return needs(1, 8)[0](options)

    found = shrink(failing(tuple(range(10))), run, lambda: now[0])
    assert {1, 8} <= {told.fault.number for told in found.faults}


class Broken(World):
    """A world that fails once a node has crashed."""

    def _check_history(self) -> None:
        if self.nemesis.done["crash"]:
            raise AssertionError("planted")


def test_a_real_world_is_shrunk_and_its_command_fails_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("danube_raft.sim.run.World", Broken)
    monkeypatch.setattr("danube_raft.sim.faults.kinds_for", lambda nodes: 3 * ("crash", "disturb"))
    failure = attempt(Options(2, 3, 8.0))
    assert isinstance(failure, Failure)
    assert len(failure.faults) > 2
    shrunk = shrink(failure)
    (told,) = shrunk.faults
    assert told.fault.kind == "crash"
    assert isinstance(attempt(shrunk.options), Failure)
    text = tell(failure)
    assert "seed 2 FAILED: AssertionError in test_shrink._check_history" in text
    assert f"shrunk from {len(failure.faults)} to 1 faults" in text
    assert f"crash: node {told.what.split()[1]}" in text
    assert (
        f"repeat with: scripts/simulate --seed 2 --nodes 3 --seconds 8 --faults {told.fault.number} --trace"
        in text
    )


def test_a_world_without_any_fault_can_be_asked_for() -> None:
    assert command(Options(4, faults=())) == "scripts/simulate --seed 4 --faults none --trace"


# ---------------------------------------------------------------- words


def entry(index: int, term: int = 2) -> Entry:
    return Entry(index, term, KIND_NOOP, 0, 0, NO_ORIGIN, b"")


def test_entries_and_bytes_are_shown_short() -> None:
    assert describe((entry(5, 1), entry(6), entry(7))) == "5..7@1,2"
    assert describe(b"\x00" * 100) == "<100 bytes>"
    assert describe(tuple(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, …]"
    assert describe(local.Durable(4)) == "Durable(seq 4)"


def test_a_message_says_who_tells_whom_what() -> None:
    header = peer.Header(cluster_id=77, sender=1, receiver=2, term=3, boot_epoch=1)
    message = peer.AppendEntries(4, 2, 4, 1_000, (entry(5),))
    line = describe_event(1_500_000, ("peer", 1, 2, "AppendEntries", 99, False), (header, message))
    assert line.startswith("    1.500000 node 1 -> node 2  term 3  AppendEntries(prev_index 4, prev_term 2")
    assert "entries 5..5@2" in line
    assert line.endswith("(refused by the link)")
    line = describe_event(0, ("local", 1, "consensus", "log-writer", 99), [local.Write(1, 0, (), None)])
    assert line.endswith(
        "node 1 consensus -> log-writer  Write(seq 1, truncate_from 0, entries [], hard_state None)"
    )
    assert describe_event(0, ("role", 1, "leader", 3, 1), None).endswith(
        "node 1 is leader of term 3, its leader is 1"
    )


# ---------------------------------------------------------------- signatures


class Waiting(World):
    """A world in which one demand is never met."""

    missing = ""

    def _demand_progress(self) -> None:
        self._wait(self.missing, 10, lambda: False)


def signature(monkeypatch: pytest.MonkeyPatch, missing: str) -> str:
    monkeypatch.setattr("danube_raft.sim.run.World", Waiting)
    monkeypatch.setattr(Waiting, "missing", missing)
    failure = attempt(Options(1, 3, 0.5))
    assert isinstance(failure, Failure)
    return failure.signature


def test_a_missing_leader_is_no_silent_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else shrinking would turn one failure into another."""
    leader = signature(monkeypatch, "a leader that all know")
    assert leader != signature(monkeypatch, "progress of a watch, one is silent")
    assert signature(monkeypatch, "put at node 1") == signature(monkeypatch, "put at node 3") != leader


def test_values_of_any_length_leave_the_signature_as_it_is() -> None:
    def found(value: bytes) -> str:
        with pytest.raises(Violation) as caught:
            check_once([], [("/k/1", value, 2, 2, 1, 0, 0)])
        return _signature(caught.value)

    assert found(b"a") == found(b"another one, and a long one, longer than what a signature shows of it" * 2)
