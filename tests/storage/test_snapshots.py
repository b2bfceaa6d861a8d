"""The directory of snapshots: the old set or the new one after any death, two good ones kept, and pieces from a peer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_calls import Calls

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage import snapshot_file, snapshots
from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter, read, read_piece
from danube_raft.storage.snapshots import Snapshots

CLUSTER = 99
CHAIN = bytes(range(16))


class Crash(Exception):
    """The node dies at this call."""


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "FRAME_BYTES", 20)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 60)
    monkeypatch.setattr(snapshots, "SYNC_BYTES", 60)


@pytest.fixture
def store(tmp_path: Path) -> Snapshots:
    return opened(tmp_path / "snapshots")


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


# ---------------------------------------------------------------- the set


def test_a_fresh_directory_is_made_and_has_none(tmp_path: Path) -> None:
    store = Snapshots(tmp_path / "snapshots", CLUSTER)
    assert store.open() == []
    assert store.newest() == ([], [])
    assert store.prune() == ([], [])


def test_the_newest_comes_first_by_term_and_then_by_index(store: Snapshots) -> None:
    metas = [add(store, 10, 2), add(store, 900, 1), add(store, 9, 2), add(store, 8, 10)]
    found = store.newest()
    assert found.candidates == [metas[3], metas[0], metas[2], metas[1]]
    assert found.skipped == []


def test_two_are_kept(store: Snapshots) -> None:
    metas = [add(store, index) for index in (1, 2, 3, 4)]
    pruned = store.prune()
    assert pruned.deleted == [metas[0].name, metas[1].name]
    assert store.newest().candidates == [metas[3], metas[2]]
    assert store.prune() == ([], [])
    assert store.prune(1).deleted == [metas[2].name]


def test_damaged_ones_do_not_count_and_the_good_one_before_them_stays(store: Snapshots) -> None:
    """Pitfall 30: two that cannot be read, and the only good one deleted as the third."""
    metas = [add(store, index) for index in (1, 2, 3, 4, 5)]
    for meta in metas[2:4]:
        spoil(store.path(meta))
    pruned = store.prune()
    assert pruned.deleted == [metas[0].name]
    assert [name for name, _ in pruned.skipped] == [metas[3].name, metas[2].name]
    assert all("does not match the checksum of frame" in reason for _, reason in pruned.skipped)
    assert names(store) == [meta.name for meta in metas[1:]]


def test_the_last_good_one_is_never_deleted(store: Snapshots) -> None:
    metas = [add(store, index) for index in (1, 2, 3, 4)]
    for meta in metas[1:]:
        spoil(store.path(meta))
    assert store.prune().deleted == []
    assert store.prune(1).deleted == []
    spoil(store.path(metas[0]))
    fresh = opened(store.directory)
    assert fresh.prune(1).deleted == []
    assert len(names(store)) == 4


def test_what_is_damaged_goes_once_there_are_two_good_ones_after_it(store: Snapshots) -> None:
    spoil(store.path(add(store, 1)))
    for index in (2, 3):
        add(store, index)
    pruned = store.prune()
    assert len(pruned.deleted) == 1
    assert pruned.skipped == []


def test_a_snapshot_that_was_proven_or_is_trusted_is_not_read_again(store: Snapshots) -> None:
    frames: list[int] = []
    first, second, third = add(store, 1), add(store, 2), add(store, 3)
    store.trust(third)
    store.prune(2, lambda: frames.append(1))
    assert len(frames) == 4
    store.prune(2, lambda: frames.append(1))
    store.verify(second)
    assert len(frames) == 4
    assert names(store) == [second.name, third.name]
    with pytest.raises(DiskFailed):
        store.verify(first)


def test_trust_is_in_one_file_and_not_in_its_name(store: Snapshots) -> None:
    meta = add(store, 1)
    store.trust(meta)
    writer = store.writer(1, 1, CHAIN)
    writer.write(b"another")
    other = writer.commit()
    spoil(store.path(other), 63)
    assert store.newest().candidates == [other]
    with pytest.raises(Corrupt):
        store.verify(other)


def test_a_file_that_took_the_place_of_another_is_not_taken_for_it(store: Snapshots) -> None:
    meta = add(store, 1)
    store.writer(1, 1, CHAIN).commit()
    with pytest.raises(Corrupt, match="is another one than it was"):
        store.verify(meta)


def test_what_is_passed_over_is_named_with_the_reason(store: Snapshots) -> None:
    good = add(store, 1)
    cut, foreign, renamed, newer = (add(store, index) for index in (2, 3, 4, 5))
    path = store.path(cut)
    path.write_bytes(path.read_bytes()[:-1])
    store.path(foreign).unlink()
    writer = SnapshotWriter(store.directory, foreign._replace(cluster_id=98))
    writer.commit()
    wrong = SnapshotMeta(7, 1, CLUSTER)
    store.path(renamed).rename(store.path(wrong))
    data = bytearray(store.path(newer).read_bytes())
    data[8] = 9
    store.path(newer).write_bytes(data)
    (store.directory / "notes.txt").write_text("mine")
    empty = SnapshotMeta(8, 1, CLUSTER)
    store.path(empty).touch()
    directory = SnapshotMeta(9, 1, CLUSTER)
    store.path(directory).mkdir()
    found = store.newest()
    assert found.candidates == [good]
    reasons = dict(found.skipped)
    for name, reason in (
        (cut.name, "cut short"),
        (foreign.name, "of cluster 98"),
        (wrong.name, "index 4 in term 1 under a wrong name"),
        (newer.name, "format 9"),
        ("notes.txt", "its name"),
        (empty.name, "has 0 bytes"),
        (directory.name, "Is a directory"),
    ):
        assert reason in reasons.pop(name)
    assert reasons == {}
    assert store.prune(1).deleted == []
    assert (store.directory / "notes.txt").exists()


def test_what_was_never_finished_is_removed_at_the_next_start(store: Snapshots) -> None:
    good = add(store, 1)
    unfinished = store.writer(2, 1, CHAIN)
    unfinished.write(payload(2))
    unfinished.release()
    receiver = store.receiver(good._replace(index=3))
    receiver.receive(0, b"half")
    receiver.release()
    assert store.newest().candidates == [good]
    assert len(opened(store.directory).newest().candidates) == 1
    assert names(store) == [good.name]
    (store.directory / "x.tmp").touch()
    assert Snapshots(store.directory, CLUSTER).open() == ["x.tmp"]


def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskFailed, match="file"):
        Snapshots(tmp_path / "file" / "snapshots", CLUSTER).open()
    with pytest.raises(DiskFailed, match="No such file"):
        Snapshots(tmp_path / "none", CLUSTER).newest()


# ---------------------------------------------------------------- deaths


def every_death(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Snapshots], object],
    act: Callable[[Snapshots], object],
) -> list[tuple[list[str], list[bytes]]]:
    """Let the node die at each call of `act` that changes the disk: (calls made before, what the next start finds)."""
    found = []
    failing, died = 0, True
    while died:
        path = tmp_path / str(failing)
        store = opened(path)
        prepare(store)
        with monkeypatch.context() as patch:
            calls = Calls(patch, failing, Crash())
            died = False
            try:
                act(store)
            except Crash:
                died = True
        found.append((calls.made[:failing], held(path)))
        failing += 1
    return found


def test_a_death_while_writing_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(store: Snapshots) -> None:
        add(store, 1)
        add(store, 2)

    found = every_death(tmp_path, monkeypatch, prepare, lambda store: add(store, 3))
    assert len(found) > 20
    old = [payload(2), payload(1)]
    for calls, content in found:
        assert content == ([payload(3), *old] if "replace" in calls else old), calls
    assert found[-1][1] == [payload(3), *old]


def test_a_death_while_pruning_leaves_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(store: Snapshots) -> None:
        for index in (1, 2, 3, 4):
            add(store, index)

    found = every_death(tmp_path, monkeypatch, prepare, Snapshots.prune)
    all_of_them = [payload(index) for index in (4, 3, 2, 1)]
    assert [content for _, content in found[:3]] == [all_of_them, all_of_them[:3], all_of_them[:2]]
    assert all(content == all_of_them[:2] for _, content in found[3:])


def test_a_death_while_receiving_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(tmp_path / "source")
    meta = add(source, 3)

    found = every_death(
        tmp_path, monkeypatch, lambda store: add(store, 1), lambda store: transfer(source, store, meta)
    )
    assert len(found) > 10
    for calls, content in found:
        assert content == ([payload(3), payload(1)] if "replace" in calls else [payload(1)]), calls


# ---------------------------------------------------------------- from a peer


def transfer(source: Snapshots, target: Snapshots, meta: SnapshotMeta, size: int = 37) -> SnapshotMeta:
    receiver = target.receiver(meta)
    while not receiver.complete:
        receiver.receive(receiver.wanted, read_piece(source.path(meta), receiver.wanted, size))
    return receiver.finish()


@pytest.fixture
def source(tmp_path: Path) -> Snapshots:
    return opened(tmp_path / "source")


@pytest.mark.parametrize("size", [1, 37, 10_000])
def test_a_snapshot_arrives_as_it_is(source: Snapshots, store: Snapshots, size: int) -> None:
    meta = add(source, 5)
    assert transfer(source, store, meta, size) == meta
    assert store.path(meta).read_bytes() == source.path(meta).read_bytes()
    assert names(store) == [meta.name]


def test_a_piece_at_another_offset_is_answered_with_the_one_that_is_wanted(
    source: Snapshots, store: Snapshots
) -> None:
    meta = add(source, 5)
    data = source.path(meta).read_bytes()
    receiver = store.receiver(meta)
    assert receiver.receive(10, data[10:20]) == 0
    assert receiver.receive(0, data[:10]) == 10
    assert receiver.receive(0, data[:10]) == 10
    assert receiver.receive(11, data[11:]) == 10
    assert receiver.receive(10, b"") == 10
    assert not receiver.complete
    assert receiver.receive(10, data[10:]) == len(data)
    assert receiver.complete
    assert receiver.finish() == meta


def test_a_transfer_goes_on_where_it_was_with_another_peer(
    tmp_path: Path, source: Snapshots, store: Snapshots
) -> None:
    """The same snapshot is the same file on every node."""
    meta = add(source, 5)
    other = opened(tmp_path / "other")
    assert add(other, 5) == meta
    data = source.path(meta).read_bytes()
    receiver = store.receiver(meta)
    receiver.receive(0, data[:99])
    receiver.release()
    again = store.receiver(meta)
    assert again.wanted == 99
    again.release()
    assert transfer(other, store, meta) == meta
    assert held(store.directory) == [payload(5)]


def test_two_transfers_of_one_index_do_not_mix(source: Snapshots, store: Snapshots) -> None:
    meta = add(source, 5)
    receiver = store.receiver(meta)
    receiver.receive(0, b"x" * 50)
    other = store.receiver(meta._replace(sha256=bytes(32)))
    assert other.wanted == 0


def test_pieces_that_were_left_longer_than_the_snapshot_are_forgotten(
    source: Snapshots, store: Snapshots
) -> None:
    meta = add(source, 5)
    store.receiver(meta).release()
    (stage,) = store.directory.iterdir()
    stage.write_bytes(bytes(meta.size + 1))
    assert transfer(source, store, meta) == meta


@pytest.mark.parametrize("place", range(0, 220, 7))
def test_a_byte_that_changed_on_the_way_is_noticed_and_nothing_stays(
    source: Snapshots, store: Snapshots, place: int
) -> None:
    old = add(store, 1)
    meta = add(source, 5)
    data = bytearray(source.path(meta).read_bytes())
    data[place] ^= 4
    receiver = store.receiver(meta)
    receiver.receive(0, bytes(data))
    with pytest.raises((Corrupt, NewerFormat)):
        receiver.finish()
    assert names(store) == [old.name]
    with pytest.raises(AssertionError):
        receiver.receive(receiver.wanted, b"")
    assert transfer(source, store, meta) == meta


@pytest.mark.parametrize(
    "change",
    [{"index": 6}, {"term": 2}, {"chain": bytes(16)}, {"sha256": bytes(32)}],
)
def test_another_snapshot_than_the_announced_one_is_refused(
    source: Snapshots, store: Snapshots, change: dict[str, object]
) -> None:
    meta = add(source, 5)
    receiver = store.receiver(meta._replace(**change))  # type: ignore[arg-type]  # one field of its own type
    receiver.receive(0, source.path(meta).read_bytes())
    with pytest.raises(Corrupt, match="index"):
        receiver.finish()
    assert names(store) == []


def test_more_than_was_announced_is_refused(source: Snapshots, store: Snapshots) -> None:
    meta = add(source, 5)
    receiver = store.receiver(meta)
    with pytest.raises(Corrupt, match="longer than"):
        receiver.receive(0, bytes(meta.size + 1))
    assert names(store) == []


@pytest.mark.parametrize(
    "change",
    [
        {"cluster_id": 98}, {"size": 5}, {"size": 1 << 64}, {"sha256": b""}, {"index": 0}, {"index": 1 << 70},
        {"term": -1},
    ],
)  # fmt: skip
def test_an_announcement_that_cannot_be_true_is_refused(
    source: Snapshots, store: Snapshots, change: dict[str, object]
) -> None:
    meta = add(source, 5)
    with pytest.raises(Corrupt):
        store.receiver(meta._replace(**change))  # type: ignore[arg-type]  # as above
    assert names(store) == []


def test_an_incomplete_snapshot_is_not_finished(source: Snapshots, store: Snapshots) -> None:
    receiver = store.receiver(add(source, 5))
    with pytest.raises(AssertionError):
        receiver.finish()


def test_a_finished_snapshot_is_not_thrown_away_and_a_given_up_one_is(
    source: Snapshots, store: Snapshots
) -> None:
    meta = add(source, 5)
    receiver = store.receiver(meta)
    receiver.receive(0, source.path(meta).read_bytes())
    receiver.finish()
    receiver.abort()
    assert names(store) == [meta.name]
    other = store.receiver(meta._replace(index=6))
    other.receive(0, b"half")
    other.abort()
    other.abort()
    assert names(store) == [meta.name]


def calls_of_transfer(
    patch: pytest.MonkeyPatch, source: Snapshots, target: Snapshots, meta: SnapshotMeta
) -> list[str]:
    calls = Calls(patch)
    transfer(source, target, meta)
    return calls.made


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_while_receiving_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Snapshots, code: int
) -> None:
    meta = add(source, 5)
    with monkeypatch.context() as patch:
        count = len(calls_of_transfer(patch, source, opened(tmp_path / "whole"), meta))
    assert count > 10
    for failing in range(count):
        store = opened(tmp_path / f"target{failing}")
        with monkeypatch.context() as patch:
            calls = Calls(patch, failing, OSError(code, os.strerror(code)))
            with pytest.raises(DiskFailed, match=os.strerror(code)):
                transfer(source, store, meta)
        assert not list(store.directory.glob("*.tmp"))
        assert held(store.directory) == ([payload(5)] if "replace" in calls.made[:failing] else [])


def test_a_received_snapshot_is_durable_before_it_has_its_name(
    monkeypatch: pytest.MonkeyPatch, source: Snapshots, store: Snapshots
) -> None:
    meta = add(source, 5)
    with monkeypatch.context() as patch:
        calls = calls_of_transfer(patch, source, store, meta)
    end = [name for name in calls if name != "write"]
    assert end == ["open", *["fdatasync"] * 3, "fsync", "close", "replace", "open", "fsync", "close"]
