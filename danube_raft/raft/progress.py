"""What a leader knows of one peer, and how much it may send to it.

- probe: the place where the logs meet is not known; one AppendEntries at a time, the next one after an answer or a
  heartbeat's answer.
- replicate: entries are sent ahead of their acks, within a window counted in messages and in bytes.
- snapshot: what the peer needs was purged; it gets no entries until it has what only a snapshot can give.

`match_index` only grows while the peer's acks count, which is what `counts` says, and it holds what it acknowledged. `counted_index` is the part of it
that commits entries: 0 while the peer is SUSPECT, because it lost what it had acknowledged. `match_index < next_index`
always holds. `asked_at` is when the peer was last sent something that only asks where it stands: rounds of reads must
not multiply these. `low_space`: what it said last of its disk being nearly full; None: nothing
yet in this leadership.
"""

from __future__ import annotations

from collections import deque

PROBE = "probe"
REPLICATE = "replicate"
SNAPSHOT = "snapshot"


class Progress:
    """One peer of a leader."""

    __slots__ = (
        "asked_at",
        "commit_sent",
        "counted_index",
        "counts",
        "heard_at",
        "inflight",
        "inflight_bytes",
        "low_space",
        "match_index",
        "next_index",
        "paused",
        "round",
        "state",
    )

    def __init__(self, next_index: int, now: int) -> None:
        self.state = PROBE
        self.match_index = 0
        self.counted_index = 0
        self.counts = True
        self.next_index = next_index
        self.paused = False
        self.inflight: deque[tuple[int, int]] = deque()
        self.inflight_bytes = 0
        self.commit_sent = 0
        self.heard_at = now
        self.round = 0
        self.asked_at = now
        self.low_space: bool | None = None

    def is_open(self, max_messages: int, max_bytes: int) -> bool:
        """Whether an AppendEntries with entries may be sent now."""
        if self.state == REPLICATE:
            return len(self.inflight) < max_messages and self.inflight_bytes < max_bytes
        return self.state == PROBE and not self.paused

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries from `next_index` to `last_index` have left."""
        if self.state == REPLICATE:
            self.inflight.append((last_index, size_bytes))
            self.inflight_bytes += size_bytes
            self.next_index = last_index + 1
        else:
            self.paused = True

    def acked(self, match_index: int, counted: bool) -> None:
        """The peer's log matches up to `match_index`."""
        # Only an answer that reaches what the probe asked about tells where the logs meet.
        if self.state == PROBE and match_index >= self.next_index - 1:
            self.state = REPLICATE
            self.paused = False
        self.match_index = max(self.match_index, match_index)
        self.next_index = max(self.next_index, self.match_index + 1)
        if counted:
            self.counted_index = max(self.counted_index, match_index)
        while self.inflight and self.inflight[0][0] <= match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]

    def not_counted(self) -> None:
        """What the peer acknowledged before may be lost: it is SUSPECT, or has refused what follows on it."""
        self.counted_index = 0
        self.match_index = 0

    def probe(self, next_index: int) -> None:
        """Start over from `next_index`: what was in flight may be lost, or was refused."""
        self.state = PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.paused = False
        self.inflight.clear()
        self.inflight_bytes = 0

    def need_snapshot(self) -> None:
        """The entries that the peer needs are purged."""
        self.state = SNAPSHOT
        self.inflight.clear()
        self.inflight_bytes = 0
