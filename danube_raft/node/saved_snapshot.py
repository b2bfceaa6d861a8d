"""A snapshot file in an operator's hands: read, proven as a whole, and what it holds.

A file is believed only when all of it was read: every checksum matched, the state machine could be made of it, and
both say the same of where it ends. Whoever names a file wants to know whether a node could be started from it, and
nothing less answers that.

`snapshot status`, `snapshot restore` and `node verify` use this. Nothing here writes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from danube_raft.errors import Corrupt, NewerFormat
from danube_raft.kv.machine import Machine
from danube_raft.kv.restorer import restore
from danube_raft.storage import snapshot_file
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.wire.codec import Malformed
from danube_raft.wire.entry import Configuration, unpack_configuration


def load(path: Path, cluster_id: int | None = None) -> tuple[SnapshotMeta, Machine]:
    """What the file is and the state in it, proven. Raises Corrupt, NewerFormat or DiskFailed, with its name."""
    meta = snapshot_file.glance(path, cluster_id)
    with _named(path), _collector_stopped():
        # The iterator's end proves the file; `restore` runs into it.
        machine = restore(snapshot_file.read(path, cluster_id))
        if (machine.applied_index, machine.applied_term) != (meta.index, meta.term):
            raise Corrupt(
                f"it says that it ends with entry {meta.index} of term {meta.term}, and its state with entry "
                f"{machine.applied_index} of term {machine.applied_term}"
            )
        members(machine)
    return meta, machine


def members(machine: Machine) -> Configuration:
    """The configuration of the state; an empty one where there was none yet. Raises Corrupt."""
    if not machine.configuration:
        return Configuration()
    try:
        return unpack_configuration(machine.configuration)
    except Malformed as error:
        raise Corrupt(f"its configuration is damaged: {error}") from None


def summary(meta: SnapshotMeta, machine: Machine) -> dict[str, Any]:
    """What is in it, by name. Sizes in bytes; `state_bytes` is what counts against the limit of a store."""
    history = machine.history
    return {
        "index": meta.index,
        "term": meta.term,
        "cluster_id": meta.cluster_id,
        "revision": history.revision,
        "compaction_revision": history.compaction_revision,
        "keys": len(history.records),
        "events": len(history.events),
        "leases": len(machine.leases),
        "sessions": len(machine.sessions),
        "members": [member.raft_addr for member in members(machine).members],
        "cluster_ms": machine.cluster_ms,
        "state_bytes": machine.state_bytes,
        "size_bytes": meta.size,
        "sha256": meta.sha256.hex(),
    }


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is wrong with the state says of which file it is, as what is wrong with the file does."""
    try:
        yield
    except (Corrupt, NewerFormat) as error:
        if str(path) in error.message:
            raise
        raise type(error)(f"snapshot {path}: {error.message}") from None


@contextmanager
def _collector_stopped() -> Iterator[None]:
    """A million records that are all to stay are no work for the collector, only a pause for each part of them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
