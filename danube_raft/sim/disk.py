"""The disk of one node: log and snapshots in memory, with syncs that take time, hang or fail, and crashes that lose their
tail.

The log-writer's `write` returns when the data is durable. Here it returns at once, with the change visible and not yet
safe; whoever drives the log-writer keeps back what it says until `finish` has made it durable, `sync_us` later. So a
crash in between finds writes that nobody was told of, and keeps as many of them as it likes, torn anywhere between two.
(The real log makes one record of what is synced together, so there it is all or nothing.) One write is there as a whole or
not at all: a record that is torn itself is dropped when the log is opened, by its checksum; tests/storage tears real files.
A purge and the point of an installed snapshot are changes like any other; nobody waits for the sync of a purge.

`synced` hears of every change at the moment when it is safe, also of those that survived a crash.

A snapshot is safe when it has its name; what is unfinished when the node crashes is kept, cut or lost. The newest may be
damaged while the node is down, where another good one is left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from danube_raft.errors import DiskFailed
from danube_raft.sim.schedule import MS, SECOND
from danube_raft.storage.memory_log import AFTER, BEFORE, NEVER, MemoryLog
from danube_raft.storage.memory_snapshots import COMMIT, WRITE, MemoryFolder
from danube_raft.storage.recovery import Beginning, Point, Recovery
from danube_raft.storage.snapshot_file import SUFFIX
from danube_raft.wire import local
from danube_raft.wire.entry import Entry


class Begun(NamedTuple):
    """The log begins behind `index`: a snapshot that ends with (index, term) was `installed`, or it was purged up to there
    (then `term` is 0)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    installed: bool


class Disk:
    """A `LogStore` whose syncs take virtual time, and the `folder` of snapshots. It outlives the boots of its node."""

    def __init__(self, source: random.Random, synced: Callable[[local.Write | Begun], None]) -> None:
        self._log = MemoryLog()
        self.folder = MemoryFolder()
        self._random = source
        self._synced = synced
        self._unsynced: list[local.Write | Begun] = []
        self._usual_us = source.choice((100, 300, 1_000, 5 * MS))
        self.slow_us = 0
        """Time that every sync takes in addition, while the disk is slow."""
        self.hangs_until = 0
        self.busy_until = 0
        """When the last sync that has begun will be over."""
        self.slow_syncs = 0
        self.counts: Counter[str] = Counter()
        """Crashes by what became of writes whose sync was not over."""
        self._told_to_fail = self._failed = False
        self._failures = 0

    # ---------------------------------------------------------------- what the world does to it

    def sync_us(self, now: int) -> int:
        """How long the sync that begins now takes."""
        took = round(self._random.expovariate(1 / self._usual_us)) + 20
        if self.slow_us:
            took += self._random.randrange(self.slow_us)
        took += max(0, self.hangs_until - now)
        self.slow_syncs += took > 20 * MS
        self.busy_until = now + took
        return took

    def finish(self) -> None:
        """The sync is over: all that was written is safe."""
        self._log.sync()
        self._survived(len(self._unsynced))

    def crash(self) -> None:
        """The node is gone, and with it some of what was not synced: a power failure, or merely killed processes."""
        unsynced = self._log.unsynced
        assert unsynced == len(self._unsynced), "every change is known"
        surviving = unsynced if self._random.random() < 0.3 else self._random.randint(0, unsynced)
        self._log.crash(surviving)
        self.counts["unsynced_kept"] += surviving > 0
        self.counts["unsynced_lost"] += surviving < unsynced
        self.counts["unsynced_torn"] += 0 < surviving < unsynced
        self._survived(surviving)
        self._unsynced.clear()
        self.folder.crash(self._random)
        self.busy_until = 0

    @property
    def unsynced(self) -> int:
        """How many changes are under way."""
        return len(self._unsynced)

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
        """A bit of the newest snapshot flips, or its end is gone; not if it is the last good one. Whether it was done."""
        good = self.folder.good()
        if len(good) < 2:
            return False
        name = good[-1]
        size = len(self.folder.files[name])
        if self._random.random() < 0.3:
            self.folder.cut(name, self._random.randrange(size))
        else:
            self.folder.flip(name, self._random.randrange(size), self._random.randrange(8))
        return True

    def fail_next_write(self) -> None:
        """An I/O error at the next write, before or after it took effect."""
        self._told_to_fail = True
        self._log.fail_next_write(self._random.choice((BEFORE, AFTER)))

    def fail_next_snapshot(self) -> None:
        """An I/O error at the next writing of a snapshot, or when it gets its name."""
        doing, when = self._random.choice(((WRITE, BEFORE), (COMMIT, BEFORE), (COMMIT, AFTER)))
        self.folder.fail_next(doing, when)

    def has_failed(self) -> bool:
        """Whether something was refused since the last boot because it was told to be."""
        return self._failed or self.folder.failures > self._failures

    def heal(self) -> None:
        """Quick and sound from now on. A sync that hangs goes on hanging: nobody knows how to end it."""
        self.slow_us = 0
        self.hangs_until = 0
        self.folder.heal()
        if self._told_to_fail:
            self._told_to_fail = False
            self._log.fail_next_write(NEVER)

    def slow_down(self) -> None:
        """Syncs take longer from now on."""
        self.slow_us = self._random.choice((20 * MS, 100 * MS, 400 * MS))

    def hang(self, now: int) -> None:
        """Syncs that begin from now on do not end for some seconds."""
        self.hangs_until = now + self._random.randrange(SECOND, 8 * SECOND)

    def _survived(self, count: int) -> None:
        for change in self._unsynced[:count]:
            self._synced(change)
        del self._unsynced[:count]

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
        try:
            yield
        except DiskFailed:
            self._failed, self._told_to_fail = self._told_to_fail, False
            raise
        finally:
            # What failed may have taken effect all the same.
            if self._log.unsynced > before:
                self._unsynced.append(change)

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


def _point(name: str) -> tuple[int, int]:
    """(index, term) of a snapshot, by its name."""
    term, index = name.removesuffix(SUFFIX).split("-")
    return int(index), int(term)
