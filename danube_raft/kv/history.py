"""Every key at every revision that is still kept: the present, and the past back to the compaction revision.

    records   key → record, the present
    events    all changes above the compaction revision, in revision order
    chains    key → superseded versions, oldest first, tombstones included; for a deleted key the last is its
              tombstone; a version at or below the compaction revision is kept only while a read at that revision
              could still need it

    0 ≤ compaction_revision ≤ revision; every event e: compaction_revision < e.mod_revision ≤ revision

An event and the present record of its key are one object. Live and deleted keys are sorted apart, so that a range
over the present never walks over what is gone. A revision is never split: compaction works on whole revisions.
What decides whether a change may happen does not belong here, see `kv/machine.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from heapq import merge
from operator import itemgetter
from typing import Any

from sortedcontainers import SortedList

from danube_raft.errors import Compacted, FutureRevision
from danube_raft.kv.record import KEY, MOD_REVISION, OVERHEAD_BYTES, VALUE, Record, cost, tombstone

_mod_revision = itemgetter(MOD_REVISION)
_value = itemgetter(VALUE)


class History:
    """The versions of all keys. Changes go through `put` and `delete`; the attributes are for reading only."""

    __slots__ = (
        "_dead", "_live", "before_compaction", "chains", "compaction_revision", "event_bytes", "events",
        "records", "revision", "state_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.revision = 1
        self.compaction_revision = 0
        self.records: dict[str, Record] = {}
        self.chains: dict[str, list[Record]] = {}
        self.events: list[Record] = []
        self.event_bytes = 0
        """Cost of all events."""
        self.state_bytes = 0
        """Cost of all versions that are held, each counted once."""
        self.before_compaction: Callable[[], None] | None = None
        """Called before events are dropped, for whoever still has to look at them."""
        self._live: Any = SortedList()
        self._dead: Any = SortedList()

    @classmethod
    def restore(
        cls,
        revision: int,
        compaction_revision: int,
        records: dict[str, Record],
        chains: dict[str, list[Record]],
        events: list[Record],
    ) -> History:
        """The history of a snapshot. `records` are in key order; what is the same version must be one object."""
        restored = cls()
        restored.revision = revision
        restored.compaction_revision = compaction_revision
        restored.records = records
        restored.chains = chains
        restored.events = events
        restored.event_bytes = sum(map(cost, events))
        values = map(_value, records.values())
        restored.state_bytes = OVERHEAD_BYTES * len(records) + sum(map(len, records)) + sum(map(len, values))
        restored.state_bytes += sum(sum(map(cost, chain)) for chain in chains.values())
        restored._live = SortedList(records)
        restored._dead = SortedList(key for key in chains if key not in records)
        return restored

    # ---------------------------------------------------------------- changes

    def put(self, old: Record | None, record: Record) -> None:
        """Make `record` the present version of its key, in place of `old`."""
        key, value, _, revision, _, _, _ = record
        assert value is not None
        chain = self.chains.get(key)
        if old is None:
            if chain is not None:
                self._dead.remove(key)
            self._live.add(key)
        elif chain is None:
            self.chains[key] = [old]
        else:
            chain.append(old)
        self.records[key] = record
        self.events.append(record)
        size = OVERHEAD_BYTES + len(key) + len(value)
        self.event_bytes += size
        self.state_bytes += size
        self.revision = revision

    def delete(self, key: str, revision: int) -> Record:
        """Remove `key`, which exists, at `revision`; returns what it was."""
        old = self.records.pop(key)
        gone = tombstone(key, revision)
        self.chains.setdefault(key, []).extend((old, gone))
        self._live.remove(key)
        self._dead.add(key)
        self.events.append(gone)
        size = cost(gone)
        self.event_bytes += size
        self.state_bytes += size
        self.revision = revision
        return old

    # ---------------------------------------------------------------- compaction

    def wants_compaction(self, max_events: int, max_bytes: int) -> int | None:
        """The revision to compact to so that the newest `max_events` events and `max_bytes` of them stay.

        None until one of the two is exceeded by a quarter, so that compaction comes in worthwhile portions. More is
        kept where the cut would fall inside a revision.
        """
        events = self.events
        if len(events) * 4 <= max_events * 5 and self.event_bytes * 4 <= max_bytes * 5:
            return None
        cut = max(0, len(events) - max_events)
        if self.event_bytes > max_bytes:
            excess = self.event_bytes - sum(map(cost, events[:cut])) - max_bytes
            while excess > 0 and cut < len(events) - 1:
                excess -= cost(events[cut])
                cut += 1
        revision = events[cut][MOD_REVISION] - 1
        return revision if revision >= events[0][MOD_REVISION] else None

    def compact(self, revision: int) -> None:
        """Forget all that only reads below `revision`, and watches from it or below, could need."""
        assert self.compaction_revision <= revision <= self.revision
        if self.before_compaction is not None:
            self.before_compaction()
        cut = self.position(revision + 1)
        dropped = self.events[:cut]
        del self.events[:cut]
        self.event_bytes -= sum(map(cost, dropped))
        self.compaction_revision = revision
        for event in dropped:
            self._trim(event[KEY], revision)

    def _trim(self, key: str, revision: int) -> None:
        chain = self.chains.get(key)
        if chain is None:
            return
        present = self.records.get(key)
        if present is not None and present[MOD_REVISION] <= revision:
            cut = len(chain)
        else:
            # The newest version at `revision` is what a read there returns; a tombstone says no more than nothing.
            cut = bisect_right(chain, revision, key=_mod_revision)
            if cut and chain[cut - 1][VALUE] is not None:
                cut -= 1
        if cut == len(chain):
            del self.chains[key]
            if present is None:
                self._dead.remove(key)
        self.state_bytes -= sum(map(cost, chain[:cut]))
        del chain[:cut]

    # ---------------------------------------------------------------- reading

    def check_revision(self, revision: int) -> None:
        """Raise Compacted or FutureRevision unless `revision` can be read."""
        if revision < self.compaction_revision:
            raise Compacted(
                f"revision {revision} is compacted; the oldest that can be read is {self.compaction_revision}",
                self.compaction_revision,
            )
        if revision > self.revision:
            raise FutureRevision(
                f"revision {revision} is not here yet; this is {self.revision}", self.revision
            )

    def at(self, key: str, revision: int) -> Record | None:
        """`key` as it was at `revision`, which must be readable."""
        record = self.records.get(key)
        if record is not None and record[MOD_REVISION] <= revision:
            return record
        found = self._before(key, revision + 1)
        return None if found is None or found[VALUE] is None else found

    def previous(self, event: Record) -> Record | None:
        """The version that `event` took the place of, None when there was no such key.

        It is kept for every kept event: compaction leaves the newest version at its revision.
        """
        found = self._before(event[KEY], event[MOD_REVISION])
        return None if found is None or found[VALUE] is None else found

    def _before(self, key: str, revision: int) -> Record | None:
        chain = self.chains.get(key)
        if chain is None:
            return None
        place = bisect_left(chain, revision, key=_mod_revision)
        return chain[place - 1] if place else None

    def position(self, revision: int) -> int:
        """Place in `events` of the first event at or above `revision`."""
        return bisect_left(self.events, revision, key=_mod_revision)

    def keys(self, start: str, end: str | None, reverse: bool = False) -> Iterator[str]:
        """Present keys from `start` on and below `end` (None: no bound), sorted."""
        found: Iterator[str] = self._live.irange(start, end, (True, False), reverse)
        return found

    def past_keys(self, start: str, end: str | None, reverse: bool = False) -> Iterator[str]:
        """As `keys`, with the keys that existed at any kept revision."""
        gone = self._dead.irange(start, end, (True, False), reverse)
        return merge(self.keys(start, end, reverse), gone, reverse=reverse)

    def count(self, start: str, end: str | None) -> int:
        """Number of present keys from `start` on and below `end`, without walking over them."""
        last = len(self._live) if end is None else self._live.bisect_left(end)
        return max(0, int(last - self._live.bisect_left(start)))
