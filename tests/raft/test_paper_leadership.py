"""Claims about who leads and for how long, one test each: configurations (§6 of the Raft paper, extended version),
pre-vote (thesis §9.6), check-quorum (thesis §6.2), and the dead disk that the paper does not speak of.

Not here, because it does not exist yet: §6's joint consensus as a procedure, catching up of new servers, and the
removed leader that steps down; thesis §3.10, transfer of leadership. Majorities of two sets are in test_quorum.py.
"""

from __future__ import annotations

import pytest

from danube_raft.config import Config
from danube_raft.wire import peer
from danube_raft.wire.entry import (
    KIND_CONFIGURATION,
    LEARNER,
    VOTER,
    Configuration,
    HardState,
    Member,
    pack_configuration,
)

from .cluster import Cluster, entry
from .world import voters

# ---------------------------------------------------------------- §6, without a change


def test_the_newest_configuration_in_the_log_is_in_force_committed_or_not() -> None:
    """§6: a node uses the latest configuration in its log. Two votes are no majority of the five that it names."""
    five = entry(2, 1)._replace(kind=KIND_CONFIGURATION, payload=pack_configuration(voters((1, 2, 3, 4, 5))))
    cluster = Cluster(3)
    cluster.hear(1, 2, 1, peer.AppendEntries(1, 1, 0, 0, (five,)))
    cluster.timer(1)
    asked = [to.receiver for to, said in cluster.sent if isinstance(said, peer.RequestPreVote)]
    assert asked == [2, 3, 4, 5]
    cluster.hear(1, 2, 1, peer.PreVoteReply(2, True))
    assert cluster[1].role == "pre-candidate"
    cluster.hear(1, 3, 1, peer.PreVoteReply(2, True))
    assert cluster[1].role == "candidate"


def test_a_learner_gets_every_entry_and_is_never_counted() -> None:
    """§6 "non-voting members", thesis §4.2.1: neither its vote, nor its ack, nor its answer to a round counts."""
    members = [Member(node, VOTER, "r", "c") for node in (1, 2, 3)] + [
        Member(node, LEARNER, "r", "c") for node in (4, 5)
    ]
    cluster = Cluster(5, configuration=Configuration(tuple(members)))
    cluster.elect(1)
    cluster.isolate(2, 3)
    cluster.propose(1)
    cluster.read(1, 1)
    cluster.settle()
    assert cluster[4].last_index == cluster[5].last_index == 3
    assert cluster[1].followers[4] == 3
    assert (cluster[1].commit_index, cluster.answer(1, 1)) == (2, None)
    cluster.run(Config().election_max_ms + 200)
    assert cluster[1].role == "follower", "check-quorum does not count them either"
    cluster.timer(1)
    cluster.settle()
    for learner in (4, 5):
        cluster.hear(1, learner, 2, peer.PreVoteReply(3, True))
    assert cluster[1].role == "pre-candidate"


def test_a_leader_outside_its_own_configuration_does_not_count_itself() -> None:
    """§6: it "does not include itself in majorities", and leads on until the configuration is committed."""
    without = entry(2, 1)._replace(kind=KIND_CONFIGURATION, payload=pack_configuration(voters((2, 3, 4))))
    cluster = Cluster(4, logs={node: [1] for node in (1, 2, 3, 4)})
    for node in (1, 2, 3, 4):
        cluster.hear(node, 2 if node != 2 else 3, 1, peer.AppendEntries(1, 1, 0, 0, (without,)))
    cluster.isolate(4)
    cluster.elect(1)
    assert (cluster[1].role, cluster[1].commit_index) == ("leader", 3)
    cluster.isolate(3)
    cluster.propose(1)
    cluster.read(1, 1)
    cluster.settle()
    assert cluster[2].last_index == 4
    assert (cluster[1].commit_index, cluster.answer(1, 1)) == (3, None), "two nodes, of which one is a voter"
    cluster.run(Config().election_max_ms + 200)
    assert cluster[1].role != "leader"


# ---------------------------------------------------------------- thesis §9.6, §6.2


