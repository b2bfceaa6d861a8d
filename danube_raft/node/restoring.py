"""From a saved snapshot to the data directory of a node that can start with it, as the only member of a new cluster.

It gets what such a node would have had on its disk had it made that snapshot itself and purged its log up to there: the
snapshot, of the new cluster and moved forward (`kv/relocation.py`); a log that begins behind it, with a hard state of
the snapshot's term and the configuration in force; a durable mark that says so; and an identity that no other node
has. The order does not matter, since nothing counts before the last step (`storage/restore_target.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from danube_raft.kv.machine import Machine
from danube_raft.kv.relocation import relocate
from danube_raft.kv.snapshot import encode
from danube_raft.node.assembly import SNAPSHOTS_DIR
from danube_raft.node.saved_snapshot import load, members
from danube_raft.storage import durable_mark, snapshot_file
from danube_raft.storage.data_dir import NODE_ID_LIMIT, Identity
from danube_raft.storage.durable_mark import MarkFile
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.mark_keeper import MarkKeeper
from danube_raft.storage.recovery import Beginning
from danube_raft.storage.restore_target import RestoreTarget
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.entry import VOTER, Configuration, HardState, Member, pack_configuration


class Restored(NamedTuple):
    """What there is now: who the node will be, and what it will have."""

    identity: Identity
    meta: SnapshotMeta
    revision: int
    keys: int


def restore(
    file: Path, data_dir: Path, raft_address: str, client_address: str, random_below: Callable[[int], int]
) -> Restored:
    """Fill `data_dir`, which is new or empty, from `file`; durable on return. The addresses are what others are told.

    `random_below(n)` gives an unpredictable integer from 0 to n-1. Raises Corrupt or NewerFormat for the file,
    ConfigInvalid or DataDirInUse for the directory, InvalidArgument, DiskFailed.
    """
    meta, machine = load(file)
    old = members(machine)
    known = {*old.removed, *(member.node_id for member in old.members)}
    node_id = _new(random_below, known)
    cluster_id = _new(random_below, {meta.cluster_id})
    # Nodes of the old cluster are never members of this one: they have its data, and another past.
    configuration = Configuration(
        (Member(node_id, VOTER, raft_address, client_address),), (), tuple(sorted(known))
    )
    moved = relocate(machine, pack_configuration(configuration))
    target = RestoreTarget(data_dir)
    target.begin({"snapshot": meta.sha256.hex()})
    try:
        identity = target.create_identity(node_id, cluster_id)
        made = _snapshot(target, meta, moved, cluster_id)
        _log(target, made, moved)
        target.finish()
    finally:
        target.release()
    return Restored(identity, made, moved.revision, len(moved.history.records))


def _new(random_below: Callable[[int], int], known: set[int]) -> int:
    """An id above 0 that is none of these."""
    found = 1 + random_below(NODE_ID_LIMIT - 1)
    while found in known:
        found = 1 + random_below(NODE_ID_LIMIT - 1)
    return found


def _snapshot(target: RestoreTarget, old: SnapshotMeta, machine: Machine, cluster_id: int) -> SnapshotMeta:
    store = Snapshots(target.path / SNAPSHOTS_DIR, cluster_id)
    store.open()
    writer = store.writer(old.index, old.term, old.chain)
    for chunk in encode(machine):
        writer.write(chunk)
    made = writer.commit()
    # What is not read back is only hoped for; the backup may be gone tomorrow.
    snapshot_file.verify(writer.path, cluster_id)
    return made


def _log(target: RestoreTarget, meta: SnapshotMeta, machine: Machine) -> None:
    log, hard_state = RocksLogStore(target.log_path), HardState(meta.term)
    with closing(log):
        log.open()
        log.write([local.Write(1, 0, (), hard_state)])
        beginning = Beginning(machine.cluster_ms, machine.configuration)
        log.install_point(meta.index, meta.term, meta.chain, beginning)
    again = RocksLogStore(target.log_path)
    with closing(again), closing(MarkFile(target.path / durable_mark.NAME)) as slots:
        MarkKeeper(slots, again, 0).replace(again.open())
