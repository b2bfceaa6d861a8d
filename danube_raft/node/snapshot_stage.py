"""The log-writer's part in sending snapshots: pieces of its own ones, and those of the leader's put together.

- A piece is taken only if it is the next one, so whoever sends is told which one that is. Nothing of what has arrived is
  believed before the whole was proven; then it is durable and has its name.
- One snapshot is put together at a time. What had arrived of another one is thrown away: the leader has a newer one.
- What proves bad is thrown away too, and is wanted again from its beginning. A disk that fails ends the process, as for
  any write.
- An own snapshot that cannot be read, or has been cut short, is said to be gone: its sender begins with another one.
- One that is being sent is held open, so that it can be deleted meanwhile and sent all the same; until nobody has wanted a
  piece for `IDLE_MS`. Whoever begins with it gets what has the name now: it may have been made anew.

Whether a snapshot is of use, and what follows from it, is consensus' business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage.snapshot_file import Pieces, SnapshotMeta
from danube_raft.storage.snapshot_store import Receiver, SnapshotStore
from danube_raft.wire import local

IDLE_MS = 10_000
"""A sender asks much sooner, if only for a piece of which nobody has said that it arrived."""

log = logging.getLogger("danube_raft.log_writer")


def nobody() -> None:
    """For owners to whom progress need not be told."""


class SnapshotStage:
    """Reads and receives in `store`, the snapshots of a node of cluster `cluster_id`. `report` is called while a large
    file is proven."""

    def __init__(self, store: SnapshotStore, cluster_id: int, report: Callable[[], None] = nobody) -> None:
        self._store = store
        self._cluster_id = cluster_id
        self._report = report
        self._sending: dict[SnapshotMeta, tuple[Pieces, int]] = {}
        """What is held open, and when it was read last."""
        self._receiver: Receiver | None = None
        self._finished: SnapshotMeta | None = None

    def read(self, job: local.ReadPiece, now: int) -> local.Piece:
        """The piece asked for."""
        meta = SnapshotMeta(job.index, job.term, self._cluster_id)
        try:
            data = self._read(meta, job, now)
        except DiskFailed as error:
            log.warning("snapshot %s cannot be sent: %s", meta.name, error.message)
            self._let_go(meta)
            data = b""
        return local.Piece(job.index, job.term, job.offset, data)

    def _read(self, meta: SnapshotMeta, job: local.ReadPiece, now: int) -> bytes:
        held, _ = self._sending.get(meta, (None, 0))
        if held is None or job.offset == 0:
            try:
                pieces = self._store.pieces(meta)
            except DiskFailed:
                if held is None:
                    raise
            else:
                self._let_go(meta)
                held = pieces
        self._sending[meta] = (held, now)
        data = held.read(job.offset, job.max_bytes)
        if not data:
            raise DiskFailed(f"it ends before byte {job.offset}")
        return data

    def tick(self, now: int) -> None:
        """Let go of what is not being sent any more."""
        for meta in [meta for meta, (_, read_at) in self._sending.items() if now - read_at >= IDLE_MS]:
            self._let_go(meta)

    def _let_go(self, meta: SnapshotMeta) -> None:
        held = self._sending.pop(meta, None)
        if held is not None:
            held[0].close()

    def take(self, job: local.StagePiece) -> local.Staged:
        """Put the piece to the others. Raises DiskFailed."""
        meta = SnapshotMeta(job.index, job.term, self._cluster_id, job.chain, job.size_bytes, job.sha256)
        if meta == self._finished:
            return local.Staged(meta.index, meta.term, meta.size, complete=True)
        try:
            receiver = self._receiver_of(meta)
            wanted = receiver.receive(job.offset, job.data)
            if not receiver.complete:
                return local.Staged(meta.index, meta.term, wanted, complete=False)
            self._finished = receiver.finish(self._report)
        except (Corrupt, NewerFormat) as error:
            log.warning("a snapshot that a peer has sent is thrown away: %s", error.message)
            self._receiver = None
            return local.Staged(meta.index, meta.term, 0, complete=False)
        self._receiver = None
        return local.Staged(meta.index, meta.term, meta.size, complete=True)

    def close(self) -> None:
        """Let go of what is open; what has arrived is left to whoever opens the snapshots next."""
        if self._receiver is not None:
            self._receiver.release()
            self._receiver = None
        for meta in list(self._sending):
            self._let_go(meta)

    def _receiver_of(self, meta: SnapshotMeta) -> Receiver:
        if self._receiver is not None and self._receiver.meta != meta:
            self._receiver.abort()
            self._receiver = None
        if self._receiver is None:
            self._receiver = self._store.receiver(meta)
        return self._receiver
