"""Cluster time: what TTLs count in (INTERNALS §7).

The leader's time is a base plus what its own monotonic clock has run since it took over. The base is what the newest
leader that this node has heard, or was itself, said last; and no less than the last stamp in its log.

- Leases end where the leader that granted them would have ended them, or later. An earlier leader, alone for a while,
  may have been ahead of the one that the cluster went by: whoever hears a newer one goes by that one, even back.
- The stamps along a log never fall, so the time of the state machines never goes back.
- No wall clock moves it, and without a leader it stands still.
- A gap between two calls on the leader that is longer than the shortest election timeout counts as zero: a process
  that was paused expires nothing. Leaders therefore call at least once per heartbeat, even when alone.
"""

from __future__ import annotations


class ClusterClock:
    """The cluster time as this node knows it, in ms."""

    __slots__ = ("_called_at", "_gap_max_ms", "_leading", "_term", "time_ms")

    def __init__(self, time_ms: int, gap_max_ms: int) -> None:
        self.time_ms = time_ms
        self._gap_max_ms = gap_max_ms
        self._leading = False
        self._called_at = 0
        self._term = 0
        """Whose time this is."""

    def observe(self, term: int, time_ms: int) -> None:
        """The leader of `term` said that it is (or a snapshot of its ends with) `time_ms`."""
        assert not self._leading, "a leader hears no other one"
        if term > self._term or time_ms > self.time_ms:
            self.time_ms = time_ms
        self._term = max(self._term, term)

    def lead(self, term: int, last_stamp_ms: int, now: int) -> None:
        """This node takes over in `term`, with a log that ends with that stamp: from `now` on, time runs with its own
        clock."""
        self._term = term
        self.time_ms = max(self.time_ms, last_stamp_ms)
        self._leading = True
        self._called_at = now

    def stop(self) -> None:
        """This node leads no more: time stands still until a leader is heard."""
        self._leading = False

    def read(self, now: int) -> int:
        """Cluster time at monotonic `now`. Every reading moves the clock, else the gap rule could set it back."""
        if self._leading:
            gap = now - self._called_at
            if gap <= self._gap_max_ms:
                self.time_ms += gap
            self._called_at = now
        return self.time_ms
