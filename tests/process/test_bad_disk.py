"""A disk that answers EIO: the node starts once more and proves its log; when that happens again it stays down.

It is the log-writer's disk that fails here (`failing_disk.py`). A snapshot that the kv-server's child cannot write costs
nothing else, which `scripts/chaos` tries under load. Consensus has no file.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from failing_disk import failing_sync, why_not
from real_node import WAIT_S, RealNode, until
from records import the

from danube_raft.errors import DanubeRaftError

pytestmark = pytest.mark.process


needs_strace = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it works")


def pid(node: RealNode) -> int:
    return int(until(lambda: node.child("log-writer"), "a log-writer").pid)


def write_in_vain(node: RealNode) -> None:
    """One write that the disk refuses; its client learns that it may have been applied, or it is applied later."""
    with node.store(timeout_ms=1_000) as store, contextlib.suppress(DanubeRaftError):
        store.put("/in-vain", 1)


@needs_strace
def test_after_an_io_error_the_node_starts_once_more_and_has_everything(tmp_path: Path) -> None:
    """The log is opened and proven again under a new boot epoch; nothing that was acknowledged is lost."""
    with RealNode(tmp_path / "data") as node, node.store(timeout_ms=15_000) as store:
        for number in range(20):
            store.put(f"/k{number}", number)
        before = store.status()
        first = pid(node)
        with failing_sync(node):
            write_in_vain(node)
            until(lambda: pid(node) != first, "another log-writer")
        assert [the(store.get(f"/k{number}")).value for number in range(20)] == list(range(20))
        store.put("/after", 1)
        after = store.status()
        assert after["boot_epoch"] == before["boot_epoch"] + 1
        assert after["term"] > before["term"]
        assert (
            node.logged(
                r"log-writer .*ended: exit code 12: cannot write the (log|durable mark).*restarting all three in 0 ms"
            )
            == 1
        )
        assert not node.logged("Traceback")


@needs_strace
def test_a_disk_that_fails_again_keeps_the_node_down_with_its_exit_code(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node, node.store(timeout_ms=15_000) as store:
        assert node.process is not None
        for number in range(2):
            store.put("/before", number)
            first = pid(node)
            with failing_sync(node):
                write_in_vain(node)
                until(
                    lambda first=first: node.process.poll() is not None or pid(node) != first,  # type: ignore[misc]
                    "the log-writer to end",
                )
        assert node.process.wait(WAIT_S) == 12
        last = node.log_path.read_text().strip().splitlines()[-1]
        assert re.match(r"error: cannot write the (log|durable mark)", last)
        assert "so the node stays down" in last
        assert node.survivors() == []


@needs_strace
def test_a_disk_that_fails_again_much_later_gets_another_chance(tmp_path: Path) -> None:
    """Here "much later" is at once."""
    with RealNode(tmp_path / "data", disk_stable_ms=0) as node, node.store(timeout_ms=15_000) as store:
        for number in range(2):
            first = pid(node)
            with failing_sync(node):
                write_in_vain(node)
                until(lambda first=first: pid(node) != first, "another log-writer")  # type: ignore[misc]
            store.put("/after", number)
        assert node.logged("restarting all three") == 2


def test_consensus_has_no_file_that_could_fail(tmp_path: Path) -> None:
    """Beside the lock of the directory, which all processes of a node hold and nobody writes, and its own output."""
    with RealNode(tmp_path / "data") as node, node.store() as store:
        store.put("/k", 1)
        held = {
            name: {Path(file.path) for file in until(lambda name=name: node.child(name), name).open_files()}  # type: ignore[misc]
            for name in ("consensus", "log-writer")
        }
        assert held["consensus"] <= {node.data_dir / "lock", node.log_path}
        assert not held["log-writer"] <= {node.data_dir / "lock", node.log_path}, "or this sees no files"
