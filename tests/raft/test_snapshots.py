"""Logs that begin behind a snapshot: what a node forgets, what it takes instead of entries, and what a crash leaves.

Random runs of the same are in test_chaos.py.
"""

from __future__ import annotations

import pytest

from danube_raft.raft.delivery import Delivery
from danube_raft.raft.log import Log
from danube_raft.wire import local, peer
from danube_raft.wire.entry import HardState

from .cluster import Cluster, entry
from .world import Install, Node, Snapshot

HEARTBEAT_MS = 100


def led(size: int = 3, batches: int = 4) -> Cluster:
    """Node 1 leads; entries 1 (configuration) to 2 + `batches` are committed and applied everywhere."""
    cluster = Cluster(size)
    cluster.elect(1)
    for _ in range(batches):
        cluster.propose(1)
    cluster.run(2 * HEARTBEAT_MS)
    return cluster


def lagging() -> Cluster:
    """As `led`, but node 3 was away meanwhile and the leader has purged what it lacks."""
    cluster = led()
    cluster.isolate(3)
    for _ in range(5):
        cluster.propose(1)
    cluster.run(2 * HEARTBEAT_MS)
    leader = cluster.world.nodes[1]
    leader.disk.snapshots.append(leader.point(cluster[1].applied_index))
    leader.purge(cluster[1].applied_index)
    cluster.cut.clear()
    cluster.run(5 * HEARTBEAT_MS)
    return cluster


def newest(node: Node) -> Snapshot:
    return node.disk.snapshots[-1]


# ---------------------------------------------------------------- the log


def log(*terms: int) -> Log:
    runs: list[tuple[int, int]] = []
    for index, term in enumerate(terms, 1):
        if not runs or runs[-1][1] != term:
            runs.append((index, term))
    recovered = local.Recovered(HardState(9, 0), 0, 0, len(terms), 0, tuple(runs), (), "", 1)
    return Log(recovered, 1_000)


@pytest.mark.parametrize("upto", range(7))
def test_terms_behind_the_purged_index_stay_known(upto: int) -> None:
    terms = (1, 1, 2, 2, 4, 4)
    purged = log(*terms)
    purged.purge(upto)
    assert [purged.term(index) for index in range(max(upto, 1), 7)] == list(terms[max(upto, 1) - 1 :])
    assert purged.purged_index == upto
    assert purged.last_term == 4
    assert not any(purged.matches(index, terms[index - 1]) for index in range(1, upto))


def test_payloads_in_memory_are_purged_with_the_log() -> None:
    filled = log(1)
    for index in range(2, 8):
        filled.append(entry(index, 1, b"x" * 50))
    filled.purge(4)
    assert [filled.get(index) is None for index in range(1, 8)] == [True] * 4 + [False] * 3
    assert [each.index for each in filled.slice(5, 10_000)] == [5, 6, 7]
    filled.evict(7)
    filled.purge(7)
    filled.append(entry(8, 1))
    assert filled.get(8) is not None


def test_a_log_that_is_reset_has_nothing_but_its_beginning() -> None:
    old = log(1, 1, 2)
    old.append(entry(4, 2, b"x"))
    old.reset(9, 5)
    assert (old.purged_index, old.last_index, old.last_term, old.term(9)) == (9, 9, 5, 5)
    old.append(entry(10, 5))
    assert [each.index for each in old.slice(10, 1_000)] == [10]


def test_what_was_handed_over_and_lies_in_the_loaded_snapshot_counts_as_applied() -> None:
    """Found by seed 300243: entries were handed over before the snapshot that holds them was loaded. The state machine
    leaves them out and says nothing of them, so their credit never came back, and nothing more was handed over."""
    filled = log(1)
    for index in range(2, 6):
        filled.append(entry(index, 1, b"x" * 50))
    delivery = Delivery(1, 100, 1_000)
    assert [each.index for each in delivery.take(5, filled)] == [2]
    delivery.jump(2)
    assert delivery.applied_index == 2
    assert [each.index for each in delivery.take(5, filled)] == [3]


# ---------------------------------------------------------------- a leader that has purged


def test_a_follower_that_lags_behind_the_purged_log_needs_a_snapshot() -> None:
    cluster = lagging()
    assert cluster[1].progress == {2: "replicate", 3: "snapshot"}
    assert cluster[3].last_index < cluster[1].snapshot_index


def test_only_what_is_applied_is_purged() -> None:
    cluster = led()
    cluster.silent = {2, 3}
    cluster.propose(1)
    with pytest.raises(AssertionError, match="only what is applied"):
        cluster[1].purge(cluster[1].last_index, cluster.now)


