"""The log in memory: twin of the RocksDB store, with a disk that can lose and refuse.

Two images are kept: what the operating system would show, and what is surely on the disk. Every operation is one
change, applied to the first image at once and to the second at the next `sync`. A `crash` goes back to the second,
plus as many of the unsynced changes as the caller lets survive: always a prefix, since a write-ahead log loses its
tail, and each whole or not at all, since a batch is one record of it.

A store is opened again after `crash` or `close`; the object is the disk and outlives the process that used it. The
images hold encoded entries and recovery proves them as the real store does, so a test may damage them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from danube_raft.errors import Corrupt, DiskFailed, Fatal
from danube_raft.storage.entry_format import WAY_OUT, chain_of, decode, encode, verify
from danube_raft.storage.recovery import Beginning, Point, Recovery, recover
from danube_raft.wire import local
from danube_raft.wire.entry import Entry, HardState, entry_bytes

BEFORE = "before"
AFTER = "after"
NEVER = ""
"""When a write that was told to fail does so: before or after it took effect."""


class _Change(NamedTuple):
    """Cut from an index (0: do not), append, then move the purge point and set what is not None."""

    cut_from: int = 0
    append: tuple[bytes, ...] = ()
    hard_state: HardState | None = None
    purged: Point | None = None
    snapshot: Point | None = None
    beginning: Beginning | None = None


class _Image:
    """One state of the disk. `encoded[0]` is the entry at purged.index + 1."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []
        self.purged = self.snapshot = Point()
        self.beginning = Beginning()
        self.hard_state = HardState()

    @property
    def last_index(self) -> int:
        return self.purged.index + len(self.encoded)

    def copy(self) -> _Image:
        other = _Image()
        other.encoded = self.encoded.copy()
        other.purged, other.snapshot, other.hard_state = self.purged, self.snapshot, self.hard_state
        other.beginning = self.beginning
        return other

    def stored(self, index: int) -> bytes:
        return self.encoded[index - self.purged.index - 1]

    def point(self, index: int) -> Point:
        if index == self.purged.index:
            return self.purged
        data = self.stored(index)
        return Point(index, verify(index, data)[0], chain_of(data))

    def apply(self, change: _Change) -> None:
        if change.cut_from:
            del self.encoded[change.cut_from - self.purged.index - 1 :]
        self.encoded += change.append
        if change.purged is not None:
            del self.encoded[: change.purged.index - self.purged.index]
            self.purged = change.purged
        if change.hard_state is not None:
            self.hard_state = change.hard_state
        if change.snapshot is not None:
            self.snapshot = change.snapshot
        if change.beginning is not None:
            self.beginning = change.beginning


