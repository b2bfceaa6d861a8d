"""A limit for worlds that never end: else the run that finds one would hang instead of telling it.

Two kinds: events that lead to each other without time getting on are counted (`schedule.py`), so that this failure repeats
like any other; code that does not come back within one event can only be timed. The time is what the process itself has
computed, so a busy machine takes no world for endless.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Endless(AssertionError):
    """Events go on and on, and virtual time does not."""


class Hung(Endless):
    """One event does not end. Found by time, so it is never run again to make it smaller."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Hung inside the block once it has computed for so long. For the main thread only."""
    before = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _too_long(_number: int, frame: FrameType | None) -> None:
    where = "" if frame is None else f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
    raise Hung(f"one event does not end: the alarm has found it in {where}")
