"""A real node whose disk has lost what it promised: it says so, serves nobody, and comes back by its cluster or by decision.

RocksDB opens each of these logs without a complaint, as if it had never held more.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from real_cluster import ClusterNode, RealCluster
from real_node import RealNode, free_ports, until

from danube_raft import MetadataStore
from danube_raft.errors import DanubeRaftError
from danube_raft.storage.durable_mark import NAME, MarkFile
from danube_raft.storage.mark_keeper import newest

pytestmark = pytest.mark.process

STATUS_MS = 1_000


def wal(data_dir: Path) -> list[Path]:
    found = [path for path in (data_dir / "log").glob("*.log") if path.stat().st_size]
    assert found, "a log that was killed has a WAL"
    return found


def truncate_wal(data_dir: Path) -> None:
    for path in wal(data_dir):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)


def delete_wal(data_dir: Path) -> None:
    for path in wal(data_dir):
        path.unlink()


def zero_wal(data_dir: Path) -> None:
    for path in wal(data_dir):
        path.write_bytes(bytes(path.stat().st_size))


def delete_log(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "log")


def zero_mark(data_dir: Path) -> None:
    (data_dir / NAME).write_bytes(bytes((data_dir / NAME).stat().st_size))


def delete_mark(data_dir: Path) -> None:
    (data_dir / NAME).unlink()


def status(endpoint: str) -> dict[str, Any] | None:
    try:
        with MetadataStore(endpoint, timeout_ms=STATUS_MS) as store:
            found = store.status()
            return found if found["role"] != "starting" else None
    except DanubeRaftError:
        return None


def asked(port: int, path: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def marked(data_dir: Path) -> int:
    """The index that the mark vouches for."""
    slots = MarkFile(data_dir / NAME).read()
    known = None if slots is None else newest(slots)
    return -1 if known is None else known[2].point.index


def fill(node: RealNode, count: int = 30) -> None:
    """Acknowledged writes, and a mark that has followed them."""
    with node.store() as store:
        for number in range(count):
            store.put(f"/k/{number}", number)
        index = store.status()["durable_index"]
    until(lambda: marked(node.data_dir) >= index, "the mark to follow")


def accept(node: RealNode, *arguments: str, typed: str = "") -> tuple[int, str]:
    done = subprocess.run(
        node.command("node", "accept-loss", "--data-dir", str(node.data_dir), *arguments),
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=node.environment,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def end(node: RealNode) -> None:
    node.kill_all()
    assert node.process is not None
    assert node.process.stdout is not None
    node.process.stdout.close()


@pytest.mark.parametrize(
    ("damage", "why", "kept"),
    [
        (truncate_wal, "the log ends with entry", None),
        (delete_wal, "the log is gone", 0),
        (zero_wal, "the log is gone", 0),
        (delete_log, "the log is gone", 0),
        (zero_mark, "both copies of the durable mark are damaged", 30),
        (delete_mark, "the durable mark is missing", 30),
    ],
)
def test_a_sole_voter_says_why_it_does_not_lead_until_the_loss_is_accepted(
    tmp_path: Path, damage: Callable[[Path], None], why: str, kept: int | None
) -> None:
    (port,) = free_ports(1)
    with RealNode(tmp_path / "data", health_listen=f"127.0.0.1:{port}") as node:
        fill(node)
        node_id = (status(node.endpoint) or {})["node_id"]
        end(node)
        damage(node.data_dir)
        node.spawn()
        found = until(lambda: status(node.endpoint), "the status of a node without a leader")
        assert why in found["suspect"]
        assert "node accept-loss" in found["suspect"]
        assert (found["role"], found["leader_id"]) == ("follower", 0)
        assert node.logged("SUSPECT: .*node accept-loss")
        until(lambda: "SUSPECT" in asked(port, "/ready"), "/ready to say so")
        assert "danube_raft_suspect 1.0" in asked(port, "/metrics")
        assert accept(node, "--yes-i-accept-the-loss", str(node_id))[0] == 10, "it runs"
        end(node)
        code, said = accept(node, typed="77\n")
        assert code == 2
        assert why in said
        assert "nothing was changed" in said
        assert accept(node, "--yes-i-accept-the-loss", str(node_id))[0] == 0
        assert "nothing to accept" in accept(node)[1]
        node.start()
        assert (status(node.endpoint) or {})["suspect"] == ""
        with node.store() as store:
            keys = len(store.keys("/k/"))
            assert keys == kept or (kept is None and 0 < keys < 30)
            store.put("/again", 1)


def test_a_log_from_before_there_were_marks_needs_one_decision(tmp_path: Path) -> None:
    """And the typed answer counts."""
    with RealNode(tmp_path / "data") as node:
        fill(node)
        node_id = (status(node.endpoint) or {})["node_id"]
        node.stop()
        assert node.process is not None
        assert node.process.stdout is not None
        node.process.stdout.close()
        assert "nothing to accept" in accept(node)[1]
        delete_mark(node.data_dir)
        assert accept(node, typed=f"{node_id}\n")[0] == 0
        assert marked(node.data_dir) > 30
        node.start()


def test_there_is_nothing_to_accept_where_no_node_was(tmp_path: Path) -> None:
    node = RealNode(tmp_path / "data")
    assert accept(node)[0] == 2
    assert not node.data_dir.exists()


@pytest.mark.parametrize("damage", [delete_wal, delete_log, zero_mark])
def test_a_member_comes_back_by_the_others(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with RealCluster(tmp_path) as cluster:
        cluster.await_leader()
        victim: ClusterNode = cluster.follower()
        fill(victim)
        victim.kill_all()
        victim.forget_output()
        damage(victim.data_dir)
        cluster.restart(victim)
        assert victim.logged("SUSPECT: ")
        cluster.until(lambda: victim.logged("SUSPECT no more"), "the end of SUSPECT")
        cluster.await_whole()
        assert (cluster.status(victim) or {})["suspect"] == ""
        with victim.store() as store:
            assert {record.key: record.value for record in store.get_prefix("/k/", consistency="stale")} == {
                f"/k/{number}": number for number in range(30)
            }
            assert [row["suspect"] for row in store.members() if row["node_id"] == victim.node_id] == [False]
        before = victim.logged("SUSPECT: ")
        victim.kill_all()
        victim.forget_output()
        cluster.restart(victim)
        assert victim.logged("SUSPECT: ") == before, "it is over, also after the next start"


@pytest.mark.parametrize("written", [2, 60], ids=["shorter", "longer"])
def test_who_comes_back_whole_to_others_that_went_on_without_it_stops_and_follows_when_told_to(
    tmp_path: Path, written: int
) -> None:
    """It holds 30 entries, committed, which the others have lost and given up. Their log may end before those or behind."""
    with RealCluster(tmp_path, snapshot_tail_entries=0) as cluster:
        cluster.await_leader()
        for node in cluster.nodes:
            node.kill_all()
        whole, *others = cluster.nodes
        for node in others:
            shutil.copytree(node.data_dir / "log", tmp_path / "old" / node.name)
        for node in cluster.nodes:
            cluster.restart(node) if node is cluster.nodes[-1] else node.spawn()
        cluster.await_whole()
        fill(others[0])
        fill(whole)
        with whole.store() as store:
            # What its log has purged, up to the older of two, it knows to be committed from its first moment on.
            known = store.snapshot_take()[0]
            until(lambda: store.status()["snapshot_index"] >= known, "a snapshot")
            store.put("/k/0", 0)
            store.snapshot_take()
            until(lambda: store.status()["purged_index"] >= known, "the log to be purged")
        for node in cluster.nodes:
            node.kill_all()
        for node in others:
            delete_log(node.data_dir)
            shutil.copytree(tmp_path / "old" / node.name, node.data_dir / "log")
            code, said = accept(node, "--yes-i-accept-the-loss", str(node.node_id))
            assert code == 0, said
            node.spawn()
        for node in others:
            node.await_ready()
        with others[0].store() as store:
            for number in range(written):
                store.put(f"/new/{number}", number)
        assert whole.spawn().wait(30) == 11
        assert whole.logged(
            "is committed here, of term .* nothing was changed here. To have this node follow them"
        )
        assert all((cluster.status(node) or {})["leader_id"] for node in others), "they go on"
        for name in ("log", "snapshots"):
            shutil.move(whole.data_dir / name, tmp_path / "kept" / name)
        cluster.restart(whole)
        cluster.until(lambda: whole.logged("SUSPECT no more"), "the end of SUSPECT")
        cluster.await_whole()
        with whole.store() as store:
            keys = {record.key for record in store.get_prefix("/", consistency="stale")}
        assert keys == {f"/new/{number}" for number in range(written)}
