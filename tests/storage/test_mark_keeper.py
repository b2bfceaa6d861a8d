"""The mark and the log in step: whatever a crash leaves of both is sound, and what is lost beyond that is SUSPECT.

Without the first a power failure would silence sound nodes; without the second a node that forgot its vote or its acks
would vote and ack again, and committed entries would be lost (PITFALLS 1, 34, and the WAL rows under rocksdict).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from danube_raft.storage.durable_mark import Mark
from danube_raft.storage.mark_keeper import MISSING, UNREADABLE, MarkKeeper, Standing, is_older, newest
from danube_raft.storage.memory_log import MemoryLog
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.storage.recovery import Beginning, Point
from danube_raft.wire.entry import KIND_BATCH, NO_ORIGIN, Entry, HardState
from danube_raft.wire.local import Write

INTERVAL_MS = 50


def entry(index: int, term: int = 1, payload: bytes = b"v") -> Entry:
    return Entry(index, term, KIND_BATCH, 0, 0, NO_ORIGIN, payload)


class Machine:
    """One disk with both on it, and a log-writer's hands."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.slots = MemoryMark()
        self.now = 1_000
        self.standing = self.open()

    def open(self) -> Standing:
        found = self.log.open()
        self.keeper = MarkKeeper(self.slots, self.log, INTERVAL_MS)
        self.standing = self.keeper.open(found, self.now)
        return self.standing

    def reopen(self) -> Standing:
        self.keeper.close()
        self.log.close()
        return self.open()

    def write(self, *entries: Entry, cut: int = 0, state: HardState | None = None) -> None:
        group = [Write(1, cut, entries, state)]
        self.keeper.before_write(group)
        self.log.write(group)
        self.keeper.wrote(group)

    def follow(self) -> None:
        """Time passes, and the mark follows."""
        self.now += INTERVAL_MS
        self.keeper.keep(self.now)

    def forget(self, changes: int) -> Standing:
        """The last changes of the log are gone."""
        self.keeper.close()
        self.log.close()
        self.log = self.log.older(self.log.age - changes)
        return self.open()

    @property
    def mark(self) -> Mark:
        slots = self.slots.read()
        assert slots is not None
        known = newest(slots)
        assert known is not None
        return known[2]


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.write(entry(1), state=HardState(1, 5))
    made.write(entry(2))
    made.write(entry(3))
    made.follow()
    return made


# ---------------------------------------------------------------- when it is written


def test_a_fresh_log_begins_with_a_mark_and_is_sound() -> None:
    machine = Machine()
    assert machine.standing == (HardState(), "")
    assert machine.mark == Mark()
    assert machine.reopen() == (HardState(), "")


def test_a_log_that_holds_nothing_is_doubted_without_its_mark() -> None:
    """The mark is older than the log: both may have been lost. It is doubted until a leader has brought it up to date."""
    machine = Machine()
    machine.slots.lose()
    assert machine.reopen() == (HardState(), MISSING)
    assert machine.reopen() == (HardState(), MISSING)
    machine.keeper.trust()
    assert machine.reopen() == (HardState(), "")


def test_entries_are_followed_when_it_is_time_and_not_before() -> None:
    """One sync in `INTERVAL_MS` is all that a stream of puts pays."""
    machine = Machine()
    machine.write(entry(1), state=HardState(1, 5))
    assert machine.keeper.next_timer() is None
    machine.write(entry(2))
    machine.write(entry(3))
    before = machine.slots.read()
    assert machine.keeper.next_timer() == 1_000 + INTERVAL_MS
    machine.keeper.keep(1_000 + INTERVAL_MS - 1)
    assert machine.slots.read() == before
    machine.keeper.keep(1_000 + INTERVAL_MS)
    assert machine.mark.point == machine.log.last
    assert machine.keeper.next_timer() is None


def test_a_first_write_after_a_quiet_time_is_followed_at_once(machine: Machine) -> None:
    machine.keeper.keep(5_000)
    machine.write(entry(4))
    due = machine.keeper.next_timer()
    assert due is not None
    assert due <= 5_000


