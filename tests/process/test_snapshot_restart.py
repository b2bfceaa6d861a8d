"""Snapshots of a real node: made by its forked child while it serves, and what a restart makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from real_node import RealNode, until
from snapshot_store import spoil

pytestmark = pytest.mark.process

TINY = {"snapshot_log_bytes": 20_000, "snapshot_rest_max_ms": 200, "snapshot_tail_entries": 5}


def snapshots(node: RealNode) -> list[Path]:
    return sorted((node.data_dir / "snapshots").glob("*.snap"))


def write(node: RealNode, first: int, last: int) -> None:
    with node.store() as store:
        for number in range(first, last):
            store.put(f"/k{number % 10}", {"n": number, "padding": "x" * 200})


def write_until(node: RealNode, first: int, condition: Callable[[], bool]) -> int:
    """Go on until `condition` holds: on a fast machine all of a fixed number could fall into one snapshot. Returns the
    number after the last one."""
    last = first

    def holds() -> bool:
        nonlocal last
        write(node, last, last + 100)
        last += 100
        return condition()

    until(holds, "snapshots of what is written")
    return last


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
        last = write_until(node, 0, lambda: len(snapshots(node)) == 2)
        before = snapshots(node)
        last = write_until(node, last, lambda: snapshots(node) > before)
        node.kill_all()
        start_again(node)
        check(node, last)
        assert len(snapshots(node)) == 2
        node.stop()
        newest = snapshots(node)[-1]
        spoil(newest, newest.stat().st_size // 2)
        start_again(node)
        check(node, last)
        assert node.logged(f"snapshot {newest.name} cannot be used") == 1
        write(node, last, last + 300)
        check(node, last + 300)
