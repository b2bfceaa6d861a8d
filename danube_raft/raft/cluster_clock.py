"""Cluster time: what TTLs count in (INTERNALS §7).

The leader's time is a base plus what its own monotonic clock has run since it took over; the base is the highest
time that this node knows: the last stamp in its log, the highest leader time it has heard, its own last reading.

- It never goes back: not on a change of leader, not within one node.
- No wall clock moves it, and without a leader it stands still.
- A gap between two calls on the leader that is longer than the shortest election timeout counts as zero: a process
  that was paused expires nothing. Leaders therefore call at least once per heartbeat, even when alone.
"""

from __future__ import annotations


class ClusterClock:
    """The cluster time as this node knows it, in ms."""

    __slots__ = ("_called_at", "_gap_max_ms", "_leading", "time_ms")

    def __init__(self, time_ms: int, gap_max_ms: int) -> None:
        self.time_ms = time_ms
        self._gap_max_ms = gap_max_ms
        self._leading = False
        self._called_at = 0

    def observe(self, time_ms: int) -> None:
        """A leader said that it is (or an entry was stamped) `time_ms`."""
        if time_ms > self.time_ms:
            assert not self._leading, "a leader hears of no time later than its own"
            self.time_ms = time_ms

    def lead(self, now: int) -> None:
        """This node takes over: from `now` on, time runs with its own clock."""
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
