"""Claims of the Raft paper (extended version) about the log, one test each: §5.3 replication, §5.4 safety, §5.5
crashes, §8 clients, and Figure 2 rule by rule where no other test has the rule.

What is written "durably" here holds from the sync on, as in §10.2.1 of the thesis: the leader writes its own log in
parallel with its followers. Figures 7 and 8 are also scripts, step by step.

Not here, because it does not exist yet: §7, snapshots. §8's unique serial numbers belong to the state machine.
"""

from __future__ import annotations

import random
from itertools import permutations
from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_NOOP, Entry, HardState

from .cluster import Cluster, entry

CONFIG = Config()


def append(prev: tuple[int, int], *terms: int, commit: int = 0) -> peer.AppendEntries:
    """Entries of these terms after `prev`, (index, term)."""
    entries = tuple(entry(prev[0] + place, term) for place, term in enumerate(terms, 1))
    return peer.AppendEntries(*prev, commit, 0, entries)


def accepted(match_index: int) -> peer.AppendReply:
    return peer.AppendReply(True, match_index, 0, 0, True)


def led(size: int = 3, **settings: Any) -> Cluster:
    """Node 1 leads term 2; entry 2 is its no-op, committed everywhere."""
    cluster = Cluster(size, **settings)
    cluster.elect(1)
    cluster.run(200)
    cluster.take_sent()
    assert {cluster[node].commit_index for node in range(1, size + 1)} == {2}
    return cluster


# ---------------------------------------------------------------- §5.3 replication


def test_an_entry_goes_to_all_in_parallel_and_is_committed_by_a_majority() -> None:
    """§5.3: with the leader's own log that is two of three; the slow third changes nothing."""
    cluster = led()
    cluster.silent = {3}
    cluster.propose(1, b"a")
    assert [len(said.entries) for said in cluster.take_sent() if isinstance(said, peer.AppendEntries)] == [
        1,
        1,
    ]
    cluster.settle()
    assert [cluster[node].commit_index for node in (1, 2)] == [3, 3]
    assert cluster.world.nodes[1].handed[-1].payload == cluster.world.nodes[2].handed[-1].payload == b"a"


def test_nothing_is_committed_by_a_minority() -> None:
    """§5.3: two of five, however long it takes."""
    cluster = led(5)
    cluster.isolate(1, 2)
    cluster.propose(1)
    cluster.settle()
    assert cluster[2].last_index == 3
    assert cluster[1].commit_index == cluster[2].commit_index == 2


def test_a_leader_commits_with_its_followers_while_its_own_disk_is_slow() -> None:
    """Thesis §10.2.1: its own copy counts when it is durable, and not before."""
    cluster = led()
    cluster.silent = {1, 3}
    cluster.propose(1)
    cluster.settle()
    assert cluster[1].commit_index == 2, "node 2 alone"
    cluster.silent = {1}
    cluster.settle()
    assert cluster[1].commit_index == 3
    assert cluster.world.nodes[1].handed[-1].index == 2, "not applied before it is durable here"


def test_followers_learn_at_once_what_is_committed() -> None:
    """§5.3: "Once a follower learns that a log entry is committed, it applies the entry": no heartbeat is needed."""
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    assert [cluster[node].applied_index for node in (1, 2, 3)] == [3, 3, 3]


def test_entries_are_sent_again_until_every_follower_has_them() -> None:
    """§5.3: "the leader retries AppendEntries RPCs indefinitely … until all followers eventually store all"."""
    cluster = led()
    cluster.isolate(3)
    for _ in range(200):
        cluster.propose(1)
        cluster.settle()
    cluster.run(20_000)
    cluster.cut.clear()
    cluster.run(1_000)
    assert cluster.terms(3) == cluster.terms(1)
    assert cluster[3].applied_index == 202


