"""How long things took, counted in buckets, as Prometheus has it.

Times are observed in nanoseconds of a stopwatch that the owner was given: a handler reads no clock of its own. One
`observe` is a binary search and three additions, for what happens once per sync or per batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

Stopwatch = Callable[[], int]
"""Nanoseconds since some moment; only differences mean anything."""

BOUNDS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the buckets in seconds; one more bucket takes what is longer."""

_BOUNDS_NS = tuple(round(bound * 1_000_000_000) for bound in BOUNDS_S)


def stopped() -> int:
    """A stopwatch that does not run, for where times have no meaning: virtual time, stepped tests."""
    return 0


class Histogram:
    """Observed durations of one kind."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_ns = 0

    def observe(self, duration_ns: int) -> None:
        """One took so long. A duration on a bound belongs to the bucket below it."""
        self._counts[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self._sum_ns += duration_ns

    def report(self) -> dict[str, Any]:
        """For a Status: how many in each bucket, one number per bound and one more, and the sum in seconds."""
        return {"counts": list(self._counts), "sum_s": self._sum_ns / 1_000_000_000}
