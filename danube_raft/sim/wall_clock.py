"""The wall clock of a node: what it shows is a fault's to choose, and nothing but `created_at_ms` may depend on it."""

from __future__ import annotations

import random

from danube_raft.sim.schedule import MS, Schedule
from danube_raft.wire.entry import KIND_BATCH, Entry

_EPOCH_MS = 1_700_000_000_000
_WRONG_MS = 60_000
"""One that is wrong by as much was moved by a fault: entries are younger, clocks by themselves more exact."""


class WallClock:
    """`offset_ms`: how far ahead it is."""

    def __init__(self, schedule: Schedule, source: random.Random) -> None:
        self.offset_ms = source.randrange(-10_000, 10_000)
        self._schedule = schedule

    def read(self) -> int:
        """What it shows."""
        return self.true_ms() + self.offset_ms

    def true_ms(self) -> int:
        """What it should show."""
        return _EPOCH_MS + self._schedule.now // MS

    def misdates(self, entry: Entry) -> bool:
        """Whether an entry of now has its time from a clock that was moved."""
        return entry.kind == KIND_BATCH and abs(entry.wall_ms - self.true_ms()) > _WRONG_MS