@pytest.mark.parametrize("state", [HardState(2, 0), HardState(2, 7)])
def test_a_term_or_vote_is_in_the_mark_before_anybody_is_told(machine: Machine, state: HardState) -> None:
    machine.write(state=state)
    assert machine.mark.hard_state == state
    assert machine.mark.point == machine.log.last


def test_the_last_vote_of_a_group_counts(machine: Machine) -> None:
    group = [
        Write(1, 0, (), HardState(2, 0)),
        Write(2, 0, (), HardState(2, 7)),
        Write(3, 0, (entry(4),), None),
    ]
    machine.log.write(group)
    machine.keeper.wrote(group)
    assert machine.mark.hard_state == (2, 7)


def test_the_mark_is_lowered_before_the_log_is_cut(machine: Machine) -> None:
    machine.write(state=HardState(2, 0))
    machine.keeper.before_write([Write(1, 0, (entry(4, 2),), None), Write(2, 2, (entry(2, 2),), None)])
    assert machine.mark.point == machine.log.point(1)
    assert machine.mark.hard_state == (2, 0)


def test_a_purge_does_not_overtake_the_mark() -> None:
    machine = Machine()
    machine.write(entry(1), entry(2), entry(3), state=HardState(1, 0))
    machine.write(entry(4))
    machine.keeper.before_purge(4)
    assert machine.mark.point.index == 4
    machine.log.purge(4, Beginning(0, b""))
    assert machine.reopen().suspect == ""


@pytest.mark.parametrize("at", [2, 3, 9])
def test_an_install_is_sound_whenever_it_is_interrupted(machine: Machine, at: int) -> None:
    """With another chain than the log's, so that all of it goes; the last entry of the log is 3."""
    machine.keeper.before_install()
    assert machine.reopen().suspect == ""
    machine.keeper.before_install()
    machine.log.install_point(at, 7, bytes(16), Beginning(0, b""))
    assert machine.reopen().suspect == ""
    machine.write(state=HardState(7, 0))
    machine.keeper.installed()
    assert machine.mark.point == Point(at, 7, bytes(16))
    assert machine.reopen().suspect == ""


# ---------------------------------------------------------------- what a crash may leave


class Power:
    """Goes off at the n-th write to log or mark, which is not done; a slot of the mark is torn instead."""

    def __init__(self, machine: Machine, at: int) -> None:
        self.left = at
        log_write, slots_write = machine.log.write, machine.slots.write

        def write(writes: Sequence[Write]) -> None:
            self.step()
            log_write(writes)

        def mark(place: int, slot: bytes) -> None:
            try:
                self.step()
            except InterruptedError:
                machine.slots.damage(place)
                raise
            slots_write(place, slot)

        machine.log.write, machine.slots.write = write, mark  # type: ignore[method-assign]
        self._machine = machine

    def back(self) -> None:
        for patched in (self._machine.log, self._machine.slots):
            vars(patched).pop("write")

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


def test_no_crash_makes_a_sound_node_suspect() -> None:
    """At every single write to log and mark, in their order, with a mark torn that was being written."""
    for at in range(1, 100):
        machine = Machine()
        power = Power(machine, at)
        try:
            machine.write(entry(1), entry(2), entry(3), state=HardState(1, 5))
            machine.write(entry(4))
            machine.follow()
            machine.write(entry(2, 2), cut=2, state=HardState(2, 1))
            machine.write(entry(3, 2), entry(4, 2))
            machine.follow()
            machine.write(state=HardState(3, 2))
        except InterruptedError:
            pass
        else:
            assert at == 12, "five writes of the log, six of the mark"
            return
        power.back()
        assert machine.reopen().suspect == "", f"power lost at write {at}"
        assert machine.mark.point == machine.log.last
    raise AssertionError("it never ends")


# ---------------------------------------------------------------- what is lost beyond that


