"""What the processes of one node say to each other about snapshots and about where the log begins; see local.py.

The kv-server makes and loads snapshots, the log-writer stages them, reads pieces of them and moves the beginning of the
log; consensus, between the two, decides which one is loaded, sent or installed, and how far the log is forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

# ---------------------------------------------------------------- kv-server → consensus


class SnapshotsFound(NamedTuple):
    """What a kv-server says first: (index, term) of the snapshots that it may load, the newest first. Said again, with
    those that are left, when the one that was chosen turned out to be damaged. `newer`: the name of the newest one that only a
    later version can read, `unreadable` that of the newest one that the disk could not read; empty: there is none."""

    points: tuple[tuple[int, int], ...]
    newer: str = ""
    unreadable: str = ""


class AskPoint(NamedTuple):
    """Ask for term and chain hash of the log entry at `index`, which is applied; answered by PointRead."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index


class SnapshotDone(NamedTuple):
    """A snapshot of this node that ends with (index, term, chain) is whole and durable: `size_bytes` and `sha256` of
    its file, cluster time and configuration payload at its end. `instead`: it takes the place of the newest one, which was in
    doubt, and the one before that stays. Also said after one was loaded."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    chain: bytes
    size_bytes: int
    sha256: bytes
    stamp_ms: int
    configuration: bytes
    instead: bool = False


class Odd(NamedTuple):
    """The state of this node is wrong, as the digest at `index` has shown. `replaceable`: the next start knows it too, and
    no snapshot of it is being made any more. Said once more when that is so."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    replaceable: bool = False


# ---------------------------------------------------------------- consensus → kv-server


class LoadSnapshot(NamedTuple):
    """Which of the snapshots found is to be loaded, one whose end this log has; index 0: begin with nothing. The answer
    is the first Applied, or SnapshotsFound again."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int


class InstallSnapshot(NamedTuple):
    """Load the snapshot at (index, term) of the leader, which was installed into the log and replaces everything up to
    there. What is committed behind it follows."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int


class WantSnapshot(NamedTuple):
    """A follower whose state is wrong needs a snapshot that reaches `index`, and there is none yet. `instead`: the newest
    one, which is of `index`, seems to be damaged, and another one is needed in its place, be it of the same entry."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    instead: bool = False


class ReplaceState(NamedTuple):
    """The leader's snapshot at (index, term), whose file has this SHA-256, is here, proven and durable, and this log goes
    on behind it: it is what an odd node starts again with."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    sha256: bytes


# ---------------------------------------------------------------- consensus → log-writer


class ReadPoint(NamedTuple):
    """Ask for term and chain hash of the entry at `index`, which is durable and not purged."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index


class Purge(NamedTuple):
    """Forget the log up to and including `index`; keep a cluster time that was reached by then (entries behind it know
    more) and the configuration payload in force at that place."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    stamp_ms: int
    configuration: bytes


class InstallPoint(NamedTuple):
    """Begin the log anew after the installed snapshot at (index, term, chain), in one synced write, with the cluster
    time and the configuration payload at its end."""

    seq: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    chain: bytes
    stamp_ms: int
    configuration: bytes


class ReadPiece(NamedTuple):
    """Ask for bytes of the own snapshot at (index, term), from `offset` on, at most `max_bytes`; answered by Piece."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    offset: int
    max_bytes: int


class StagePiece(NamedTuple):
    """Take a piece of the leader's snapshot that ends with (index, term, chain); `size_bytes` and `sha256` are the
    whole file's. Answered by Staged, after the last one only when the file is proven, durable and has its name."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    chain: bytes
    size_bytes: int
    sha256: bytes
    offset: int
    data: bytes


# ---------------------------------------------------------------- log-writer → consensus


class PointRead(NamedTuple):
    """Answer to a ReadPoint, and to an AskPoint: term and chain hash of the entry at `index`."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    chain: bytes


class Piece(NamedTuple):
    """Answer to a ReadPiece. Empty: that snapshot is gone, or cannot be read."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    offset: int
    data: bytes


class Staged(NamedTuple):
    """Of the snapshot at (index, term) the first `offset` bytes are here; `complete`: it is proven and durable. A
    piece that is not the next one, or a file that proves bad, gets the offset that is wanted instead."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    offset: int
    complete: bool
