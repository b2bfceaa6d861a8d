"""The log as the core sees it: every term, and the payloads of the newest entries.

- `term(i)` is known for every index from `purged_index` to `last_index`: the log keeps (first index, term) runs,
  a handful however long it is.
- Entries from `cache_first` to `last_index` are in memory: the newest `cache_bytes`, and whatever is not durable yet.
  Older ones are asked for with ReadLog, one request per first index at a time, and only when they are durable, so
  that the log-writer always finds them.
- Terms never decrease along the log. (index, term) names one content for ever, so a chunk that comes back late is
  checked against the runs and used only as far as it agrees.

What is committed or durable is not known here, and nothing here touches a disk.
"""

from __future__ import annotations

from bisect import bisect_right

from danube_raft.wire import local
from danube_raft.wire.entry import ENTRY_OVERHEAD_BYTES, Entry


class Log:
    """Terms of all unpurged entries and payloads of the newest."""

    __slots__ = (
        "_asked",
        "_cache",
        "_cache_bytes",
        "_cache_max_bytes",
        "_first",
        "_term",
        "cache_first",
        "last_index",
        "last_term",
        "purged_index",
        "requests",
        "truncations",
    )

    def __init__(self, recovered: local.Recovered, cache_max_bytes: int) -> None:
        self.purged_index = recovered.purged_index
        self.last_index = recovered.last_index
        # The purged entry opens the runs, so that every known index lies in one of them.
        self._first = [recovered.purged_index, *[first for first, _ in recovered.runs]]
        self._term = [recovered.purged_term, *[term for _, term in recovered.runs]]
        self.last_term = self._term[-1]
        self._cache: dict[int, Entry] = {}
        self._cache_bytes = 0
        self._cache_max_bytes = cache_max_bytes
        self.cache_first = self.last_index + 1
        self._asked: set[int] = set()
        self.requests: list[local.ReadLog] = []
        self.truncations = 0
        assert self.purged_index <= self.last_index
        assert self._term == sorted(self._term), "terms never decrease along the log"

    def term(self, index: int) -> int:
        """Term of the entry at `index`, from `purged_index` to `last_index`."""
        if index >= self._first[-1]:
            assert index <= self.last_index
            return self._term[-1]
        assert index >= self.purged_index
        return self._term[bisect_right(self._first, index) - 1]

    def matches(self, index: int, term: int) -> bool:
        """Whether this log has an entry (index, term), or purged exactly up to it."""
        return self.purged_index <= index <= self.last_index and self.term(index) == term

    def last_at_most(self, index: int, term: int) -> int:
        """The greatest index ≤ `index` whose term is ≤ `term`, or the purged index where there is none."""
        index = min(index, self.last_index)
        run = bisect_right(self._first, index) - 1
        while run > 0 and self._term[run] > term:
            index = self._first[run] - 1
            run -= 1
        return index if run > 0 or self._term[0] <= term else self.purged_index

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends in (last_index, last_term) has all that this one has (§5.4.1 of the paper)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entry: Entry) -> None:
        """Put `entry` behind the last one."""
        index, term = entry.index, entry.term
        assert index == self.last_index + 1, "entries are appended in order"
        assert term >= self.last_term, "terms never decrease along the log"
        if term != self.last_term:
            self._first.append(index)
            self._term.append(term)
            self.last_term = term
        self.last_index = index
        self._cache[index] = entry
        self._cache_bytes += len(entry.payload) + ENTRY_OVERHEAD_BYTES

    def truncate(self, first: int) -> None:
        """Forget `first` and everything behind it."""
        assert self.purged_index < first <= self.last_index
        while len(self._first) > 1 and self._first[-1] >= first:
            self._first.pop()
            self._term.pop()
        for index in range(max(first, self.cache_first), self.last_index + 1):
            self._cache_bytes -= len(self._cache.pop(index).payload) + ENTRY_OVERHEAD_BYTES
        self.cache_first = min(self.cache_first, first)
        self.last_index = first - 1
        self.last_term = self._term[-1]
        self.truncations += 1

    def purge(self, index: int) -> None:
        """Forget everything up to `index`, of which only the term stays known."""
        assert self.purged_index <= index <= self.last_index
        run = bisect_right(self._first, index)
        self._first[:run] = [index]
        self._term[:run] = [self._term[run - 1]]
        for old in range(self.cache_first, index + 1):
            self._cache_bytes -= len(self._cache.pop(old).payload) + ENTRY_OVERHEAD_BYTES
        self.cache_first = max(self.cache_first, index + 1)
        self.purged_index = index

    def reset(self, index: int, term: int) -> None:
        """Begin anew behind (index, term): nothing that was here belongs to what comes."""
        self.purged_index = self.last_index = index
        self._first, self._term, self.last_term = [index], [term], term
        self._cache.clear()
        self._cache_bytes = 0
        self.cache_first = index + 1
        self.truncations += 1

    def evict(self, durable_index: int) -> None:
        """Drop the oldest payloads over the limit, but none that could not be read back."""
        while self._cache_bytes > self._cache_max_bytes and self.cache_first <= durable_index:
            entry = self._cache.pop(self.cache_first)
            self._cache_bytes -= len(entry.payload) + ENTRY_OVERHEAD_BYTES
            self.cache_first += 1

    def get(self, index: int) -> Entry | None:
        """The entry at `index` if it is in memory."""
        return self._cache.get(index)

    def slice(self, first: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries in memory from `first` on: at most `max_bytes`, or one entry. Empty if `first` is not there."""
        found: list[Entry] = []
        size = 0
        for index in range(first, self.last_index + 1):
            entry = self._cache.get(index)
            if entry is None:
                break
            size += len(entry.payload) + ENTRY_OVERHEAD_BYTES
            if found and size > max_bytes:
                break
            found.append(entry)
        return tuple(found)

    def request(self, first: int, max_bytes: int) -> None:
        """Ask the disk for entries from `first` on; no second time while the answer is on its way."""
        if first not in self._asked:
            self._asked.add(first)
            self.requests.append(local.ReadLog(first, self.cache_first - 1, max_bytes))

    def answered(self, first: int, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """The answer to `request(first)`: as much of it as is still what this log says."""
        self._asked.discard(first)
        for place, entry in enumerate(entries):
            if entry.index != first + place or not self.matches(entry.index, entry.term):
                return entries[:place]
        return entries
