"""A real node whose snapshots were falsified, checksums and all: the digest names it, it serves nobody, and comes back
with the leader's state."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from falsified import RIGHT, falsify
from real_cluster import ClusterNode, RealCluster

from danube_raft import MetadataStore
from danube_raft.errors import NoConnection, NoLeader, Timeout
from danube_raft.storage.snapshots import Snapshots

pytestmark = pytest.mark.process

SETTINGS: dict[str, Any] = {
    "snapshot_log_bytes": 20_000,
    "snapshot_rest_max_ms": 200,
    "snapshot_tail_entries": 5,
    "digest_ms": 0,
    # A few thousand messages, one after the other: there is time to look at a node that is being replaced.
    "snapshot_piece_bytes": 16,
    "snapshot_window_pieces": 1,
}


KNOWS = "the state of this node is wrong: at index "


def write(cluster: RealCluster, count: int) -> None:
    with cluster.store() as store:
        for number in range(count):
            store.put(f"/k{number % 10}", {"n": number, "padding": "x" * 200})


def digest(cluster: RealCluster) -> subprocess.CompletedProcess[str]:
    node = cluster.nodes[0]
    return subprocess.run(
        node.command("digest", "--endpoints", ",".join(cluster.endpoints), "--wait", "30s"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=node.environment,
    )


def snapshots(node: ClusterNode) -> list[Path]:
    return sorted((node.data_dir / "snapshots").glob("*.snap"))


def status(cluster: RealCluster, node: ClusterNode) -> dict[str, Any]:
    return cluster.until(lambda: cluster.status(node), f"the status of {node.name}")  # type: ignore[no-any-return]


def falsified(cluster: RealCluster, node: ClusterNode) -> None:
    """Stop it, change what it has, start it again."""
    cluster_id = status(cluster, node)["cluster_id"]
    node.stop()
    changed = falsify(Snapshots(node.data_dir / "snapshots", cluster_id))
    assert changed == len(snapshots(node)) > 0
    cluster.restart(node)


def check_not_wrong(node: ClusterNode) -> None:
    """It refuses even a stale read, until it is replaced, which may be soon."""
    with MetadataStore(node.endpoint, raw=True, timeout_ms=2_000) as store:
        try:
            record = store.get("/truth", consistency="stale")
        except (NoConnection, NoLeader, Timeout):
            return
    assert record is not None
    assert record.raw == RIGHT


def test_a_falsified_node_is_named_refuses_and_is_replaced(tmp_path: Path) -> None:
    with RealCluster(tmp_path, **SETTINGS) as cluster:
        with cluster.store(raw=True) as store:
            store.put("/truth", RIGHT)
        victim = cluster.follower()

        def has_two() -> bool:
            write(cluster, 100)
            return len(snapshots(victim)) == 2

        cluster.until(has_two, "two snapshots")
        agreed = digest(cluster)
        assert agreed.returncode == 0, agreed
        assert agreed.stdout.count(" agrees") == 3
        falsified(cluster, victim)
        found = digest(cluster)
        assert found.returncode == 1, found
        odd = [line for line in found.stdout.splitlines() if "DIFFERS" in line]
        assert len(odd) == 1
        assert odd[0].startswith(f"{victim.node_id} "), found
        cluster.until(lambda: victim.logged(KNOWS), "it to know")
        check_not_wrong(victim)
        victim.kill_all()
        cluster.restart(victim)
        check_not_wrong(victim)
        cluster.until(lambda: victim.logged("is replaced by the leader's snapshot"), "a replacement")
        cluster.until(lambda: status(cluster, victim)["odd"] == "", "a start with it")
        cluster.await_whole()
        agreed = digest(cluster)
        assert agreed.returncode == 0, agreed
        with MetadataStore(victim.endpoint, raw=True) as store:
            record = store.get("/truth", consistency="stale")
            assert record is not None
            assert record.raw == RIGHT
        assert victim.logged("ended: exit code 16: .*; restarting all three in 0 ms") >= 1
