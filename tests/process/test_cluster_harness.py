"""What the tests of real clusters stand on: no process is left behind, however a test ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_cluster import RealCluster
from real_node import WAIT_S, runs, until
from records import the

pytestmark = [pytest.mark.process, pytest.mark.timeout(90, method="signal")]


def test_nodes_do_not_outlive_a_test_run_that_was_killed(tmp_path: Path) -> None:
    """Stopped processes among them, which hear no signal but this one."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from real_cluster import RealCluster\n"
        f"cluster = RealCluster(Path({str(tmp_path)!r}), nodes=1).__enter__()\n"
        "family = cluster.nodes[0].family()\n"
        "family[1].suspend()\n"
        "print(*[process.pid for process in family], flush=True)\n"
        "sys.stdin.read()\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdin is not None
    nodes: list[psutil.Process] = []
    try:
        nodes += [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
        assert len(nodes) == 4
        run.send_signal(signal.SIGKILL)
        until(lambda: not any(map(runs, nodes)), "the nodes to end")
    finally:
        for process in filter(runs, nodes):
            process.kill()
        run.kill()
        run.wait(WAIT_S)
        run.stdin.close()
        run.stdout.close()


def test_a_test_that_fails_leaves_no_process(tmp_path: Path) -> None:
    family: list[psutil.Process] = []

    def broken() -> None:
        with RealCluster(tmp_path, nodes=1) as cluster:
            family.extend(cluster.nodes[0].family())
            cluster.nodes[0].stop_all()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert len(family) == 4
    assert not any(map(runs, family))


@pytest.mark.parametrize(
    ("told", "whole"),
    [
        ({}, True),
        ({"leader_id": 0}, False),
        ({"leader_id": 3}, False),
        ({"term": 4}, False),
        ({"role": "leader"}, False),
        ({"applied_index": 8}, False),
        (None, False),
    ],
    ids=str,
)
def test_a_cluster_is_whole_when_all_follow_one_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any] | None, whole: bool
) -> None:
    cluster = RealCluster(tmp_path)
    leading = {
        "node_id": 1,
        "leader_id": 1,
        "term": 5,
        "role": "leader",
        "commit_index": 9,
        "applied_index": 9,
    }
    following = {**leading, "node_id": 2, "role": "follower"}
    odd = told if told is None else {**following, "node_id": 3, **told}
    answers = dict(zip(cluster.nodes, (leading, following, odd), strict=True))
    monkeypatch.setattr(cluster, "status", answers.get)
    try:
        if whole:
            cluster.await_whole()
        else:
            with pytest.raises(AssertionError, match="all nodes to follow one leader"):
                cluster.await_whole(0.1)
    finally:
        cluster.close()


def test_a_cluster_of_one_is_killed_and_started_again(tmp_path: Path) -> None:
    with RealCluster(tmp_path, nodes=1) as cluster, cluster.store(timeout_ms=20_000) as store:
        node = cluster.await_leader()
        store.put("/a", 1)
        for kill in (node.kill_supervisor, cluster.kill_everything):
            kill()
            assert cluster.status(node) is None
            cluster.restart(node)
            cluster.await_whole()
            assert the(store.get("/a")).value == 1
