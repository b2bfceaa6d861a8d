"""Snapshots in memory: twin of the files, on a disk that loses, refuses and damages.

A `MemoryFolder` is the directory and the disk under it; it outlives the processes that use it, each through a
`MemorySnapshots` of its own. The files are the real ones, byte for byte, so reading and proving them is the real code.

A crash leaves whole files as they are, since they got their names when they were durable. Of what is unfinished each is
kept, cut somewhere or lost, as the caller's random numbers say. A failing disk fails once, and where it was told to.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage.entry_format import CHAIN_BYTES
from danube_raft.storage.memory_log import AFTER, BEFORE
from danube_raft.storage.snapshot_file import (
    NAME,
    UNFINISHED_SUFFIX,
    Framing,
    SnapshotMeta,
    Source,
    guarded,
    verify,
)
from danube_raft.storage.snapshot_store import Receiver, Writer
from danube_raft.storage.snapshots import Snapshots, check_possible, stage_name

WRITE = "write"
COMMIT = "commit"
READ = "read"
"""What can be made to fail: writing, giving a file its name (before or after it has it), reading."""


def _nobody() -> None:
    """Hears of nothing."""


class MemoryFolder:
    """The files by name; what ends in `.tmp` is unfinished."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self._failing: dict[str, str] = {}
        self._before: Counter[str] = Counter()
        """How many of what is to fail go well before that."""
        self.opened: Callable[[], None] = _nobody
        """Hears of a node that starts, before it looks what is there."""
        self.failures = 0
        """How often something was refused."""
        self.broken: Counter[str] = Counter()
        """How often of these because it was told to, and not for want of room; by what was being done."""
        self.no_room = False
        """Nothing can be written for want of it."""

    # What a test or a simulator does to the disk.

    def fail_next(self, doing: str, when: str = BEFORE, before: int = 0) -> None:
        """The next `WRITE`, `COMMIT` or `READ` is refused, after as many `before` it that are not. `AFTER`: a commit has
        taken effect all the same."""
        assert doing in (WRITE, COMMIT, READ)
        assert when == BEFORE or (doing, when) == (COMMIT, AFTER)
        self._failing[doing] = when
        self._before[doing] = before

    def heal(self) -> None:
        """Nothing fails that has not failed yet."""
        self._failing.clear()

    def spare(self, doing: str) -> None:
        """This does not fail, if it has not failed yet."""
        self._failing.pop(doing, None)

    @property
    def failing(self) -> frozenset[str]:
        """What is still to fail."""
        return frozenset(self._failing)

    def crash(self, source: random.Random) -> None:
        """Lose power: whole files stay, unfinished ones are kept, cut or lost."""
        for name in self.unfinished:
            fate = source.random()
            if fate < 1 / 3:
                del self.files[name]
            elif fate < 2 / 3:
                # A new file: whoever had it open before the crash is gone.
                self.files[name] = self.files[name][: source.randint(0, len(self.files[name]))]

    @property
    def whole(self) -> list[str]:
        """Names of finished files, sorted by age."""
        return sorted(name for name in self.files if NAME.fullmatch(name))

    def good(self) -> list[str]:
        """Those of `whole` that can be read to their end; what is to fail does not fail here."""
        return [name for name in self.whole if self._can_be_read(name)]

    def _can_be_read(self, name: str) -> bool:
        held, self._failing = self._failing, {}
        try:
            verify(_File(self, name))
        except (Corrupt, NewerFormat):
            return False
        finally:
            self._failing = held
        return True

    @property
    def unfinished(self) -> list[str]:
        """Names of those that are not."""
        return sorted(name for name in self.files if name.endswith(UNFINISHED_SUFFIX))

    def flip(self, name: str, place: int, bit: int = 0) -> None:
        """One bit of a file changes."""
        data = bytearray(self.files[name])
        data[place] ^= 1 << bit
        self.files[name] = data

    def cut(self, name: str, length: int) -> None:
        """Only so many bytes of a file are left."""
        self.files[name] = self.files[name][:length]

    # What happens to it in use. All raise OSError.

    def fails(self, doing: str, when: str = BEFORE) -> None:
        """Fail here, if it was told to."""
        if self.no_room and doing in (WRITE, COMMIT) and when == BEFORE:
            self.failures += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._failing.get(doing) == when:
            self._before[doing] -= 1
            if self._before[doing] >= 0:
                return
            del self._failing[doing]
            self.failures += 1
            self.broken[doing] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def rename(self, name: str, final: str) -> None:
        """A finished file gets its name, durably."""
        self.fails(COMMIT, BEFORE)
        if name not in self.files:
            raise _missing()
        self.files[final] = self.files.pop(name)
        self.fails(COMMIT, AFTER)


