"""A snapshot that arrives from a peer in pieces: whole and as announced, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from disk_calls import Calls
from snapshot_store import add, held, names, opened, payload, transfer

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage import snapshot_file, snapshots
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshots import Snapshots


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "FRAME_BYTES", 20)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 60)
    monkeypatch.setattr(snapshots, "SYNC_BYTES", 60)


@pytest.fixture
def store(tmp_path: Path) -> Snapshots:
    return opened(tmp_path / "snapshots")


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