@pytest.mark.parametrize(
    ("prev", "matches"),
    [((0, 0), True), ((2, 1), True), ((4, 3), True), ((5, 3), False), ((4, 2), False), ((2, 2), False)],
    ids=str,
)
def test_entries_are_taken_only_behind_an_entry_that_matches(prev: tuple[int, int], matches: bool) -> None:
    """§5.3, Figure 2 "AppendEntries" rule 2: the consistency check, on index and term."""
    cluster = Cluster(3, logs={1: [1, 1, 3, 3]})
    [(_, reply)] = cluster.hear(1, 2, 4, append(prev, 4))
    assert isinstance(reply, peer.AppendReply)
    assert reply.success == matches
    assert reply.match_index == (prev[0] + 1 if matches else prev[0])
    log = [1, 1, 3, 3]
    assert cluster.terms(1) == ([*log[: prev[0]], 4] if matches else log)


def test_conflicting_entries_are_replaced_and_the_matching_ones_kept() -> None:
    """§5.3, Figure 2 "AppendEntries" rules 3 and 4: from the first entry that conflicts on, in one write."""
    cluster = Cluster(3, logs={1: [1, 1, 2, 2, 2]})
    node = cluster.world.nodes[1]
    cluster.silent = {1}
    cluster.hear(1, 2, 4, append((1, 1), 1, 2, 4))
    [write] = node.disk.pending
    assert isinstance(write, local.Write)
    assert (write.truncate_from, [e.index for e in write.entries]) == (4, [4])
    assert write.hard_state == HardState(4, 0)
    assert cluster.terms(1) == [1, 1, 2, 4]


def test_a_message_that_comes_late_or_twice_cuts_nothing_off() -> None:
    """§5.3, §5.5: "if an existing entry conflicts": entries behind a shorter message stay, and so does their ack."""
    cluster = Cluster(3)
    early, late = append((1, 1), 2), append((2, 2), 2, 2)
    assert cluster.hear(1, 2, 2, early) == [(2, accepted(2))]
    assert cluster.hear(1, 2, 2, late) == [(2, accepted(4))]
    for message, match_index in ((early, 2), (late, 4), (early, 2)):
        assert cluster.hear(1, 2, 2, message) == [(2, accepted(match_index))]
    cluster.hear(1, 2, 2, append((1, 1)))
    assert cluster.terms(1) == [1, 2, 2, 2]
    cluster.boot(1)  # which does not know any more what it had verified
    cluster.hear(1, 2, 2, early)
    assert cluster.terms(1) == [1, 2, 2, 2]
    assert cluster[1].durable_index == 4


def test_an_ack_that_comes_late_or_twice_takes_nothing_back() -> None:
    """§5.5, Figure 2 "matchIndex increases monotonically": under reordering too."""
    cluster = led()
    cluster.isolate(1)
    for _ in range(3):
        cluster.propose(1)
    cluster.sync(1)
    for match_index in (5, 3, 5, 2):
        cluster.hear(1, 2, 2, accepted(match_index))
        assert (cluster[1].followers[2], cluster[1].commit_index) == (5, 5)
    cluster.hear(1, 2, 2, peer.AppendReply(False, 4, 1, 1, True))
    assert (cluster[1].followers[2], cluster[1].progress[2]) == (5, "replicate")


def test_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    """§5.3, Figure 3 "Leader Append-Only": whatever the followers have."""
    cluster = Cluster(3, logs={1: [1, 2, 2, 5], 2: [1, 4, 4, 4, 4], 3: [1]}, hard_states={3: HardState(5, 0)})
    cluster.elect(1)
    assert cluster.terms(1) == [1, 2, 2, 5, 6]
    assert cluster.terms(2) == cluster.terms(3) == cluster.terms(1)


def test_finding_where_logs_meet_takes_a_refusal_per_term_not_per_entry() -> None:
    """§5.3: "one AppendEntries RPC will be required for each term with conflicting entries"."""
    mine, theirs = [1] + [2] * 300 + [9], [1] + [3] * 100 + [4] * 100 + [5] * 100
    cluster = Cluster(3, logs={1: mine, 2: theirs, 3: [1]}, hard_states={3: HardState(9, 0)})
    cluster.elect(1)
    assert cluster.terms(2) == [*mine, 10]
    refusals = [m for m in cluster.take_sent() if isinstance(m, peer.AppendReply) and not m.success]
    assert len(refusals) <= 2 * 3


