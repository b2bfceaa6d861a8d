"""A full disk, as the supervisor sees it: when the node is read-only, and for how long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from danube_raft.config import Config
from danube_raft.node.full_disk import HOLD_MAX_MS, HOLD_MS, SOON_MS, FullDisk

MIB = 1 << 20
CONFIG = replace(Config(), low_space_bytes=0, ballast_bytes=MIB)


def read_only_ms(disk: FullDisk, now: int) -> int:
    """How long a disk that is found full at `now`, and says that it has room, keeps the node read-only."""
    assert disk.found("no room", now)
    waits = (0, *(HOLD_MS << n for n in range(20)), HOLD_MAX_MS)
    lasted = min(wait for wait in waits if disk.has_room_again(now + wait))
    assert not lasted or not disk.has_room_again(now + lasted - 1)
    disk.over(now + lasted)
    return lasted


def test_the_ballast_is_there_only_while_the_node_may_write(tmp_path: Path) -> None:
    disk = FullDisk(CONFIG, tmp_path)
    disk.prepare()
    assert (tmp_path / "ballast").exists()
    assert disk.found("no room", 10)
    disk.prepare()
    assert not (tmp_path / "ballast").exists()
    assert disk.read_only


def test_what_refuses_a_read_only_node_is_a_failure_as_others_are(tmp_path: Path) -> None:
    """There is nothing left to give up."""
    disk = FullDisk(CONFIG, tmp_path)
    assert disk.found("no room", 10)
    assert not disk.found("no room", 20)


def test_a_disk_without_room_for_the_ballast_is_still_full(tmp_path: Path) -> None:
    disk = FullDisk(replace(CONFIG, low_space_bytes=1 << 62), tmp_path)
    assert not disk.has_room_again(10)
    assert disk.found("no room", 10)
    assert not disk.has_room_again(10 + HOLD_MAX_MS)


def test_a_disk_that_says_it_has_room_and_refuses_is_asked_less_and_less(tmp_path: Path) -> None:
    """Out of inodes or over a quota: the node would start again without end, and never serve in between."""
    disk = FullDisk(CONFIG, tmp_path)
    now = 10
    lasted = []
    for _ in range(12):
        lasted.append(read_only_ms(disk, now))
        now += lasted[-1] + SOON_MS - 1
    assert lasted[:4] == [0, HOLD_MS, 2 * HOLD_MS, 4 * HOLD_MS]
    assert lasted[-2:] == [HOLD_MAX_MS, HOLD_MAX_MS]


def test_a_disk_that_took_writes_for_long_is_believed_again(tmp_path: Path) -> None:
    disk = FullDisk(CONFIG, tmp_path)
    now = 10
    for _ in range(3):
        now += read_only_ms(disk, now)
    assert read_only_ms(disk, now + SOON_MS) == 0
