"""Virtual time: what happens next, and when.

Time is an integer of microseconds and moves only from event to event, so an hour without events costs nothing. Events
of the same instant happen in the order in which they were planned. Nothing is ever unplanned: whoever changes its
mind lets the event find out that it is stale.

Events that go round in circles are told: no world has nearly as many within a second as `EVENTS_MAX`.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from danube_raft.sim.endless import Endless

MS = 1_000
SECOND = 1_000_000
"""In microseconds, the unit of all virtual time."""
EVENTS_MAX = 300_000
"""Events of one virtual second: thirty times what the busiest of many worlds had."""


class Schedule:
    """The events to come, soonest first; `now` is virtual microseconds."""

    __slots__ = ("_events", "_left", "_planned", "_second_ends", "now")

    def __init__(self) -> None:
        self.now = 0
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0
        self._second_ends = 0
        self._left = EVENTS_MAX

    def at(self, time: int, event: Callable[..., None], *arguments: Any) -> None:
        """Plan `event` for `time`, which must not be in the past."""
        assert time >= self.now, "nothing is planned for the past"
        self._planned += 1
        heappush(self._events, (time, self._planned, event, arguments))

    def after(self, delay: int, event: Callable[..., None], *arguments: Any) -> None:
        """Plan `event` for `delay` microseconds from now."""
        self.at(self.now + delay, event, *arguments)

    def run_until(self, end: int) -> None:
        """Let everything happen that is planned up to `end`, and be there."""
        events = self._events
        while events and events[0][0] <= end:
            self.now, _, event, arguments = heappop(events)
            if self.now >= self._second_ends:
                self._second_ends, self._left = self.now + SECOND, EVENTS_MAX
            self._left -= 1
            if self._left < 0:
                name = getattr(event, "__qualname__", "an event")
                raise Endless(f"events without end, such as {name}: over {EVENTS_MAX} in a virtual second")
            event(*arguments)
        self.now = end
