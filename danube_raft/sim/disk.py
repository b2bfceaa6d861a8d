"""The disk of one node: log and snapshots in memory, with syncs that take time, hang or fail, and crashes that lose their
tail.

The log-writer's `write` returns when the data is durable. Here it returns at once, with the change visible and not yet
safe; whoever drives the log-writer keeps back what it says until `finish` has made it durable, `sync_us` later. So a
crash in between finds writes that nobody was told of, and keeps as many of them as it likes, torn anywhere between two.
(The real log makes one record of what is synced together, so there it is all or nothing.) One write is there as a whole or
not at all: a record that is torn itself is dropped when the log is opened, by its checksum; tests/storage tears real files.
A purge and the point of an installed snapshot are changes like any other; nobody waits for the sync of a purge.

`synced` hears of every change at the moment when it is safe, also of those that survived a crash; `marked` hears whenever
a durable mark is safe, of whether it says that the node is SUSPECT.

The mark lies on the same disk: its writes are in one order with those of the log, and a crash keeps a prefix of all.
What a disk may do beyond that, and what the node must notice, is `forget` and `damage_mark`.

A snapshot is safe when it has its name; what is unfinished when the node crashes is kept, cut or lost. The newest may be
damaged while the node is down, where another good one is left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from danube_raft.errors import DiskFailed, DiskFull
from danube_raft.sim.mark_slots import Slots
from danube_raft.sim.schedule import MS, SECOND
from danube_raft.storage.durable_mark import SLOT_BYTES
from danube_raft.storage.mark_keeper import is_fresh, newest
from danube_raft.storage.memory_log import AFTER, BEFORE, NEVER, MemoryLog
from danube_raft.storage.memory_mark import TORN, MemoryMark
from danube_raft.storage.memory_snapshots import COMMIT, READ, WRITE, MemoryFolder
from danube_raft.storage.recovery import Beginning, Point, Recovery
from danube_raft.storage.snapshot_file import SUFFIX
from danube_raft.wire import local
from danube_raft.wire.entry import Entry, HardState

FORGET_TRIES = 8
FORGET_ALL_SHARE = 0.2  # how often all of the log is lost
FORGET_TOO_SHARE = 0.4  # how often it comes back older where the mark is damaged


class Begun(NamedTuple):
    """The log begins behind `index`: a snapshot that ends with (index, term) was `installed`, or it was purged up to there
    (then `term` is 0)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    installed: bool


ROOM_BYTES = 1 << 50
FULL_BYTES = 1 << 20


