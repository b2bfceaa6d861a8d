"""One process of a node in virtual time: what `node/loop.py` does with sockets, done with planned events.

- A turn begins some time after something arrived or a timer was due, takes all that waits, and takes time itself; the
  next one begins after it. What the handler says in a turn leaves at its end.
- A paused process (SIGSTOP) takes no turns; what arrives waits, and after it is resumed it is seen before any timer.
- The log-writer's turn lasts as long as its syncs. What a process says leaves at the end of its turn, not if it is gone
  by then, and later if it is paused.
- What did not get through is told to the handler, and there is another turn at once.

Where messages go is the node's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from danube_raft.errors import DiskFailed, StateReplaced
from danube_raft.node.handler import Handler
from danube_raft.sim.schedule import MS, SECOND, Schedule

Emit = Callable[[str, list[tuple[str, Any]]], list[tuple[str, Any]]]
"""Takes (process name, what it says); returns what did not get through, with the edge that says so."""

DRAIN_MESSAGES = 1_000


class Clock:
    """A node's monotonic clock in ms: it began at some moment of its own, and runs at a rate of its own, up to
    `drift_ppm` parts per million too fast or too slow."""

    __slots__ = ("_offset_us", "_ppm", "_schedule")

    def __init__(self, schedule: Schedule, source: random.Random, drift_ppm: int = 0) -> None:
        self._schedule = schedule
        self._offset_us = source.randrange(1_000_000 * SECOND)
        self._ppm = 1_000_000 + source.randint(-drift_ppm, drift_ppm)

    def read(self) -> int:
        """Now."""
        return (self._schedule.now * self._ppm // 1_000_000 + self._offset_us) // MS

    def error_ms(self) -> int:
        """By how much it is wrong now."""
        return abs(self.read() - (self._schedule.now + self._offset_us) // MS)

    def time_of(self, ms: int) -> int:
        """The virtual time at which this clock will show `ms`, or now if it has passed."""
        # Rounded up, so that it really shows as much by then.
        time = -((self._offset_us - ms * MS) * 1_000_000 // self._ppm)
        return max(time, self._schedule.now)


class Process:
    """Drives one handler."""

    def __init__(
        self, schedule: Schedule, source: random.Random, clock: Clock, handler: Handler, name: str, emit: Emit
    ) -> None:
        self.name = name
        self.handler = handler
        self.alive = True
        self._schedule = schedule
        self._random = source
        self._clock = clock
        self._emit = emit
        self._queue: list[tuple[str, Any]] = []
        self._turn_at: int | None = None
        self._free_at = 0
        self._paused = False
        self._started = False
        self._busy = False
        self.said_at = 0
        """When the last turn was: what it says leaves later, and tells of that moment."""
        self.lasts_us: Callable[[int], int] = self._quick
        """How long a turn takes that says something: for the log-writer, its syncs."""
        self.finish: Callable[[], None] = lambda: None
        """For the log-writer: its syncs are over."""
        self.is_busy: Callable[[], bool] = lambda: False
        """For the log-writer: a turn that says nothing may have begun a sync too."""
        self.failed: Callable[[], None] = lambda: None
        """The disk has failed, or a wrong state was replaced: the process ends, and with it the node."""
        self.may_fail: Callable[[], bool] = lambda: False
        """Whether the disk was made to fail. Any other error of a handler is one of the product, and ends the run."""
        self.takes: Callable[[str, Any], None] | None = None
        """Hears of every (edge, message) when the handler takes it."""
        self.held_back: Callable[[], None] = lambda: None
        """A turn, or what a turn has said, waits because the process is paused."""

    def start(self, delay_us: int) -> None:
        """Let the process begin in a while."""
        self._schedule.after(delay_us, self._start)

    def _start(self) -> None:
        if not self.alive:
            return
        if self._paused:
            self._schedule.after(10 * MS, self._start)
            return
        self._started = True
        if self._survives(self.handler.start):
            self._end_turn()

    def deliver(self, messages: list[tuple[str, Any]]) -> None:
        """(edge, message) pairs have arrived."""
        if self.alive:
            self._queue += messages
            self._want_turn(self._schedule.now + 10 + int(self._random.random() * 40))

    def pause(self) -> None:
        """SIGSTOP."""
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._paused = False
        self._turn_at = None
        self._want_turn(self._schedule.now)

    def _want_turn(self, time: int) -> None:
        if not self._started or self._paused or self._busy:
            if self._paused:
                self.held_back()
            return
        time = max(time, self._free_at)
        if self._turn_at is None or time < self._turn_at:
            self._turn_at = time
            self._schedule.at(time, self._turn, time)

    def _turn(self, planned_at: int) -> None:
        if planned_at != self._turn_at or not self.alive:
            return
        if self._paused:
            self.held_back()
            return
        self._turn_at = None
        if self._survives(self._take):
            self._end_turn()

    def _take(self, now: int) -> None:
        taken, self._queue = self._queue[:DRAIN_MESSAGES], self._queue[DRAIN_MESSAGES:]
        for edge, message in taken:
            if self.takes is not None:
                self.takes(edge, message)
            self.handler.receive(edge, message, now)

    def _survives(self, step: Callable[[int], None]) -> bool:
        try:
            step(self._clock.read())
        except StateReplaced:
            pass
        except DiskFailed:
            if not self.may_fail():
                raise
        else:
            return True
        self.alive = False
        self.failed()
        return False

    def _end_turn(self) -> None:
        if not self._survives(self.handler.turn):
            return
        said = list(self.handler.outbox)
        self.handler.outbox.clear()
        self.said_at = self._schedule.now
        if said or self.is_busy():
            self._busy = True
            self._schedule.after(self.lasts_us(self._schedule.now), self._say, said)
        else:
            self._free_at = self._schedule.now + self._quick(self._schedule.now)
            self._plan_next()

    def _quick(self, _now: int) -> int:
        return 20 + int(self._random.random() * 60)

    def _say(self, said: list[tuple[str, Any]]) -> None:
        if not self.alive:
            return
        if self._paused:
            # The kernel finishes a sync; the process says nothing before it runs again.
            self.held_back()
            self._schedule.after(MS, self._say, said)
            return
        self._busy = False
        self.finish()
        trouble = self._emit(self.name, said)
        for edge, each in trouble:
            self.handler.receive(edge, each, self._clock.read())
        if trouble:
            self._want_turn(self._schedule.now)
        self._plan_next()

    def _plan_next(self) -> None:
        if self._queue:
            self._want_turn(self._schedule.now)
        timer = self.handler.next_timer()
        if timer is not None:
            self._want_turn(self._clock.time_of(timer))
