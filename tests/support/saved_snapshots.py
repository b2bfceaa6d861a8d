"""A snapshot as an operator has it: the file, and the state that is in it."""

from __future__ import annotations

from pathlib import Path

from kv_snapshots import grown

from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter
from danube_raft.wire.entry import (
    KIND_CONFIGURATION,
    NO_ORIGIN,
    VOTER,
    Configuration,
    Entry,
    Member,
    pack_configuration,
)

OLD_CLUSTER = 4711
OLD_MEMBERS = tuple(
    Member(number, VOTER, f"10.0.0.{number}:7650", f"10.0.0.{number}:7750") for number in (1, 2, 3)
)
OLD = Configuration(OLD_MEMBERS, (), (9,))
CHAIN = bytes(range(16))


def old_machine() -> Machine:
    """Something of everything, in a cluster of three."""
    machine = grown()
    index, stamp = machine.applied_index + 1, machine.cluster_ms + 3
    machine.apply(Entry(index, 2, KIND_CONFIGURATION, stamp, 5, NO_ORIGIN, pack_configuration(OLD)))
    return machine


def saved(directory: Path, machine: Machine | None = None, name: str = "backup.snap") -> Path:
    """The file, under a name as an operator gives it."""
    machine = machine or old_machine()
    meta = SnapshotMeta(machine.applied_index, machine.applied_term, OLD_CLUSTER, CHAIN)
    writer = SnapshotWriter(directory, meta)
    for chunk in encode(machine):
        writer.write(chunk)
    writer.commit()
    return writer.path.rename(directory / name)
