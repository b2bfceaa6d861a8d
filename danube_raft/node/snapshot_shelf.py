"""The snapshots that lie in a node's directory, as its kv-server sees them: which to begin with, which to keep.

Rules:
- Consensus alone knows which of them this log can follow. It gets all points, the newest first, and chooses. Those that
  it passed over are *refused*: left by an install that a crash cut short, or ahead of a log that has lost its end.
- A refused one is never loaded and counts for nothing. It stays until it is older than what is kept: until then it may
  be all that is left of what the log has lost.
- A snapshot that proves damaged while it is loaded is passed over with a warning, and consensus chooses again.
- Two are kept: the newest behind which the log goes on, and the one before it in case that cannot be read. Only what is
  older than both is deleted. What is newer may be the leader's, on its way into the log.
- Behind an installed snapshot the log begins anew: it alone is kept.
- Where the newest is in doubt (`snapshot_doubts.py`) the one made next takes its place beside the older one, and nothing is
  deleted. That happens once: who doubts the replacement too is likelier to be at fault itself, and files must not pile up.
- One that only a later version can read is passed over too, and is no damage: whoever finds no other one says so.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator

from danube_raft.errors import Corrupt, DiskFailed, Fatal, NewerFormat
from danube_raft.kv.machine import Machine
from danube_raft.kv.restorer import restore
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshot_store import SnapshotStore
from danube_raft.wire.local import ReplaceState, SnapshotsFound

log = logging.getLogger("danube_raft.kv_server")


def nothing() -> None:
    """For owners to whom nobody needs to be told anything."""


class Shelf:
    """`report` is called while something takes long, `settled` when a state has been loaded. `read_only`: the disk is full,
    and nothing is put here."""

    def __init__(
        self,
        store: SnapshotStore,
        counters: Counter[str],
        report: Callable[[], None] = nothing,
        settled: Callable[[], None] = nothing,
        read_only: bool = False,
    ) -> None:
        self.store = store
        self.read_only = read_only
        self._counters = counters
        self._report = report
        self._settled = settled
        self._candidates: list[SnapshotMeta] = []
        self._kept: tuple[SnapshotMeta, ...] = ()
        """The newest first."""
        self._doubted = False
        """The newest is in doubt."""
        self._replaced = False
        """The newest has taken the place of one in doubt."""
        self._newer = ""
        """Name of the newest one that only a later version can read."""
        self._unreadable = ""
        """Name of the newest one that the disk could not read."""

    @property
    def newest(self) -> SnapshotMeta | None:
        """The one that a restart would begin with."""
        return self._kept[0] if self._kept else None

    @property
    def next_index(self) -> int:
        """From which entry on another snapshot is of use."""
        return self._kept[0].index + (not self._doubted) if self._kept else 1

    def open(self) -> None:
        """Look what is there. Raises DiskFailed."""
        for name in self.store.open():
            log.info("snapshot %s was never finished: removed", name)
        found = self.store.newest()
        for name, error in found.skipped:
            self._passed_over(name, error)
        self._candidates = list(found.candidates)

    def found(self) -> SnapshotsFound:
        """What consensus may choose from."""
        points = tuple((meta.index, meta.term) for meta in self._candidates)
        return SnapshotsFound(points, self._newer, self._unreadable)

    def load(self, index: int, term: int) -> Machine | None:
        """The state in the snapshot that consensus has chosen, or an empty one for index 0; None if the snapshot is
        damaged: then it must choose again."""
        if index == 0:
            self._refused(self._candidates)
            return Machine()
        place = self.found().points.index((index, term))
        meta = self._candidates[place]
        try:
            machine = self._read(meta)
        except (Corrupt, NewerFormat, DiskFailed) as error:
            del self._candidates[place]
            self._passed_over(meta.name, error)
            return None
        self._refused(self._candidates[:place])
        self._kept = (meta,)
        return machine

    def install(self, index: int, term: int) -> Machine:
        """The state in a snapshot of the leader's behind which this node's log begins. Raises Corrupt, NewerFormat or
        DiskFailed: then this node has no state to go on with."""
        meta = self._installed(index, term)
        machine = self._read(meta)
        self._keep((meta,))
        return machine

    def installed(self, index: int, term: int) -> ReplaceState:
        """That snapshot, for a node whose own state is wrong. Raises Corrupt, NewerFormat or DiskFailed."""
        return ReplaceState(index, term, self._installed(index, term).sha256)

    def _installed(self, index: int, term: int) -> SnapshotMeta:
        # A disk that fails here gets another chance, so it must not pass for a snapshot that is gone.
        meta = self.store.find(index, term)
        if meta is None:
            raise Corrupt(
                f"the log begins behind the snapshot of index {index} in term {term}, which is not there"
            )
        return meta

    def doubt(self, index: int) -> bool:
        """The newest one, if it is of that index, seems to be damaged; whether another one is to take its place."""
        newest = self.newest
        if newest is None or newest.index != index or self._replaced:
            return False
        self._doubted = True
        return True

    def made(self, meta: SnapshotMeta) -> bool:
        """This one was just made, and the log goes on behind it; whether it takes the place of one in doubt."""
        if self._doubted:
            self._kept, self._doubted, self._replaced = (meta, *self._kept[1:]), False, True
        else:
            self._keep((meta, *self._kept[:1]))
        return self._replaced

    def _keep(self, kept: tuple[SnapshotMeta, ...]) -> None:
        self._kept, self._doubted, self._replaced = kept, False, False
        try:
            self.store.delete_before(kept[-1])
        except DiskFailed as error:
            # They take space, and are tried again after the next snapshot.
            log.warning("old snapshots were not deleted: %s", error.message)

    def tidy(self) -> None:
        """Another one was just made, by a child that was forked from this process and deletes the old ones for it. It
        logs nothing. Raises DiskFailed."""
        if self._kept and not self._doubted:
            self.store.delete_before(self._kept[0])

    def _read(self, meta: SnapshotMeta) -> Machine:
        """Without the garbage collector, which would look at all that was read again and again."""
        collects = gc.isenabled()
        gc.disable()
        try:
            machine = restore(self._reported(meta))
        finally:
            if collects:
                gc.enable()
        if (machine.applied_index, machine.applied_term) != (meta.index, meta.term):
            raise Corrupt(f"snapshot {meta.name} holds the state at another entry than its name says")
        return machine

    def _reported(self, meta: SnapshotMeta) -> Iterator[bytes]:
        for frame in self.store.read(meta):
            self._report()
            yield frame

    def settle(self) -> None:
        """What was loaded is in use, and what it replaced is not."""
        self._settled()

    @staticmethod
    def _refused(refused: list[SnapshotMeta]) -> None:
        for meta in refused:
            log.warning("snapshot %s does not belong to this log: it is not used", meta.name)

    def _passed_over(self, name: str, error: Fatal) -> None:
        if isinstance(error, NewerFormat):
            self._newer = max(self._newer, name)
        elif isinstance(error, DiskFailed):
            self._unreadable = max(self._unreadable, name)
        else:
            self._counters["snapshots_damaged"] += 1
        log.warning("snapshot %s cannot be used: %s", name, error.message)
