"""What a leader keeps for as long as it leads, beside the state that every role has.

- One `Progress` per other member, made when leadership begins.
- `first_of_term` is the index of the no-op that opened the term: nothing is committed by counting below it
  (Figure 8 of the paper), and no read is answered before it is committed.
- `uncommitted_bytes` counts this term's entries that are not committed yet; above the limit proposals are refused.
"""

from __future__ import annotations

from collections import deque

from danube_raft.raft.progress import Progress
from danube_raft.raft.read_index import ReadRounds


class Leadership:
    """One term of leading."""

    __slots__ = ("_uncommitted", "first_of_term", "heartbeat_at", "peers", "reads", "uncommitted_bytes")

    def __init__(
        self, peers: tuple[int, ...], first_of_term: int, max_reads: int, now: int, heartbeat_at: int
    ) -> None:
        self.peers = {peer: Progress(first_of_term, now) for peer in peers}
        self.first_of_term = first_of_term
        self.reads = ReadRounds(first_of_term, max_reads)
        self.heartbeat_at = heartbeat_at
        self.uncommitted_bytes = 0
        self._uncommitted: deque[tuple[int, int]] = deque()

    def appended(self, index: int, size_bytes: int) -> None:
        """This leader has appended an entry."""
        self._uncommitted.append((index, size_bytes))
        self.uncommitted_bytes += size_bytes

    def committed(self, index: int) -> None:
        """Everything up to `index` is committed."""
        uncommitted = self._uncommitted
        while uncommitted and uncommitted[0][0] <= index:
            self.uncommitted_bytes -= uncommitted.popleft()[1]
