"""`danube-raft node accept-loss`: what the log has, is taken for all there ever was. Offline, and by decision of a person.

A SUSPECT node comes back by itself as long as the others can elect a leader. When they cannot, since it is the only
voter or too many are SUSPECT or gone, somebody has to decide that what is missing stays missing. After that this node
votes again: acknowledged writes may be lost for good, and that is what is accepted.

- Nothing is changed before `Finding.accept`, and nothing at all while a node runs on the directory.
- It goes on in the term behind the newest that log or mark know of: promises to candidates are not among the losses, and
  who leads that older term may count acks of what is gone. A log without any entry begins anew, as at the very first start.
- The log gets them before the mark does: a crash in between leaves the node SUSPECT.
- A snapshot that the log does not reach any more is named before anybody decides: it may be all that is left of what is
  about to be given up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from danube_raft.errors import ConfigInvalid, Corrupt, DiskFailed, NewerFormat
from danube_raft.node.assembly import SNAPSHOTS_DIR
from danube_raft.storage.data_dir import DataDir, Identity
from danube_raft.storage.durable_mark import NAME, MarkFile
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.mark_keeper import MarkKeeper
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.entry import HardState


class Finding:
    """What a data directory holds. `suspect`: why its node is SUSPECT, or empty."""

    def __init__(self, path: Path, identity: Identity, store: RocksLogStore, keeper: MarkKeeper) -> None:
        self.node_id = identity.node_id
        self._snapshots = Snapshots(path / SNAPSHOTS_DIR, identity.cluster_id)
        self._store = store
        self._keeper = keeper
        self._found = store.open()
        self._hard_state, self.suspect = keeper.look(self._found)

    def describe(self) -> list[str]:
        """Mark and log, in words."""
        last, mark = self._found.last, self._keeper.known
        log = f"entries up to {last.index}, of term {last.term}" if last.index else "nothing"
        held = "unknown" if mark is None else f"entries up to {mark.point.index}, of term {mark.point.term}"
        return [
            f"why it is SUSPECT: {self.suspect}",
            f"what the log holds now: {log}",
            f"what it was last known to hold: {held}",
            f"what is kept: the log as it is, and that it has voted in term {self._hard_state.term}",
            *self._beside(),
        ]

    def _beside(self) -> list[str]:
        """The newest whole snapshot, if it ends behind the log."""
        if not self._snapshots.directory.is_dir():
            return []
        for meta in self._snapshots.newest().candidates:
            if meta.index <= self._found.last.index:
                break
            try:
                self._snapshots.verify(meta)
            except (Corrupt, NewerFormat, DiskFailed):
                continue
            return [
                (
                    f"what else there is: a whole snapshot up to entry {meta.index}, which this node will not use any more; "
                    f"`danube-raft snapshot restore {self._snapshots.path(meta)}` begins a new cluster with it instead"
                )
            ]
        return []

    def accept(self) -> None:
        """From now on that is all there ever was; durable on return. Raises DiskFailed."""
        hard_state = HardState(self._hard_state.term + 1, 0)
        self._store.write([local.Write(1, 0, (), hard_state)])
        self._keeper.replace(self._found._replace(hard_state=hard_state))


@contextmanager
def finding(path: str | Path) -> Iterator[Finding]:
    """The data directory at `path`, held as long as this lasts.

    Raises ConfigInvalid if there is none, DataDirInUse, Corrupt, DiskFailed or NewerFormat.
    """
    data_dir = DataDir(path)
    if not (data_dir.path / "identity.json").exists():
        raise ConfigInvalid(f"{data_dir.path} is not the data directory of a node: it has no identity.json")
    data_dir.acquire()
    with contextlib.closing(RocksLogStore(data_dir.log_path)) as store, _released(data_dir):
        slots = MarkFile(data_dir.path / NAME)
        identity = data_dir.identity()
        assert identity is not None, "it was there a moment ago, and the directory is held"
        with contextlib.closing(MarkKeeper(slots, store, 0)) as keeper:
            yield Finding(data_dir.path, identity, store, keeper)


@contextmanager
def _released(data_dir: DataDir) -> Iterator[None]:
    try:
        yield
    finally:
        data_dir.release()
