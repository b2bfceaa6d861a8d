"""What the disk does to a snapshot that is written: the order of its calls, errors at each of them, parts of writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_calls import Calls
from snapshot_files import FRAME, META, PAYLOAD, made

from danube_raft.errors import DiskFailed
from danube_raft.storage import snapshot_file
from danube_raft.storage.snapshot_file import (
    SnapshotWriter,
    read,
    verify,
)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "FRAME_BYTES", FRAME)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 60)


def test_the_file_is_durable_before_it_has_its_name_and_the_name_before_anybody_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 30."""
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        made(tmp_path)
    end = [name for name in calls.made if name != "write"]
    assert end == ["open", *["fdatasync"] * 4, "fsync", "close", "replace", "open", "fsync", "close"]
    assert calls.made.index("fsync") > max(n for n, name in enumerate(calls.made) if name == "write")


def test_writes_that_the_disk_takes_only_in_part_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(tmp_path).read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
        assert made(tmp_path).read_bytes() == expected


def number_of_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        made(tmp_path)
    return len(calls.made)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_at_any_call_leaves_nothing_but_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    old = made(tmp_path, b"old", META._replace(index=1000))
    path = tmp_path / META.name
    (tmp_path / "other").mkdir()
    for failing in range(number_of_calls(tmp_path / "other", monkeypatch)):
        with monkeypatch.context() as patch:
            calls = Calls(patch, failing, OSError(code, os.strerror(code)))
            with pytest.raises(DiskFailed, match=os.strerror(code)):
                made(tmp_path)
        assert calls.made.count("unlink") <= 1
        assert not list(tmp_path.glob("*.tmp")), calls.made
        assert b"".join(read(old)) == b"old"
        if path.exists():
            assert "replace" in calls.made[:failing]
            assert b"".join(read(path)) == PAYLOAD
            path.unlink()


def test_a_writer_that_failed_is_of_no_use_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SnapshotWriter(tmp_path, META)
    with monkeypatch.context() as patch:
        Calls(patch, 0, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(DiskFailed):
            writer.write(PAYLOAD)
    with pytest.raises(AssertionError):
        writer.write(PAYLOAD)
    with pytest.raises(AssertionError):
        writer.commit()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_an_aborted_writer_leaves_nothing_and_a_committed_one_is_not_undone(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path, META)
    writer.write(PAYLOAD)
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []
    writer = SnapshotWriter(tmp_path, META)
    meta = writer.commit()
    writer.abort()
    assert verify(writer.path) == meta


def test_a_disk_that_cannot_be_read_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match="No such file"):
        verify(tmp_path / META.name)
    with pytest.raises(DiskFailed):
        SnapshotWriter(tmp_path / "none", META)


def consumed(frames: Iterator[bytes], count: int) -> bytes:
    return b"".join(frame for _, frame in zip(range(count), frames, strict=False))


def test_a_reader_that_stops_early_lets_go_of_the_file(tmp_path: Path) -> None:
    frames = read(made(tmp_path))
    assert consumed(frames, 2) == PAYLOAD[: 2 * FRAME]
    frames.close()  # type: ignore[attr-defined]  # it is a generator
    assert list(frames) == []
