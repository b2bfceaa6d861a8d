"""The snapshots of a node: which there are, which are good, which may go; and one that arrives from a peer.

    <data_dir>/snapshots/<term>-<index>.snap                     whole, or damaged later by the disk
    <data_dir>/snapshots/<term>-<index>.snap.tmp                 being written by this node
    <data_dir>/snapshots/<term>-<index>.snap.<SHA-256>.tmp       being received
    <data_dir>/snapshots/odd                                     the node's state is wrong, and all of them may be

- A name without `.tmp` is only ever given to a whole file, by rename. What ends in `.tmp` when the node starts is left
  over from a death and is removed.
- Nothing is deleted unless enough newer ones were proven by reading all of them; so the last good one always stays, and
  so does all that is newer, damaged or not. Who knows which of them the log can follow says so, with `delete_before`.
- What is passed over is named, with the reason: a node that starts from an older snapshot says so.

The format is in `snapshot_file.py`. When to make one, and what to do with it, belongs to the processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from danube_raft.errors import Corrupt, DiskFailed, Fatal, NewerFormat
from danube_raft.storage import snapshot_file
from danube_raft.storage.directory import sync_directory
from danube_raft.storage.snapshot_file import (
    MIN_BYTES,
    NAME,
    SHA_BYTES,
    SYNC_BYTES,
    UNFINISHED_SUFFIX,
    Pieces,
    SnapshotMeta,
    SnapshotWriter,
    Source,
    glance,
    guarded,
    publish,
    verify,
    write_all,
)
from danube_raft.storage.snapshot_store import Found, Odd
from danube_raft.wire import codec

ODD_NAME = "odd"
ODD_FORMAT = 1


class Snapshots:
    """The snapshots in one directory, of one cluster. One object per directory at a time."""

    def __init__(self, directory: Path, cluster_id: int) -> None:
        self.directory = directory
        self._cluster_id = cluster_id

    def open(self) -> list[str]:
        """Create the directory if there is none, remove what was never finished; its names. Raises DiskFailed."""
        with guarded(self.directory, "open"):
            self._make()
            stale = sorted(name for name in self._names() if name.endswith(UNFINISHED_SUFFIX))
            self._delete(stale)
        return stale

    def path(self, meta: SnapshotMeta) -> Path:
        """Where that snapshot is."""
        return self.directory / meta.name

    def writer(self, index: int, term: int, chain: bytes) -> SnapshotWriter:
        """Begin to write one; see there."""
        return SnapshotWriter(self.directory, SnapshotMeta(index, term, self._cluster_id, chain))

    def receiver(self, meta: SnapshotMeta) -> SnapshotReceiver:
        """Begin to receive the snapshot that a peer announces, or go on with it; see there. Raises Corrupt when it is
        of another cluster."""
        self._check_announced(meta)
        return SnapshotReceiver(self.directory, meta)

    def _check_announced(self, meta: SnapshotMeta) -> None:
        if meta.cluster_id != self._cluster_id:
            raise Corrupt(
                f"the snapshot of index {meta.index} is of cluster {meta.cluster_id}, and this node belongs to "
                f"{self._cluster_id}"
            )

    def newest(self) -> Found:
        """What can be tried, the newest first. Only both ends of each were read, so the reading may still fail: then
        comes the next. Raises DiskFailed when the directory cannot be read."""
        candidates: list[SnapshotMeta] = []
        skipped: list[tuple[str, Fatal]] = []
        with guarded(self.directory, "read"):
            names = sorted(self._names(), reverse=True)
        for name in names:
            if name.endswith(UNFINISHED_SUFFIX) or name == ODD_NAME:
                continue
            if not NAME.fullmatch(name):
                skipped.append((name, Corrupt("its name is not a snapshot's")))
                continue
            try:
                candidates.append(glance(self._file(name), self._cluster_id))
            except (Corrupt, NewerFormat, DiskFailed) as error:
                skipped.append((name, error))
        return Found(candidates, skipped)

    def find(self, index: int, term: int) -> SnapshotMeta | None:
        """See SnapshotStore."""
        name = SnapshotMeta(index, term, self._cluster_id).name
        with guarded(self.directory, "read"):
            if name not in self._names():
                return None
        return glance(self._file(name), self._cluster_id)

    def read(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """See SnapshotStore."""
        return snapshot_file.read(self._file(meta.name), self._cluster_id)

    def pieces(self, meta: SnapshotMeta) -> Pieces:
        """See SnapshotStore."""
        return Pieces(self._file(meta.name))

    def read_piece(self, meta: SnapshotMeta, offset: int, max_bytes: int) -> bytes:
        """See SnapshotStore."""
        return snapshot_file.read_piece(self._file(meta.name), offset, max_bytes)

    def verify(self, meta: SnapshotMeta, report: Callable[[], None] = lambda: None) -> None:
        """Prove that snapshot by reading it; `report` is called after each frame.

        Raises Corrupt, NewerFormat or DiskFailed.
        """
        found = verify(self._file(meta.name), self._cluster_id, report)
        if found != meta:
            raise Corrupt(f"snapshot {self.path(meta)} is another one than it was")

    def discard(self, index: int, term: int) -> None:
        """See SnapshotStore."""
        unfinished = SnapshotMeta(index, term, self._cluster_id).name + UNFINISHED_SUFFIX
        with guarded(self.directory, "delete an unfinished snapshot in"):
            self._delete([name for name in self._names() if name == unfinished])

    def odd(self) -> Odd | None:
        """See SnapshotStore."""
        with guarded(self.directory, "look for the mark of an odd state in"):
            if ODD_NAME not in self._names():
                return None
            with self._file(ODD_NAME).open("rb") as file:
                content = file.read()
        try:
            version, index, reason = codec.unpack(content)
            codec.expect(version == ODD_FORMAT and type(index) is int and type(reason) is str, "an odd mark")
        except (codec.Malformed, TypeError, ValueError):
            return Odd(0, "it was marked as wrong, and the mark is damaged")
        return Odd(index, reason)

    def mark_odd(self, odd: Odd) -> None:
        """See SnapshotStore."""
        with guarded(self.directory, "mark the state as odd in"):
            self._put(ODD_NAME, codec.pack((ODD_FORMAT, *odd)))

    def keep_only(self, meta: SnapshotMeta) -> None:
        """See SnapshotStore."""
        with guarded(self.directory, "delete wrong snapshots in"):
            self._delete([name for name in self._names() if NAME.fullmatch(name) and name != meta.name])

    def clear_odd(self) -> None:
        """See SnapshotStore."""
        with guarded(self.directory, "remove the mark of an odd state in"):
            self._delete([name for name in self._names() if name == ODD_NAME])

    def delete_before(self, oldest: SnapshotMeta) -> None:
        """See SnapshotStore."""
        with guarded(self.directory, "delete old snapshots in"):
            self._delete([name for name in self._names() if NAME.fullmatch(name) and name < oldest.name])

    # All that is done to the directory itself: the twin in memory has its own.

    def _make(self) -> None:
        if not self.directory.is_dir():
            self.directory.mkdir()
            sync_directory(self.directory.parent)

    def _names(self) -> Iterable[str]:
        return [path.name for path in self.directory.iterdir()]

    def _file(self, name: str) -> Source:
        return self.directory / name

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.directory / name).unlink()
        if names:
            sync_directory(self.directory)

    def _put(self, name: str, content: bytes) -> None:
        unfinished = self.directory / (name + UNFINISHED_SUFFIX)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(unfinished, self.directory / name)


def check_possible(meta: SnapshotMeta) -> None:
    """Raises Corrupt when what a peer announces cannot be true."""
    numbers = (meta.index, meta.term, meta.size)
    if not all(0 < number < 1 << 63 for number in numbers) or meta.size < MIN_BYTES:
        raise Corrupt(f"a snapshot is announced with (index, term, size) {numbers}, which cannot be")
    if len(meta.sha256) != SHA_BYTES:
        raise Corrupt(f"the snapshot of index {meta.index} is announced without a SHA-256")


def stage_name(meta: SnapshotMeta) -> str:
    """Where that snapshot is while it arrives."""
    return f"{meta.name}.{meta.sha256.hex()}{UNFINISHED_SUFFIX}"


class SnapshotReceiver:
    """A snapshot that arrives in pieces, in order.

    What has arrived stays in a file of its own, under the SHA-256 that was announced: a receiver made anew for the same
    snapshot goes on where the last one was, whichever peer sends the rest. Nothing of it is believed before `finish`.
    """

    def __init__(self, directory: Path, meta: SnapshotMeta) -> None:
        """Begin, or go on. `meta` is as announced, by a peer: Corrupt if it cannot be true. Raises DiskFailed."""
        check_possible(meta)
        self.meta = meta
        self.path = directory / meta.name
        self._stage = directory / stage_name(meta)
        self._descriptor: int | None = None
        self._ended = False
        with self._writing("create"):
            self._descriptor = os.open(self._stage, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._wanted = os.lseek(self._descriptor, 0, os.SEEK_END)
            self._synced = self._wanted
            if self._wanted > meta.size:
                os.ftruncate(self._descriptor, 0)
                self._wanted = self._synced = os.lseek(self._descriptor, 0, os.SEEK_SET)

    @property
    def wanted(self) -> int:
        """Offset of the next piece."""
        return self._wanted

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self._wanted == self.meta.size

    def receive(self, offset: int, piece: bytes) -> int:
        """Take a piece if it is the next one; the offset that is wanted then, which is the answer to any other one.

        Raises DiskFailed, or Corrupt when there is more than was announced; both give up what has arrived.
        """
        if offset != self._wanted:
            return self._wanted
        if offset + len(piece) > self.meta.size:
            self.abort()
            raise Corrupt(
                f"the snapshot of index {self.meta.index} is longer than the {self.meta.size} bytes announced"
            )
        with self._writing("write"):
            write_all(self._held(), piece)
            self._wanted += len(piece)
            if self._wanted - self._synced >= SYNC_BYTES:
                os.fdatasync(self._held())
                self._synced = self._wanted
        return self._wanted

    def finish(self, report: Callable[[], None] = lambda: None) -> SnapshotMeta:
        """Prove all of it, make it durable and give it its name. It must be complete.

        Raises DiskFailed, or Corrupt or NewerFormat when it is not what was announced; the pieces are thrown away then.
        """
        assert self.complete, "a snapshot is finished when all its pieces are there"
        with self._writing("finish"):
            if verify(self._stage, self.meta.cluster_id, report) != self.meta:
                raise Corrupt(f"the snapshot of index {self.meta.index} is not the one that was announced")
            os.fsync(self._held())
            self.release()
            publish(self._stage, self.path)
            self._ended = True
        return self.meta

    def release(self) -> None:
        """Let go of the file and leave what has arrived, for another receiver to go on. Raises OSError."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def abort(self) -> None:
        """Throw away what has arrived, as far as the disk lets it. May be called at any time; nothing after `finish`."""
        if not self._ended:
            self._ended = True
            with suppress(OSError):
                self.release()
            with suppress(OSError):
                self._stage.unlink()

    def _held(self) -> int:
        assert self._descriptor is not None, "the snapshot is finished or given up"
        return self._descriptor

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        try:
            with guarded(self._stage, doing):
                yield
        except (Corrupt, NewerFormat, DiskFailed):
            self.abort()
            raise
