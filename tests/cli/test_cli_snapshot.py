"""Snapshots in files: what is in one, or in one line what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_snapshots import OLD_CLUSTER, OLD_MEMBERS, old_machine, saved

from danube_raft.kv.snapshot import encode
from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter

Run = Callable[..., Any]


def test_status_shows_what_is_in_a_file_and_its_digest(run: Run, tmp_path: Path) -> None:
    machine, path = old_machine(), saved(tmp_path)
    shown = run("snapshot", "status", str(path), "-o", "json").json
    assert shown["index"] == machine.applied_index
    assert (shown["term"], shown["cluster_id"]) == (2, OLD_CLUSTER)
    assert shown["revision"] == machine.revision
    assert shown["keys"] == len(machine.history.records) > 0
    assert (shown["leases"], shown["sessions"]) == (len(machine.leases), len(machine.sessions))
    assert shown["members"] == [member.raft_addr for member in OLD_MEMBERS]
    assert shown["size_bytes"] == path.stat().st_size
    # As everything in the file but itself has it.
    assert shown["sha256"] == hashlib.sha256(path.read_bytes()[:-32]).hexdigest()
    assert f"sha256: {shown['sha256']}\n" in run("snapshot", "status", str(path)).out
    assert "FIELD" in run("snapshot", "status", str(path), "-o", "table").out


def test_a_damaged_file_is_one_line_and_its_own_exit_code(run: Run, tmp_path: Path) -> None:
    """Pitfall 30. A backup that cannot be restored must be told from one that can before it is needed."""
    path = saved(tmp_path)
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        whole + b"\0",
        whole[:200] + bytes((whole[200] ^ 1,)) + whole[201:],
        whole[:-1] + bytes((whole[-1] ^ 1,)),
        b"\0" * len(whole),
    ):
        path.write_bytes(damaged)
        done = run("snapshot", "status", str(path))
        assert (done.code, done.out) == (11, "")
        assert done.err.startswith(f"error: Corrupt: snapshot {path} ")
        assert done.err.count("\n") == 1


def test_a_file_whose_frames_are_whole_but_whose_state_is_not_is_damaged_too(
    run: Run, tmp_path: Path
) -> None:
    """The checksums vouch for what was written, and not that it was a state."""
    writer = SnapshotWriter(tmp_path, SnapshotMeta(5, 1, 3))
    writer.write(b"\1nonsense")
    writer.commit()
    done = run("snapshot", "status", str(writer.path))
    assert done.code == 11
    assert done.err.startswith(f"error: Corrupt: snapshot {writer.path}: the snapshot is damaged at byte ")


def test_a_file_that_speaks_of_another_entry_than_its_state_is_damaged(run: Run, tmp_path: Path) -> None:
    """The log would go on after the one, the state after the other."""
    machine = old_machine()
    writer = SnapshotWriter(tmp_path, SnapshotMeta(machine.applied_index + 1, 2, OLD_CLUSTER))
    for chunk in encode(machine):
        writer.write(chunk)
    writer.commit()
    done = run("snapshot", "status", str(writer.path))
    assert done.code == 11
    assert f"it says that it ends with entry {machine.applied_index + 1}" in done.err


def test_what_is_no_file_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        done = run("snapshot", "status", str(path))
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["backup.snap", "backup", "2026-11-25.snap"])
def test_an_operator_may_name_a_file_as_he_likes(run: Run, tmp_path: Path, name: str) -> None:
    """A file that a node made must have the name of what is in it; a saved one need not."""
    assert run("snapshot", "status", str(saved(tmp_path, name=name))).code == 0
