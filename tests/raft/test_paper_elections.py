"""Claims of the Raft paper (extended version) about terms, votes and elections, one test each.

Who may lead and for how long is in test_paper_leadership.py, what is about the log in test_paper_log.py.

Not here, because it does not apply yet or works otherwise:
- §7 (snapshots); §6 (changes of membership) but for what must hold without a change.
- §5.2 says that a follower enters a new term when its timer runs out. Here it first asks for pre-votes in its old one
  (thesis §9.6), so "begins an election" means "asks" in the tests of timers.
"""

from __future__ import annotations

import random

import pytest

from danube_raft.config import Config
from danube_raft.raft.core import Core
from danube_raft.wire import local, peer
from danube_raft.wire.entry import HardState, pack_configuration

from .cluster import Cluster, entry
from .world import voters

GRANTED, REFUSED = peer.VoteReply(True), peer.VoteReply(False)
ROLES = ("follower", "pre-candidate", "candidate", "leader")


def in_role(role: str) -> Cluster:
    """Three nodes of which node 1 has this role, in term 2 or, before its own term, in term 1."""
    cluster = Cluster(3)
    if role == "follower":
        cluster.elect(2)
    elif role == "leader":
        cluster.elect(1)
    else:
        cluster.timer(1)
        cluster.world.flight.clear()
        if role == "candidate":
            cluster.hear(1, 2, 1, peer.PreVoteReply(2, True))
    assert cluster[1].role == role
    return cluster


def vote(last_index: int = 99, last_term: int = 99) -> peer.RequestVote:
    return peer.RequestVote(last_index, last_term, False)


