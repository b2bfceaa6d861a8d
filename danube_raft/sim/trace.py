"""What happened in a run: a digest of all of it, the last lines, and all lines where wanted.

The same seed must give the same digest, whatever the hash seed, the machine or the hour: that is what makes a failure
repeatable. Bytes that travel are traced by their checksum, so a difference in any field of any message shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

LAST_LINES = 60
"""What is told of the events before a failure."""


class Trace:
    """Lines of `time what details…`. `echo` takes each line as it comes."""

    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self._digest = blake2b(digest_size=16)
        self._last: deque[tuple[int, tuple[Any, ...]]] = deque(maxlen=LAST_LINES)
        self._echo = echo

    def add(self, time: int, *what: Any) -> None:
        """One event. `what` is made of strings, integers, and tuples of such."""
        self._digest.update(repr((time, what)).encode())
        self._last.append((time, what))
        if self._echo is not None:
            self._echo(_line(time, what))

    def last(self) -> str:
        """The last events, one per line."""
        return "\n".join(_line(time, what) for time, what in self._last)

    def digest(self) -> str:
        """Of all lines so far."""
        return self._digest.hexdigest()


def _line(time: int, what: tuple[Any, ...]) -> str:
    return f"{time / 1_000_000:12.6f} " + " ".join(str(item) for item in what)
