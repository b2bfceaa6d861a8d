"""Snapshots of a real node: made by its forked child while it serves, and what a restart makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_node import RealNode, until
from snapshot_store import spoil

pytestmark = pytest.mark.process

TINY = {"snapshot_log_bytes": 20_000, "snapshot_min_ms": 200, "snapshot_tail_entries": 5}


def snapshots(node: RealNode) -> list[Path]:
    return sorted((node.data_dir / "snapshots").glob("*.snap"))


def write(node: RealNode, first: int, last: int) -> None:
    with node.store() as store:
        for number in range(first, last):
            store.put(f"/k{number % 10}", {"n": number, "padding": "x" * 200})


def check(node: RealNode, last: int) -> None:
    with node.store() as store:
        assert sorted(record.value["n"] for record in store.get_prefix("/k")) == list(range(last - 10, last))


def start_again(node: RealNode) -> None:
    assert node.process is not None
    assert node.process.stdout is not None
    node.process.stdout.close()
    node.start()


def test_a_node_starts_from_its_snapshots_however_it_died(tmp_path: Path) -> None:
    """By then the log does not reach back to its beginning. A damaged snapshot is told, and the one before it does."""
    with RealNode(tmp_path / "data", **TINY) as node:
        write(node, 0, 300)
        until(lambda: len(snapshots(node)) == 2, "two snapshots")
        before = snapshots(node)
        write(node, 300, 600)
        until(lambda: snapshots(node) > before, "newer ones in their place")
        node.kill_all()
        start_again(node)
        check(node, 600)
        assert len(snapshots(node)) == 2
        node.stop()
        newest = snapshots(node)[-1]
        spoil(newest, newest.stat().st_size // 2)
        start_again(node)
        check(node, 600)
        assert node.logged(f"snapshot {newest.name} cannot be used") == 1
        write(node, 600, 900)
        check(node, 900)
