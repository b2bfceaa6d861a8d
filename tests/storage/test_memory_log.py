"""The log in memory as a disk: what a crash loses, what a failure leaves, and that damage is noticed.

That it behaves like the real store is shown in `test_log_twins.py`; here is what only the twin can do.
"""

from __future__ import annotations

import pytest

from danube_raft.errors import Corrupt, DiskFailed
from danube_raft.storage.memory_log import AFTER, BEFORE, MemoryLog
from danube_raft.storage.recovery import Beginning
from danube_raft.wire.entry import Entry, HardState
from danube_raft.wire.local import Write

ALL = 1 << 30


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(i, term, 1, i, 7, (1, 1, i), b"%d" % i) for i in range(first, last + 1))


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    log.open()
    log.write([Write(1, 0, entries(1, 5), HardState(1, 1))])
    return log


def after_crash(log: MemoryLog, surviving: int = 0) -> tuple[Entry, ...]:
    log.crash(surviving)
    found = log.open()
    return log.read(found.purged.index + 1, ALL, ALL)


def test_a_crash_before_the_sync_loses_the_write(log: MemoryLog) -> None:
    log.write_unsynced([Write(2, 0, entries(6, 7), None)])
    assert log.read(6, 9, ALL) == entries(6, 7)
    assert after_crash(log) == entries(1, 5)
    assert log.unsynced == 0
    log.sync()
    assert after_crash(log) == entries(1, 5)


def test_a_crash_after_the_sync_loses_nothing(log: MemoryLog) -> None:
    log.write_unsynced([Write(2, 0, entries(6, 7), None)])
    log.sync()
    assert log.unsynced == 0
    assert after_crash(log) == entries(1, 7)


def test_unsynced_writes_survive_as_a_prefix_and_each_whole(log: MemoryLog) -> None:
    log.write_unsynced([Write(2, 4, entries(4, 6, 2), HardState(2, 0)), Write(3, 6, entries(6, 8, 2), None)])
    log.write_unsynced([Write(4, 0, entries(9, 9, 2), None)])
    assert after_crash(log, surviving=1) == entries(1, 3) + entries(4, 8, 2)


def test_a_process_that_ends_loses_nothing(log: MemoryLog) -> None:
    log.write_unsynced([Write(2, 0, entries(6, 7), None)])
    log.close()
    assert log.open().last.index == 7


def test_an_unsynced_purge_comes_back_after_a_crash(log: MemoryLog) -> None:
    log.purge(3, Beginning())
    assert log.read(3, 3, ALL) == ()
    assert after_crash(log) == entries(1, 5)


@pytest.mark.parametrize(("when", "left"), [(BEFORE, 5), (AFTER, 6)])
def test_a_failed_write_may_have_taken_effect_and_the_store_refuses_all_use(
    log: MemoryLog, when: str, left: int
) -> None:
    log.fail_next_write(when)
    with pytest.raises(DiskFailed):
        log.write([Write(2, 0, entries(6, 6), None)])
    for use in (
        log.sync,
        lambda: log.write([]),
        lambda: log.read(1, 1, ALL),
        lambda: log.purge(1, Beginning()),
    ):
        with pytest.raises(DiskFailed, match="failed before"):
            use()
    assert after_crash(log, surviving=1) == entries(1, left)


def test_damage_is_found_at_the_next_start(log: MemoryLog) -> None:
    data = bytearray(log.stored(3))
    data[-5] ^= 1
    log.damage(3, bytes(data))
    log.close()
    with pytest.raises(Corrupt, match="log entry 3"):
        log.open()


@pytest.mark.parametrize(
    "write",
    [
        Write(2, 0, entries(7, 7), None),
        Write(2, 0, entries(6, 6, 2), None),
        Write(2, 7, (), None),
        Write(2, 0, (), HardState()),
    ],
    ids=["gap", "term above own", "cut past the end", "term falls"],
)
def test_a_write_that_breaks_an_invariant_is_a_bug_and_leaves_no_trace(log: MemoryLog, write: Write) -> None:
    with pytest.raises(AssertionError):
        log.write([write])
    assert log.unsynced == 0
    assert log.read(1, ALL, ALL) == entries(1, 5)