def test_a_follower_within_the_window_that_is_overtaken_by_the_purge_needs_a_snapshot() -> None:
    """PITFALLS 15: what it needs is gone while entries are on the way to it."""
    cluster = led()
    cluster.isolate(3)
    cluster.propose(1)
    cluster.settle()
    assert cluster[1].progress[3] == "replicate"
    for _ in range(3):
        cluster.propose(1)
        cluster.settle()
    leader = cluster.world.nodes[1]
    leader.purge(cluster[1].applied_index)
    cluster.hear(1, 3, cluster[1].term, peer.HeartbeatReply(0, 0, 0, True))
    cluster.hear(1, 3, cluster[1].term, peer.AppendReply(False, cluster[1].last_index, 3, 1, True))
    cluster.run(5 * HEARTBEAT_MS)
    assert cluster[1].role == "leader"


# ---------------------------------------------------------------- a follower that installs


def test_an_installed_snapshot_stands_for_the_log_before_it() -> None:
    cluster = lagging()
    snapshot, node = newest(cluster.world.nodes[1]), cluster.world.nodes[3]
    assert node.install(snapshot)
    assert cluster[3].installing
    cluster.settle()
    assert not cluster[3].installing
    assert cluster[3].applied_index >= snapshot.index
    cluster.propose(1)
    cluster.run(3 * HEARTBEAT_MS)
    assert cluster[1].progress[3] == "replicate"
    assert cluster[3].commit_index == cluster[1].commit_index == cluster[3].applied_index
    assert cluster[3].configuration == cluster[1].configuration
    assert node.handed[0].index == snapshot.index + 1


def test_nothing_is_appended_and_nobody_campaigns_while_a_snapshot_is_being_installed() -> None:
    cluster = lagging()
    node = cluster.world.nodes[3]
    cluster.silent = {3}
    assert node.install(newest(cluster.world.nodes[1]))
    before = cluster[3].last_index
    prev, term = before, cluster[3]._state.log.last_term
    append = peer.AppendEntries(prev, term, 0, 0, (entry(prev + 1, cluster[3].term),))
    assert cluster.hear(3, 1, cluster[3].term, append) == []
    assert cluster[3].last_index == before
    cluster.isolate(3)
    cluster.run(10_000)
    assert (cluster[3].role, cluster[3].term) == ("follower", cluster[1].term)
    cluster.silent.clear()
    cluster.cut.clear()
    cluster.run(1_000)
    assert cluster[3].commit_index == cluster[1].commit_index


def test_a_node_whose_leader_died_during_the_installation_campaigns_after_it() -> None:
    """Its election timer ran out when it might not: nobody else need be there to begin."""
    cluster = lagging()
    node = cluster.world.nodes[3]
    cluster.silent = {3}
    assert node.install(newest(cluster.world.nodes[1]))
    cluster.isolate(3)
    cluster.run(10_000)
    assert cluster[3].next_timer() is None
    cluster.silent.clear()
    cluster.run(3_000)
    assert cluster[3].role == "pre-candidate"


def test_a_snapshot_of_what_is_committed_already_is_of_no_use() -> None:
    """PITFALLS 26: an old one must not take a newer state back."""
    cluster = lagging()
    snapshot, node = newest(cluster.world.nodes[1]), cluster.world.nodes[3]
    assert node.install(snapshot)
    assert not node.install(snapshot), "one at a time"
    cluster.run(1_000)
    assert not node.install(snapshot)
    assert not cluster.world.nodes[1].install(snapshot), "a leader takes none"


@pytest.mark.parametrize("matches", [True, False])
def test_what_the_log_has_behind_a_snapshot_stays_only_if_it_goes_on_from_it(matches: bool) -> None:
    """PITFALLS 27."""
    cluster = Cluster(3, logs={1: [1, 1, 1, 1, 1], 2: [1], 3: [1]})
    node = cluster.world.nodes[1]
    point = node.point(3)._replace(term=1 if matches else 2)
    cluster.hear(1, 2, 2, peer.Heartbeat(0, 0, 0))
    assert node.install(point)
    cluster.sync(1)
    assert (cluster[1].snapshot_index, cluster[1].last_index) == ((3, 5) if matches else (3, 3))
    assert sorted(node.disk.log) == ([4, 5] if matches else [])
    assert (cluster[1].durable_index, cluster[1].commit_index) == (cluster[1].last_index, 3)


def test_a_node_that_had_nothing_gets_its_configuration_with_the_snapshot() -> None:
    cluster = Cluster(3, logs={1: [1, 1, 1], 2: [1], 3: []})
    node = cluster.world.nodes[3]
    assert cluster[3].configuration.voters == ()
    cluster.hear(3, 1, 1, peer.Heartbeat(0, 0, 0))
    assert node.install(cluster.world.nodes[1].point(3))
    cluster.sync(3)
    assert cluster[3].configuration == cluster[1].configuration
    cluster.boot(3)
    assert cluster[3].configuration == cluster[1].configuration


