"""More that is done to a real cluster under load: each process stopped for half a minute, and disks that answer EIO.

These take long or need strace, so only `scripts/chaos` runs them. There is none for the disk of consensus: it has no
file (tests/process/test_bad_disk.py).
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable

from cluster_cases import SLOW_NEXT_WRITE_MAX_S, Case, Chosen, Undo, await_restart
from failing_disk import failing_sync, why_not
from real_cluster import PROCESSES, ClusterNode, RealCluster
from real_node import WAIT_S, runs

from danube_raft.config import Config

STOPPED_S = 30.0
STUCK_S = {
    "log-writer": Config().log_stuck_ms / 1_000,
    "consensus": Config().consensus_stuck_ms / 1_000,
    "kv-server": Config().kv_stuck_ms / 1_000,
}
DISK_STABLE_S = Config().disk_stable_ms / 1_000
CLOSE_S = 15.0
"""As close to `DISK_STABLE_S` nobody can say whether a node may start again."""
SNAPSHOTS_ALL_THE_TIME = (("snapshot_log_bytes", 20_000), ("snapshot_rest_max_ms", 1_000))
SNAPSHOT_WAIT_S = 60
"""The process that writes them steps back for all others (nice 10)."""


def stop_role(chosen: Chosen, role: str) -> Callable[[RealCluster], Undo]:
    """The node's watchdog must end it, and start all three again, long before anybody would let it go on."""

    def strike(cluster: RealCluster) -> Undo:
        node = chosen(cluster)
        before, stopped = node.child("consensus"), node.child(role)
        assert stopped is not None
        node.signal(signal.SIGSTOP, role)

        def over() -> None:
            assert not runs(stopped), (
                f"{role} of {node.name} was stopped for {STOPPED_S} s, and is still there"
            )
            said = rf"{role} \(pid {stopped.pid}\) made no progress for \d+ ms; restarting all three"
            assert node.logged(said) == 1, f"{node.name} never said that its {role} was stuck"
            await_restart(cluster, node, before)

        assert STUCK_S[role] < STOPPED_S
        return over

    return strike


def stop_supervisor(chosen: Chosen) -> Callable[[RealCluster], Undo]:
    """Its children go on without it; what it did not hear meanwhile is no reason to end them."""

    def strike(cluster: RealCluster) -> Undo:
        node = chosen(cluster)
        assert node.process is not None
        children = [node.child(role) for role in PROCESSES]
        node.process.send_signal(signal.SIGSTOP)

        def go_on() -> None:
            assert node.process is not None
            node.process.send_signal(signal.SIGCONT)
            cluster.until(lambda: cluster.status(node), f"{node.name} to answer")
            assert [node.child(role) for role in PROCESSES] == children

        return go_on

    return strike


def fail_log(chosen: Chosen) -> Callable[[RealCluster], Undo]:
    """The log-writer's syncs fail, until it has ended of it. The node starts again by itself; if that was so shortly
    before already, it stays down, and the test starts it as an operator would who has looked after the disk."""

    def strike(cluster: RealCluster) -> Undo:
        assert not why_not(), why_not()
        node = chosen(cluster)
        process, before, writer = node.process, node.child("consensus"), node.child("log-writer")
        assert process is not None
        assert writer is not None
        with failing_sync(node):
            cluster.until(lambda: not runs(writer), f"the log-writer of {node.name} to end")
        failed_at, node.disk_failed_at = node.disk_failed_at, time.monotonic()
        age_s = math.inf if failed_at is None else node.disk_failed_at - failed_at

        def over() -> None:
            if age_s < DISK_STABLE_S - CLOSE_S:
                assert process.wait(WAIT_S) == 12
            elif age_s > DISK_STABLE_S + CLOSE_S:
                await_restart(cluster, node, before)
            if process.poll() is not None:
                assert "so the node stays down" in node.log_path.read_text().splitlines()[-1]
                cluster.restart(node)
                cluster.started_by_hand += 1

        return over

    return strike


def fail_snapshots(chosen: Chosen) -> Callable[[RealCluster], Undo]:
    """What the kv-server's child cannot sync is no snapshot. It costs nothing else, and later ones are made."""

    def strike(cluster: RealCluster) -> Undo:
        assert not why_not(), why_not()
        node = chosen(cluster)
        children = [node.child(role) for role in PROCESSES]
        failures = node.logged(FAILED_SNAPSHOT)
        disk = contextlib.ExitStack()
        disk.enter_context(failing_sync(node, role="kv-server"))

        def over() -> None:
            with disk:
                ask_for_snapshot(node)
                cluster.until(
                    lambda: node.logged(FAILED_SNAPSHOT) > failures,
                    f"a snapshot of {node.name} to fail",
                    SNAPSHOT_WAIT_S,
                )
            newest = snapshot_index(cluster, node)
            ask_for_snapshot(node)
            cluster.until(
                lambda: snapshot_index(cluster, node) > newest,
                f"{node.name} to make a snapshot again",
                SNAPSHOT_WAIT_S,
            )
            assert [node.child(role) for role in PROCESSES] == children

        return over

    return strike


FAILED_SNAPSHOT = r"no snapshot of index \d+: .*nput/output error"


def ask_for_snapshot(node: ClusterNode) -> None:
    """Without waiting for it. By itself one is due when the log has grown by the size of the last, and with every event of
    all rounds in it each round would take longer than the one before."""
    with node.store() as store:
        store.snapshot_take()


def snapshot_index(cluster: RealCluster, node: ClusterNode) -> int:
    """Of its newest one."""
    status = cluster.until(lambda: cluster.status(node), f"{node.name} to answer")
    return int(status["snapshot_index"])


LEADER, FOLLOWER = RealCluster.await_leader, RealCluster.follower

LASTING_CASES: dict[str, Case] = {
    **{
        f"leader-{role}-stopped": Case(
            stop_role(LEADER, role),
            STOPPED_S,
            # The leader has to notice that its disk is silent, or its clients that their node is.
            next_write_max_s=SLOW_NEXT_WRITE_MAX_S,
            round_s=90,
        )
        for role in PROCESSES
    },
    **{
        f"follower-{role}-stopped": Case(stop_role(FOLLOWER, role), STOPPED_S, new_term=None, round_s=90)
        for role in PROCESSES
    },
    "leader-supervisor-stopped": Case(stop_supervisor(LEADER), STOPPED_S, new_term=False, round_s=90),
    # Until strace has taken hold the disk is whole, so that counts in.
    "leader-log-eio": Case(fail_log(LEADER), next_write_max_s=SLOW_NEXT_WRITE_MAX_S, round_s=60),
    "follower-log-eio": Case(fail_log(FOLLOWER), new_term=None, round_s=60),
    "leader-snapshot-eio": Case(
        fail_snapshots(LEADER), new_term=False, settings=SNAPSHOTS_ALL_THE_TIME, round_s=60
    ),
    "follower-snapshot-eio": Case(
        fail_snapshots(FOLLOWER), new_term=False, settings=SNAPSHOTS_ALL_THE_TIME, round_s=60
    ),
}
