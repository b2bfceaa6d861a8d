"""The fake edges behave as the real ones do where it matters: a disk that forgets, links that lose, processes that stop.

A simulator whose disk kept everything, or whose cut links delivered, would pass every seed and show nothing.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.errors import Corrupt, DiskFailed, Fatal
from danube_raft.sim.disk import Disk
from danube_raft.sim.network import QUEUE_FRAMES, Network
from danube_raft.sim.process import Clock, Process
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.settings import Options, choose
from danube_raft.storage.durable_mark import Mark, decode, encode
from danube_raft.storage.memory_log import AFTER, BEFORE
from danube_raft.wire import local
from danube_raft.wire.entry import KIND_NOOP, NO_ORIGIN, Entry, HardState


def write(seq: int) -> local.Write:
    entry = Entry(seq, 1, KIND_NOOP, 0, 0, NO_ORIGIN, b"")
    return local.Write(seq, 0, (entry,), HardState(1, 0) if seq == 1 else None)


# ---------------------------------------------------------------- disk


def test_a_write_is_told_to_be_durable_when_its_sync_is_over() -> None:
    synced: list[int] = []
    disk = Disk(random.Random(1), lambda each: synced.append(each[0]))
    disk.open()
    disk.write((write(1), write(2)))
    assert synced == []
    assert len(disk.read(1, 2, 1_000)) == 2, "it can be read at once"
    disk.finish()
    assert synced == [1, 2]


def test_a_crash_keeps_a_prefix_of_what_was_not_synced_and_says_which() -> None:
    kept: set[int] = set()
    for seed in range(40):
        synced: list[int] = []
        disk = Disk(random.Random(seed), lambda each, synced=synced: synced.append(each.seq))  # type: ignore[misc]
        disk.open()
        disk.write((write(1),))
        disk.finish()
        for seq in (2, 3, 4):
            disk.write((write(seq),))
        disk.crash()
        assert disk.open().last.index == len(synced)
        assert synced == list(range(1, len(synced) + 1))
        kept.add(len(synced))
    assert kept == {1, 2, 3, 4}


def test_a_disk_that_is_healed_fails_no_write_any_more() -> None:
    disk = Disk(random.Random(1), lambda each: None)
    disk.open()
    disk.fail_next_write()
    disk.heal()
    disk.write((write(1),))
    assert not disk.has_failed()


def test_what_is_synced_together_may_be_torn_apart() -> None:
    kept: set[int] = set()
    for seed in range(40):
        disk = Disk(random.Random(seed), lambda each: None)
        disk.open()
        disk.write((write(1), write(2), write(3)))
        disk.crash()
        last = disk.open().last.index
        kept.add(last)
        assert disk.counts["unsynced_torn"] == (last in (1, 2))
    assert kept == {0, 1, 2, 3}


def test_a_write_that_fails_may_be_there_after_the_crash_or_not() -> None:
    found: set[int] = set()
    for seed in range(40):
        disk = Disk(random.Random(seed), lambda each: None)
        disk.open()
        disk.fail_next_write()
        with pytest.raises(DiskFailed):
            disk.write((write(1),))
        disk.crash()
        found.add(disk.open().last.index)
    assert found == {0, 1}


@pytest.mark.parametrize(("when", "kept"), [(BEFORE, {0}), (AFTER, {0, 1})])
def test_a_mark_that_fails_may_be_there_after_the_crash_or_not(when: str, kept: set[int]) -> None:
    found: set[int] = set()
    for seed in range(40):
        told: list[bool] = []
        disk = Disk(random.Random(seed), lambda each: None, told.append)
        disk.open()
        disk.write((write(1),))
        disk.fail_next_write(when)
        with pytest.raises(DiskFailed):
            disk.slots.write(0, encode(7, Mark()))
        assert disk.has_failed()
        disk.crash()
        slots = disk.slots.read()
        assert slots is not None
        there = decode(slots[0]) == (7, Mark())
        assert told == there * [False]
        assert not there or disk.open().last.index == 1, "the log was written before"
        found.add(int(there))
    assert found == kept


def test_a_disk_has_failed_only_if_it_was_told_to_and_until_it_is_opened_again() -> None:
    disk = Disk(random.Random(1), lambda each: None)
    disk.open()
    disk.write((write(1),))
    assert not disk.has_failed()
    disk.fail_next_write()
    assert not disk.has_failed()
    with pytest.raises(DiskFailed):
        disk.write((write(2),))
    assert disk.has_failed()
    disk.crash()
    disk.open()
    assert not disk.has_failed()


def test_a_disk_that_hangs_or_is_slow_takes_longer() -> None:
    disk = Disk(random.Random(1), lambda each: None)
    usual = max(disk.sync_us(0) for _ in range(100))
    disk.slow_down()
    assert max(disk.sync_us(0) for _ in range(100)) > usual
    disk.hang(0)
    assert disk.sync_us(0) > SECOND
    assert disk.busy_until > SECOND
    disk.heal()
    assert max(disk.sync_us(0) for _ in range(100)) < SECOND


# ---------------------------------------------------------------- network


class Wire:
    """Two nodes and what arrived where."""

    def __init__(self, seed: int = 1) -> None:
        self.schedule = Schedule()
        self.arrived: list[tuple[int, bytes]] = []
        self.network = Network(
            self.schedule, random.Random(seed), (1, 2), lambda to, frame: self.arrived.append((to, frame))
        )

    def send(self, count: int, lane: int = 0) -> list[bool]:
        return [self.network.send(1, 2, b"%d" % number, lane) for number in range(count)]

    def settle(self) -> list[int]:
        self.schedule.run_until(self.schedule.now + 10 * SECOND)
        arrived, self.arrived = self.arrived, []
        return [int(frame) for _, frame in arrived]


def test_a_sound_link_delivers_in_order() -> None:
    wire = Wire()
    assert all(wire.send(50))
    assert wire.settle() == list(range(50))


def test_a_cut_link_loses_without_a_word_even_what_is_under_way() -> None:
    wire = Wire()
    wire.send(5)
    wire.network.isolate(2, inward=True, outward=False, down=False)
    assert all(wire.send(5))
    assert wire.settle() == []
    assert wire.network.send(2, 1, b"0"), "the other direction is sound"
    assert wire.settle() == [0]
    wire.network.heal()
    wire.send(1)
    assert wire.settle() == [0]


def test_a_link_that_is_down_or_full_or_leads_to_nobody_refuses() -> None:
    wire = Wire()
    wire.network.divide(frozenset({1}), down=True)
    assert wire.send(1) == [False]
    wire.network.heal()
    assert wire.send(QUEUE_FRAMES + 1) == [True] * QUEUE_FRAMES + [False]
    wire.settle()
    wire.network.unreachable.add(2)
    assert wire.send(1) == [False]


def test_a_disturbed_link_loses_doubles_and_lets_overtake() -> None:
    wire = Wire()
    wire.network.disturb(0.2, 0.2, 0.2, 0)
    wire.send(80)
    arrived = wire.settle()
    assert len(set(arrived)) < 80
    assert len(arrived) > len(set(arrived))
    assert arrived != sorted(arrived)


# ---------------------------------------------------------------- process


class Echo:
    """A handler that says what it hears, and wants a turn at `wake_at`."""

    ready = True
    done = False

    def __init__(self) -> None:
        self.outbox: list[tuple[str, Any]] = []
        self.heard: list[tuple[int, Any]] = []
        self.turned: list[int] = []
        self.wake_at: int | None = None

    def start(self, now: int) -> None:
        self.wake_at = now + 100

    def receive(self, edge: str, message: Any, now: int) -> None:
        self.heard.append((now, message))
        self.outbox.append((edge, message))

    def turn(self, now: int) -> None:
        self.turned.append(now)
        if self.wake_at is not None and now >= self.wake_at:
            self.wake_at = None

    def next_timer(self) -> int | None:
        return self.wake_at

    def close(self) -> None:
        pass


class Stage:
    def __init__(self) -> None:
        self.schedule = Schedule()
        self.said: list[Any] = []
        self.trouble: list[tuple[str, Any]] = []
        self.echo = Echo()
        clock = Clock(self.schedule, random.Random(1))
        self.process = Process(self.schedule, random.Random(1), clock, self.echo, "echo", self._emit)
        self.process.start(0)

    def _emit(self, name: str, said: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        self.said += [message for _, message in said]
        trouble, self.trouble = self.trouble, []
        return trouble

    def run(self, ms: int) -> None:
        self.schedule.run_until(self.schedule.now + ms * MS)


def test_a_process_turns_for_messages_and_for_its_timer_and_not_else() -> None:
    stage = Stage()
    stage.run(50)
    stage.process.deliver([("edge", "a"), ("edge", "b")])
    stage.run(1_000)
    assert stage.said == ["a", "b"]
    _, for_messages, for_timer = stage.echo.turned
    assert for_messages == stage.echo.heard[0][0]
    assert abs(for_timer - for_messages - 50) <= 1


def test_a_paused_process_hears_everything_when_it_goes_on_before_its_timer_is_looked_at() -> None:
    stage = Stage()
    stage.run(50)
    stage.process.pause()
    stage.process.deliver([("edge", "a")])
    stage.run(5_000)
    assert (stage.said, len(stage.echo.turned)) == ([], 1)
    stage.process.resume()
    stage.run(1)
    assert stage.said == ["a"]
    assert len(stage.echo.turned) == 2
    assert stage.echo.wake_at is None


def test_what_waits_for_a_sync_is_said_after_it_and_not_by_the_dead() -> None:
    stage = Stage()
    finished: list[int] = []
    stage.process.lasts_us = lambda now: 500 * MS
    stage.process.finish = lambda: finished.append(stage.schedule.now)
    stage.run(1)
    stage.process.deliver([("edge", "a")])
    stage.run(400)
    assert (stage.said, finished) == ([], [])
    stage.run(200)
    assert stage.said == ["a"]
    assert len(finished) == 1
    stage.process.deliver([("edge", "b")])
    stage.run(100)
    stage.process.alive = False
    stage.run(1_000)
    assert stage.said == ["a"]
    assert len(finished) == 1


@pytest.mark.parametrize("where", ["turn", "receive"])
@pytest.mark.parametrize("error", [DiskFailed("worn out"), Corrupt("bad bytes")])
def test_an_error_of_a_handler_ends_the_run_unless_its_disk_was_made_to_fail(
    error: Fatal, where: str
) -> None:
    def broken(*_: object) -> None:
        raise error

    stage = Stage()
    ended: list[bool] = []
    stage.run(1)
    setattr(stage.echo, where, broken)
    stage.process.failed = lambda: ended.append(True)
    stage.process.deliver([("edge", "a")])
    with pytest.raises(type(error)):
        stage.run(1)
    stage.process.may_fail = lambda: True
    stage.process.deliver([("edge", "b")])
    if isinstance(error, DiskFailed):
        stage.run(1)
        assert ended == [True]
        assert not stage.process.alive
    else:
        with pytest.raises(Corrupt):
            stage.run(1)


def test_what_a_process_says_leaves_at_the_end_of_its_turn_and_not_while_it_is_paused() -> None:
    stage = Stage()
    stage.process.lasts_us = lambda now: 10 * MS
    stage.run(1)
    stage.process.deliver([("edge", "a")])
    stage.run(5)
    assert len(stage.echo.heard) == 1
    stage.process.pause()
    stage.run(1_000)
    assert stage.said == []
    stage.process.resume()
    stage.run(2)
    assert stage.said == ["a"]


def test_what_did_not_get_through_is_looked_at_at_once() -> None:
    """As the loop does: a process that waited for its timer would answer too late."""
    stage = Stage()
    stage.run(50)
    stage.trouble = [("links", "unsent")]
    stage.process.deliver([("edge", "a")])
    stage.run(2)
    assert [message for _, message in stage.echo.heard] == ["a", "unsent"]
    assert len(stage.echo.turned) == 3


# ---------------------------------------------------------------- settings


def test_seeds_choose_clusters_of_every_size_and_both_kinds_of_windows() -> None:
    chosen = [choose(Options(seed)) for seed in range(200)]
    assert {settings.nodes for settings in chosen} == {1, 2, 3, 4, 5, 6, 7}
    assert {settings.config.append_max_bytes == Config().append_max_bytes for settings in chosen} == {
        True,
        False,
    }
    assert choose(Options(4, nodes=5)).nodes == 5


def test_seeds_choose_any_number_of_watchers_and_in_some_worlds_limits_that_watches_meet() -> None:
    chosen = [choose(Options(seed)) for seed in range(100)]
    usual = Config()
    assert {settings.watchers for settings in chosen} == {0, 1, 2, 3, 4}
    for name in ("history_max_events", "watch_frame_max_bytes", "client_queue_max_messages"):
        values = {getattr(settings.config, name) for settings in chosen}
        assert getattr(usual, name) in values
        assert min(values) < getattr(usual, name) / 20
