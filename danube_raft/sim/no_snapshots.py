"""A place where no snapshots are: for nodes whose log is never long enough to make one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshot_store import Found, Pruned, Receiver, Writer


class NoSnapshots:
    """A `SnapshotStore` that is empty and stays so."""

    def open(self) -> list[str]:
        """See SnapshotStore."""
        return []

    def newest(self) -> Found:
        """See SnapshotStore."""
        return Found([], [])

    def read(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """See SnapshotStore."""
        raise AssertionError(meta)

    def read_piece(self, meta: SnapshotMeta, offset: int, max_bytes: int) -> bytes:
        """See SnapshotStore."""
        raise AssertionError((meta, offset, max_bytes))

    def writer(self, index: int, term: int, chain: bytes) -> Writer:
        """See SnapshotStore."""
        raise AssertionError((index, term, chain))

    def receiver(self, meta: SnapshotMeta) -> Receiver:
        """See SnapshotStore."""
        raise AssertionError(meta)

    def trust(self, meta: SnapshotMeta) -> None:
        """See SnapshotStore."""

    def remove(self, meta: SnapshotMeta) -> None:
        """See SnapshotStore."""

    def prune(self, keep: int = 2, report: Callable[[], None] = lambda: None) -> Pruned:  # noqa: ARG002
        """See SnapshotStore."""
        return Pruned([], [])