def test_a_pre_vote_changes_nothing_anywhere() -> None:
    """Thesis §9.6: neither the asking nor the granting node enters a term or votes, and nothing is written."""
    cluster = Cluster(3)
    cluster.timer(1)
    cluster.deliver()
    for node in (1, 2, 3):
        assert (cluster[node].term, cluster[node].vote) == (1, 0)
        assert not cluster.world.nodes[node].disk.pending
    assert cluster[2].role == cluster[3].role == "follower"


def test_a_node_that_was_cut_off_comes_back_without_disturbing() -> None:
    """Thesis §9.6: its term has not grown, so that nobody steps down when it is heard again."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.run(20_000)
    assert (cluster[3].role, cluster[3].term) == ("pre-candidate", 2)
    cluster.cut.clear()
    cluster.run(2_000)
    assert (cluster[1].role, cluster[1].term, cluster[3].leader_id) == ("leader", 2, 1)


def test_no_pre_vote_while_a_leader_is_heard() -> None:
    """Thesis §9.6, §4.2.3: "within the minimum election timeout of hearing from a current leader"; then again."""
    cluster = Cluster(3)
    cluster.hear(1, 2, 1, peer.Heartbeat(0, 0, 0))
    ask = peer.RequestPreVote(2, 9, 9)
    cluster.world.now = 999
    assert cluster.hear(1, 3, 1, ask) == [(1, peer.PreVoteReply(2, False))]
    assert cluster.hear(1, 3, 2, peer.RequestVote(9, 9, False)) == [], (
        "nor a vote, which would depose the leader"
    )
    cluster.world.now = 1_000
    assert cluster.hear(1, 3, 1, ask) == [(1, peer.PreVoteReply(2, True))]
    cluster = Cluster(3)
    cluster.elect(1)
    assert cluster.hear(1, 3, 2, peer.RequestPreVote(3, 9, 9)) == [(2, peer.PreVoteReply(3, False))]


def test_a_pre_candidate_of_a_lower_term_learns_the_newer_one_and_succeeds() -> None:
    """Thesis §9.6: refusals carry the voter's term; else a node with a good log and a low term never completes."""
    cluster = Cluster(
        3, logs={1: [1, 1], 2: [1], 3: [1]}, hard_states={2: HardState(7, 0), 3: HardState(7, 0)}
    )
    cluster.elect(1)
    assert (cluster[1].role, cluster[1].term) == ("leader", 8)


