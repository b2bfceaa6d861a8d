"""Handing leadership over (§3.10 of the thesis, PITFALLS 10): what is not in scripts/three_transfer.txt."""

from __future__ import annotations

import pytest

from danube_raft.raft.output import Refusal
from danube_raft.wire import peer
from danube_raft.wire.entry import LEARNER, VOTER, Configuration, Member

from .cluster import Cluster

UNFIT = Refusal("unfit", 0)


def led(size: int = 3, configuration: Configuration | None = None) -> Cluster:
    """Node 1 leads and has heard from everybody."""
    cluster = Cluster(size, configuration=configuration)
    cluster.elect(1)
    cluster.run(200)
    cluster.take_sent()
    return cluster


def transfer(cluster: Cluster, to: int, by: int = 1) -> Refusal | None:
    refusal = cluster[by].transfer(to, cluster.now)
    cluster.look(cluster.world.nodes[by])
    return refusal


def told(cluster: Cluster) -> int:
    return sum(isinstance(message, peer.TimeoutNow) for message in cluster.take_sent())


def test_it_takes_a_round_trip_and_no_pre_votes() -> None:
    """Pre-votes would be refused: everybody hears the leader."""
    cluster = led()
    assert transfer(cluster, 2) is None
    cluster.settle()
    assert cluster[2].role == "leader"
    sent = cluster.take_sent()
    assert not [message for message in sent if isinstance(message, peer.RequestPreVote)]
    assert {m.transfer for m in sent if isinstance(m, peer.RequestVote)} == {True}


def test_a_candidate_that_nobody_asked_gets_no_vote_from_those_who_hear_a_leader() -> None:
    """Only the flag lets a request pass; without it a cut-off node would depose leaders (raft-rs #165)."""
    for flag, role in ((False, "leader"), (True, "follower")):
        cluster = led()
        cluster.hear(1, 3, cluster[1].term + 1, peer.RequestVote(99, 99, flag))
        assert cluster[1].role == role


def test_an_election_that_fails_is_repeated_with_pre_votes_and_without_the_flag() -> None:
    """The permission to disturb is for one election."""
    cluster = led()
    assert transfer(cluster, 2) is None
    cluster.deliver()
    assert cluster[2].role == "candidate"
    cluster.sync(2)
    cluster.world.flight.clear()
    cluster.isolate(2)
    cluster.take_sent()
    cluster.timer(2)
    asked = [m for m in cluster.take_sent() if isinstance(m, peer.RequestPreVote | peer.RequestVote)]
    assert asked
    assert all(isinstance(message, peer.RequestPreVote) for message in asked)


def test_never_to_a_learner() -> None:
    """It would win without being one of those who count (hashicorp GH-570)."""
    members = (Member(1, VOTER, "a", "a"), Member(2, VOTER, "b", "b"), Member(3, LEARNER, "c", "c"))
    cluster = led(configuration=Configuration(members))
    assert transfer(cluster, 3) == UNFIT
    assert transfer(cluster, 0) is None
    cluster.settle()
    assert cluster[2].role == "leader"


def test_never_to_a_peer_whose_promises_do_not_count() -> None:
    """SUSPECT: it may lack what is committed, and it would not campaign anyway."""
    cluster = led()
    term, last = cluster[1].term, cluster[1].last_index
    cluster.hear(1, 2, term, peer.HeartbeatReply(1, last, 2, counted=False))
    assert transfer(cluster, 2) == UNFIT
    cluster.hear(1, 3, term, peer.HeartbeatReply(1, last, 2, counted=False))
    assert transfer(cluster, 0) == UNFIT


def test_never_to_a_peer_that_is_silent() -> None:
    """Writes would stop for nothing."""
    cluster = led()
    cluster.isolate(3)
    cluster.run(1_100)
    assert transfer(cluster, 3) == UNFIT
    assert transfer(cluster, 0) is None
    cluster.settle()
    assert cluster[2].role == "leader"


def test_a_target_that_becomes_suspect_meanwhile_is_not_told() -> None:
    cluster = led()
    cluster.silent.add(2)
    cluster.propose(1)
    assert transfer(cluster, 2) is None
    cluster.settle()
    cluster.hear(1, 2, cluster[1].term, peer.AppendReply(True, cluster[1].last_index, 0, 0, counted=False))
    cluster.isolate(2)
    cluster.run(1_200)
    assert told(cluster) == 0
    assert cluster[1].role == "leader"


def test_a_target_that_lags_is_brought_up_to_date_first() -> None:
    """Told too early it would lose, and nobody would lead for a while (hashicorp GH-581)."""
    cluster = led()
    cluster.silent.add(2)
    for _ in range(5):
        cluster.propose(1)
    cluster.settle()
    assert transfer(cluster, 2) is None
    cluster.run(300)
    assert told(cluster) == 0
    cluster.silent.clear()
    cluster.settle()
    assert cluster[2].role == "leader"
    assert cluster.terms(2)[:-1] == cluster.terms(3)[:-1]


def test_a_target_that_dies_costs_an_election_timeout_and_no_leadership() -> None:
    cluster = led()
    cluster.down.add(2)
    assert transfer(cluster, 2) is None
    refused = Refusal("transferring", 2)
    assert cluster[1].propose((1, 1, 1), b"x", 0, cluster.now) == refused
    cluster.run(900)
    assert cluster[1].propose((1, 1, 1), b"x", 0, cluster.now) == refused
    cluster.run(200)
    assert cluster[1].propose((1, 1, 1), b"x", 0, cluster.now) is None
    assert cluster[1].role == "leader"