class _File:
    """A file as a Path would have it."""

    def __init__(self, folder: MemoryFolder, name: str) -> None:
        self._folder = folder
        self.name = name
        self.suffix = Path(name).suffix

    def open(self, _mode: Literal["rb"], /) -> IO[bytes]:
        """Its content as it is now."""
        self._folder.fails(READ)
        if self.name not in self._folder.files:
            raise _missing()
        return io.BytesIO(bytes(self._folder.files[self.name]))

    def __str__(self) -> str:
        return self.name


class MemorySnapshots(Snapshots):
    """What one process sees of a folder."""

    def __init__(self, folder: MemoryFolder, cluster_id: int) -> None:
        super().__init__(Path("memory"), cluster_id)
        self._folder = folder

    def writer(self, index: int, term: int, chain: bytes) -> Writer:  # type: ignore[override]  # the twin's
        """See SnapshotStore."""
        return MemoryWriter(self._folder, SnapshotMeta(index, term, self._cluster_id, chain))

    def receiver(self, meta: SnapshotMeta) -> Receiver:  # type: ignore[override]  # the twin's
        """See SnapshotStore."""
        self._check_announced(meta)
        return MemoryReceiver(self._folder, meta)

    def _make(self) -> None:
        self._folder.opened()

    def _names(self) -> Iterable[str]:
        return list(self._folder.files)

    def _file(self, name: str) -> Source:
        return _File(self._folder, name)

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            del self._folder.files[name]

    def _put(self, name: str, content: bytes) -> None:
        self._folder.fails(WRITE)
        self._folder.fails(COMMIT, BEFORE)
        self._folder.files[name] = bytearray(content)
        self._folder.fails(COMMIT, AFTER)


class _Unfinished:
    """A file that is being made by its only owner."""

    def __init__(self, folder: MemoryFolder, name: str, final: str) -> None:
        self._folder = folder
        self._unfinished = _File(folder, name)
        self._final = final
        self._ended = False
        self._data = bytearray()

    def _put(self, data: bytes) -> None:
        try:
            self._folder.fails(WRITE)
        except OSError:
            # The disk took a part of it.
            self._data += data[: len(data) // 2]
            raise
        self._data += data

    def abort(self) -> None:
        """Leave nothing behind. Nothing after it was finished."""
        if not self._ended:
            self._ended = True
            self._folder.files.pop(self._unfinished.name, None)

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        try:
            with guarded(self._unfinished, doing):
                yield
        except (Corrupt, NewerFormat, DiskFailed):
            self.abort()
            raise

    def _publish(self) -> None:
        self._folder.rename(self._unfinished.name, self._final)
        self._ended = True


class MemoryWriter(_Unfinished):
    """Twin of SnapshotWriter."""

    def __init__(self, folder: MemoryFolder, meta: SnapshotMeta) -> None:
        assert len(meta.chain) == CHAIN_BYTES
        super().__init__(folder, meta.name + UNFINISHED_SUFFIX, meta.name)
        self.meta = meta
        self._framing = Framing(meta)
        folder.files[self._unfinished.name] = self._data
        with self._writing("create"):
            self._put(self._framing.begin())

    def write(self, chunk: bytes) -> None:
        """See Writer."""
        with self._writing("write"):
            for piece in self._framing.add(chunk):
                self._put(piece)

    def commit(self) -> SnapshotMeta:
        """See Writer."""
        with self._writing("finish"):
            for piece in self._framing.end():
                self._put(piece)
            self._publish()
        return self.meta._replace(size=self._framing.size, sha256=self._framing.sha256)


class MemoryReceiver(_Unfinished):
    """Twin of SnapshotReceiver."""

    def __init__(self, folder: MemoryFolder, meta: SnapshotMeta) -> None:
        check_possible(meta)
        super().__init__(folder, stage_name(meta), meta.name)
        self.meta = meta
        self._data = folder.files.setdefault(self._unfinished.name, self._data)
        if len(self._data) > meta.size:
            self._data.clear()

    @property
    def wanted(self) -> int:
        """See Receiver."""
        return len(self._data)

    @property
    def complete(self) -> bool:
        """See Receiver."""
        return len(self._data) == self.meta.size

    def receive(self, offset: int, piece: bytes) -> int:
        """See Receiver."""
        if offset != self.wanted:
            return self.wanted
        if offset + len(piece) > self.meta.size:
            self.abort()
            raise Corrupt(
                f"the snapshot of index {self.meta.index} is longer than the {self.meta.size} bytes announced"
            )
        with self._writing("write"):
            self._put(piece)
        return self.wanted

    def finish(self, report: Callable[[], None] = lambda: None) -> SnapshotMeta:
        """See Receiver."""
        assert self.complete, "a snapshot is finished when all its pieces are there"
        with self._writing("finish"):
            if verify(self._unfinished, self.meta.cluster_id, report) != self.meta:
                raise Corrupt(f"the snapshot of index {self.meta.index} is not the one that was announced")
            self._publish()
        return self.meta

    def release(self) -> None:
        """See Receiver: what has arrived is in the folder."""


def _missing() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
