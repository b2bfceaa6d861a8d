"""Three real nodes that forget their logs: one that was away gets a snapshot, and no directory grows for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from real_cluster import RealCluster

from danube_raft import MetadataStore, MetaOptions

pytestmark = pytest.mark.process

TINY: dict[str, Any] = {
    "snapshot_log_bytes": 200_000,
    "snapshot_rest_max_ms": 300,
    "snapshot_tail_entries": 20,
    "snapshot_piece_bytes": 4_096,
}
KEYS = 100
ROUNDS = 12
BIG = "%" * 2_000


def fill(cluster: RealCluster, rounds: range) -> dict[str, str]:
    """Overwrite the same keys again and again; what each holds at the end."""
    held = {}
    with cluster.store() as store:
        for number in rounds:
            for key in range(KEYS):
                held[f"/k/{key}"] = f"{number}.{key}:" + BIG
                store.put(f"/k/{key}", held[f"/k/{key}"])
    return held


def contents(store: MetadataStore) -> dict[str, Any]:
    """As the first node of that client has it."""
    records = store.get("/k/", MetaOptions.WITH_PREFIX, consistency="stale")
    return {record.key: record.value for record in records}


def test_a_node_that_was_away_while_the_log_was_forgotten_gets_a_snapshot(tmp_path: Path) -> None:
    """All values are there, from the node itself, and it goes on with entries."""
    with RealCluster(tmp_path, **TINY) as cluster:
        away = cluster.follower()
        before = fill(cluster, range(1))
        behind = cluster.until(lambda: cluster.status(away), "its status")["applied_index"]
        away.kill_all()
        held = before | fill(cluster, range(1, ROUNDS))
        leader = cluster.await_leader()
        cluster.until(
            lambda: (status := cluster.status(leader)) and status["purged_index"] > behind + KEYS,
            "the log to be forgotten",
        )
        cluster.restart(away)
        held |= fill(cluster, range(ROUNDS, ROUNDS + 1))
        cluster.await_whole()
        assert "receiving the snapshot" in away.log_path.read_text()
        with cluster.store(cluster.nodes.index(away)) as store:
            assert contents(store) == held
        (row,) = [row for row in cluster.status(leader)["members"] if row["node_id"] == away.node_id]  # type: ignore[index]
        assert row["progress"] != "snapshot"


def test_everybody_starts_again_from_snapshots_and_no_directory_grows_with_what_is_overwritten(
    tmp_path: Path,
) -> None:
    with RealCluster(tmp_path, **TINY) as cluster:
        held = fill(cluster, range(ROUNDS))
        cluster.kill_everything()
        cluster.restart(*cluster.nodes)
        cluster.await_whole()
        for node in cluster.nodes:
            status = cluster.until(lambda node=node: cluster.status(node), "its status")  # type: ignore[misc]
            assert status["purged_index"] > 0
        with cluster.store() as store:
            assert contents(store) == held