def test_logs_that_agree_on_an_entry_agree_on_all_before() -> None:
    """§5.3, Figure 3 "Log Matching": after changes of leader that leave uncommitted tails behind."""
    cluster = Cluster(3)
    for leader, cut_off in ((1, 3), (2, 1), (3, 2), (1, 2)) * 3:
        cluster.cut.clear()
        cluster.run(4_000)
        if cluster[leader].role != "leader":
            cluster.world.now += 2_000
            cluster.elect(leader)
        cluster.isolate(leader)
        cluster.propose(leader, b"lost?")
        cluster.settle()
        cluster.cut.clear()
        cluster.isolate(cut_off)
        cluster.run(3_000)
        logs = [cluster.world.nodes[node].disk.log for node in (1, 2, 3)]
        for a, b in permutations(logs, 2):
            last = max(i for i in a if i in b and a[i].term == b[i].term)
            assert all(a[i] == b[i] for i in range(1, last + 1))


def test_a_follower_commits_no_further_than_it_was_told_matches() -> None:
    """§5.3, Figure 2 "AppendEntries" rule 5: "index of last new entry", not the end of its own log."""
    cluster = Cluster(3, logs={1: [1, 2, 3, 3]})
    cluster.hear(1, 2, 4, append((1, 1), commit=4))
    assert cluster[1].commit_index == 1
    cluster.hear(1, 2, 4, peer.Heartbeat(0, 4, 0))
    assert cluster[1].commit_index == 1
    cluster.hear(1, 2, 4, append((1, 1), 2, commit=1))
    cluster.hear(1, 2, 4, peer.Heartbeat(0, 4, 0))
    assert cluster[1].commit_index == 2
    cluster.hear(1, 2, 4, append((1, 1), 2, commit=1))
    assert cluster[1].commit_index == 2, "it never shrinks"


# ---------------------------------------------------------------- §5.4 safety


def test_an_older_terms_entry_on_a_majority_is_not_committed_by_counting() -> None:
    """§5.4.2, Figure 8: only an entry of the leader's own term is; then the older ones are, with it."""
    terms = {node: HardState(3, 0) for node in (1, 2, 3, 4, 5)}
    logs = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
    cluster = Cluster(5, logs=logs, hard_states=terms)
    cluster.timer(1)
    for voter in (2, 3):
        cluster.hear(1, voter, 3, peer.PreVoteReply(4, True))
    for voter in (2, 3):
        cluster.hear(1, voter, 4, peer.VoteReply(True))
    assert (cluster[1].role, cluster.terms(1)) == ("leader", [1, 2, 4])
    for node in (2, 3):
        cluster.hear(1, node, 4, accepted(2))
    assert cluster[1].commit_index == 0, "entry 2 of term 2 is on three of five"
    cluster.hear(1, 2, 4, accepted(3))
    assert cluster[1].commit_index == 0, "entry 3 of term 4 is on two"
    cluster.hear(1, 3, 4, accepted(3))
    assert cluster[1].commit_index == 3


