"""The hash of a state that is being made, of the state as it was when the job began: SHA-256 over what `kv/snapshot.py`
makes of it, which is the same on every replica.

`SlicedDigest` does the work within its owner's turns, some chunks each: for threads, which cannot fork, and for
virtual time. `ForkedDigest` gives it to a process of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, TypeAlias

from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.node.forked_child import POLL_MS, ForkedChild, Line
from danube_raft.node.snapshot_jobs import SLICE_CHUNKS, SLICE_PAUSE_MS, Failed

NAME = b"dr-digest"

HashOutcome: TypeAlias = bytes | Failed
"""The SHA-256, or why there is none."""


class DigestJob(Protocol):
    """One hash in the making, of the state at `index`."""

    index: int

    @property
    def pid(self) -> int:
        """The process that makes it, 0 if it has none of its own."""

    @property
    def pause_ms(self) -> int:
        """After how long `poll` is wanted again."""

    def poll(self) -> HashOutcome | None:
        """Go on, or look how it goes; None while it is not over."""

    def kill(self) -> None:
        """Give it up. It is over when `poll` says so."""


BeginDigest: TypeAlias = Callable[[Machine], DigestJob]
"""Freezes the state of the machine, which may go on afterwards."""


class SlicedDigest:
    """See `DigestJob`. The machine is held up once, while what can change is copied."""

    def __init__(self, machine: Machine) -> None:
        self.index = machine.applied_index
        self._chunks = encode(machine)
        self._hash = hashlib.sha256()
        self._over: HashOutcome | None = None

    @property
    def pid(self) -> int:
        """See DigestJob."""
        return 0

    @property
    def pause_ms(self) -> int:
        """See DigestJob."""
        return SLICE_PAUSE_MS

    def poll(self) -> HashOutcome | None:
        """See DigestJob."""
        for _ in range(SLICE_CHUNKS):
            if self._over is not None:
                break
            chunk = next(self._chunks, None)
            if chunk is None:
                self._over = self._hash.digest()
            else:
                self._hash.update(chunk)
        return self._over

    def kill(self) -> None:
        """See DigestJob."""
        self._over = self._over or Failed("it was given up")


class ForkedDigest:
    """See `DigestJob`; what the child owes its node is in `forked_child.py`."""

    def __init__(self, machine: Machine) -> None:
        self.index = machine.applied_index

        def work(line: Line) -> bytes:
            found = hashlib.sha256()
            for chunk in encode(machine):
                line.check_parent()
                found.update(chunk)
            return found.digest()

        self._child = ForkedChild(NAME, work)

    @property
    def pid(self) -> int:
        """See DigestJob."""
        return self._child.pid

    @property
    def pause_ms(self) -> int:
        """See DigestJob."""
        return POLL_MS

    def poll(self) -> HashOutcome | None:
        """See DigestJob."""
        ended = self._child.poll()
        if ended is None:
            return None
        return Failed(ended.failure) if ended.failure else ended.words

    def kill(self) -> None:
        """See DigestJob."""
        self._child.kill()
