"""What happened in a run: a digest of all of it, the last lines, and all lines where wanted.

The same seed must give the same digest, whatever the hash seed, the machine or the hour: that is what makes a failure
repeatable. Bytes that travel are traced by their checksum, so a difference in any field of any message shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from danube_raft.sim.describe import describe_event

LAST_LINES = 60
"""What is told of the events before a failure."""


class Trace:
    """Events of a time, a kind and details. `echo` takes each as a line, as it comes."""

    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self._digest = blake2b(digest_size=16)
        self._last: deque[tuple[int, tuple[Any, ...], Any]] = deque(maxlen=LAST_LINES)
        self._echo = echo

    def add(self, time: int, *what: Any, seen: Any = None) -> None:
        """One event. `what` is made of strings, integers, and tuples of such; `seen` is what the line shows of it."""
        self._digest.update(repr((time, what)).encode())
        self._last.append((time, what, seen))
        if self._echo is not None:
            self._echo(describe_event(time, what, seen))

    def last(self) -> str:
        """The last events, one per line."""
        return "\n".join(describe_event(*event) for event in self._last)

    def digest(self) -> str:
        """Of all events so far."""
        return self._digest.hexdigest()
