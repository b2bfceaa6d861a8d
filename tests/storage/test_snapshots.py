"""The directory of snapshots: two good ones kept, the last never deleted, and the old set or the new one after any death."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from disk_calls import Calls
from snapshot_store import CHAIN, CLUSTER, add, held, names, opened, payload, spoil, transfer

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage import snapshot_file, snapshots
from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter
from danube_raft.storage.snapshots import Snapshots


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


# ---------------------------------------------------------------- the set


def test_a_fresh_directory_is_made_and_has_none(tmp_path: Path) -> None:
    store = Snapshots(tmp_path / "snapshots", CLUSTER)
    assert store.open() == []
    assert store.newest() == ([], [])


def test_the_newest_comes_first_by_term_and_then_by_index(store: Snapshots) -> None:
    metas = [add(store, 10, 2), add(store, 900, 1), add(store, 9, 2), add(store, 8, 10)]
    found = store.newest()
    assert found.candidates == [metas[3], metas[0], metas[2], metas[1]]
    assert found.skipped == []


def test_all_that_are_older_go_damaged_or_not_and_no_other(store: Snapshots) -> None:
    metas = [add(store, index) for index in (1, 2, 3, 4, 5)]
    for meta in (metas[1], metas[4]):
        spoil(store.path(meta))
    store.delete_before(metas[3])
    assert names(store) == [metas[3].name, metas[4].name]
    store.delete_before(metas[3])
    assert names(store) == [metas[3].name, metas[4].name]


def test_a_damaged_one_is_not_proven(store: Snapshots) -> None:
    meta, other = add(store, 1), add(store, 2)
    spoil(store.path(other), 63)
    assert store.newest().candidates == [other, meta]
    store.verify(meta)
    with pytest.raises(Corrupt):
        store.verify(other)


def test_one_is_found_by_its_entry_or_its_fault_is_told(store: Snapshots) -> None:
    meta, other = add(store, 1), add(store, 2)
    assert store.find(1, meta.term) == meta
    assert store.find(1, meta.term + 1) is None
    spoil(store.path(other), 0)
    with pytest.raises(Corrupt, match="header"):
        store.find(2, other.term)
    store.path(other).unlink()
    store.path(other).mkdir()
    with pytest.raises(DiskFailed):
        store.find(2, other.term)
    with pytest.raises(DiskFailed):
        Snapshots(store.directory / "none", CLUSTER).find(1, 1)


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
    reasons = {name: error.message for name, error in found.skipped}
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
    assert [name for name, error in found.skipped if isinstance(error, NewerFormat)] == [newer.name]
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


def test_a_death_while_old_ones_are_deleted_leaves_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(store: Snapshots) -> None:
        for index in (1, 2, 3, 4):
            add(store, index)

    newest_two = SnapshotMeta(3, 1, CLUSTER)
    found = every_death(tmp_path, monkeypatch, prepare, lambda store: store.delete_before(newest_two))
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
