"""A snapshot that is made in many small steps with time between them, so that much can happen meanwhile.

It is the product's own way of making one within a thread; only the slices are smaller and the pauses longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from danube_raft.kv.machine import Machine
from danube_raft.node.snapshot_jobs import Job, SlicedSnapshot
from danube_raft.node.snapshot_shelf import Shelf


def split(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """In pieces of at most so many bytes."""
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


class UnhurriedSnapshot(SlicedSnapshot):
    """See `Job`. Some KB a second, or some hundred."""

    def __init__(self, shelf: Shelf, machine: Machine, source: random.Random) -> None:
        super().__init__(shelf, machine)
        self._chunks = split(self._chunks, source.choice((50, 500, 5_000)))
        self._pause_ms = source.choice((1, 5, 40))

    @property
    def pause_ms(self) -> int:
        """See Job."""
        return self._pause_ms


def beginner(source: random.Random) -> Callable[[Shelf, Machine], Job]:
    """Begins such snapshots."""
    return lambda shelf, machine: UnhurriedSnapshot(shelf, machine, source)