def test_after_it_was_given_up_another_one_may_be_chosen() -> None:
    """The first target must not be told any more: two elections at once would help nobody."""
    cluster = led()
    cluster.cut.add((1, 2))
    assert transfer(cluster, 2) is None
    cluster.run(1_100)
    cluster.take_sent()
    cluster.cut.clear()
    cluster.run(200)
    assert (told(cluster), cluster[1].role) == (0, "leader")
    assert transfer(cluster, 3) is None
    cluster.settle()
    assert cluster[3].role == "leader"


def test_a_lost_timeout_now_is_repeated() -> None:
    cluster = led()
    cluster.cut.add((1, 2))
    assert transfer(cluster, 2) is None
    cluster.settle()
    assert cluster[2].role == "follower"
    cluster.cut.clear()
    cluster.run(150)
    assert cluster[2].role == "leader"


def test_a_late_timeout_now_of_an_older_term_is_inert() -> None:
    cluster = led()
    old = cluster[1].term
    cluster.elect(3)
    assert cluster.hear(2, 1, old, peer.TimeoutNow()) == []
    assert (cluster[2].role, cluster[2].leader_id) == ("follower", 3)


def test_a_doubled_timeout_now_makes_one_election() -> None:
    """Or the second one would end what the first one began (a candidate waits: hashicorp GH-413)."""
    cluster = led()
    term = cluster[1].term
    for _ in range(2):
        cluster.hear(2, 1, term, peer.TimeoutNow())
    assert (cluster[2].role, cluster[2].term) == ("candidate", term + 1)


@pytest.mark.parametrize("state", ["not loaded", "suspect", "learner"])
def test_who_may_not_campaign_does_not_because_it_is_told_to(state: str) -> None:
    kind = LEARNER if state == "learner" else VOTER
    members = (Member(1, VOTER, "a", "a"), Member(2, kind, "b", "b"), Member(3, VOTER, "c", "c"))
    cluster = led(configuration=Configuration(members))
    inner = cluster[2]._state
    if state == "suspect":
        inner.suspect = "lost"
    elif state == "not loaded":
        inner.may_campaign = False
    cluster.hear(2, 1, cluster[1].term, peer.TimeoutNow())
    assert cluster[2].role == "follower"


def test_reads_are_confirmed_while_it_runs_and_never_after_it() -> None:
    """Whoever confirms a round of this term has not voted in a newer one."""
    cluster = led()
    cluster.down.add(2)
    assert transfer(cluster, 2) is None
    cluster.read(1, 1)
    cluster.settle()
    assert cluster.answer(1, 1) == cluster[1].commit_index
    cluster.down.clear()
    cluster.deliver()
    cluster.read(1, 2)
    cluster.cut |= {(1, 3), (1, 2)}
    cluster.run(1_200)
    assert cluster.answer(1, 2) == -1


def test_it_goes_round_and_nothing_is_lost() -> None:
    cluster = led(size=5)
    leader = 1
    for to in (2, 3, 4, 5, 1, 3):
        cluster.propose(leader, b"%d" % to)
        assert transfer(cluster, to, by=leader) is None
        assert transfer(cluster, to, by=leader) is None
        cluster.settle()
        assert cluster[to].role == "leader"
        cluster.run(200)
        leader = to
    assert len({tuple(cluster.terms(node_id)) for node_id in cluster.world.nodes}) == 1
    assert cluster[3].commit_index == cluster[3].last_index


def test_whoever_is_low_on_space_is_not_chosen_and_may_be_named() -> None:
    """Leadership would only wander on; an administrator knows what he does."""
    cluster = led()
    cluster[2].low_space = True
    cluster.run(200)
    assert transfer(cluster, 0) is None
    cluster.settle()
    assert cluster[3].role == "leader"
    cluster.run(200)
    assert transfer(cluster, 2, by=3) is None
    cluster.settle()
    assert cluster[2].role == "leader"


def test_among_nodes_that_are_all_low_leadership_stays_where_it_is() -> None:
    """A fresh leader knows nothing of the others' disks, and would pass it on at once: it went round for ever."""
    cluster = Cluster(3)
    for node_id in cluster.world.nodes:
        cluster[node_id].low_space = True
    cluster.elect(1)
    cluster.settle()
    assert transfer(cluster, 0) == UNFIT, "they have acknowledged, and not said that they have room"
    cluster.run(300)
    assert transfer(cluster, 0) == UNFIT
    cluster[3].low_space = False
    cluster.run(200)
    assert transfer(cluster, 0) is None
    cluster.settle()
    assert cluster[3].role == "leader"


def test_a_fresh_leader_with_room_hands_over_to_whom_it_has_not_heard_of_its_disk() -> None:
    """An administrator asks: nothing is known against the others."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.settle()
    assert transfer(cluster, 0) is None


def test_a_leader_that_is_low_says_so_only_while_nobody_else_has_room() -> None:
    """Else clients of the others would be refused for the moment that handing over takes."""
    cluster = led()
    cluster[1].low_space = True
    cluster.run(200)
    assert [cluster[node].leader_low_space for node in (2, 3)] == [False, False]
    cluster[2].low_space = cluster[3].low_space = True
    cluster.run(300)
    assert [cluster[node].leader_low_space for node in (2, 3)] == [True, True]
    cluster[1].low_space = False
    cluster.run(200)
    assert [cluster[node].leader_low_space for node in (2, 3)] == [False, False]
    cluster[1].low_space = True
    cluster.run(200)
    cluster.elect(2)
    assert not cluster[3].leader_low_space
    assert not cluster[2].leader_low_space, "what an earlier leader said is not about this one"
