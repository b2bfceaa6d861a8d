"""How far the log may be forgotten: which snapshots this node has, and who still needs what is behind them.

    purged ≤ older kept snapshot,   purged ≤ newest snapshot − tail,   purged ≤ a snapshot that is being sent (for a while)

- The newest two count. With one alone nothing is forgotten: should it prove damaged, the log must be all there; only
  an installed snapshot comes without what was before it.
- The tail is the smaller of so many entries and about so many bytes; it spares a follower that lags a little the whole
  snapshot. Sizes of entries are known as far as they were committed in this boot, at a grain of 1/64 of the tail; where
  they are not, only entries count.
- A snapshot that is being sent would be of no use if the log behind it went meanwhile. But a peer that never gets
  through must not fill this disk: after `snapshot_pin_ms`, or so many bytes, it needs the next one.
"""

from __future__ import annotations

from collections import deque

from danube_raft.config import Config
from danube_raft.wire.entry import Entry, entry_bytes
from danube_raft.wire.local import SnapshotDone

GRAINS = 64


class Retention:
    """What is kept."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.newest: SnapshotDone | None = None
        self.older: SnapshotDone | None = None
        self._grain = max(config.snapshot_tail_bytes // GRAINS, 1)
        self._bytes = 0
        self._marks: deque[tuple[int, int]] = deque()
        """(index, bytes of the log up to there), as far as it was seen."""

    def committed(self, entries: tuple[Entry, ...]) -> None:
        """These were committed, in order."""
        if not self._marks:
            self._marks.append((entries[0].index - 1, 0))
        self._bytes += sum(map(entry_bytes, entries))
        if self._bytes - self._marks[-1][1] >= self._grain:
            self._marks.append((entries[-1].index, self._bytes))

    def done(self, snapshot: SnapshotDone) -> bool:
        """This one is durable; whether it is news: one that was overtaken is of no use."""
        if self.newest is not None and snapshot.index <= self.newest.index:
            return False
        self.older, self.newest = self.newest, snapshot
        return True

    def replaced(self, snapshot: SnapshotDone) -> None:
        """The newest one seems to be damaged, and this one takes its place. So the log goes back to the older one still."""
        if self.newest is not None and snapshot.index >= self.newest.index:
            self.newest = snapshot

    def installed(self, index: int) -> None:
        """The log begins behind `index`; what it held before was another one. The kv-server will tell of the snapshot."""
        self.newest = self.older = None
        self.forgotten(index)

    def forgotten(self, index: int) -> None:
        """The log begins behind `index`."""
        while len(self._marks) > 1 and self._marks[1][0] <= index:
            self._marks.popleft()

    def purge_to(self, pinned: int | None) -> int:
        """Up to where the log is not needed any more; 0: all of it is. `pinned`: the oldest snapshot being sent."""
        if self.newest is None or self.older is None:
            return 0
        upto = min(self.older.index, self._tail_begins(self.newest.index))
        if pinned is not None and self._bytes_since(pinned) <= self._config.snapshot_pin_bytes:
            upto = min(upto, pinned)
        return max(upto, 0)

    def stamp_at(self, index: int) -> int:
        """A cluster time that was reached by the entry at `index`, to which the log is purged: the log's later entries
        know more."""
        older = self.older
        return older.stamp_ms if older is not None and older.index <= index else 0

    def _tail_begins(self, index: int) -> int:
        first = index - self._config.snapshot_tail_entries
        at_end = self._bytes_at(index)
        enough = [
            at
            for at, size in self._marks
            if at_end - size >= self._config.snapshot_tail_bytes and at <= index
        ]
        return max(first, enough[-1]) if enough else first

    def _bytes_since(self, index: int) -> int:
        return self._bytes - self._bytes_at(index)

    def _bytes_at(self, index: int) -> int:
        """Bytes of the log up to `index`, or to a place shortly before it."""
        return max((size for at, size in self._marks if at <= index), default=0)
