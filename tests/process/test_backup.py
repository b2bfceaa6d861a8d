"""A backup of a running node, restored: the new node serves what was acknowledged, and goes on from there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from real_node import RealNode

from danube_raft.errors import Compacted
from danube_raft.kv.relocation import STEP


def command(node: RealNode, *arguments: str) -> Any:
    """The JSON that a command prints."""
    done = subprocess.run(
        node.command(*arguments, "-o", "json"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_was_saved_is_served_by_the_restored_node_also_after_a_kill(tmp_path: Path) -> None:
    file = str(tmp_path / "backup.snap")
    with RealNode(tmp_path / "old") as old, old.store() as store:
        for number in range(200):
            store.put(f"/k/{number % 20}", number)
        store.put_with_ttl("/session", 1, 600_000)
        last_id = store.allocate_monotonic_id("ids", 5) + 4
        saved = command(old, "snapshot", "save", file, "--endpoints", old.endpoint)
        records = store.get_prefix("/")
    status = command(old, "snapshot", "status", file)
    assert (status["sha256"], status["keys"]) == (saved["sha256"], 22)
    new = RealNode(tmp_path / "new")
    addresses = ("--raft-advertise", new.raft_endpoint, "--client-advertise", new.endpoint)
    made = command(new, "snapshot", "restore", file, "--data-dir", str(new.data_dir), *addresses)
    assert made["cluster_id"] != status["cluster_id"]
    assert command(new, "node", "verify", "--data-dir", str(new.data_dir))["sound"]
    with new, new.store() as store:
        here = {record.key: record for record in store.get_prefix("/")}
        for record in records:
            if not record.key.startswith("/counters/"):
                assert here[record.key] == record
        assert store.allocate_monotonic_id("ids") == last_id + STEP + 1
        assert store.put("/k/1", "new").revision == status["revision"] + STEP + 2
        with pytest.raises(Compacted):
            store.get("/k/1", revision=status["revision"])
        new.kill_all()
    assert command(new, "node", "verify", "--data-dir", str(new.data_dir))["sound"]
    with new, new.store() as store:
        found = store.get("/k/1")
        assert found is not None
        assert found.value == "new"
        assert len(store.get_prefix("/")) == 22
