"""`snapshot restore`: a directory that a node can start on, and never over anything that is there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from data_dirs import made
from disk_calls import Calls
from saved_snapshots import CHAIN, OLD, OLD_CLUSTER, old_machine, saved

from danube_raft.errors import Corrupt
from danube_raft.kv.relocation import STEP
from danube_raft.node.data_check import check, exit_code
from danube_raft.node.restoring import restore
from danube_raft.node.saved_snapshot import load, members
from danube_raft.storage.data_dir import RESTORING, DataDir
from danube_raft.storage.inspection import InspectedLog
from danube_raft.storage.recovery import Point
from danube_raft.wire.entry import VOTER, Member, unpack_configuration

Run = Callable[..., Any]

RAFT, CLIENT = "10.9.9.9:7650", "10.9.9.9:7750"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return saved(tmp_path)


def ids() -> Callable[[int], int]:
    """Random numbers, of which the first ones are ids that the old cluster knows."""
    numbers = iter((0, 8, 1, 41, OLD_CLUSTER - 1, *range(100, 200)))
    return lambda _limit: next(numbers)


def restored(backup: Path, path: Path) -> Any:
    return restore(backup, path, RAFT, CLIENT, ids())


def test_the_directory_has_all_that_a_node_starts_with(backup: Path, tmp_path: Path) -> None:
    """And `node verify`, which proves what a start would, finds it sound."""
    machine, path = old_machine(), tmp_path / "deep" / "data"
    done = restored(backup, path)
    assert done.identity == (42, 101)
    findings = check(path)
    assert exit_code(findings) == 0, findings
    said = {each.part: each.said for each in findings}
    assert said["start"] == f"with the snapshot of entry {machine.applied_index}, and 0 entries behind it"
    assert said["boot epoch"] == "started 0 times"
    assert said["mark"].startswith(
        f"vouches for entries up to {machine.applied_index} of term 2, for term 2 "
    )
    assert not (path / RESTORING).exists()
    meta, there = load(next((path / "snapshots").iterdir()), done.identity.cluster_id)
    assert (meta.index, meta.term, meta.chain) == (machine.applied_index, 2, CHAIN)
    assert there.revision == machine.revision + STEP == done.revision
    assert members(there).members == (Member(42, VOTER, RAFT, CLIENT),)
    assert members(there).removed == (1, 2, 3, *OLD.removed)
    with closing(InspectedLog(path / "log")) as log:
        found = log.open()
    assert found.purged == found.last == found.snapshot == Point(machine.applied_index, 2, CHAIN)
    assert (found.hard_state.term, found.hard_state.vote) == (2, 0)
    assert found.last_stamp_ms == machine.cluster_ms
    index, payload = found.configurations[-1]
    assert index == machine.applied_index
    assert unpack_configuration(payload) == members(there)
    data_dir = DataDir(path)
    data_dir.acquire()
    assert data_dir.identity() == done.identity
    assert data_dir.next_boot_epoch() == 1
    data_dir.release()


def test_the_command_tells_what_it_has_made(run: Run, backup: Path, tmp_path: Path) -> None:
    addresses = ("--raft-advertise", RAFT, "--client-advertise", CLIENT)
    path = str(tmp_path / "data")
    done = run("snapshot", "restore", str(backup), "--data-dir", path, *addresses, "-o", "json")
    assert (done.code, done.err) == (0, "")
    assert done.json["raft_addr"] == RAFT
    assert done.json["revision"] == old_machine().revision + STEP
    assert run("node", "verify", "--data-dir", path).code == 0
    again = run("snapshot", "restore", str(backup), "--data-dir", path, *addresses)
    assert (again.code, again.out) == (2, "")
    assert "is not empty" in again.err
    assert run("node", "verify", "--data-dir", path).code == 0


def test_nothing_that_is_there_is_touched(run: Run, backup: Path, tmp_path: Path) -> None:
    path = made(tmp_path / "node")
    before = sorted(str(file) for file in path.rglob("*"))
    assert run("snapshot", "restore", str(backup), "--data-dir", str(path)).code == 2
    assert sorted(str(file) for file in path.rglob("*")) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter").write_text("dear")
    assert run("snapshot", "restore", str(backup), "--data-dir", str(other)).code == 2
    assert [file.name for file in other.iterdir()] == ["letter"]


def test_an_empty_volume_is_empty(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "volume"
    (path / "lost+found").mkdir(parents=True)
    restored(backup, path)
    assert exit_code(check(path)) == 0
    assert (path / "lost+found").is_dir()


def test_a_damaged_backup_touches_nothing(run: Run, backup: Path, tmp_path: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 1
    backup.write_bytes(data)
    assert run("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / "data")).code == 11
    assert not (tmp_path / "data").exists()


def test_a_directory_that_is_held_is_left_alone(run: Run, backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "data"
    data_dir = DataDir(path)
    data_dir.acquire()
    (path / "format.json").unlink()
    try:
        assert run("snapshot", "restore", str(backup), "--data-dir", str(path)).code == 10
    finally:
        data_dir.release()


def test_what_an_interrupted_restore_has_left_is_not_in_the_next_one(backup: Path, tmp_path: Path) -> None:
    """It may have been another backup, restored by another version."""
    path = made(tmp_path / "data")
    (path / RESTORING).write_bytes(b"")
    restored(backup, path)
    assert exit_code(check(path)) == 0
    assert len(list((path / "snapshots").iterdir())) == 1


class Interrupted(Exception):
    """As far as the disk can tell, the process has ended here."""


def test_an_interrupted_restore_is_refused_by_a_start_and_can_be_done_again(
    backup: Path, tmp_path: Path
) -> None:
    """At a sample of its calls of the system, and all of the last but the very last, which lets go of the lock."""
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        restored(backup, tmp_path / "whole")
    assert len(calls.made) > 20
    refused = 0
    last = len(calls.made) - 1
    for number in (*range(0, last - 6, 5), *range(last - 6, last)):
        path = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, number, Interrupted())
            with pytest.raises(Interrupted):
                restored(backup, path)
        data_dir = DataDir(path)
        if (path / RESTORING).exists():
            with pytest.raises(Corrupt, match="was not finished"):
                data_dir.acquire()
            refused += 1
        elif (path / "identity.json").exists():
            # Only the sync of the marker's removal is missing: all of it is there.
            assert exit_code(check(path)) == 0
            continue
        restored(backup, path)
        assert exit_code(check(path)) == 0
    assert refused > 5