def test_a_log_that_is_reset_has_nothing_uncommitted() -> None:
    """PITFALLS 23: what was dropped must not take the room of what is to come."""
    cluster = Cluster(3, logs={1: [1], 2: [1], 3: [1]})
    node = cluster.world.nodes[1]
    tail = tuple(entry(index, 2, b"x" * 500) for index in (2, 3, 4))
    cluster.hear(1, 2, 2, peer.AppendEntries(1, 1, 0, 0, tail))
    cluster.hear(1, 3, 3, peer.Heartbeat(0, 0, 0))
    assert cluster[1]._state.uncommitted.size_bytes > 1_500
    assert node.install(Snapshot(3, 3, node.point(1).configuration, 0))
    cluster.sync(1)
    assert cluster[1]._state.uncommitted.size_bytes == 0


def test_a_vote_during_the_installation_is_no_obstacle() -> None:
    cluster = Cluster(3, logs={1: [1, 1, 1], 2: [1], 3: [1]})
    node = cluster.world.nodes[1]
    cluster.silent = {1}
    cluster.hear(1, 2, 2, peer.Heartbeat(0, 0, 0))
    assert node.install(Snapshot(9, 2, node.point(1).configuration, 50))
    node.core.step(peer.Header(77, 3, 1, 3, 1), peer.RequestVote(9, 2, True), cluster.now)
    cluster.look(node)
    cluster.silent.clear()
    cluster.sync(1)
    assert (cluster[1].last_index, cluster[1].durable_index, cluster[1].vote) == (9, 9, 3)
    assert cluster[1].cluster_time(cluster.now) >= 50, "cluster time never goes back"


# ---------------------------------------------------------------- crashes and restarts


@pytest.mark.parametrize("synced", [False, True])
def test_a_crash_during_the_installation_is_the_old_state_or_the_new_one(synced: bool) -> None:
    """INTERNALS §9: before the log-writer is done the old one, after it the new one."""
    cluster = lagging()
    snapshot, node = newest(cluster.world.nodes[1]), cluster.world.nodes[3]
    cluster.silent = {3}
    before = cluster[3].last_index
    assert node.install(snapshot)
    if synced:
        while node.disk.pending:
            node.disk.sync()
    cluster.silent.clear()
    cluster.boot(3)
    assert cluster[3].last_index == (snapshot.index if synced else before)
    assert cluster[3].applied_index == (snapshot.index if synced else 0)
    cluster.run(1_000)
    node.install(snapshot)
    cluster.run(1_000)
    assert cluster[3].commit_index == cluster[1].commit_index


def test_a_snapshot_that_a_crash_kept_from_being_installed_is_not_loaded() -> None:
    """The log may hold other entries there, which are not committed: the state would not be theirs."""
    cluster = Cluster(3, logs={1: [1, 1, 2, 2, 2], 2: [1], 3: [1]})
    node = cluster.world.nodes[1]
    node.disk.snapshots.append(node.point(4)._replace(term=3))
    cluster.boot(1)
    assert cluster[1].applied_index == 0
    assert not cluster[1].has(4, 3)
    assert cluster[1].has(4, 2)
    assert not cluster[1].has(6, 2)


def test_a_restart_goes_on_behind_its_snapshot() -> None:
    cluster = led()
    node = cluster.world.nodes[2]
    index = cluster[2].applied_index
    node.disk.snapshots.append(node.point(index))
    node.purge(index - 2)
    cluster.boot(2)
    assert (cluster[2].snapshot_index, cluster[2].applied_index) == (index - 2, index)
    cluster.propose(1)
    cluster.run(3 * HEARTBEAT_MS)
    assert [each.index for each in node.handed] == [index + 1]


def test_a_gap_between_snapshot_and_log_is_refused() -> None:
    """PITFALLS 28."""
    cluster = led()
    node = cluster.world.nodes[2]
    index = cluster[2].applied_index
    node.disk.snapshots.append(node.point(index))
    node.purge(index)
    node.start()
    with pytest.raises(AssertionError, match="a gap behind the snapshot"):
        node.core.loaded(index - 1, cluster.now)


def test_an_installation_is_a_write_in_its_order() -> None:
    cluster = lagging()
    node = cluster.world.nodes[3]
    cluster.silent = {3}
    cluster.hear(3, 2, cluster[3].term + 1, peer.Heartbeat(0, 0, 0))
    assert node.install(newest(cluster.world.nodes[1]))
    first, second = node.disk.pending
    assert isinstance(first, local.Write)
    assert isinstance(second, Install)
    assert second.seq == first.seq + 1
