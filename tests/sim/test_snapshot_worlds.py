"""Worlds with snapshots: a disk that keeps what has its name, faults right at a step, and what each must have met."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from kv_snapshots import grown

from danube_raft.config import Config
from danube_raft.errors import DiskFailed
from danube_raft.node.snapshot_jobs import Begin, SlicedSnapshot
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.sim.checks.facts import Fact, LoadTold, PurgeIssued, SnapshotTold
from danube_raft.sim.disk import Begun, Disk
from danube_raft.sim.faults import FAIL_READ, LEFT_BEHIND, MEND, WITH_SNAPSHOTS, kinds_for, plan
from danube_raft.sim.run import Report, attempt
from danube_raft.sim.schedule import SECOND
from danube_raft.sim.settings import Options, choose
from danube_raft.sim.snapshot_steps import SnapshotSteps
from danube_raft.sim.unhurried_snapshot import beginner
from danube_raft.sim.world import World
from danube_raft.storage.entry_format import ZERO_CHAIN
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.storage.recovery import Beginning
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_NOOP, NO_ORIGIN, Entry, HardState

LENGTH = 12 * SECOND


def disk_of(entries: int, seed: int = 1) -> tuple[Disk, list[local.Write | Begun]]:
    safe: list[local.Write | Begun] = []
    disk = Disk(random.Random(seed), safe.append)
    disk.open()
    rows = tuple(Entry(index, 1, KIND_NOOP, 0, 0, NO_ORIGIN, b"") for index in range(1, entries + 1))
    disk.write((local.Write(1, 0, rows, HardState(1, 0)),))
    disk.finish()
    safe.clear()
    return disk, safe


def keep(disk: Disk, index: int) -> SnapshotMeta:
    writer = MemorySnapshots(disk.folder, 77).writer(index, 1, ZERO_CHAIN)
    writer.write(b"state" * 50)
    return writer.commit()


# ---------------------------------------------------------------- disk


def test_a_crash_may_bring_back_what_was_purged() -> None:
    """Nobody waits for its sync; who took it for done would miss the entries that come back."""
    found = set()
    for seed in range(20):
        disk, safe = disk_of(5, seed)
        disk.purge(3, Beginning())
        assert disk.bounds == (3, 5)
        assert safe == []
        disk.crash()
        purged = disk.open().purged.index
        assert safe == ([Begun(3, 0, installed=False)] if purged else [])
        found.add(purged)
    assert found == {0, 3}


def test_an_installed_point_is_safe_when_its_sync_is_over() -> None:
    found = set()
    for seed in range(20):
        disk, safe = disk_of(5, seed)
        disk.install_point(9, 2, ZERO_CHAIN, Beginning())
        assert safe == []
        if seed % 2:
            disk.finish()
            assert safe == [Begun(9, 2, installed=True)]
        disk.crash()
        last = disk.open().last.index
        assert last == 9 or not seed % 2
        found.add(last)
    assert found == {5, 9}


def test_the_newest_is_damaged_only_where_another_good_one_is_left() -> None:
    disk, _ = disk_of(9)
    assert not disk.damage_newest()
    first, second = keep(disk, 4), keep(disk, 8)
    assert disk.good() == ((4, 1), (8, 1))
    assert disk.damage_newest()
    assert disk.good() == ((4, 1),)
    assert disk.has_bad_after(first.index)
    assert not disk.has_bad_after(second.index)
    assert not disk.damage_newest()


def test_one_from_before_the_log_begins_is_no_way_back() -> None:
    """Found by seed 502163: an install was cut short before it had deleted what was there."""
    disk, _ = disk_of(9)
    keep(disk, 4)
    keep(disk, 8)
    disk.purge(8, Beginning())
    disk.finish()
    assert not disk.damage_newest()
    keep(disk, 9)
    assert disk.damage_newest()


def test_a_snapshot_that_fails_was_told_to() -> None:
    disk, _ = disk_of(1)
    disk.fail_next_snapshot()
    with pytest.raises(DiskFailed):
        keep(disk, 1)
    assert disk.has_failed()
    disk.crash()
    disk.open()
    assert not disk.has_failed()
    disk.fail_next_snapshot()
    disk.heal()
    keep(disk, 1)


def reads(disk: Disk) -> list[int]:
    """Which snapshots can be read by a node that starts."""
    store = MemorySnapshots(disk.folder, 77)
    store.open()
    return [meta.index for meta in store.newest().candidates]


def test_a_reading_fails_once_where_a_node_can_begin_without() -> None:
    disk, _ = disk_of(9)
    keep(disk, 4)
    disk.fail_reading(0)
    assert reads(disk) == [], "it has its whole log"
    keep(disk, 8)
    disk.purge(3, Beginning())
    disk.finish()
    disk.fail_reading(1)
    assert reads(disk) == [8]
    assert reads(disk) == [8, 4]
    assert disk.has_failed()


def test_the_only_way_back_can_be_read() -> None:
    """One from before the log begins is none, nor one of an entry that the log does not hold."""
    disk, _ = disk_of(9)
    keep(disk, 4)
    keep(disk, 8)
    disk.purge(6, Beginning())
    disk.finish()
    writer = MemorySnapshots(disk.folder, 77).writer(9, 2, ZERO_CHAIN)
    writer.write(b"of another log")
    writer.commit()
    for before in range(3):
        disk.fail_reading(before)
        assert reads(disk) == [9, 8, 4]
    assert not disk.has_failed()
    keep(disk, 9)
    disk.fail_reading(0)
    assert reads(disk) == [9, 8, 4]
    assert disk.has_failed()


# ---------------------------------------------------------------- readings that fail


def test_readings_fail_in_some_of_the_worlds_with_snapshots_and_change_nothing_else() -> None:
    shares = Counter[bool]()
    for seed in range(40):
        settings = choose(Options(seed))
        nemesis = World(Options(seed)).nemesis
        nemesis.start(LENGTH, SECOND)
        kinds = [fault.kind for fault in nemesis.planned]
        reading = [fault for fault in nemesis.planned if fault.kind == FAIL_READ]
        assert not reading or settings.snapshots
        assert kinds[len(kinds) - len(reading) :] == len(reading) * [FAIL_READ], (
            "the others keep their numbers"
        )
        assert [fault.number for fault in nemesis.planned] == list(range(len(kinds)))
        assert all(SECOND <= fault.at < LENGTH for fault in reading)
        if settings.snapshots:
            shares[bool(reading)] += 1
    assert min(shares[True], shares[False]) > 1


def test_a_reading_that_does_not_fail_is_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.sim.settings.SNAPSHOTS_SHARE", 1.0)
    monkeypatch.setattr("danube_raft.sim.failing_reads.WORLDS_SHARE", 1.0)
    monkeypatch.setattr("danube_raft.sim.failing_reads.PAUSE_S", 0.5)
    monkeypatch.setattr("danube_raft.sim.nemesis.plan", lambda *_: ())

    def effects() -> Counter[str]:
        found: Counter[str] = Counter()
        for seed in (1, 2, 3):
            result = attempt(Options(seed, 3, 4.0))
            assert isinstance(result, Report), result
            found += result.effects
        return found

    found = effects()
    assert found[FAIL_READ] > 0
    assert found["snapshot_reads_broken"] > 0
    monkeypatch.setattr(Disk, "fail_reading", lambda *_: None)
    found = effects()
    assert found[FAIL_READ] > 0
    assert found["snapshot_reads_broken"] == 0


# ---------------------------------------------------------------- steps


class Steps:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.facts: list[Fact] = []
        self.disk, _ = disk_of(9)
        self.steps = SnapshotSteps(1, self.disk, self.counts, self.facts.append)


def test_a_trap_springs_once_at_its_step() -> None:
    made, sprung = Steps(), list[int]()
    made.steps.set_trap("purge", lambda: sprung.append(1))
    made.steps.said(local.AskPoint(3))
    assert not sprung
    for _ in range(2):
        made.steps.said(local.Purge(3, 0, b""))
    assert sprung == [1]
    assert made.counts["stopped at purge"] == 1
    made.steps.set_trap("purge", lambda: sprung.append(2))
    made.steps.stopped()
    made.steps.said(local.Purge(3, 0, b""))
    assert sprung == [1], "the node that it was set for is gone"


def test_steps_are_told_and_counted() -> None:
    made = Steps()
    keep(made.disk, 3)
    done = local.SnapshotDone(3, 1, ZERO_CHAIN, 100, b"", 0, b"")
    made.steps.said(local.LoadSnapshot(0, 0))
    made.steps.said(local.AskPoint(3))
    made.steps.said(done)
    made.steps.said(local.Purge(2, 0, b""))
    assert made.facts == [
        LoadTold(1, 0, 0, installed=False),
        SnapshotTold(1, done),
        PurgeIssued(1, 2, ((3, 1),)),
    ]
    made.steps.said(local.StagePiece(8, 1, ZERO_CHAIN, 100, b"", 0, b"x"))
    made.steps.stopped()
    made.steps.said(local.LoadSnapshot(3, 1))
    made.steps.said(done)
    assert made.counts["snapshots_taken"] == 1, "the second one was loaded"
    assert made.counts["logs_purged"] == made.counts["installs_interrupted"] == 1
    assert made.counts["restarts_from_snapshot"] == 1
    assert made.counts["takes_interrupted"] == made.counts["loads_of_the_older"] == 0


def test_a_transfer_that_goes_on_after_a_break_is_counted() -> None:
    made = Steps()

    def receive(sender: int, sha: bytes, offset: int, term: int = 1, now: int = 0) -> int:
        message = peer.InstallSnapshot(8, 1, ZERO_CHAIN, 100, sha, 0, b"", offset, b"x")
        made.steps.received(peer.Header(77, sender, 1, term, 1), message, now)
        return made.counts["transfers_resumed"]

    assert receive(2, b"a", 0) == 0
    assert receive(2, b"a", 50) == 0
    assert receive(3, b"b", 50) == 0, "another file"
    assert receive(2, b"b", 0) == 0, "from its beginning"
    assert receive(3, b"b", 50) == 1, "another leader"
    assert receive(3, b"b", 60, term=2) == 2, "another term"
    assert receive(3, b"b", 70, term=2, now=SECOND) == 3, "after a silence"
    assert receive(3, b"b", 80, term=2, now=SECOND) == 3


# ---------------------------------------------------------------- plans and worlds


def test_faults_of_snapshots_are_planned_where_there_are_any() -> None:
    """And no other world changes: its seed means what it meant before."""
    for nodes in (1, 2, 3, 5):
        kinds = {
            fault.kind for seed in range(100) for fault in plan(random.Random(seed), nodes, LENGTH, 0, True)
        }
        behind = {LEFT_BEHIND} if nodes >= 3 else set()
        assert kinds == {*kinds_for(nodes), *WITH_SNAPSHOTS, MEND} | behind
        assert (
            not kinds
            & {*WITH_SNAPSHOTS, LEFT_BEHIND}
            & {fault.kind for seed in range(100) for fault in plan(random.Random(seed), nodes, LENGTH)}
        )


def test_a_third_of_all_worlds_makes_snapshots() -> None:
    chosen = [choose(Options(seed)) for seed in range(600)]
    assert 150 < sum(settings.snapshots for settings in chosen) < 250
    for settings in chosen:
        assert settings.snapshots == (settings.config.snapshot_log_bytes < Config().snapshot_log_bytes)


@pytest.mark.parametrize("kind", [*WITH_SNAPSHOTS, LEFT_BEHIND])
def test_each_kind_finds_something_to_disturb(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.sim.settings.SNAPSHOTS_SHARE", 1)
    monkeypatch.setattr("danube_raft.sim.faults.kinds_for", lambda nodes: 20 * (kind,))
    done: Counter[str] = Counter()
    for seed in (1, 2, 3):
        result = attempt(Options(seed, 5, 6.0))
        assert isinstance(result, Report), result
        done += result.effects
    assert done[kind] > 0
    assert done["snapshots_taken"] > 0
    assert done["logs_purged"] > 0


# ---------------------------------------------------------------- making one


def test_an_unhurried_snapshot_is_the_product_s_in_more_steps() -> None:
    """A world that made other files than a node would show nothing of them."""
    machine = grown()

    def made(begin: Begin) -> tuple[SnapshotMeta, int]:
        job = begin(Shelf(MemorySnapshots(MemoryFolder(), 77), Counter()), machine)
        job.give_point(ZERO_CHAIN)
        for polls in itertools.count(1):
            outcome = job.poll()
            if outcome is not None:
                assert isinstance(outcome, SnapshotMeta)
                return outcome, polls
        raise AssertionError

    expected, _ = made(SlicedSnapshot)
    steps = set()
    for seed in range(20):
        outcome, polls = made(beginner(random.Random(seed)))
        assert outcome == expected
        steps.add(polls)
    assert max(steps) > 1