def test_whoever_is_elected_has_every_committed_entry() -> None:
    """§5.4.3, Figure 3 "Leader Completeness": an entry that two of three hold; the third asks first, and loses."""
    for writer, slow in permutations((1, 2, 3), 2):
        cluster = Cluster(3)
        cluster.elect(writer)
        cluster.isolate(slow)
        cluster.propose(writer, b"kept")
        cluster.settle()
        assert cluster[writer].commit_index == 3
        cluster.down = {writer}
        cluster.cut.clear()
        cluster.world.now += 1_500
        for _ in range(5):
            cluster.timer(slow)
            cluster.settle()
            assert cluster[slow].role != "leader"
        cluster.run(4_000)
        [holder] = {1, 2, 3} - {writer, slow}
        assert cluster[holder].role == "leader"
        assert [e.payload for e in cluster.world.nodes[slow].handed].count(b"kept") == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_two_nodes_apply_different_entries_at_one_index(seed: int) -> None:
    """§5.4.3, Figure 3 "State Machine Safety": again and again a leader that is cut off with one follower writes what
    no quorum sees, while the others elect another and commit. What one node handed over at an index, in whatever
    boot, is what every node hands over there."""
    source = random.Random(seed)
    cluster = Cluster(5)
    applied: dict[int, Entry] = {}
    replaced = 0
    leader = 1
    cluster.elect(leader)
    for number in range(12):
        others = [node for node in cluster.world.nodes if node != leader]
        friend, following, restarted, _ = source.sample(others, 4)
        lost = b"lost %d" % number
        cluster.isolate(leader, friend)
        for _ in range(source.randint(1, 4)):
            cluster.propose(leader, lost)
        cluster.settle()
        cluster.world.now += 2 * CONFIG.election_max_ms
        cluster.elect(following)
        for _ in range(source.randint(1, 4)):
            cluster.propose(following, b"kept %d" % number)
        cluster.settle()
        replaced += any(entry.payload == lost for entry in cluster.world.nodes[friend].disk.log.values())
        collect(cluster, applied)
        cluster.boot(source.choice((friend, restarted)))
        cluster.cut.clear()
        cluster.run(2 * CONFIG.heartbeat_ms)
        collect(cluster, applied)
        leader = following
        assert cluster[leader].role == "leader"
        assert {cluster[node].commit_index for node in cluster.world.nodes} == {max(applied)}
        assert not any(entry.payload == lost for entry in applied.values())
    assert replaced == 12, "every time somebody held what came to nothing"


def collect(cluster: Cluster, applied: dict[int, Entry]) -> None:
    """What has been handed over so far, by any node; nobody may have something else in its place."""
    for node in cluster.world.nodes.values():
        for handed in node.handed:
            assert applied.setdefault(handed.index, handed) == handed, f"two entries at {handed.index}"


# ---------------------------------------------------------------- §5.5 crashes


@pytest.mark.parametrize("answered", [False, True], ids=["before its answer", "after its answer"])
def test_a_follower_that_crashes_in_the_middle_is_brought_up_again(answered: bool) -> None:
    """§5.5: the leader sends again; what the follower has already is acknowledged again, not appended twice."""
    cluster = led()
    cluster.propose(1, b"a")
    if answered:
        cluster.deliver()
        cluster.sync(3)
        cluster.cut = {(3, 1)}
        cluster.settle()
        cluster.cut.clear()
    else:
        cluster.down = {3}
        cluster.settle()
    cluster.boot(3)
    assert cluster[3].last_index == (3 if answered else 2)
    cluster.run(300)
    assert cluster[1].followers[3] == 3
    assert [e.payload for e in cluster.world.nodes[3].handed].count(b"a") == 1
    assert cluster[3].applied_index == 3


def test_all_nodes_crash_at_once_and_nothing_committed_is_lost() -> None:
    """§5.5, §5.1: what a majority had synced is on a majority after the restart."""
    cluster = led()
    for number in range(10):
        cluster.propose(1, b"%d" % number)
        cluster.settle()
    cluster.silent = {1, 2, 3}
    cluster.propose(1, b"never synced")
    cluster.silent = set()
    for node in (1, 2, 3):
        cluster.boot(node)
    cluster.world.flight.clear()
    cluster.run(5_000)
    payloads = [[e.payload for e in cluster.world.nodes[node].handed] for node in (1, 2, 3)]
    assert payloads[0] == payloads[1] == payloads[2]
    assert payloads[0][2:12] == [b"%d" % number for number in range(10)]


def test_a_leader_that_was_paused_is_not_believed() -> None:
    """§5.5, §8: it wakes up in its old term; it commits and confirms nothing, and follows the new leader."""
    cluster = led()
    cluster.down = {1}
    cluster.run(6_000)
    assert "leader" in (cluster[2].role, cluster[3].role)
    cluster.down = set()
    assert cluster[1].role == "leader"
    time_ms = cluster[1].cluster_time(cluster.now)
    cluster.propose(1, b"too late")
    cluster.read(1, 1)
    cluster.settle()
    assert (cluster[1].role, cluster.answer(1, 1)) == ("follower", -1)
    assert all(e.payload != b"too late" for node in (1, 2, 3) for e in cluster.world.nodes[node].handed)
    assert time_ms < 6_000, "its cluster time did not run while it was paused"


