"""Snapshots that are whole, of the very entry that their names say, and of a state that no log has made."""

from __future__ import annotations

from danube_raft.storage.snapshots import Snapshots

RIGHT = b'"right"'
WRONG = b'"wrong"'
"""Of the same length: nothing that is counted in a snapshot changes."""


def falsify(store: Snapshots) -> int:
    """Where a value was RIGHT in any snapshot of this directory it is WRONG; how many snapshots changed."""
    changed = 0
    for meta in store.newest().candidates:
        payload = b"".join(store.read(meta))
        if RIGHT not in payload:
            continue
        writer = store.writer(meta.index, meta.term, meta.chain)
        writer.write(payload.replace(RIGHT, WRONG))
        assert writer.commit().sha256 != meta.sha256
        changed += 1
    return changed
