"""The snapshots in files and their twin in memory, through the same random operations: the same answers, the same
errors, the same bytes afterwards. What a crash leaves of the twin is what a real disk could have left."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from snapshot_store import CHAIN, CLUSTER

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage import snapshot_file
from danube_raft.storage.memory_log import AFTER, BEFORE
from danube_raft.storage.memory_snapshots import COMMIT, READ, WRITE, MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshot_file import UNFINISHED_SUFFIX, SnapshotMeta
from danube_raft.storage.snapshot_store import SnapshotStore
from danube_raft.storage.snapshots import Snapshots

FRAME = 20


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "FRAME_BYTES", FRAME)


def outcome(work: Callable[[], Any]) -> Any:
    """What it returns, or which error it raises."""
    try:
        return work()
    except (Corrupt, DiskFailed, NewerFormat) as error:
        return type(error)


class Twins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="danube-twins-")) / "snapshots"
        self.folder = MemoryFolder()
        self.real: SnapshotStore = Snapshots(self.directory, CLUSTER)
        self.memory: SnapshotStore = MemorySnapshots(self.folder, CLUSTER)
        self.metas: list[SnapshotMeta] = []

    def teardown(self) -> None:
        shutil.rmtree(self.directory.parent)

    @initialize()
    def begin(self) -> None:
        assert self.real.open() == self.memory.open()

    def both(self, work: Callable[[SnapshotStore], Any]) -> Any:
        real, memory = outcome(lambda: work(self.real)), outcome(lambda: work(self.memory))
        assert real == memory
        return real

    @rule(index=st.integers(1, 9), term=st.integers(1, 3), size=st.integers(0, 90), ends=st.booleans())
    def write(self, index: int, term: int, size: int, ends: bool) -> None:
        def work(store: SnapshotStore) -> Any:
            writer = store.writer(index, term, CHAIN)
            for _ in range(3):
                writer.write(bytes([index]) * size)
            if ends:
                return writer.commit()
            writer.abort()
            return None

        meta = self.both(work)
        if meta is not None:
            self.metas.append(meta)

    @rule(index=st.integers(1, 9), size=st.integers(0, 90))
    def die_while_writing(self, index: int, size: int) -> None:
        for store in (self.real, self.memory):
            store.writer(index, 1, CHAIN).write(b"x" * size)

    @precondition(lambda self: self.metas)
    @rule(data=st.data(), piece=st.integers(1, 80), most=st.integers(1, 9), lie=st.booleans())
    def receive(self, data: st.DataObject, piece: int, most: int, lie: bool) -> None:
        """Of one that was there once: what arrives is kept, and goes on the next time."""
        meta = data.draw(st.sampled_from(self.metas))
        content = outcome(lambda: self.real.read_piece(meta, 0, 1 << 20))
        if not isinstance(content, bytes):
            return
        copy = meta._replace(index=meta.index + 10) if lie else meta

        def work(store: SnapshotStore) -> Any:
            receiver = store.receiver(copy)
            assert receiver.receive(receiver.wanted + 1, b"early") == receiver.wanted
            for _ in range(most):
                if not receiver.complete:
                    receiver.receive(receiver.wanted, content[receiver.wanted :][:piece] or b"more")
            if receiver.complete:
                return receiver.finish()
            receiver.release()
            return receiver.wanted

        self.both(work)

    @precondition(lambda self: self.folder.whole)
    @rule(data=st.data(), cut=st.booleans())
    def damage(self, data: st.DataObject, cut: bool) -> None:
        name = data.draw(st.sampled_from(self.folder.whole))
        size = len(self.folder.files[name])
        if size == 0:
            return
        place = data.draw(st.integers(0, size - 1))
        path = self.directory / name
        if cut:
            self.folder.cut(name, place)
            path.write_bytes(path.read_bytes()[:place])
        else:
            self.folder.flip(name, place, place % 8)
            content = bytearray(path.read_bytes())
            content[place] ^= 1 << place % 8
            path.write_bytes(content)

    @rule(index=st.integers(1, 9), term=st.integers(1, 3), discard=st.booleans())
    def delete(self, index: int, term: int, discard: bool) -> None:
        oldest = SnapshotMeta(index, term, CLUSTER)
        done = self.both(lambda store: store.discard(index, term) if discard else store.delete_before(oldest))
        assert done is None

    @precondition(lambda self: self.metas)
    @rule(data=st.data(), offset=st.integers(0, 200))
    def read(self, data: st.DataObject, offset: int) -> None:
        meta = data.draw(st.sampled_from(self.metas))
        self.both(lambda store: list(store.read(meta)))
        self.both(lambda store: store.read_piece(meta, offset, 50))

    @rule()
    def start_again(self) -> None:
        self.real = Snapshots(self.directory, CLUSTER)
        self.memory = MemorySnapshots(self.folder, CLUSTER)
        self.both(lambda store: store.open())

    @invariant()
    def both_have_the_same_files(self) -> None:
        on_disk = {path.name: path.read_bytes() for path in self.directory.iterdir()}
        assert {name: bytes(data) for name, data in self.folder.files.items()} == on_disk

    @invariant()
    def both_find_the_same(self) -> None:
        self.both(lambda store: store.newest().candidates)
        self.both(lambda store: [name for name, _ in store.newest().skipped])
        for meta in [*self.memory.newest().candidates, SnapshotMeta(1, 999, CLUSTER)]:
            self.both(lambda store, meta=meta: store.find(meta.index, meta.term))  # type: ignore[misc]


TestTwins = Twins.TestCase
TestTwins.settings = settings(
    max_examples=60, stateful_step_count=25, derandomize=True, deadline=None, database=None
)


# ---------------------------------------------------------------- what only the twin can do


@pytest.fixture
def folder() -> MemoryFolder:
    return MemoryFolder()


def made(folder: MemoryFolder, index: int = 5) -> SnapshotMeta:
    writer = MemorySnapshots(folder, CLUSTER).writer(index, 1, CHAIN)
    writer.write(b"payload" * 10)
    return writer.commit()


@pytest.mark.parametrize(
    ("doing", "when"), [(WRITE, BEFORE), (COMMIT, BEFORE), (COMMIT, AFTER), (READ, BEFORE)]
)
def test_it_fails_once_where_it_was_told_to(folder: MemoryFolder, doing: str, when: str) -> None:
    """A failed commit leaves the whole file or nothing; nobody may count on either."""
    meta = made(folder)
    folder.fail_next(doing, when)
    store = MemorySnapshots(folder, CLUSTER)
    attempt = (lambda: list(store.read(meta))) if doing == READ else (lambda: made(folder, 6))
    with pytest.raises(DiskFailed):
        attempt()
    assert not folder.failing
    assert not folder.unfinished
    assert len(folder.whole) == 1 + (when == AFTER)
    made(folder, 7)
    assert store.newest().candidates[0].index == 7


def test_it_fails_after_as_many_as_it_was_told(folder: MemoryFolder) -> None:
    folder.fail_next(READ, before=2)
    made(folder)
    assert folder.failing == {READ}
    folder.fails(READ)
    folder.fails(READ)
    with pytest.raises(OSError, match="Input/output"):
        folder.fails(READ)
    folder.fails(READ)
    assert folder.broken == {READ: 1}
    assert not folder.failing


def test_one_thing_of_those_told_to_fail_can_be_spared(folder: MemoryFolder) -> None:
    folder.fail_next(READ)
    folder.fail_next(COMMIT)
    folder.spare(READ)
    assert folder.failing == {COMMIT}


def test_what_was_told_to_fail_can_be_mended(folder: MemoryFolder) -> None:
    folder.fail_next(COMMIT)
    folder.heal()
    assert made(folder).index == 5


def test_a_crash_keeps_what_is_whole_and_keeps_cuts_or_loses_what_is_not(folder: MemoryFolder) -> None:
    """All three must come about, or worlds would never see them."""
    made(folder)
    store = MemorySnapshots(folder, CLUSTER)
    fates = set()
    for seed in range(40):
        store.writer(6, 1, CHAIN).write(b"payload" * 10)
        (name,) = folder.unfinished
        assert name.endswith(UNFINISHED_SUFFIX)
        before = bytes(folder.files[name])
        folder.crash(random.Random(seed))
        after = folder.files.get(name)
        fates.add("lost" if after is None else "kept" if after == before else "cut")
        assert after is None or before.startswith(after)
        assert [meta.index for meta in store.newest().candidates] == [5]
    assert fates == {"lost", "kept", "cut"}


def test_what_was_staged_before_a_crash_is_proven_again(folder: MemoryFolder) -> None:
    """Pitfall 30: half of a file that is taken for the whole."""
    meta = made(folder)
    content = bytes(folder.files[meta.name])
    other = MemoryFolder()
    MemorySnapshots(other, CLUSTER).receiver(meta).receive(0, content[:30])
    (name,) = other.unfinished
    other.cut(name, 20)
    again = MemorySnapshots(other, CLUSTER).receiver(meta)
    assert again.wanted == 20
    again.receive(20, content[20:])
    assert again.finish() == meta
    other.flip(meta.name, 70)
    with pytest.raises(Corrupt):
        list(MemorySnapshots(other, CLUSTER).read(meta))
