"""Directories of snapshots in tests: made, filled, read as by a node that starts, spoilt, sent."""

from __future__ import annotations

from pathlib import Path

from danube_raft.storage.snapshot_file import SnapshotMeta, read, read_piece
from danube_raft.storage.snapshots import Snapshots

CLUSTER = 99
CHAIN = bytes(range(16))


def opened(path: Path) -> Snapshots:
    found = Snapshots(path, CLUSTER)
    found.open()
    return found


def payload(index: int) -> bytes:
    return b"%d." % index * 40


def add(store: Snapshots, index: int, term: int = 1) -> SnapshotMeta:
    writer = store.writer(index, term, CHAIN)
    writer.write(payload(index))
    return writer.commit()


def names(store: Snapshots) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir())


def held(path: Path) -> list[bytes]:
    """What a node that starts on the directory finds, the newest first; all of it must be whole."""
    store = opened(path)
    assert not list(path.glob("*.tmp"))
    candidates, skipped = store.newest()
    assert skipped == []
    return [b"".join(read(store.path(meta), CLUSTER)) for meta in candidates]


def spoil(path: Path, place: int = 70) -> None:
    """One bit in the middle of a file flips."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def transfer(source: Snapshots, target: Snapshots, meta: SnapshotMeta, size: int = 37) -> SnapshotMeta:
    receiver = target.receiver(meta)
    while not receiver.complete:
        receiver.receive(receiver.wanted, read_piece(source.path(meta), receiver.wanted, size))
    return receiver.finish()