def test_a_log_that_ends_before_the_mark(machine: Machine) -> None:
    assert machine.forget(1).suspect == "the log ends with entry 2, and held entry 3 of term 1"


def test_a_log_that_is_gone(machine: Machine) -> None:
    state, suspect = machine.forget(3)
    assert suspect == "the log is gone: it held entries up to 3 and term 1"
    assert state == (1, 5), "the mark remembers the vote"


def test_another_entry_in_the_place_of_the_mark(machine: Machine) -> None:
    machine.write(entry(3, 2), cut=3, state=HardState(2, 0))
    standing = machine.forget(1)
    assert "entry 3 of the log is not the one that was written: of term 1 in place of 2" in standing.suspect
    assert standing.hard_state == (2, 0)


def test_another_past_of_the_same_entry(machine: Machine) -> None:
    other = MemoryLog()
    other.open()
    other.write([Write(1, 0, (entry(1, payload=b"w"), entry(2), entry(3)), HardState(1, 5))])
    other.close()
    machine.log = other
    assert "with another past" in machine.open().suspect


@pytest.mark.parametrize(
    ("log", "mark", "older"),
    [
        ((3, 1), (3, 1), False),
        ((3, 0), (3, 1), True),
        ((2, 7), (3, 0), True),
        ((3, 1), (3, 0), False),
        ((4, 0), (3, 1), False),
        ((3, 2), (3, 1), True),
    ],
)
def test_which_hard_state_is_older(log: tuple[int, int], mark: tuple[int, int], older: bool) -> None:
    assert is_older(HardState(*log), HardState(*mark)) is older


def test_a_lost_vote_is_known_from_the_mark(machine: Machine) -> None:
    machine.write(state=HardState(4, 2))
    standing = machine.forget(1)
    assert standing.suspect == "the log knows of term 1 with a vote for 5, and held term 4 with 2"
    assert standing.hard_state == (4, 2)
    assert not standing.forgot_term


def test_a_mark_that_is_missing_or_damaged(machine: Machine) -> None:
    for place in (0, 1):
        machine.slots.damage(place)
    for _ in range(2):
        standing = machine.reopen()
        assert standing == (HardState(1, 5), UNREADABLE)
        assert standing.forgot_term
    machine.slots.lose()
    standing = machine.reopen()
    assert standing == (HardState(1, 5), MISSING)
    assert standing.forgot_term


def test_a_damaged_mark_of_a_log_that_is_gone_too() -> None:
    """There was one, so there was a log."""
    machine = Machine()
    for place in (0, 1):
        machine.slots.damage(place)
    assert machine.reopen().suspect == UNREADABLE


def test_a_loss_younger_than_the_mark_goes_unnoticed(machine: Machine) -> None:
    """What the README says cannot be detected."""
    machine.write(entry(4))
    assert machine.forget(1) == (HardState(1, 5), "")


# ---------------------------------------------------------------- until it is over


def test_suspect_lasts_through_any_number_of_starts_and_writes(machine: Machine) -> None:
    """By then the log is longer than it was, and its term higher."""
    why = machine.forget(1).suspect
    machine.write(entry(3, 2), entry(4, 2), state=HardState(2, 0))
    machine.follow()
    machine.write(entry(4, 3), cut=4, state=HardState(3, 0))
    machine.keeper.before_install()
    machine.keeper.installed()
    assert machine.reopen() == (HardState(3, 0), why)
    assert machine.reopen() == (HardState(3, 0), why)
    machine.keeper.trust()
    assert machine.reopen() == (HardState(3, 0), "")


def test_it_is_written_down_before_anybody_hears_of_it(machine: Machine) -> None:
    machine.forget(1)
    assert machine.mark.suspect
    assert machine.mark.point == machine.log.last


def test_trust_in_a_sound_node_changes_nothing(machine: Machine) -> None:
    before = machine.slots.read()
    machine.keeper.trust()
    assert machine.slots.read() == before
