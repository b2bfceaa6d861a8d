"""Room on the disk, and the file that is given up when there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from danube_raft.errors import DiskFailed
from danube_raft.storage import disk_space
from danube_raft.storage.disk_space import Ballast, free_bytes

MIB = 1 << 20


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert abs(free_bytes(tmp_path) - found.f_bavail * found.f_frsize) < 1 << 30
    with pytest.raises(DiskFailed, match="cannot ask how full"):
        free_bytes(tmp_path / "missing")


def test_ballast_takes_real_room_once_and_gives_it_back(tmp_path: Path) -> None:
    """A file with a hole in it would free nothing."""
    ballast = Ballast(tmp_path, 2 * MIB)
    for _ in range(2):
        ballast.take(0)
        found = (tmp_path / "ballast").stat()
        assert found.st_size == 2 * MIB <= found.st_blocks * 512
    ballast.give_up()
    ballast.give_up()
    assert list(tmp_path.iterdir()) == []


def test_ballast_is_not_taken_where_it_would_make_room_scarce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: 10 * MIB)
    ballast = Ballast(tmp_path, 2 * MIB)
    ballast.take(8 * MIB + 1)
    assert list(tmp_path.iterdir()) == []
    ballast.take(8 * MIB)
    assert (tmp_path / "ballast").exists()


def test_no_ballast_is_wanted_and_what_was_there_goes(tmp_path: Path) -> None:
    Ballast(tmp_path, MIB).take(0)
    Ballast(tmp_path, 0).take(0)
    assert list(tmp_path.iterdir()) == []
