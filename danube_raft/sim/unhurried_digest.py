"""The hash of a state that is made in small steps with time between them, so that much can happen meanwhile.

It is the product's own way of making one within a thread; only the slices are smaller and the pauses longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from danube_raft.kv.machine import Machine
from danube_raft.node.digest_jobs import DigestJob, SlicedDigest
from danube_raft.sim.unhurried_snapshot import split


class UnhurriedDigest(SlicedDigest):
    """See `DigestJob`. Some KB a second, or some hundred."""

    def __init__(self, machine: Machine, source: random.Random) -> None:
        super().__init__(machine)
        self._chunks = split(self._chunks, source.choice((500, 5_000)))
        self._pause_ms = source.choice((1, 5, 40))

    @property
    def pause_ms(self) -> int:
        """See DigestJob."""
        return self._pause_ms


def digester(source: random.Random) -> Callable[[Machine], DigestJob]:
    """Begins such hashes."""
    return lambda machine: UnhurriedDigest(machine, source)
