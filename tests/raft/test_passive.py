"""A node that cannot write (its disk is full): it promises nothing, changes nothing, and shows only what is committed."""

from __future__ import annotations

from danube_raft.raft.core import Core
from danube_raft.wire import peer

from .cluster import Cluster, entry
from .script import Drawn
from .world import CLUSTER, Node


def made_passive(cluster: Cluster, node_id: int) -> Node:
    """Started again as one."""
    node = cluster.world.nodes[node_id]
    cluster.boot(node_id)
    for what_the_other_core_did in (node.disk.pending, node.reads, node.handed):
        what_the_other_core_did.clear()
    node.core = Core(
        node_id, node.core._state.config, node.disk.recovered(), Drawn(node_id), cluster.now, True
    )
    node.load()
    cluster.look(node)
    return node


def led(size: int = 3) -> Cluster:
    cluster = Cluster(size)
    cluster.elect(1)
    for _ in range(3):
        cluster.propose(1)
    cluster.run(200)
    return cluster


def test_it_learns_from_the_leader_what_of_its_log_is_committed_and_takes_nothing() -> None:
    cluster = led()
    last = cluster[3].last_index
    made_passive(cluster, 3)
    assert cluster[3].passive_index == -1, "nobody has told it yet"
    cluster.propose(1)
    cluster.run(500)
    assert (cluster[3].last_index, cluster[3].commit_index) == (last, last)
    assert cluster[3].passive_index == last
    assert cluster[1].commit_index == last + 1, "the two others are a quorum"
    assert not cluster.world.nodes[3].disk.pending


def test_it_is_counted_for_nothing() -> None:
    cluster = led()
    made_passive(cluster, 3)
    cluster.down.add(2)
    commit = cluster[1].commit_index
    cluster.propose(1)
    cluster.read(1, 1)
    cluster.run(500)
    assert cluster[1].commit_index == commit
    assert cluster.answer(1, 1) is None
    cluster.run(3_000)
    assert cluster[1].role != "leader", "check-quorum"
    assert not [to for to, role in ((2, cluster[2].role), (3, cluster[3].role)) if role == "leader"]


def test_it_votes_for_nobody_and_campaigns_not_even_when_told() -> None:
    cluster = led()
    node = made_passive(cluster, 3)
    term = cluster[1].term
    said = cluster.hear(3, 2, term + 5, peer.RequestVote(99, 99, True))
    assert [message for _, message in said] == [peer.VoteReply(False)]
    said = cluster.hear(3, 2, term + 5, peer.RequestPreVote(term + 9, 99, 99))
    assert [message for _, message in said] == [peer.PreVoteReply(term + 9, False)]
    cluster.hear(3, 1, term + 5, peer.TimeoutNow())
    cluster.world.now += 10_000
    node.core.timer(cluster.now)
    assert node.core.role == "follower"
    assert node.core.take_output().write is None


def test_a_tail_that_is_not_the_leaders_is_never_shown() -> None:
    """It may have been overwritten by the others: durable here is not committed."""
    cluster = Cluster(3, logs={1: [1, 1, 3, 3], 2: [1, 1, 3, 3], 3: [1, 1, 2, 2, 2]})
    cluster.isolate(3)
    cluster.elect(1)
    node = made_passive(cluster, 3)
    cluster.cut.clear()
    cluster.run(1_000)
    assert [each.term for each in node.handed] == [1, 1]
    assert cluster.terms(3) == [1, 1, 2, 2, 2]
    assert cluster[3].passive_index == -1


def test_a_matching_heartbeat_commits_no_more_than_was_compared() -> None:
    cluster = led()
    node = made_passive(cluster, 3)
    term, last = cluster[1].term, cluster[3].last_index
    cluster.hear(3, 1, term, peer.Heartbeat(0, last, 0))
    assert node.core.commit_index == 0
    cluster.hear(3, 1, term, peer.AppendEntries(1, 1, last, 0, (entry(2, term),)))
    assert node.core.commit_index == 2
    node.core.step(peer.Header(CLUSTER, 1, 3, term, 1), peer.Heartbeat(0, last, 0), cluster.now)
    assert node.core.commit_index == 2


def test_the_only_voter_there_ever_was_knows_its_whole_log_to_be_committed() -> None:
    """Nobody else could ever lead, so nobody else can have overwritten it."""
    cluster = Cluster(1)
    cluster.settle()
    cluster.propose(1)
    cluster.settle()
    last = cluster[1].last_index
    node = made_passive(cluster, 1)
    cluster.settle()
    assert (cluster[1].passive_index, cluster[1].role) == (last, "follower")
    assert node.handed[-1].index == last
