"""Data directories as stopped nodes leave them, made without starting any."""

from __future__ import annotations

import shutil
from pathlib import Path

from kv_driver import request

from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.storage.data_dir import DataDir
from danube_raft.storage.durable_mark import MarkFile
from danube_raft.storage.entry_format import ZERO_CHAIN, chain_after
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.mark_keeper import MarkKeeper
from danube_raft.storage.recovery import Beginning, Point
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import codec, local
from danube_raft.wire.entry import (
    KIND_BATCH,
    KIND_CONFIGURATION,
    NO_ORIGIN,
    VOTER,
    Configuration,
    Entry,
    HardState,
    Member,
    pack_configuration,
)

NODE, CLUSTER = 7, 4711
MEMBER = Member(NODE, VOTER, "127.0.0.1:1", "127.0.0.1:2")
ENTRIES = 40


def history(count: int = ENTRIES, term: int = 3, boot_epoch: int = 1) -> list[Entry]:
    """A configuration, and puts of the node itself."""
    entries = [Entry(1, 1, KIND_CONFIGURATION, 1, 1, NO_ORIGIN, pack_configuration(Configuration((MEMBER,))))]
    for index in range(2, count + 1):
        payload = codec.pack(request("put", f"/k/{index % 5}", b"%d" % index))
        entries.append(Entry(index, term, KIND_BATCH, index, index, (NODE, boot_epoch, index), payload))
    return entries


def made(
    path: Path,
    snapshots: tuple[int, ...] = (20, 30),
    purged: int = 20,
    killed: bool = False,
    boot_epoch: int = 1,
) -> Path:
    """A directory with a log of 40 entries, purged up to `purged`, and snapshots at these indexes.

    `killed`: as a killed process leaves it, with the whole log in RocksDB's write-ahead log; else closed in order.
    `boot_epoch`: the start that has written all of it; the directory was started once.
    """
    data_dir = DataDir(path)
    data_dir.acquire()
    data_dir.load_or_create_identity(lambda _: NODE - 1)
    data_dir.join_cluster(CLUSTER)
    data_dir.next_boot_epoch()
    data_dir.release()
    store = Snapshots(path / "snapshots", CLUSTER)
    store.open()
    log = RocksLogStore(path / "log")
    writes = [local.Write(1, 0, tuple(history(boot_epoch=boot_epoch)), HardState(3, NODE))]
    mark = MarkKeeper(MarkFile(path / "mark"), log, 0)
    mark.open(log.open(), 0)
    log.write(writes)
    mark.wrote(writes)
    machine, chain = Machine(), ZERO_CHAIN
    for entry in history(boot_epoch=boot_epoch):
        machine.apply(entry)
        chain = chain_after(entry, chain)
        if entry.index in snapshots:
            writer = store.writer(entry.index, entry.term, chain)
            for chunk in encode(machine):
                writer.write(chunk)
            writer.commit()
    mark.close()
    if purged:
        log.purge(purged, Beginning(purged, history()[0].payload))
    if killed:
        shutil.copytree(path / "log", path / "copy")
    log.close()
    if killed:
        shutil.rmtree(path / "log")
        (path / "copy").rename(path / "log")
    return path


def points() -> dict[int, Point]:
    """Each entry's place."""
    found, chain = {}, ZERO_CHAIN
    for entry in history():
        chain = chain_after(entry, chain)
        found[entry.index] = Point(entry.index, entry.term, chain)
    return found
