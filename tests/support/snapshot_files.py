"""One small snapshot file for tests."""

from __future__ import annotations

import random
from pathlib import Path

from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter

CLUSTER = 99
META = SnapshotMeta(1234, 5, CLUSTER, bytes(range(16)))
PAYLOAD = random.Random(1).randbytes(205)
FRAME = 20


def made(directory: Path, payload: bytes = PAYLOAD, meta: SnapshotMeta = META) -> Path:
    writer = SnapshotWriter(directory, meta)
    for start in range(0, len(payload), 33):
        writer.write(payload[start : start + 33])
    writer.commit()
    return writer.path
