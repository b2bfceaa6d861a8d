"""A snapshot that is being made: from the frozen state and a point of the log to a whole file.

A job begins at the applied index A and freezes what the state machine holds there. It writes nothing before it is told
the point of the log at A, whose term and chain hash go into the file. It is over when `poll` has said how it ended;
until then there is no other one. What it leaves when it fails is for its owner to remove.

`SlicedSnapshot` does the work within its owner's turns, some chunks each: for threads, which cannot fork, and for
virtual time. `snapshot_fork.py` gives it to a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from danube_raft.errors import DiskFailed
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshot_store import Writer

SLICE_CHUNKS = 4
"""Chunks that one turn encodes and writes: 2 to 4 MiB, some 20 ms."""
SLICE_PAUSE_MS = 1
"""Time between two slices, for everything else that the thread does."""


class Failed(NamedTuple):
    """There will be no snapshot; `reason` is for people."""

    reason: str


Outcome: TypeAlias = SnapshotMeta | Failed


class Job(Protocol):
    """One snapshot in the making, of the state at `index`."""

    index: int
    term: int

    @property
    def pid(self) -> int:
        """The process that makes it, 0 if it has none of its own."""

    @property
    def pause_ms(self) -> int:
        """After how long `poll` is wanted again."""

    def give_point(self, chain: bytes) -> None:
        """The chain hash of the log up to and including the entry at `index`: now it can be written."""

    def poll(self) -> Outcome | None:
        """Go on, or look how it goes; None while it is not over."""

    def kill(self) -> None:
        """Give it up. It is over when `poll` says so."""


Begin: TypeAlias = Callable[[Shelf, Machine], Job]
"""Freezes the state of the machine, which may go on afterwards."""


class SlicedSnapshot:
    """See `Job`. The machine is held up once, while what can change is copied: some 0.5 s for a million records."""

    def __init__(self, shelf: Shelf, machine: Machine) -> None:
        self.index, self.term = machine.applied_index, machine.applied_term
        self._store = shelf.store
        self._chunks = encode(machine)
        self._writer: Writer | None = None
        self._over: Failed | None = None
        self._chain: bytes | None = None

    @property
    def pid(self) -> int:
        """See Job."""
        return 0

    @property
    def pause_ms(self) -> int:
        """See Job."""
        return SLICE_PAUSE_MS

    def give_point(self, chain: bytes) -> None:
        """See Job."""
        self._chain = chain

    def poll(self) -> Outcome | None:
        """See Job."""
        if self._over is not None or self._chain is None:
            return self._over
        try:
            if self._writer is None:
                self._writer = self._store.writer(self.index, self.term, self._chain)
            for _ in range(SLICE_CHUNKS):
                chunk = next(self._chunks, None)
                if chunk is None:
                    return self._writer.commit()
                self._writer.write(chunk)
        except DiskFailed as error:
            self._over = Failed(error.message)
        return self._over

    def kill(self) -> None:
        """See Job."""
        if self._writer is not None:
            self._writer.abort()
        self._over = self._over or Failed("it was given up")