# ---------------------------------------------------------------- §5.1 terms


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "message",
    [
        peer.AppendEntries(0, 0, 0, 0, ()),
        peer.AppendReply(False, 0, 0, 0, True),
        peer.Heartbeat(0, 0, 0),
        peer.HeartbeatReply(0, 0, 0, True),
        peer.VoteReply(False),
        peer.PreVoteReply(2, False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_newer_term_makes_a_follower_of_everybody(role: str, message: peer.Message) -> None:
    """§5.1, Figure 2 "All Servers": a candidate or leader whose term is out of date reverts to follower at once."""
    cluster = in_role(role)
    cluster.hear(1, 3, 9, message)
    core = cluster[1]
    assert (core.role, core.term, core.vote) == ("follower", 9, 0)
    assert cluster.world.nodes[1].disk.hard_state == HardState(9, 0)


@pytest.mark.parametrize("role", ROLES)
def test_a_request_of_an_older_term_is_refused_with_the_newer_one(role: str) -> None:
    """§5.1, Figure 2: "reply false if term < currentTerm"; the answer's term tells the sender."""
    cluster = in_role(role)
    core = cluster[1]
    before = (core.role, core.term, core.vote, core.leader_id, core.last_index, core.next_timer())
    older = core.term - 1
    assert cluster.hear(1, 3, older, vote()) == [(core.term, REFUSED)]
    [(term, reply)] = cluster.hear(1, 3, older, peer.AppendEntries(1, 1, 9, 0, (entry(2, older),)))
    assert (term, isinstance(reply, peer.AppendReply) and reply.success) == (core.term, False)
    [(term, answer)] = cluster.hear(1, 3, older, peer.Heartbeat(0, 9, 0))
    assert (term, isinstance(answer, peer.HeartbeatReply) and answer.counted) == (core.term, False)
    assert before == (
        core.role,
        core.term,
        core.vote,
        core.leader_id,
        core.last_index,
        core.next_timer(),
    )


def test_an_answer_of_an_older_term_counts_for_nothing() -> None:
    """§5.1: votes and acks of an earlier term must not elect or commit in this one."""
    cluster = in_role("candidate")
    cluster.hear(1, 2, 1, GRANTED)
    assert cluster[1].role == "candidate"
    cluster = in_role("leader")
    cluster.isolate(1)
    cluster.propose(1)
    cluster.sync(1)
    cluster.hear(1, 2, 1, peer.AppendReply(True, 3, 0, 0, True))
    cluster.hear(1, 2, 1, peer.HeartbeatReply(0, 3, 2, True))
    assert cluster[1].commit_index == 2


def test_term_and_vote_are_on_disk_before_anything_that_depends_on_them_leaves() -> None:
    """§5.1, Figure 2 "updated on stable storage before responding": a vote waits, and so does a campaign."""
    cluster = Cluster(3)
    cluster.silent = {1, 2}
    cluster.timer(1)
    cluster.settle()
    assert cluster[1].role == "candidate"
    assert not any(isinstance(message, peer.RequestVote) for message in cluster.take_sent())
    cluster.silent = {2}
    cluster.settle()
    said = cluster.take_sent()
    assert sum(isinstance(message, peer.RequestVote) for message in said) == 2
    assert said.count(GRANTED) == 1, "node 3's; node 2's disk is silent"
    cluster.silent = set()
    cluster.settle()
    assert cluster.take_sent().count(GRANTED) == 1


# ---------------------------------------------------------------- §5.2 elections


def test_a_follower_stays_one_while_it_hears_the_leader() -> None:
    """§5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or candidate"."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.run(10_000)
    assert [cluster[node].role for node in (1, 2, 3)] == ["leader", "follower", "follower"]
    assert cluster[1].term == 2


def test_a_vote_that_is_given_sets_the_timer_anew_and_a_refused_one_does_not() -> None:
    """§5.2, Figure 2 "Followers": only granting a vote, or a leader, keeps a follower from campaigning."""
    for request, is_later in ((vote(), True), (vote(0, 0), False)):
        cluster = Cluster(3)
        before = cluster[1].next_timer()
        assert before is not None
        cluster.world.now = 500
        cluster.hear(1, 2, 5, request)
        after = cluster[1].next_timer()
        assert after is not None
        assert (after > before) == is_later


def test_a_candidate_enters_a_new_term_votes_for_itself_and_asks_all_others() -> None:
    """§5.2, Figure 2 "Candidates"."""
    cluster = in_role("candidate")
    core = cluster[1]
    assert (core.term, core.vote, core.leader_id) == (2, 1, 0)
    requests = [(to.receiver, to.term) for to, said in cluster.sent if isinstance(said, peer.RequestVote)]
    assert requests == [(2, 2), (3, 2)]


def test_a_majority_elects_and_the_new_leader_is_heard_at_once() -> None:
    """§5.2: two of three, three of five; a leader's first messages keep the others from campaigning."""
    cluster = Cluster(5)
    cluster.isolate(4, 5)
    cluster.timer(1)
    cluster.settle()
    assert cluster[1].role == "leader"
    assert [cluster[node].leader_id for node in (2, 3, 4, 5)] == [1, 1, 0, 0]
    minority = Cluster(5)
    minority.isolate(1, 2)
    minority.run(10_000)
    assert {minority[1].role, minority[2].role}.isdisjoint({"leader", "candidate"})
    assert minority[1].term == minority[2].term == 1


@pytest.mark.parametrize("crash", [False, True], ids=["running", "restarted"])
def test_one_vote_per_term_first_come_first_served(crash: bool) -> None:
    """§5.2, Figure 2 "votedFor": also after a restart between the two requests; the same candidate may ask again."""
    cluster = Cluster(3)
    assert cluster.hear(1, 2, 5, vote()) == [(5, GRANTED)]
    if crash:
        cluster.boot(1)
    assert cluster.hear(1, 3, 5, vote()) == [(5, REFUSED)]
    assert cluster.hear(1, 2, 5, vote()) == [(5, GRANTED)]
    assert cluster.hear(1, 3, 6, vote()) == [(6, GRANTED)], "a new term is a new vote"


def test_no_vote_in_a_term_whose_leader_was_heard() -> None:
    """§5.2: a term that has a leader needs none, even where this node gave no vote in it."""
    cluster = Cluster(3)
    cluster.hear(1, 2, 5, peer.Heartbeat(0, 0, 0))
    assert cluster.hear(1, 3, 5, vote()) == [(5, REFUSED)]


def test_a_candidate_and_a_leader_refuse_their_own_terms_votes() -> None:
    """§5.2: they have voted for themselves."""
    for role in ("candidate", "leader"):
        assert in_role(role).hear(1, 3, 2, vote()) == [(2, REFUSED)]


@pytest.mark.parametrize("message", [peer.AppendEntries(1, 1, 0, 0, ()), peer.Heartbeat(0, 0, 0)], ids=str)
def test_a_candidate_follows_the_leader_of_its_term_and_no_older_one(message: peer.Message) -> None:
    """§5.2, Figure 2 "Candidates": "If the leader's term is at least as large as the candidate's current term"."""
    cluster = in_role("candidate")
    cluster.hear(1, 3, 1, message)
    assert (cluster[1].role, cluster[1].leader_id) == ("candidate", 0)
    cluster.hear(1, 3, 2, message)
    assert (cluster[1].role, cluster[1].leader_id, cluster[1].vote) == ("follower", 3, 1)


def test_a_split_vote_ends_in_a_new_term_after_a_short_random_pause() -> None:
    """§5.2: candidates that tie ask again, not all at the same time; here after 50 to 300 ms."""
    cluster = Cluster(4)
    for node, friend in ((1, 3), (2, 4)):
        cluster.timer(node)
        for voter in (3, 4):
            cluster.hear(node, voter, 1, peer.PreVoteReply(2, True))
        cluster.hear(node, friend, 2, GRANTED)
    assert [cluster[node].role for node in (1, 2)] == ["candidate", "candidate"]
    began = cluster.now
    while "leader" not in (cluster[1].role, cluster[2].role):
        cluster.run(10)
        assert cluster.now - began < 1_000, "no longer than an election timeout"
    assert cluster[1].term > 2


def test_election_timeouts_are_drawn_at_random_from_the_whole_range() -> None:
    """§5.2: each node draws its own, so that split votes are rare; a thousand nodes spread out over the range."""
    recovered = local.Recovered(
        HardState(1, 0), 0, 0, 1, 0, ((1, 1),), ((1, pack_configuration(voters((1, 2, 3)))),), "", 1
    )
    config = Config()
    first, later = [], []
    for seed in range(1_000):
        core = Core(1, config, recovered, random.Random(seed), 0)
        first.append(core.next_timer() or 0)
        core.step(peer.Header(1, 2, 1, 1, 1), peer.Heartbeat(0, 0, 0), 0)
        later.append(core.next_timer() or 0)
    # A node that has just started asks sooner, which a pre-vote makes harmless, and never before a leader had time to
    # make itself heard.
    _spread(first, config.election_min_ms * 3 // 5, config.election_min_ms)
    _spread(later, config.election_min_ms, config.election_max_ms)


def _spread(timers: list[int], least: int, most: int) -> None:
    assert min(timers) >= least
    assert max(timers) <= most
    assert len(set(timers)) > 300
    tenth = (most - least) // 10
    for start in range(least, most, tenth):
        assert any(start <= drawn <= start + tenth for drawn in timers), start


def test_a_leader_sends_heartbeats_before_anybody_could_time_out() -> None:
    """§5.2, Figure 2 "Leaders": repeated during idle periods."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.take_sent()
    cluster.run(1_000)
    heartbeats = [said for said in cluster.take_sent() if isinstance(said, peer.Heartbeat)]
    assert len(heartbeats) == 2 * 10


def test_election_safety() -> None:
    """§5.2, Figure 3: at most one leader per term, whoever asks whom; `Cluster.look` checks each moment."""
    source = random.Random(3)
    for _ in range(30):
        cluster = Cluster(5)
        for _ in range(6):
            for node in source.sample(range(1, 6), 2):
                if cluster[node].role != "leader":
                    cluster.timer(node)
            source.shuffle(cluster.world.flight)
            cluster.isolate(source.randint(1, 5))
            cluster.settle()
            cluster.cut.clear()
        assert cluster.leaders


# ---------------------------------------------------------------- §5.4.1 election restriction

LOGS = [((1, 1, 3), (1, 2, 2, 2)), ((1, 2, 2), (1, 2)), ((1, 2), (1, 2)), ((1, 4), (1, 3, 3, 3, 3))]


@pytest.mark.parametrize(("mine", "theirs"), [*LOGS, *[(b, a) for a, b in LOGS]], ids=str)
def test_votes_go_to_logs_that_are_at_least_as_up_to_date(
    mine: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    """§5.4.1: the later last term wins; with equal last terms the longer log. Pre-votes by the same rule."""
    allowed = (theirs[-1], len(theirs)) >= (mine[-1], len(mine))
    cluster = Cluster(3, logs={1: mine})
    request = peer.RequestPreVote(9, len(theirs), theirs[-1])
    assert cluster.hear(1, 2, mine[-1], request) == [(mine[-1], peer.PreVoteReply(9, allowed))]
    assert cluster.hear(1, 2, 9, vote(len(theirs), theirs[-1])) == [(9, peer.VoteReply(allowed))]


# ---------------------------------------------------------------- §5.5, §5.6


def test_requests_for_votes_are_repeated_until_voters_come_back() -> None:
    """§5.5: "Raft handles these failures by retrying indefinitely"; and asking twice is harmless."""
    cluster = Cluster(3)
    cluster.down = {2, 3}
    cluster.run(30_000)
    assert cluster[1].term == 1, "pre-votes that are not answered drive no term up"
    cluster.boot(3)
    cluster.run(1_000)
    assert "leader" in (cluster[1].role, cluster[3].role)


def test_a_candidate_that_crashes_is_no_obstacle() -> None:
    """§5.5: it has asked, and perhaps won votes; the others elect without it, and it comes back as a follower."""
    cluster = Cluster(3)
    cluster.timer(1)
    cluster.deliver()
    cluster.deliver()
    cluster.sync(1)
    assert cluster[1].role == "candidate"
    cluster.deliver()
    cluster.sync(2)
    cluster.sync(3)
    cluster.down = {1}
    cluster.world.flight.clear()
    cluster.run(4_000)
    assert sorted(cluster[node].role for node in (2, 3)) == ["follower", "leader"]
    cluster.boot(1)
    cluster.run(500)
    assert (cluster[1].role, cluster[1].term) == ("follower", cluster[2].term)


def test_a_leader_that_fails_is_replaced_within_two_election_timeouts() -> None:
    """§5.6: "broadcastTime ≪ electionTimeout": detection takes at most one, and an election a few round trips."""
    config = Config()
    assert 3 * config.heartbeat_ms <= config.election_min_ms, "two lost heartbeats are no reason to campaign"
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.down = {1}
    failed = cluster.now
    while "leader" not in (cluster[2].role, cluster[3].role):
        cluster.run(10)
        assert cluster.now - failed < 2 * config.election_max_ms
