"""The stream of committed entries to the state machine.

- Every index from the purged one + 1 on is handed over once per boot, in order, when it is committed *and* durable
  here: `applied ≤ handed ≤ min(commit, durable)`.
- A state machine that has loaded a snapshot gets what is behind it only (`jump`).
- At most `unapplied_max_bytes` are handed over and not applied yet, or one entry; `applied` gives the credit back.
- What is not in memory is read from the log a chunk at a time. Replay after a restart is the same path.
"""

from __future__ import annotations

from collections import deque

from danube_raft.raft.log import Log
from danube_raft.wire.entry import ENTRY_OVERHEAD_BYTES, Entry


class Delivery:
    """What was handed over, what was applied, and the credit between the two."""

    __slots__ = (
        "_max_bytes",
        "_owed",
        "_owed_bytes",
        "_read_bytes",
        "_staged",
        "applied_index",
        "handed_index",
    )

    def __init__(self, index: int, max_bytes: int, read_bytes: int) -> None:
        self.handed_index = index
        self.applied_index = index
        self._max_bytes = max_bytes
        self._read_bytes = read_bytes
        self._owed: deque[tuple[int, int]] = deque()
        self._owed_bytes = 0
        self._staged: deque[Entry] = deque()

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`. A repeat is inert."""
        assert index <= self.handed_index, "only what was handed over can be applied"
        owed = self._owed
        while owed and owed[0][0] <= index:
            self._owed_bytes -= owed.popleft()[1]
        self.applied_index = max(self.applied_index, index)

    def jump(self, index: int) -> None:
        """The state machine holds everything up to `index`, from a snapshot: what is not beyond it is not needed."""
        if index <= self.handed_index:
            # It will not say so of entries that it leaves out.
            self.applied(index)
            return
        self.handed_index = self.applied_index = index
        self._owed.clear()
        self._owed_bytes = 0
        self._staged.clear()

    def offer(self, entries: tuple[Entry, ...], limit: int) -> None:
        """Entries read from the log. Used if the stream waits for the first of them, up to index `limit`."""
        if entries and not self._staged and entries[0].index == self.handed_index + 1:
            self._staged.extend(entry for entry in entries if entry.index <= limit)

    def take(self, limit: int, log: Log) -> tuple[Entry, ...]:
        """What may be handed over now, up to index `limit`; asks `log` for what is not in memory."""
        handed: list[Entry] = []
        staged = self._staged
        index = self.handed_index
        while index < limit:
            if self._owed and self._owed_bytes >= self._max_bytes:
                break
            entry = staged[0] if staged else log.get(index + 1)
            if entry is None:
                log.request(index + 1, self._read_bytes)
                break
            size = len(entry.payload) + ENTRY_OVERHEAD_BYTES
            if self._owed and self._owed_bytes + size > self._max_bytes:
                break
            if staged:
                staged.popleft()
            index += 1
            assert entry.index == index
            self._owed.append((index, size))
            self._owed_bytes += size
            handed.append(entry)
        self.handed_index = index
        return tuple(handed)
