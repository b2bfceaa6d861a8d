"""What replication costs, how soon it recovers, and that it stays within its windows.

The cost that matters is per message, so messages are counted. Time stands still while a cluster settles: what comes
about in `settle` needed no heartbeat and no timer.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.raft.output import Refusal
from danube_raft.wire import peer
from danube_raft.wire.entry import ENTRY_OVERHEAD_BYTES

from .cluster import Cluster, entry
from .world import voters

HEARTBEAT_MS = Config().heartbeat_ms


def led(**settings: Any) -> Cluster:
    """Node 1 of three leads term 2; entry 2 is its no-op, committed everywhere."""
    cluster = Cluster(3, **settings)
    cluster.elect(1)
    cluster.run(2 * HEARTBEAT_MS)
    cluster.take_sent()
    return cluster


def kinds(cluster: Cluster) -> dict[str, int]:
    return dict(Counter(type(message).__name__ for message in cluster.take_sent()))


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("proposals", [1, 64])
def test_messages_of_one_turn_of_proposals(proposals: int) -> None:
    """Per follower: the entries, their ack, and the commit index, which needs no answer. However many entries."""
    cluster = led()
    node = cluster.world.nodes[1]
    for seq in range(proposals):
        assert node.core.propose((1, 1, seq), b"x", 0, cluster.now) is None
    cluster.look(node)
    cluster.settle()
    assert cluster[3].commit_index == 2 + proposals
    assert kinds(cluster) == {"AppendEntries": 4, "AppendReply": 2}


def test_under_load_the_commit_index_rides_on_entries() -> None:
    """As long as there is something to send no message is sent for the commit index alone."""
    cluster = led()
    node = cluster.world.nodes[1]
    for seq in range(50):
        # The acks of the entries before arrive in the turn that takes the next proposal.
        flight, cluster.world.flight = cluster.world.flight, []
        for header, message in flight:
            cluster.world.deliver(header, message)
            if header.receiver != 1:
                cluster.look(cluster.world.nodes[header.receiver])
                cluster.sync(header.receiver)
        assert node.core.propose((1, 1, seq), b"x", 0, cluster.now) is None
        while node.disk.pending:
            node.sync()
        cluster.look(node)
    sent = [m for m in cluster.take_sent() if isinstance(m, peer.AppendEntries)]
    assert all(m.entries for m in sent)
    assert cluster[1].commit_index > 45


def test_messages_of_a_round_of_reads() -> None:
    """One heartbeat and its answer per follower, however many reads wait; the regular heartbeats go on beside."""
    cluster = led()
    node = cluster.world.nodes[1]
    for counter in range(100):
        node.core.read_index((1, 1, counter), cluster.now)
    cluster.look(node)
    cluster.settle()
    assert len(node.answers) == 100
    assert kinds(cluster) == {"Heartbeat": 2, "HeartbeatReply": 2}


def test_an_empty_message_is_answered_only_if_it_tells_where_the_logs_meet() -> None:
    """Once: a follower that has restarted learns by it that its log matches; after that it only tells the commit."""
    cluster = Cluster(3, logs={1: [1, 2, 2]})
    empty = peer.AppendEntries(3, 2, 3, 0, ())
    assert cluster.hear(1, 2, 2, empty) == [(2, peer.AppendReply(True, 3, 0, 0, True))]
    assert cluster.hear(1, 2, 2, empty) == []
    assert cluster.hear(1, 2, 2, peer.AppendEntries(4, 2, 3, 0, ())) == [
        (2, peer.AppendReply(False, 4, 3, 2, True))
    ]


def test_an_idle_cluster_only_has_heartbeats() -> None:
    """Two messages and their answers per heartbeat, and nothing else."""
    cluster = led()
    cluster.run(10 * HEARTBEAT_MS)
    assert kinds(cluster) == {"Heartbeat": 20, "HeartbeatReply": 20}


# ---------------------------------------------------------------- recovery


def test_a_new_leader_pipelines_after_one_probe_per_peer() -> None:
    """No heartbeat is needed between the first ack and a full window."""
    cluster = Cluster(3)
    cluster.elect(1)
    assert set(cluster[1].progress.values()) == {"replicate"}
    before = cluster.now
    for _ in range(20):
        cluster.propose(1)
    assert sum(isinstance(m, peer.AppendEntries) and len(m.entries) == 1 for m in cluster.take_sent()) >= 40
    cluster.settle()
    assert (cluster[3].commit_index, cluster.now) == (22, before)


@pytest.mark.parametrize("lost", ["entries", "ack", "commit", "probe"])
def test_a_lost_message_costs_one_heartbeat(lost: str) -> None:
    """Nothing was sent behind it that would have shown the gap."""
    cluster = Cluster(3)
    if lost == "probe":
        cluster.timer(1)
        for _ in range(4):
            cluster.deliver()
            for node in (1, 2, 3):
                cluster.sync(node)
        assert cluster[1].role == "leader"
        cluster.world.flight = [(h, m) for h, m in cluster.world.flight if h.receiver != 3]
    else:
        cluster.elect(1)
        cluster.run(2 * HEARTBEAT_MS)
        cluster.propose(1)
        if lost == "commit":
            cluster.deliver()
            for node in (1, 2, 3):
                cluster.sync(node)
            cluster.deliver()
        cluster.cut = {(1, 3)} if lost != "ack" else {(3, 1)}
    cluster.settle()
    cluster.cut.clear()
    cluster.run(HEARTBEAT_MS)
    last = cluster[1].last_index
    assert (cluster[3].commit_index, cluster[1].followers[3]) == (last, last)


@pytest.mark.parametrize("after_ms", [0, 10, 50, 90])
def test_an_unreachable_peer_is_back_within_two_heartbeats(after_ms: int) -> None:
    """Whenever between two heartbeats a message could not be sent."""
    cluster = led()
    cluster.run(after_ms)
    cluster.propose(1)
    cluster.world.flight = [(h, m) for h, m in cluster.world.flight if h.receiver != 3]
    cluster[1].unreachable(3, cluster.now)
    cluster.look(cluster.world.nodes[1])
    assert cluster[1].progress[3] == "probe"
    cluster.run(2 * HEARTBEAT_MS)
    assert (cluster[1].progress[3], cluster[3].commit_index) == ("replicate", 3)


def test_a_follower_that_restarts_with_what_it_had_synced_is_brought_up() -> None:
    """What it had not synced was never acknowledged; a heartbeat shows where it stands, round trips do the rest."""
    cluster = led(inflight_max_messages=4, append_max_bytes=200)
    cluster.silent = {3}
    for _ in range(30):
        cluster.propose(1)
        cluster.settle()
    cluster.silent = set()
    cluster.boot(3)
    assert cluster[3].last_index == 2
    cluster.run(2 * HEARTBEAT_MS)
    assert (cluster[3].commit_index, cluster[1].progress[3]) == (32, "replicate")


def test_a_follower_far_behind_is_streamed_from_disk_at_full_window() -> None:
    """Older than what is in memory: a chunk per answer of the own disk, not one per heartbeat or round trip."""
    cluster = led(log_cache_bytes=500, append_max_bytes=300, inflight_max_messages=8)
    cluster.isolate(3)
    for _ in range(200):
        cluster.propose(1)
        cluster.settle()
    cluster.cut.clear()
    cluster.run(HEARTBEAT_MS)
    cluster.take_sent()
    assert cluster[3].commit_index == 202, "one heartbeat found out, and then time stood still"
    cluster.isolate(3)
    for _ in range(200):
        cluster.propose(1)
        cluster.settle()
    cluster.cut = {(3, 1)}
    node = cluster.world.nodes[1]
    node.core.unreachable(3, cluster.now)
    cluster.cut.clear()
    cluster.run(HEARTBEAT_MS // 2)
    cluster.take_sent()
    cluster.hear(1, 3, 2, peer.HeartbeatReply(0, 202, 2, True))
    while node.reads:
        node.answer_read()
        cluster.look(node)
    streamed = [m for h, m in cluster.sent if h.receiver == 3 and isinstance(m, peer.AppendEntries)]
    assert [(m.prev_index, len(m.entries)) for m in streamed] == [
        (index, 4) for index in range(202, 202 + 8 * 4, 4)
    ], "eight messages left before the first ack"


# ---------------------------------------------------------------- windows


def test_a_peers_window_is_counted_in_bytes_too() -> None:
    """Two entries fill it, however many messages are allowed; an ack opens it again."""
    cluster = led(inflight_max_bytes=200)
    cluster.isolate(1)
    for _ in range(5):
        cluster.propose(1, bytes(100 - ENTRY_OVERHEAD_BYTES))
    cluster.settle()
    entries = [
        len(m.entries) for h, m in cluster.sent if h.receiver == 3 and isinstance(m, peer.AppendEntries)
    ]
    assert entries == [1, 1]
    [(_, message)] = cluster.hear(1, 3, 2, peer.AppendReply(True, 4, 0, 0, True))
    assert isinstance(message, peer.AppendEntries)
    assert len(message.entries) == 3


def test_a_follower_over_its_credit_for_writes_ignores_entries() -> None:
    """Its memory stays bounded while its disk is slow; it says nothing, and the leader repeats."""
    cluster = Cluster(3, unacked_write_max_bytes=200)
    cluster.silent = {1}
    four = tuple(entry(index, 2) for index in range(2, 6))
    cluster.hear(1, 2, 2, peer.AppendEntries(1, 1, 1, 0, four))
    more = peer.AppendEntries(5, 2, 1, 0, (entry(6, 2),))
    assert cluster.hear(1, 2, 2, more) == []
    assert (cluster[1].last_index, cluster[1].leader_id) == (5, 2)
    cluster.silent = set()
    cluster.sync(1)
    assert cluster.hear(1, 2, 2, more) == [(2, peer.AppendReply(True, 6, 0, 0, True))]


def test_a_suspect_peer_counts_for_nothing() -> None:
    """Not for commit, also with what it had acknowledged before; not for reads; not for check-quorum."""
    cluster = led()
    cluster.isolate(1)
    cluster.silent = {1}
    cluster.propose(1)
    cluster.read(1, 1)
    cluster.hear(1, 2, 2, peer.AppendReply(True, 3, 0, 0, True))
    cluster.hear(1, 2, 2, peer.HeartbeatReply(1, 2, 2, False))
    cluster.hear(1, 3, 2, peer.AppendReply(True, 3, 0, 0, True))
    assert (cluster[1].commit_index, cluster.answer(1, 1)) == (2, None), "node 3 and a silent disk"
    cluster.silent = set()
    cluster.sync(1)
    assert cluster[1].commit_index == 3, "node 3 and the leader"
    began = cluster.now
    while cluster[1].role == "leader":
        cluster.hear(1, 2, 2, peer.HeartbeatReply(1, 2, 2, False))
        cluster.run(HEARTBEAT_MS)
        assert cluster.now - began <= Config().election_max_ms + 2 * HEARTBEAT_MS
    assert cluster.answer(1, 1) == -1


@pytest.mark.parametrize("idle", [True, False])
def test_a_member_that_lost_what_it_acknowledged_without_noticing_is_sent_it_again(idle: bool) -> None:
    """Its disk lied, or all that a mark is too young to vouch for is gone: in the same term, and not SUSPECT. No storm of
    probes, it does not count for what it has not, and the next failure costs nothing."""
    cluster = led()
    for _ in range(6):
        cluster.propose(1)
    cluster.settle()
    node = cluster.world.nodes[2]
    assert node.disk.last_index == cluster[1].commit_index == 8
    cluster.down = {2}
    node.disk.log = {index: entry for index, entry in node.disk.log.items() if index <= 5}
    assert node.disk.hard_state.term == cluster[1].term
    if not idle:
        cluster[1].unreachable(2, cluster.now)
        cluster.propose(1)
    cluster.boot(2)
    cluster.take_sent()
    cluster.run(3 * HEARTBEAT_MS)
    assert kinds(cluster)["AppendEntries"] <= 8
    assert node.forgot == []
    assert cluster.world.nodes[1].forgot == [(2, 8)]
    assert cluster[2].last_index == node.disk.last_index == cluster[1].last_index
    assert cluster[1].followers[2] == cluster[1].last_index
    cluster.down = {3}
    cluster.propose(1)
    cluster.settle()
    assert cluster[1].commit_index == cluster[1].last_index, "with node 2"


def test_a_member_that_lost_what_it_acknowledged_does_not_count_for_it() -> None:
    cluster = led()
    cluster.silent = {1, 3}
    cluster.propose(1)
    cluster.settle()
    assert cluster[1].followers == {2: 3, 3: 2}
    assert cluster.hear(1, 2, 2, peer.AppendReply(False, 3, 2, 2, True)) != []
    assert cluster[1].followers[2] == 0
    cluster.silent = {3}
    cluster.sync(1)
    assert cluster[1].commit_index == 2, "the leader alone has it"
    cluster.run(2 * HEARTBEAT_MS)
    assert cluster[1].commit_index == 3


def test_a_new_leader_counts_the_uncommitted_tail_that_it_inherits() -> None:
    """Else each change of leader would allow another full window of entries that nobody can commit (PITFALLS 23)."""
    cluster = led(uncommitted_max_bytes=1_000)
    cluster.silent = {2, 3}
    payload = bytes(300 - ENTRY_OVERHEAD_BYTES)
    for _ in range(3):
        cluster.propose(1, payload)
    cluster.settle()
    assert cluster[1].propose((1, 1, 9), payload, 0, cluster.now) == Refusal("overloaded", 0)
    assert cluster[2].last_index == 5
    cluster.down = {1}
    cluster.world.now += 2_000
    cluster.silent = set()
    cluster.timer(2)
    for _ in range(6):
        cluster.deliver()
        cluster.sync(2)
        cluster.sync(3)
        if cluster[2].role == "leader":
            break
    assert (cluster[2].role, cluster[2].commit_index) == ("leader", 2)
    assert cluster[2].propose((2, 1, 1), payload, 0, cluster.now) == Refusal("overloaded", 0)
    cluster.settle()
    assert cluster[2].commit_index == 6
    cluster.propose(2, payload)


def test_what_is_cut_off_or_committed_is_uncommitted_no_more() -> None:
    """The count of a follower follows its log."""
    cluster = Cluster(3)
    count = cluster[1]._state.uncommitted
    cluster.hear(1, 2, 2, peer.AppendEntries(1, 1, 1, 0, (entry(2, 2, b"12"), entry(3, 2, b"3"))))
    assert count.size_bytes == 3 + 2 * ENTRY_OVERHEAD_BYTES
    cluster.hear(1, 3, 3, peer.AppendEntries(2, 2, 1, 0, (entry(3, 3, b"1234"),)))
    assert count.size_bytes == 6 + 2 * ENTRY_OVERHEAD_BYTES
    cluster.hear(1, 3, 3, peer.Heartbeat(0, 3, 0))
    assert count.size_bytes == 0


def test_a_peer_that_needs_a_snapshot_is_shown_and_left_alone() -> None:
    """Nothing can be sent yet: heartbeats go on, no message of its crashes the leader, and the others commit."""
    cluster = Cluster(3, logs={1: [1, 1, 1, 1], 2: [1, 1, 1, 1], 3: [1]})
    node = cluster.world.nodes[1]
    node.disk.purged = (3, 1)
    node.disk.snapshot_configuration = ((1, node.disk.log[1].payload),)
    for index in (1, 2, 3):
        del node.disk.log[index]
    cluster.boot(1)
    cluster.elect(1)
    assert cluster[1].progress == {2: "replicate", 3: "snapshot"}
    cluster.take_sent()
    for _ in range(5):
        cluster.propose(1)
        cluster.read(1, cluster.now)
        cluster[1].unreachable(3, cluster.now)
        cluster.hear(1, 3, 2, peer.AppendReply(False, 4, 1, 1, True))
        cluster.run(HEARTBEAT_MS)
    sent = [m for h, m in cluster.sent if h.receiver == 3]
    assert any(isinstance(m, peer.Heartbeat) for m in sent)
    assert not any(isinstance(m, peer.AppendEntries) for m in sent)
    assert (cluster[1].role, cluster[2].commit_index) == ("leader", cluster[1].last_index)
    # It got the state in another way: it is probed and replicated to again.
    cluster.hear(1, 3, 2, peer.HeartbeatReply(0, 3, 1, True))
    assert cluster[1].progress[3] != "snapshot"


# ---------------------------------------------------------------- time


def test_followers_hear_the_leaders_time_and_a_new_leader_goes_on_from_there() -> None:
    """It comes with heartbeats and with entries, never goes back, and stands still while nobody leads."""
    cluster = led()
    cluster.run(5_000)
    heard = cluster[2].cluster_time(cluster.now)
    assert heard > 5_000 - HEARTBEAT_MS
    cluster.propose(1)
    cluster.settle()
    stamp = cluster.world.nodes[2].handed[-1].stamp_ms
    assert stamp == cluster[1].cluster_time(cluster.now) == cluster[2].cluster_time(cluster.now)
    cluster.down = {1}
    cluster.world.now += 10_000
    assert cluster[2].cluster_time(cluster.now) == stamp
    cluster.elect(2)
    assert stamp <= cluster.world.nodes[2].handed[-1].stamp_ms <= stamp + 100
    began = cluster[2].cluster_time(cluster.now)
    cluster.run(1_000)
    assert cluster[2].cluster_time(cluster.now) == began + 1_000


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "after a power cut"])
@pytest.mark.parametrize("size", [3, 5])
def test_nodes_that_start_at_once_soon_have_a_leader(size: int, fresh: bool) -> None:
    """etcd#15784: whatever they draw, one election timeout and a few retries are enough."""
    config = Config()
    nodes = range(1, size + 1)
    for seed in range(100):
        cluster = Cluster(
            logs={node: [] if fresh else [1, 4] for node in nodes},
            configuration=voters(nodes),
            source=lambda node, seed=seed: random.Random(100 * seed + node),  # type: ignore[misc]
        )
        for node in nodes if fresh else ():
            cluster[node].bootstrap(voters(nodes), 0, 0)
            cluster.look(cluster.world.nodes[node])
        limit = 1_000 if fresh else config.election_max_ms + 1_000
        while not any(cluster[node].role == "leader" for node in nodes):
            cluster.run(10)
            assert cluster.now < limit, seed
        cluster.run(2_000)
        assert len(cluster.leaders) == 1, "and keep it"