@pytest.mark.parametrize("reading", [False, True], ids=["idle", "reading"])
@pytest.mark.parametrize("direction", ["hears nobody", "both ways"])
def test_a_leader_without_a_quorum_steps_down(direction: str, reading: bool) -> None:
    """Thesis §6.2: within an election timeout, also where it can still be heard, and however many reads wait: else
    clients of this node would never be told, and its heartbeats would keep the others from electing."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    if direction == "hears nobody":
        cluster.cut -= {(1, 2), (1, 3)}
    began = cluster.now
    counter = 0
    while cluster[1].role == "leader":
        if reading:
            counter += 1
            cluster.read(1, counter)
        cluster.run(50)
        assert cluster.now - began <= Config().election_max_ms + 200
    if reading:
        assert cluster.answer(1, 1) == -1
    cluster.run(4_000)
    assert "leader" in (cluster[2].role, cluster[3].role)


@pytest.mark.parametrize("reading", [False, True], ids=["idle", "reading"])
def test_a_leader_with_a_dead_disk_steps_down(reading: bool) -> None:
    """Not in the paper: §5.2 takes a leader that sends heartbeats for one that works (hashicorp/raft#503)."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.silent = {1}
    cluster.propose(1)
    began = cluster.now
    counter = 0
    while cluster[1].role == "leader":
        if reading:
            counter += 1
            cluster.read(1, counter)
        cluster.run(50)
        assert cluster.now - began <= Config().election_max_ms + 200
    cluster.run(4_000)
    assert "leader" in (cluster[2].role, cluster[3].role)


def test_a_pre_candidate_whose_disk_falls_silent_stops_asking() -> None:
    """Not in the paper: its vote could never become durable, and it would only drive its term up."""
    cluster = Cluster(3)
    cluster.silent = {1}
    cluster.down = {2, 3}
    cluster.world.now = 500
    cluster.hear(1, 2, 1, peer.AppendEntries(1, 1, 0, 0, (entry(2, 1),)))
    cluster.run(1_200)
    assert cluster[1].role == "pre-candidate"
    cluster.run(Config().election_max_ms)
    cluster.take_sent()
    cluster.run(1_000)
    assert not any(isinstance(said, peer.RequestPreVote) for said in cluster.take_sent())
    cluster.silent = set()
    cluster.run(1_000)
    assert any(isinstance(said, peer.RequestPreVote) for said in cluster.take_sent())


def test_a_cluster_with_one_slow_disk_keeps_its_leader() -> None:
    """Not in the paper: acks that come late are no silence, and the other two commit without them."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.silent = {3}
    for _ in range(20):
        cluster.propose(1)
        cluster.run(300)
    assert (cluster[1].role, cluster[1].commit_index, cluster[3].durable_index) == ("leader", 22, 2)
    cluster.silent = set()
    cluster.run(200)
    assert cluster[3].commit_index == 22


@pytest.mark.parametrize(
    "cut",
    [{(1, 2)}, {(2, 1)}, {(1, 2), (2, 1)}, {(1, 2), (1, 3)}, {(2, 1), (3, 1)}, {(1, 2), (2, 3), (3, 1)}],
    ids=str,
)
def test_one_way_cuts_leave_a_leader_that_commits(cut: set[tuple[int, int]]) -> None:
    """Thesis §9.6 and §6.2 together (the six-hour outage that either alone allows): wherever a node exists that can
    talk both ways with a quorum, it leads after a while, and stays."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut = cut
    cluster.run(12_000)
    leaders = [node for node in (1, 2, 3) if cluster[node].role == "leader"]
    talks = {frozenset(pair) for pair in ((1, 2), (1, 3), (2, 3)) if not cut & {pair, pair[::-1]}}
    if not talks:
        assert not leaders or max(cluster[node].term for node in leaders) < 10
        return
    leader = max(leaders, key=lambda node: cluster[node].term)
    before = cluster[leader].commit_index
    cluster.propose(leader)
    cluster.run(1_000)
    assert cluster[leader].commit_index == before + 1
    term = cluster[leader].term
    cluster.run(10_000)
    assert (cluster[leader].role, cluster[leader].term) == ("leader", term)


def test_voters_with_slow_disks_still_elect() -> None:
    """Not in the paper: a vote is only good when it is durable. A candidate that nobody refuses waits longer each
    time, else each new term would take away the vote that was just being written."""
    cluster = Cluster(3)
    cluster.down = {3}
    cluster.silent = {2}
    node = cluster.world.nodes[2]
    under_way = 0
    for _ in range(30):
        cluster.run(400)
        # A sync covers what was there when it began, 400 ms ago.
        for _ in range(under_way):
            node.sync()
            cluster.look(node)
        under_way = len(node.disk.pending)
        cluster.settle()
    assert [cluster[n].leader_id for n in (1, 2)] == [1, 1]
    assert cluster[1].commit_index > 1


def test_a_candidate_whose_requests_are_held_stands_in_nobodys_way() -> None:
    """Not in the paper: its disk is silent, so nobody hears of its term from its requests; the others elect, it
    follows, and when its disk answers the old requests do not leave any more."""
    cluster = Cluster(3)
    cluster.silent = {1}
    cluster.timer(1)
    cluster.settle()
    assert (cluster[1].role, cluster[1].held_messages, cluster[1].next_timer()) == ("candidate", 2, None)
    cluster.run(4_000)
    assert sorted(cluster[node].role for node in (1, 2, 3)) == ["follower", "follower", "leader"]
    leader = cluster[1].leader_id
    cluster.take_sent()
    cluster.silent = set()
    cluster.run(1_000)
    assert not any(isinstance(said, peer.RequestVote) for said in cluster.take_sent())
    assert (cluster[leader].role, cluster[1].commit_index) == ("leader", cluster[leader].commit_index)