class Disk:
    """A `LogStore`, and `MarkSlots` in `slots`, whose syncs take virtual time, and the `folder` of snapshots. It outlives
    the boots of its node."""

    def __init__(
        self,
        source: random.Random,
        synced: Callable[[local.Write | Begun], None],
        marked: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._log = MemoryLog()
        self._mark = MemoryMark()
        self.slots = Slots(self._mark, self._marking)
        self.folder = MemoryFolder()
        self.folder.opened = self._spare_the_last
        self._random = source
        self._synced = synced
        self._marked = marked
        self._under_way: list[local.Write | Begun | None] = []
        """What is not synced; None: a write of the mark."""
        self._stored = HardState()
        self.promised = HardState()
        """The newest term and vote that anybody may have been told of."""
        self._usual_us = source.choice((100, 300, 1_000, 5 * MS))
        self.slow_us = 0
        """Time that every sync takes in addition, while the disk is slow."""
        self.hangs_until = 0
        self.full_until = 0
        """Until when there is hardly any room."""
        self.no_room = 0
        """How often it ran full since there was room the last time; 0: there is."""
        self.busy_until = 0
        """When the last sync that has begun will be over."""
        self.slow_syncs = 0
        self.counts: Counter[str] = Counter()
        """Crashes by what became of writes whose sync was not over, and what other faults did."""
        self._hung = False
        self._told_to_fail = self._failed = False
        self._failures = 0

    # ---------------------------------------------------------------- what the world does to it

    def sync_us(self, now: int) -> int:
        """How long the sync that begins now takes."""
        took = round(self._random.expovariate(1 / self._usual_us)) + 20
        if self.slow_us:
            more_us = self._random.randrange(self.slow_us)
            self.counts["syncs_slowed"] += more_us > MS
            took += more_us
        took += max(0, self.hangs_until - now)
        self._hung = self.hangs_until > now
        self.slow_syncs += took > 20 * MS
        self.busy_until = now + took
        return took

    def finish(self) -> None:
        """The sync is over: all that was written is safe."""
        self.counts["syncs_hung"] += self._hung
        self._log.sync()
        self._mark.sync()
        self._survived(len(self._under_way))
        self.promised = self._stored

    def crash(self) -> None:
        """The node is gone, and with it some of what was not synced: a power failure, or merely killed processes."""
        under_way, unsynced = len(self._under_way), self._log.unsynced
        assert unsynced == self.unsynced, "every change is known"
        kept = under_way if self._random.random() < 0.3 else self._random.randint(0, under_way)
        surviving = sum(each is not None for each in self._under_way[:kept])
        torn = self._under_way[kept : kept + 1] == [None] and self._random.random() < 0.5
        self._log.crash(surviving)
        self._mark.crash(kept - surviving, torn=torn)
        self.counts["unsynced_kept"] += surviving > 0
        self.counts["unsynced_lost"] += surviving < unsynced
        self.counts["unsynced_torn"] += 0 < surviving < unsynced
        self.counts["mark_torn"] += torn
        self._survived(kept)
        self._under_way.clear()
        self.folder.crash(self._random)
        self.busy_until = 0

    @property
    def unsynced(self) -> int:
        """How many changes of the log are under way."""
        return sum(each is not None for each in self._under_way)

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._under_way)

    @property
    def bounds(self) -> tuple[int, int]:
        """(purged, last) index of the log, whether they are safe or not."""
        return self._log.bounds

    def good(self) -> tuple[tuple[int, int], ...]:
        """(index, term) of the snapshots that can be read, the newest last."""
        return tuple(map(_point, self.folder.good()))

    def has_bad_after(self, index: int) -> bool:
        """Whether there is a snapshot of a later index that cannot be read."""
        good = self.folder.good()
        return any(_point(name)[0] > index for name in self.folder.whole if name not in good)

    def damage_newest(self) -> bool:
        """A bit of the newest snapshot flips, or its end is gone; not if it is the last good one from which the log goes on.
        Whether it was done."""
        good = [name for name in self.folder.good() if _point(name)[0] >= self._log.bounds[0]]
        if len(good) < 2:
            return False
        name = good[-1]
        size = len(self.folder.files[name])
        if self._random.random() < 0.3:
            self.folder.cut(name, self._random.randrange(size))
        else:
            self.folder.flip(name, self._random.randrange(size), self._random.randrange(8))
        return True

    def fail_next_write(self, mark: str = NEVER) -> None:
        """An I/O error at the next write, before or after it took effect; or, where `mark` says when, at the next write of
        the mark."""
        if self._told_to_fail:
            return
        self._told_to_fail = True
        if mark != NEVER:
            self._mark.fail_next_write(mark)
        else:
            self._log.fail_next_write(self._random.choice((BEFORE, AFTER)))

    def fail_next_snapshot(self) -> None:
        """An I/O error at the next writing of a snapshot, or when it gets its name."""
        doing, when = self._random.choice(((WRITE, BEFORE), (COMMIT, BEFORE), (COMMIT, AFTER)))
        self.folder.fail_next(doing, when)

    def fail_reading(self, before: int) -> None:
        """An I/O error at a reading of a snapshot, after as many `before` it that go well."""
        self.folder.fail_next(READ, before=before)

    def _spare_the_last(self) -> None:
        """A node that can begin with one snapshot only, and cannot read it, rightly refuses to start; see INTERNALS §9."""
        if READ not in self.folder.failing:
            return
        now = self._log.older(self._log.age)
        found = now.open()
        if found.purged.index and sum(self._fit(found, now)) < 2:
            self.folder.spare(READ)
        now.close()

    def has_failed(self) -> bool:
        """Whether something was refused since the last boot because it was told to be."""
        return self._failed or self.folder.failures > self._failures

    def heal(self) -> None:
        """Quick and sound from now on. A sync that hangs goes on hanging: nobody knows how to end it."""
        self.slow_us = 0
        self.hangs_until = 0
        self.full_until = 0
        self.folder.heal()
        if self._told_to_fail:
            self._told_to_fail = False
            self._log.fail_next_write(NEVER)
            self._mark.fail_next_write(NEVER)

    def slow_down(self) -> None:
        """Syncs take longer from now on."""
        self.slow_us = self._random.choice((20 * MS, 100 * MS, 400 * MS))

    def hang(self, now: int) -> None:
        """Syncs that begin from now on do not end for some seconds."""
        self.hangs_until = now + self._random.randrange(SECOND, 8 * SECOND)

    def free_bytes(self, now: int) -> int:
        """How much room there is: plenty, or next to none. Writes take effect all the same."""
        return FULL_BYTES if now < self.full_until else ROOM_BYTES

    def _survived(self, count: int) -> None:
        survived, self._under_way = self._under_way[:count], self._under_way[count:]
        for change in survived:
            if isinstance(change, local.Write):
                self._stored = change.hard_state or self._stored
            if change is not None:
                self._synced(change)
        if None in survived:
            slots = self._mark.read()
            known = None if slots is None else newest(slots)
            self._marked(known is not None and bool(known[2].suspect))

    # ---------------------------------------------------------------- what a disk must not do, and the node must notice

    def forget(self) -> Recovery | None:
        """While the node is down: the log comes back older than what the mark vouches for, which stays. What it holds now;
        None if there is no such state of it."""
        assert not self._under_way, "the node is down"
        for _ in range(FORGET_TRIES):
            lost = self._random.randint(1, self._random.choice((2, 20, 200)))
            age = 0 if self._random.random() < FORGET_ALL_SHARE else max(0, self._log.age - lost)
            older = self._log.older(age)
            found = older.open()
            wanted = (
                age < self._log.age
                and self._is_noticeable(found, older)
                and self._has_snapshots(found, older)
            )
            older.close()
            if wanted:
                self._log, self._stored = older, found.hard_state
                return found
        return None

    def _is_noticeable(self, found: Recovery, older: MemoryLog) -> bool:
        """A promised term or vote is gone, or an entry that the mark names. (What is younger than the mark is no loss that
        anybody could notice.)"""
        slots = self._mark.read()
        known = None if slots is None else newest(slots)
        if known is None:
            return False
        point, kept, promised = known[2].point, found.hard_state, self.promised
        if promised.term > kept.term or (promised.term == kept.term and promised.vote not in (0, kept.vote)):
            return True
        if point.index > found.last.index:
            return True
        return point.index >= found.purged.index and older.point(point.index) != point

    def _has_snapshots(self, found: Recovery, older: MemoryLog) -> bool:
        """The log can be gone on with: its beginning is in a snapshot, and no snapshot is of what it has lost."""
        fits = self._fit(found, older)
        return all(fits) and (found.purged.index == 0 or bool(fits))

    def _fit(self, found: Recovery, log: MemoryLog) -> list[bool]:
        """Of each good snapshot, whether this log goes on behind it."""
        purged, last = found.purged.index, found.last.index
        return [purged <= index <= last and log.point(index).term == term for index, term in self.good()]

    def damage_mark(self) -> Recovery | None:
        """While the node is down: the mark cannot be read any more, or is gone; perhaps the log comes back older, too. What it
        holds; None if that is nothing, so that there is nothing to notice."""
        if not self._log.age or self._mark.read() is None:
            return None
        lost = self.forget() if self._random.random() < FORGET_TOO_SHARE else None
        found = lost or self._log.older(self._log.age).open()
        if lost is None and is_fresh(found):
            return None
        self.counts["terms_forgotten"] += found.hard_state != self.promised
        self.promised = found.hard_state  # nobody can know of anything beyond it
        how = self._random.randrange(3)
        if how == 0:
            self._mark.lose()
        else:
            for place in (0, 1):
                self._mark.damage(place, TORN if how == 1 else bytes(SLOT_BYTES))
        return found

    # ---------------------------------------------------------------- LogStore

    def open(self) -> Recovery:
        """See LogStore."""
        self._failed = False
        self._failures = self.folder.failures
        return self._log.open()

    def write(self, writes: Sequence[local.Write]) -> None:
        """See LogStore; safe only after `finish`."""
        for write in writes:
            with self._changing(write):
                self._log.write_unsynced((write,))

    @contextmanager
    def _changing(self, change: local.Write | Begun) -> Iterator[None]:
        before = self._log.unsynced
        with self._refusing():
            try:
                yield
            finally:
                # What failed may have taken effect all the same.
                if self._log.unsynced > before:
                    self._under_way.append(change)

    @contextmanager
    def _marking(self) -> Iterator[None]:
        before = self._mark.unsynced
        with self._refusing():
            try:
                yield
            finally:
                # As above.
                if self._mark.unsynced > before:
                    self._under_way.append(None)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        if self.no_room:
            self._failed = True
            self.counts["refused_for_room"] += 1
            raise DiskFull("there is no room")
        try:
            yield
        except DiskFailed:
            self._failed, self._told_to_fail = self._told_to_fail, False
            self.counts["writes_failed"] += self._failed
            raise

    @property
    def last(self) -> Point:
        """See LogStore."""
        return self._log.last

    def point(self, index: int) -> Point:
        """See LogStore."""
        return self._log.point(index)

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """See LogStore."""
        return self._log.read(first, last, max_bytes)

    def purge(self, index: int, beginning: Beginning) -> None:
        """See LogStore."""
        with self._changing(Begun(index, 0, installed=False)):
            self._log.purge(index, beginning)

    def install_point(self, index: int, term: int, chain: bytes, beginning: Beginning) -> None:
        """See LogStore; safe only after `finish`."""
        with self._changing(Begun(index, term, installed=True)):
            self._log.install_point_unsynced(index, term, chain, beginning)

    def close(self) -> None:
        """See LogStore."""
        self._log.close()


def terms(found: Recovery) -> tuple[int, ...]:
    """Of the entries in a log."""
    ends = [first for first, _ in found.runs[1:]] + [found.last.index + 1]
    runs = zip(found.runs, ends, strict=False)
    return tuple(term for (first, term), end in runs for _ in range(first, end))


def _point(name: str) -> tuple[int, int]:
    """(index, term) of a snapshot, by its name."""
    term, index = name.removesuffix(SUFFIX).split("-")
    return int(index), int(term)
