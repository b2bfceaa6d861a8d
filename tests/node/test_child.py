"""Which of a node's processes is the reason that all end: what it told decides what the node does next."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from danube_raft.config import Config
from danube_raft.errors import DanubeRaftError, DiskFailed, DiskFull, Fatal
from danube_raft.node.bootstrap import held_data_dir
from danube_raft.node.child import Child, reason_of_all
from danube_raft.node.endpoints import LocalEdge
from danube_raft.node.supervisor import Supervisor
from danube_raft.node.view import NodeView, ProcessView
from danube_raft.wire.local import Failed

GONE = Fatal("the process at the other end of an edge is gone")
BROKEN = DiskFailed("cannot write the log")
KILLED = "kill -9 $$"
CLEAN = "exit 0"
WITH_FATAL = "exit 1"
WITH_DISK = "exit 12"
RUNS = "read line"


class Family:
    """Children that are small scripts, in the order of a node's, and what they tell their parent."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._context = stack.enter_context(zmq.Context())
        self.children: list[Child] = []

    def add(self, name: str, script: str, error: DanubeRaftError | None) -> Child:
        address = f"ipc://{self._directory}/{name}"
        process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)
        edge = LocalEdge(self._context, address, True, 1)
        child = Child(process, edge, ProcessView(name, process.pid, 1_000, 0))
        self._stack.callback(self._end, child)
        own = LocalEdge(self._context, address, False, 1)
        self._stack.callback(own.close)
        if error is not None:
            own.send([Failed(error.code, error.message)])
        self.children.append(child)
        return child

    @staticmethod
    def _end(child: Child) -> None:
        child.process.kill()
        child.process.wait()
        child.close()


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with ExitStack() as stack:
        yield Family(tmp_path, stack)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Any]:
    """Of no children yet."""
    config = replace(Config(), data_dir=str(tmp_path / "data"))
    with held_data_dir(config, inheritable=False) as data_dir, closing(NodeView()) as view:
        made = Supervisor(config, data_dir, (), view)
        yield made
        made._context.destroy(linger=0)


@pytest.mark.parametrize("error", [BROKEN, DiskFull("no room for the log")], ids=["failed", "full"])
def test_a_disk_that_failed_is_not_taken_for_a_neighbour_that_has_gone(
    family: Family, supervisor: Any, error: DiskFailed
) -> None:
    """Under load the others end before the log-writer does, and it is the disk that decides about a restart."""
    family.add("log-writer", WITH_DISK, error)
    first = family.add("consensus", WITH_FATAL, GONE)
    family.add("kv-server", WITH_FATAL, GONE)
    first.process.wait()
    supervisor._children += family.children
    said = supervisor._last_words(first)
    assert said.startswith("log-writer")
    assert said.endswith(f"ended: exit code 12: {error.message}")
    assert type(supervisor._failed) is type(error)
    supervisor._children.clear()


def test_who_was_killed_is_named_and_not_who_noticed(family: Family, supervisor: Any) -> None:
    first = family.add("log-writer", WITH_FATAL, GONE)
    killed = family.add("kv-server", KILLED, None)
    first.process.wait()
    supervisor._children += family.children
    assert supervisor._last_words(first) == (f"kv-server (pid {killed.process.pid}) ended: killed by SIGKILL")
    supervisor._children.clear()


def test_a_bug_is_told_though_it_has_no_last_words(family: Family, supervisor: Any) -> None:
    """Its traceback is in the log. The wait for words that never come has an end."""
    family.add("log-writer", RUNS, None)
    follower = family.add("consensus", WITH_FATAL, GONE)
    crashed = family.add("kv-server", WITH_FATAL, None)
    crashed.process.wait()
    follower.process.wait()
    supervisor._children += family.children
    assert supervisor._last_words(follower) == f"kv-server (pid {crashed.process.pid}) ended: exit code 1"
    supervisor._children.clear()


def test_one_that_was_asked_to_end_is_a_reason(family: Family) -> None:
    family.add("consensus", RUNS, None)
    child = family.add("kv-server", CLEAN, None)
    child.process.wait()
    assert reason_of_all(family.children) is child
