"""The disk of one node: the log in memory, with syncs that take time, hang or fail, and crashes that lose their tail.

The log-writer's `write` returns when the data is durable. Here it returns at once, with the change visible and not yet
safe; whoever drives the log-writer keeps back what it says until `finish` has made it durable, `sync_us` later. So a
crash in between finds writes that nobody was told of, and keeps as many of them as it likes, torn anywhere between two.
(The real log makes one record of what is synced together, so there it is all or nothing.) One write is there as a whole or
not at all: a record that is torn itself is dropped when the log is opened, by its checksum; tests/storage tears real files.

`synced` hears of every write at the moment when it is safe, also of those that survived a crash.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from danube_raft.errors import DiskFailed
from danube_raft.sim.schedule import MS, SECOND
from danube_raft.storage.memory_log import AFTER, BEFORE, NEVER, MemoryLog
from danube_raft.storage.recovery import Recovery
from danube_raft.wire import local
from danube_raft.wire.entry import Entry

ROOM_BYTES = 1 << 50
FULL_BYTES = 1 << 20


class Disk:
    """A `LogStore` whose syncs take virtual time. It outlives the boots of its node."""

    def __init__(self, source: random.Random, synced: Callable[[local.Write], None]) -> None:
        self._log = MemoryLog()
        self._random = source
        self._synced = synced
        self._unsynced: list[local.Write] = []
        self._usual_us = source.choice((100, 300, 1_000, 5 * MS))
        self.slow_us = 0
        """Time that every sync takes in addition, while the disk is slow."""
        self.hangs_until = 0
        self.full_until = 0
        """Until when there is hardly any room."""
        self.busy_until = 0
        """When the last sync that has begun will be over."""
        self.slow_syncs = 0
        self.counts: Counter[str] = Counter()
        """Crashes by what became of writes whose sync was not over."""
        self._told_to_fail = self._failed = False

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
        assert unsynced == len(self._unsynced), "only writes are left unsynced"
        surviving = unsynced if self._random.random() < 0.3 else self._random.randint(0, unsynced)
        self._log.crash(surviving)
        self.counts["unsynced_kept"] += surviving > 0
        self.counts["unsynced_lost"] += surviving < unsynced
        self.counts["unsynced_torn"] += 0 < surviving < unsynced
        self._survived(surviving)
        self._unsynced.clear()
        self.busy_until = 0

    @property
    def unsynced(self) -> int:
        """How many writes are under way."""
        return len(self._unsynced)

    def fail_next_write(self) -> None:
        """An I/O error at the next write, before or after it took effect."""
        self._told_to_fail = True
        self._log.fail_next_write(self._random.choice((BEFORE, AFTER)))

    def has_failed(self) -> bool:
        """Whether a write was refused since the last boot because it was told to be."""
        return self._failed

    def heal(self) -> None:
        """Quick and sound from now on. A sync that hangs goes on hanging: nobody knows how to end it."""
        self.slow_us = 0
        self.hangs_until = 0
        self.full_until = 0
        if self._told_to_fail:
            self._told_to_fail = False
            self._log.fail_next_write(NEVER)

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
        for write in self._unsynced[:count]:
            self._synced(write)
        del self._unsynced[:count]

    # ---------------------------------------------------------------- LogStore

    def open(self) -> Recovery:
        """See LogStore."""
        self._failed = False
        return self._log.open()

    def write(self, writes: Sequence[local.Write]) -> None:
        """See LogStore; safe only after `finish`."""
        for write in writes:
            before = self._log.unsynced
            try:
                self._log.write_unsynced((write,))
            except DiskFailed:
                self._failed, self._told_to_fail = self._told_to_fail, False
                raise
            finally:
                # A write that failed may have taken effect all the same.
                if self._log.unsynced > before:
                    self._unsynced.append(write)

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """See LogStore."""
        return self._log.read(first, last, max_bytes)

    def purge(self, index: int) -> None:
        """See LogStore."""
        self._log.purge(index)
        self._log.sync()
        self._survived(len(self._unsynced))

    def install_point(self, index: int, term: int, chain: bytes) -> None:
        """See LogStore."""
        self._log.install_point(index, term, chain)
        self._survived(len(self._unsynced))

    def close(self) -> None:
        """See LogStore."""
        self._log.close()