class MemoryLog:
    """`LogStore` in memory."""

    def __init__(self) -> None:
        self._shown = _Image()
        self._durable = _Image()
        self._unsynced: list[_Change] = []
        self._history: list[_Change] = []
        """All that ever became durable."""
        self._open = False
        self._failed: Fatal | None = None
        self._fail_next = NEVER

    # What a test or a simulator does to the disk.

    def fail_next_write(self, when: str = BEFORE) -> None:
        """The next change raises DiskFailed, `BEFORE` or `AFTER` it took effect unsynced. `NEVER`: it does not, after all."""
        assert when in (BEFORE, AFTER, NEVER)
        self._fail_next = when

    def crash(self, surviving: int = 0) -> None:
        """Lose power: of the unsynced changes only the first `surviving` remain. The store is closed then."""
        for change in self._unsynced[:surviving]:
            self._keep(change)
        self._shown = self._durable.copy()
        self._unsynced.clear()
        self.close()

    @property
    def bounds(self) -> tuple[int, int]:
        """(purged, last) index, as the operating system would show them."""
        return self._shown.purged.index, self._shown.last_index

    @property
    def unsynced(self) -> int:
        """Number of changes that a crash may lose."""
        return len(self._unsynced)

    @property
    def age(self) -> int:
        """Number of changes that became durable so far."""
        return len(self._history)

    def older(self, age: int) -> MemoryLog:
        """The disk as it was when `age` changes had become durable; this one stays as it is."""
        other = MemoryLog()
        for change in self._history[:age]:
            other._keep(change)
        other._shown = other._durable.copy()
        return other

    def damage(self, index: int, data: bytes) -> None:
        """Put `data` in the place of the stored entry `index`."""
        for image in (self._shown, self._durable):
            if image.purged.index < index <= image.last_index:
                image.encoded[index - image.purged.index - 1] = data

    def stored(self, index: int) -> bytes:
        """The bytes stored for entry `index`."""
        return self._shown.stored(index)

    # LogStore.

    def open(self) -> Recovery:
        """See LogStore; here again after each crash or close."""
        assert not self._open, "a store is closed before it is opened again"
        image = self._shown
        recovery = recover(
            image.hard_state,
            image.purged,
            image.snapshot,
            image.beginning,
            enumerate(image.encoded, start=image.purged.index + 1),
        )
        self._open = True
        self._failed = None
        return recovery

    def write(self, writes: Sequence[local.Write]) -> None:
        """See LogStore."""
        self.write_unsynced(writes)
        self.sync()

    def write_unsynced(self, writes: Sequence[local.Write]) -> None:
        """First half of `write`: visible, and lost at a crash before the `sync`. One change, so all or nothing."""
        self._usable("write the log")
        before, hard_state = self._shown, self._shown.hard_state
        # Staged from the lowest cut on, so that several writes become one change.
        cut, append = before.last_index + 1, list[bytes]()
        last = before.point(before.last_index)
        for write in writes:
            if write.truncate_from:
                first = write.truncate_from
                assert before.purged.index < first <= last.index + 1
                if first <= cut:
                    cut, append = first, []
                    last = before.point(first - 1)
                else:
                    del append[first - cut :]
                    last = Point(first - 1, verify(first - 1, append[-1])[0], chain_of(append[-1]))
            if write.hard_state is not None:
                assert write.hard_state.term >= hard_state.term, "the term only grows"
                hard_state = write.hard_state
            for entry in write.entries:
                assert entry.index == last.index + 1, "the log has no gaps"
                assert last.term <= entry.term <= hard_state.term, (
                    "terms never fall, nor pass the hard state's"
                )
                append.append(encode(entry, last.chain))
                last = Point(entry.index, entry.term, chain_of(append[-1]))
        self._change(_Change(cut, tuple(append), hard_state))

    def sync(self) -> None:
        """Second half of `write`: everything so far survives a crash."""
        self._usable("write the log")
        for change in self._unsynced:
            self._keep(change)
        self._unsynced.clear()

    @property
    def last(self) -> Point:
        """See LogStore."""
        return self._shown.point(self._shown.last_index)

    def point(self, index: int) -> Point:
        """See LogStore."""
        self._usable("read the log")
        return self._shown.point(index)

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """See LogStore."""
        self._usable("read the log")
        if first <= self._shown.purged.index:
            return ()
        entries: list[Entry] = []
        size = 0
        for index in range(first, min(last, self._shown.last_index) + 1):
            entry = decode(index, self._shown.stored(index))[0]
            size += entry_bytes(entry)
            if entries and size > max_bytes:
                break
            entries.append(entry)
        return tuple(entries)

    def purge(self, index: int, beginning: Beginning) -> None:
        """See LogStore."""
        self._usable("purge the log")
        assert index <= self._shown.last_index
        if index > self._shown.purged.index:
            self._change(_Change(purged=self._shown.point(index), beginning=beginning))

    def install_point(self, index: int, term: int, chain: bytes, beginning: Beginning) -> None:
        """See LogStore."""
        self.install_point_unsynced(index, term, chain, beginning)
        self.sync()

    def install_point_unsynced(self, index: int, term: int, chain: bytes, beginning: Beginning) -> None:
        """First half of `install_point`, as of `write`."""
        self._usable("install a snapshot into the log")
        image, point = self._shown, Point(index, term, chain)
        assert index >= image.purged.index
        mine = image.point(index) if index <= image.last_index else None
        keeps = mine is not None and mine.term == term
        if keeps and mine != point:
            raise Corrupt(f"log entry {index} differs from the snapshot's, with the same term; {WAY_OUT}")
        self._change(
            _Change(
                cut_from=0 if keeps else image.purged.index + 1,
                purged=point,
                snapshot=point,
                beginning=beginning,
            ),
        )

    def close(self) -> None:
        """See LogStore. What is unsynced stays: a process that ends loses nothing that it wrote."""
        self._open = False

    def _change(self, change: _Change) -> None:
        fails, self._fail_next = self._fail_next, NEVER
        if fails != BEFORE:
            self._shown.apply(change)
            self._unsynced.append(change)
        if fails:
            self._failed = DiskFailed("the disk was told to fail")
            raise self._failed

    def _keep(self, change: _Change) -> None:
        self._durable.apply(change)
        self._history.append(change)

    def _usable(self, doing: str) -> None:
        assert self._open, "the store is not open"
        if self._failed is not None:
            raise type(self._failed)(f"cannot {doing}: the log failed before ({self._failed.message})")
