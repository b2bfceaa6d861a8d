"""How many bytes of the log are not known to be committed: what a leader's limit on proposals is held against.

- Every role counts: a new leader inherits the tail of its predecessors, and must not add another full allowance to it
  each time that leadership changes hands while nothing commits (PITFALLS 23).
- Only entries of this boot are counted. What the disk held at the start is of unknown size, takes no memory, and is
  committed together with the first entry of a new term.
- `size_bytes` is 0 when all that was appended is committed.

What happens above the limit does not belong here.
"""

from __future__ import annotations

from collections import deque


class Uncommitted:
    """Entries behind the commit index, as (index, bytes)."""

    __slots__ = ("_entries", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self._entries: deque[tuple[int, int]] = deque()

    def appended(self, index: int, size_bytes: int) -> None:
        """The entry at `index` is in the log."""
        self._entries.append((index, size_bytes))
        self.size_bytes += size_bytes

    def truncated(self, first: int) -> None:
        """The log was cut from `first` on."""
        entries = self._entries
        while entries and entries[-1][0] >= first:
            self.size_bytes -= entries.pop()[1]

    def reset(self) -> None:
        """The log begins anew."""
        self._entries.clear()
        self.size_bytes = 0

    def committed(self, index: int) -> None:
        """Everything up to `index` is committed."""
        entries = self._entries
        while entries and entries[0][0] <= index:
            self.size_bytes -= entries.popleft()[1]
