"""What the processes need of the place where snapshots are kept.

`snapshots.py` keeps them as files, `memory_snapshots.py` in memory. The kv-server writes, reads and deletes, the
log-writer receives from the leader and reads pieces for others; each has an object of its own over the same place, and
what either has finished is there for the other.

A snapshot is there as a whole or not at all: it gets its name when it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from danube_raft.errors import Fatal
from danube_raft.storage.snapshot_file import Pieces, SnapshotMeta


class Found(NamedTuple):
    """`candidates`: what looks good from outside, the newest first. `skipped`: (name, what is wrong) of all others."""

    candidates: list[SnapshotMeta]
    skipped: list[tuple[str, Fatal]]


class Odd(NamedTuple):
    """The state of this node is wrong, in its snapshots too: the digest at `index` has shown it (0: not known any more).
    `reason` is for people."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    reason: str


class Writer(Protocol):
    """A snapshot being written. Its methods raise DiskFailed."""

    def write(self, chunk: bytes) -> None:
        """Add to the payload."""

    def commit(self) -> SnapshotMeta:
        """Finish it and give it its name, durably."""

    def abort(self) -> None:
        """Leave nothing behind. May be called at any time."""


class Receiver(Protocol):
    """A snapshot that arrives in pieces, in order; see `snapshots.SnapshotReceiver`."""

    meta: SnapshotMeta

    @property
    def wanted(self) -> int:
        """Offset of the next piece."""

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""

    def receive(self, offset: int, piece: bytes) -> int:
        """Take a piece if it is the next one; the offset that is wanted then. Raises DiskFailed or Corrupt."""

    def finish(self, report: Callable[[], None] = ...) -> SnapshotMeta:
        """Prove it, make it durable, give it its name. Raises DiskFailed, Corrupt or NewerFormat."""

    def release(self) -> None:
        """Let go, and leave what has arrived for another receiver to go on."""

    def abort(self) -> None:
        """Throw away what has arrived. May be called at any time."""


class SnapshotStore(Protocol):
    """The snapshots of one node."""

    def open(self) -> list[str]:
        """Be ready for use; removes what was never finished and tells its names. Once per boot, by the kv-server.
        Raises DiskFailed."""

    def newest(self) -> Found:
        """What can be tried, the newest first. Raises DiskFailed."""

    def find(self, index: int, term: int) -> SnapshotMeta | None:
        """That snapshot, as `newest` looks at it; None if there is none. Raises Corrupt, NewerFormat or DiskFailed."""

    def read(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """The payload, each part checked before it is given out; only its end proves the whole. Raises Corrupt,
        NewerFormat or DiskFailed, at whatever part."""

    def pieces(self, meta: SnapshotMeta) -> Pieces:
        """The whole file, to be read in pieces also after it was deleted. Raises DiskFailed."""

    def read_piece(self, meta: SnapshotMeta, offset: int, max_bytes: int) -> bytes:
        """Bytes of the whole file. Raises DiskFailed, also when the snapshot is gone."""

    def writer(self, index: int, term: int, chain: bytes) -> Writer:
        """Begin to write one. Raises DiskFailed."""

    def receiver(self, meta: SnapshotMeta) -> Receiver:
        """Begin to receive one, or go on with it. Raises Corrupt or DiskFailed."""

    def discard(self, index: int, term: int) -> None:
        """Delete what was left of writing one; nothing if it is finished. Raises DiskFailed."""

    def odd(self) -> Odd | None:
        """What `mark_odd` has kept. A mark that cannot be understood is one all the same. Raises DiskFailed."""

    def mark_odd(self, odd: Odd) -> None:
        """Keep that, durably, until `clear_odd`. Raises DiskFailed."""

    def keep_only(self, meta: SnapshotMeta) -> None:
        """Delete all others, newer ones too, durably. Raises DiskFailed."""

    def clear_odd(self) -> None:
        """There is a right state again, and no other: durably. Raises DiskFailed."""

    def delete_before(self, oldest: SnapshotMeta) -> None:
        """Delete all that are older than this one, damaged or not. Raises DiskFailed."""