# ---------------------------------------------------------------- §8 clients


def test_a_leader_opens_its_term_with_a_no_op() -> None:
    """§8: without it, it could not know what its predecessors had committed."""
    cluster = Cluster(3)
    cluster.timer(1)
    cluster.settle()
    entries = [m.entries for m in cluster.take_sent() if isinstance(m, peer.AppendEntries) and m.entries]
    assert [(e.kind, e.term, e.index) for e in entries[0]] == [(KIND_NOOP, 2, 2)]
    assert cluster[1].commit_index == 2


def test_a_read_waits_until_the_term_has_committed_something() -> None:
    """§8 "must have the latest information on which entries are committed": then it gets at least the no-op's index."""
    cluster = Cluster(3)
    cluster.silent = {2, 3}
    cluster.timer(1)
    for voter in (2, 3):
        cluster.hear(1, voter, 1, peer.PreVoteReply(2, True))
        cluster.hear(1, voter, 2, peer.VoteReply(True))
    cluster.settle()
    cluster.read(1, 1)
    cluster.settle()
    cluster.hear(1, 2, 2, peer.HeartbeatReply(1, 1, 2, True))
    assert cluster.answer(1, 1) is None
    cluster.silent = set()
    cluster.run(200)
    assert cluster.answer(1, 1) == 2


def test_a_read_waits_for_a_majority_that_was_asked_after_it() -> None:
    """§8 "exchange heartbeat messages with a majority of the cluster before responding": else a deposed leader that
    does not know it yet would answer from the past."""
    cluster = led()
    cluster.isolate(1)
    cluster.run(1_900)
    cluster.read(1, 1)
    cluster.settle()
    assert (cluster[1].role, cluster.answer(1, 1)) == ("leader", None)
    cluster.hear(1, 2, 2, peer.HeartbeatReply(0, 2, 2, True))
    assert cluster.answer(1, 1) is None, "an answer to a heartbeat from before the read"
    cluster.hear(1, 2, 2, peer.HeartbeatReply(1, 2, 2, True))
    assert cluster.answer(1, 1) == 2


def test_a_node_that_does_not_lead_says_so() -> None:
    """§8: "the contacted server will reject the client's request and supply information about the most recent leader"."""
    cluster = led()
    cluster.read(2, 1)
    assert cluster.answer(2, 1) == -1
    refusal = cluster[2].propose((2, 1, 1), b"", 0, cluster.now)
    assert refusal is not None
    assert (refusal.reason, refusal.hint) == ("not-leader", 1)


# ---------------------------------------------------------------- Figure 2, the rest


def test_committed_entries_are_applied_once_and_in_order() -> None:
    """Figure 2 "All Servers": "apply log[lastApplied]"; `Node.absorb` checks that no index is skipped or repeated."""
    cluster = led(unapplied_max_bytes=200)
    for number in range(30):
        cluster.propose(1, b"%d" % number)
    cluster.run(300)
    for node in (1, 2, 3):
        assert [e.index for e in cluster.world.nodes[node].handed] == list(range(1, 33))


def test_a_new_leader_starts_behind_its_own_log_and_knows_nothing_of_others() -> None:
    """Figure 2 "Volatile state on leaders": nextIndex = last + 1, matchIndex = 0, so its no-op is the probe."""
    cluster = Cluster(3, logs={1: [1, 1, 1], 2: [1, 1, 1], 3: [1, 1, 1]})
    cluster.silent = {2, 3}
    cluster.timer(1)
    for voter in (2, 3):
        cluster.hear(1, voter, 1, peer.PreVoteReply(2, True))
        cluster.hear(1, voter, 2, peer.VoteReply(True))
    assert cluster[1].followers == {2: 0, 3: 0}
    probes = [m for m in cluster.take_sent() if isinstance(m, peer.AppendEntries)]
    assert [(m.prev_index, len(m.entries)) for m in probes] == [(3, 1), (3, 1)]
