"""`danube-raft snapshot save`: from a running node into a file, in pieces, proven before it has its name.

All of it comes from one node, whichever. Before the snapshot is asked for, a linearizable read goes to that node; so
everything that was acknowledged to anybody before the command began is in the file.

The file is written beside its place and takes it by a rename when it is durable and every checksum in it was compared.
An older file there is replaced then, and not before.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from danube_raft.errors import Corrupt, Timeout
from danube_raft.storage.snapshot_file import (
    UNFINISHED_SUFFIX,
    SnapshotMeta,
    guarded,
    publish,
    verify,
    write_all,
)

if TYPE_CHECKING:
    from danube_raft.client.operation import SavedMeta
    from danube_raft.client.store import MetadataStore

ASK_AGAIN_S = 0.2
REPLACED_MAX = 3
"""How often newer snapshots may take the place of the one that is being fetched."""


def check_place(file: Path) -> None:
    """Whether a file can be written there, before any node is troubled. Raises DiskFailed."""
    unfinished = file.with_name(file.name + UNFINISHED_SUFFIX)
    with guarded(file, "write"):
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        unfinished.unlink()


def save(store: MetadataStore, file: Path, wait_ms: int) -> SnapshotMeta:
    """Save a snapshot of the node that `store` has as its only endpoint; what it is.

    Raises Timeout if there is none after `wait_ms`, Corrupt if what arrived is not what was announced, DiskFailed, and
    what the node answers.
    """
    store.get("/", consistency="linearizable")
    index, found = store.snapshot_take()
    deadline = time.monotonic() + wait_ms / 1000
    for _ in range(REPLACED_MAX):
        while found is None:
            if time.monotonic() >= deadline:
                raise Timeout(f"the node made no snapshot within {wait_ms} ms; see its log")
            time.sleep(ASK_AGAIN_S)
            found = store.snapshot_take(index)[1]
        meta = _fetch(store, found, file)
        if meta is not None:
            return meta
        found = store.snapshot_take(index)[1]
    raise Timeout(f"{REPLACED_MAX} snapshots were replaced by newer ones before they were here; try again")


def _fetch(store: MetadataStore, found: SavedMeta, file: Path) -> SnapshotMeta | None:
    """Into the file; None if the node does not have it any more."""
    unfinished = file.with_name(file.name + UNFINISHED_SUFFIX)
    try:
        with guarded(file, "write"):
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                whole = _pieces(store, found, descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if not whole:
            return None
        meta = verify(unfinished)
        if (meta.index, meta.term, meta.size, meta.sha256) != found:
            raise Corrupt(
                f"what arrived for {file} is not the snapshot of index {found.index} that was announced"
            )
        with guarded(file, "finish"):
            publish(unfinished, file)
        return meta
    finally:
        # Gone already if all went well.
        with suppress(OSError):
            unfinished.unlink()


def _pieces(store: MetadataStore, found: SavedMeta, descriptor: int) -> bool:
    offset = 0
    while offset < found.size_bytes:
        piece = store.snapshot_piece(found, offset)
        if not piece:
            return False
        write_all(descriptor, piece)
        offset += len(piece)
    return True
