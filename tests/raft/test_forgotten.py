"""What a disk has forgotten beyond what anybody can put right: no node mixes two histories, and none believes too early that
it has everything again."""

from __future__ import annotations

import pytest

from danube_raft.errors import Corrupt
from danube_raft.wire import peer
from danube_raft.wire.entry import HardState

from .cluster import Cluster

KEPT = 6
"""Behind this entry node 1 has purged its log; it was committed, and nodes 2 and 3 have lost it."""


def went_on_without(written: int) -> Cluster:
    """Nodes 2 and 3 have lost what node 1 holds from entry 3 on, and accepted that; then they wrote so many entries. Node 1
    comes back."""
    cluster = Cluster(
        logs={1: [1, 1, 2, 2, 2, 2, 2, 2], 2: [1, 1], 3: [1, 1]},
        hard_states={1: HardState(2, 1), 2: HardState(3, 0), 3: HardState(3, 0)},
    )
    cluster.down.add(1)
    cluster.elect(2)
    for _ in range(written):
        cluster.propose(2, b"new")
    cluster.run(300)
    node = cluster.world.nodes[1]
    snapshot = node.point(KEPT)
    node.disk.snapshots.append(snapshot)
    node.disk.purge(snapshot)
    cluster.boot(1)
    return cluster


@pytest.mark.parametrize("written", [0, 1, 2, 3, 4, 20])
def test_a_node_whose_committed_entries_the_leader_lacks_stops(written: int) -> None:
    """Be its log longer or shorter. Before, it acknowledged what it did not have, or the leader died of what it said."""
    cluster = went_on_without(written)
    assert cluster[1].commit_index == KEPT
    with pytest.raises(
        Corrupt, match=r"is committed here, of term 2, and the leader, node 2, has one of term 4"
    ):
        cluster.run(3_000)
    cluster.down.add(1)
    assert cluster[1].commit_index == KEPT
    assert cluster[2].role == "leader"
    cluster.propose(2, b"later")
    cluster.run(300)
    assert cluster[2].commit_index == cluster[3].commit_index == cluster[2].last_index, "they go on"


@pytest.mark.parametrize("written", [0, 20], ids=["shorter", "longer"])
def test_what_it_has_committed_commits_nothing_at_a_leader_that_has_something_else_there(
    written: int,
) -> None:
    """It may say so before it has seen any of the leader's entries: its heartbeat is the first that it answers."""
    cluster = went_on_without(0)
    cluster.down = {1, 3}
    before = cluster[2].commit_index
    for _ in range(written):
        cluster.propose(2, b"new")
    ((_, answer),) = cluster.hear(1, 2, cluster[2].term, peer.Heartbeat(1, before, 0, False))
    assert isinstance(answer, peer.HeartbeatReply)
    assert (answer.match_index, answer.match_term) == (KEPT, 2)
    cluster.hear(2, 1, cluster[2].term, answer)
    cluster.settle()
    assert (cluster[2].role, cluster[2].followers[1]) == ("leader", 0)
    assert cluster[2].commit_index == before, "no majority has the new entries"


def test_entries_below_what_is_committed_are_acknowledged_and_no_more() -> None:
    """What is committed behind them was not compared with the leader's log yet."""
    cluster = went_on_without(0)
    more = peer.AppendEntries(0, 0, 2, 0, tuple(cluster.world.nodes[2].disk.log[index] for index in (1, 2)))
    assert cluster.hear(1, 2, cluster[2].term, more) == [
        (cluster[2].term, peer.AppendReply(True, 2, 0, 0, True))
    ]


def test_nothing_is_wrong_with_entries_before_what_is_purged_whose_terms_are_no_later() -> None:
    cluster = went_on_without(0)
    answers = cluster.hear(1, 3, 9, peer.AppendEntries(2, 1, 2, 0, ()))
    assert answers == []
    with pytest.raises(Corrupt, match="entry 4"):
        cluster.hear(1, 3, 9, peer.AppendEntries(4, 3, 4, 0, ()))


@pytest.mark.parametrize("index", [KEPT - 1, KEPT])
def test_the_entry_that_an_append_follows_on_must_be_the_committed_one(index: int) -> None:
    cluster = went_on_without(0)
    with pytest.raises(Corrupt, match=f"entry {index} is committed here, of term 2"):
        cluster.hear(1, 3, 9, peer.AppendEntries(index, 9, index, 0, ()))


def lost_all(forgot_term: bool) -> tuple[Cluster, int]:
    """Node 1 leads, and has committed much with node 2 alone. Node 2 comes back with an empty disk."""
    # One entry per message, which stands for much to catch up with.
    cluster = Cluster(3, append_max_bytes=1, inflight_max_messages=1)
    cluster.elect(1)
    cluster.run(300)
    cluster.isolate(3)
    for _ in range(20):
        cluster.propose(1)
    cluster.run(200)
    acknowledged = cluster[1].commit_index
    assert acknowledged == cluster[1].last_index > cluster[3].last_index + 10
    disk = cluster.world.nodes[2].disk
    disk.log.clear()
    disk.snapshots.clear()
    disk.suspect, disk.forgot_term = "lost", forgot_term
    if forgot_term:
        disk.hard_state = HardState(0, 0)
    cluster.boot(2)
    return cluster, acknowledged


@pytest.mark.parametrize("forgot_term", [False, True])
def test_a_node_that_lost_everything_is_suspect_until_it_has_all_that_it_acknowledged(
    forgot_term: bool,
) -> None:
    """Though it does not know in which terms that was."""
    cluster, acknowledged = lost_all(forgot_term)
    cluster.cut.clear()
    began = cluster.now
    while cluster[2].suspect:
        if not cluster.move():
            cluster.tick()
        assert cluster.now < began + 10_000
    assert cluster[2].commit_index >= acknowledged


def test_the_leader_that_counted_what_a_node_has_forgotten_ends_nothing() -> None:
    """It is deposed once, by its next sign of life; who leads next was elected without this node's vote, and is followed. A
    late word of one before it changes nothing."""
    cluster, _ = lost_all(forgot_term=True)
    term = cluster[1].term
    assert cluster[2].term < term
    cluster.hear(2, 3, cluster[2].term - 1, peer.Heartbeat(1, 5, 0, False))
    assert cluster.hear(2, 1, term, peer.Heartbeat(1, 5, 0, False)) == [
        (term + 1, peer.HeartbeatReply(1, 0, 0, False))
    ]
    assert (cluster[2].term, cluster[2].leader_id) == (term + 1, 0)
    cluster.hear(2, 1, term + 2, peer.Heartbeat(1, 5, 0, False))
    assert (cluster[2].term, cluster[2].leader_id) == (term + 2, 1)
    assert cluster[2].suspect
