"""The log-writer: the one process that touches the log on disk.

Consensus sends Write, InstallPoint, Purge, ReadLog and what concerns snapshots; they are done in that order. Neighbouring Writes become one
synced write, up to `GROUP_SHARE` of the credit that consensus has for unconfirmed writes: whatever arrives during a
sync waits and shares the next one, and the answer to the first group returns credit while the second is written.

Rules: writes are numbered 1, 2, 3 … within a boot; `Durable(seq)` leaves only after the sync that covers seq, and after
term and vote are in the durable mark too (`storage/mark_keeper.py`); a failed write is never confirmed, repeated or
survived: the error leaves `turn` and ends the process. The mark follows entries in turns of their own, which begin with
it, so that no put waits for a second sync.

Snapshots pass through here because this is the process that may wait for the disk; see snapshot_stage.py.

Nothing is decided here. Which entries to write, cut or forget is consensus' business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from danube_raft.config import Config
from danube_raft.node.handler import CONSENSUS
from danube_raft.node.histogram import Histogram, Stopwatch, stopped
from danube_raft.node.snapshot_stage import SnapshotStage
from danube_raft.storage.durable_mark import MarkSlots
from danube_raft.storage.mark_keeper import MarkKeeper
from danube_raft.storage.recovery import Beginning, LogStore
from danube_raft.wire import local
from danube_raft.wire.entry import entry_bytes

GROUP_SHARE = 4
"""A group of writes is closed at this fraction (1/n) of `unacked_write_max_bytes`."""

_Other = (
    local.InstallPoint | local.Purge | local.ReadLog | local.ReadPoint | local.ReadPiece | local.StagePiece
    | local.LeftSuspect
)  # fmt: skip
_Job = local.Write | _Other
_CHANGES = local.Write | local.InstallPoint | local.Purge | local.StagePiece | local.LeftSuspect


class LogWriter:
    """Handler of the log-writer process; `slots` hold the durable mark of the log in `store`, `stage` has the node's
    snapshots, `pid` is what it reports as its own, `stopwatch` times the synced writes, `free_bytes` tells how much room
    the disk has, which consensus hears every `space_check_ms`, `read_only` says that it was found full."""

    def __init__(
        self,
        store: LogStore,
        slots: MarkSlots,
        stage: SnapshotStage,
        config: Config,
        pid: int,
        stopwatch: Stopwatch = stopped,
        free_bytes: Callable[[], int] | None = None,
        read_only: bool = False,
    ) -> None:
        self.outbox: list[tuple[str, Any]] = []
        self._store = store
        self._mark = MarkKeeper(slots, store, config.mark_interval_ms)
        self._stage = stage
        self._pid = pid
        self._group_max_bytes = config.unacked_write_max_bytes // GROUP_SHARE
        self._waiting: deque[_Job] = deque()
        self._stopwatch = stopwatch
        self._syncs = Histogram()
        self._free_bytes = free_bytes
        self._read_only = read_only
        self._space_check_ms = config.space_check_ms
        self._look_at: int | None = None
        self._seq = 0
        self._now = 0
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the log was recovered."""
        return self._ready

    @property
    def done(self) -> bool:
        """Never: it serves until it is stopped."""
        return False

    def start(self, now: int) -> None:
        """Recover the log and tell consensus what is there. Raises Corrupt, NewerFormat or DiskFailed."""
        self._now = now
        found = self._store.open()
        standing = self._mark.open(found, now, read_only=self._read_only)
        self._look_at = None if self._free_bytes is None else now
        self._ready = True
        self._send(
            local.Recovered(
                hard_state=standing.hard_state,
                purged_index=found.purged.index,
                purged_term=found.purged.term,
                last_index=found.last.index,
                last_stamp_ms=found.last_stamp_ms,
                runs=found.runs,
                configurations=found.configurations,
                suspect=standing.suspect,
                pid=self._pid,
                forgot_term=standing.forgot_term,
            )
        )

    def receive(self, edge: str, message: Any, now: int) -> None:
        """Take a message; the work waits for `turn`, so that what arrived together is synced together."""
        assert edge == CONSENSUS
        assert isinstance(message, _Job), f"the log-writer takes no {type(message).__name__}"
        assert not (self._read_only and isinstance(message, _CHANGES)), "a passive node changes nothing"
        self._now = now
        self._waiting.append(message)

    def turn(self, now: int) -> None:
        """Work through what waits, up to one full group (or as many bytes read). Any error is the end of the process."""
        self._now = now
        self._mark.keep(now)
        done_bytes = 0
        while self._waiting and done_bytes < self._group_max_bytes:
            job = self._waiting[0]
            if isinstance(job, local.Write):
                done_bytes += self._write_group(self._group_max_bytes - done_bytes)
            else:
                self._waiting.popleft()
                done_bytes += self._do(job)
        if self._free_bytes is not None and self._look_at is not None and now >= self._look_at:
            self._look_at = now + self._space_check_ms
            self._stage.tick(now)
            self._send(local.FreeSpace(self._free_bytes()))

    def next_timer(self) -> int | None:
        """At once if a turn left something waiting, else when the mark has to follow, or to look at the room on the disk."""
        if self._waiting:
            return self._now
        wakes = (self._mark.next_timer(), self._look_at)
        return min((wake for wake in wakes if wake is not None), default=None)

    def report(self, now: int) -> dict[str, Any]:  # noqa: ARG002 -- as every process has it
        """How long its synced writes took."""
        return {"log_fsync_seconds": self._syncs.report()}

    def close(self) -> None:
        """Let go of the database, the mark, and a snapshot that was arriving."""
        self._stage.close()
        self._mark.close()
        self._store.close()

    def _write_group(self, max_bytes: int) -> int:
        group: list[local.Write] = []
        size = 0
        while self._waiting and size < max_bytes:
            job = self._waiting[0]
            if not isinstance(job, local.Write):
                break
            self._waiting.popleft()
            self._count(job.seq)
            group.append(job)
            size += sum(map(entry_bytes, job.entries))
        self._mark.before_write(group)
        began = self._stopwatch()
        self._store.write(group)
        self._syncs.observe(self._stopwatch() - began)
        self._mark.wrote(group)
        self._send(local.Durable(group[-1].seq))
        return size

    def _do(self, job: _Other) -> int:
        """Returns how many bytes it took to read or write."""
        if isinstance(job, local.InstallPoint):
            self._count(job.seq)
            self._mark.before_install()
            beginning = Beginning(job.stamp_ms, job.configuration)
            self._store.install_point(job.index, job.term, job.chain, beginning)
            self._mark.installed()
            self._send(local.Durable(job.seq))
        elif isinstance(job, local.Purge):
            self._mark.before_purge(job.index)
            self._store.purge(job.index, Beginning(job.stamp_ms, job.configuration))
        elif isinstance(job, local.LeftSuspect):
            self._mark.trust()
        elif isinstance(job, local.ReadPoint):
            self._send(local.PointRead(*self._store.point(job.index)))
        elif isinstance(job, local.ReadPiece):
            piece = self._stage.read(job, self._now)
            self._send(piece)
            return len(piece.data)
        elif isinstance(job, local.StagePiece):
            self._send(self._stage.take(job))
            return len(job.data)
        else:
            entries = self._store.read(job.first, job.last, job.max_bytes)
            self._send(local.LogChunk(job.first, entries))
            return sum(map(entry_bytes, entries))
        return 0

    def _count(self, seq: int) -> None:
        assert seq == self._seq + 1, f"write {seq} came after write {self._seq}"
        self._seq = seq

    def _send(self, message: local.Message) -> None:
        self.outbox.append((CONSENSUS, message))
