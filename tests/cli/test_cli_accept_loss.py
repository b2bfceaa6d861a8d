"""`node accept-loss` on directories that need no running node; what follows from it is in tests/process/test_suspect.py."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_dirs import NODE, made
from snapshot_store import spoil

from danube_raft.storage.log_store import RocksLogStore
from danube_raft.wire.entry import HardState

Run = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A node that has snapshots of entries 20 and 30, and has lost its log."""
    path = made(tmp_path / "data")
    shutil.rmtree(path / "log")
    return path


def snapshot(data: Path, index: int) -> Path:
    (found,) = (data / "snapshots").glob(f"*-{index:020d}.snap")
    return found


def asked(run: Run, data: Path) -> str:
    """What it says before somebody decides."""
    done = run("node", "accept-loss", "--data-dir", str(data), "--yes-i-accept-the-loss", "1")
    assert done.code == 2, "that is not the node id"
    return str(done.out)


def test_a_snapshot_of_what_the_log_has_lost_is_named_before_it_is_given_up(run: Run, data: Path) -> None:
    said = asked(run, data)
    assert "what the log holds now: nothing" in said
    assert "a whole snapshot up to entry 30, which this node will not use any more" in said
    assert f"snapshot restore {snapshot(data, 30)}" in said


def test_only_one_that_is_whole_is_named(run: Run, data: Path) -> None:
    spoil(snapshot(data, 30), 150)
    assert f"snapshot restore {snapshot(data, 20)}" in asked(run, data)
    spoil(snapshot(data, 20), 150)
    assert "what else" not in asked(run, data)


def test_one_that_the_log_reaches_is_nothing_that_is_lost(run: Run, tmp_path: Path) -> None:
    path = made(tmp_path / "data")
    (path / "mark").unlink()
    said = asked(run, path)
    assert "what the log holds now: entries up to 40" in said
    assert "what else" not in said


def test_the_snapshot_that_is_named_can_be_restored(run: Run, data: Path, tmp_path: Path) -> None:
    addresses = ("--raft-advertise", "127.0.0.1:1", "--client-advertise", "127.0.0.1:2")
    target = tmp_path / "new"
    done = run("snapshot", "restore", str(snapshot(data, 30)), "--data-dir", str(target), *addresses)
    assert done.code == 0
    assert (target / "identity.json").exists()
    assert run("node", "accept-loss", "--data-dir", str(data), "--yes-i-accept-the-loss", str(NODE)).code == 0


def test_a_leader_that_counts_what_is_lost_leads_no_more_when_the_node_is_back(
    run: Run, tmp_path: Path
) -> None:
    """It would take the node's old acks for the truth as long as its term lasts."""
    path = made(tmp_path / "data")
    term = hard_state(path).term
    shutil.rmtree(path / "log")
    assert run("node", "accept-loss", "--data-dir", str(path), "--yes-i-accept-the-loss", str(NODE)).code == 0
    assert hard_state(path) == HardState(term + 1, 0)


def hard_state(data: Path) -> HardState:
    with contextlib.closing(RocksLogStore(data / "log")) as store:
        return store.open().hard_state
