"""What scripts cannot say well: the table is whole, the log's terms, membership by index, what refusals look like."""

from __future__ import annotations

import random
import time

import pytest

from danube_raft.config import Config
from danube_raft.raft.cluster_clock import ClusterClock
from danube_raft.raft.core import Core
from danube_raft.raft.log import Log
from danube_raft.raft.membership import Membership
from danube_raft.raft.output import Refusal
from danube_raft.raft.table import RAFT_MESSAGES, TABLE, TIMERS
from danube_raft.wire import local, peer
from danube_raft.wire.entry import (
    KIND_CONFIGURATION,
    KIND_NOOP,
    LEARNER,
    NO_ORIGIN,
    VOTER,
    Configuration,
    Entry,
    HardState,
    Member,
    pack_configuration,
)

from .world import CLUSTER, voters

EMPTY = local.Recovered(HardState(), 0, 0, 0, 0, (), (), "", 1)


def entry(index: int, term: int, payload: bytes = b"") -> Entry:
    return Entry(index, term, KIND_NOOP, 0, 0, NO_ORIGIN, payload)


def leader(config: Config | None = None) -> Core:
    """A sole voter that leads term 2, all durable and applied."""
    core = Core(1, config or Config(), EMPTY, random.Random(1), 0)
    core.bootstrap(voters((1,)), 0, 0)
    core.loaded(0, 0)
    while (write := core.take_output().write) is not None:
        core.durable(write.seq, 0)
    core.applied(core.commit_index)
    assert core.role == "leader"
    return core


def test_every_role_answers_every_message() -> None:
    """A cell that is missing would be a KeyError on the day the message comes."""
    assert set(TABLE) == set(TIMERS)
    for row in TABLE.values():
        assert set(row) == RAFT_MESSAGES


def test_messages_for_others_are_inert() -> None:
    """Late or misrouted messages change nothing, not even the term (etcd#17813)."""
    core = leader()
    vote = peer.RequestVote(99, 99, False)
    for sender, receiver in ((2, 3), (1, 1)):
        core.step(peer.Header(CLUSTER, sender, receiver, 50, 1), vote, 0)
    core.step(peer.Header(CLUSTER, 2, 1, 50, 1), peer.ForwardReadIndex((2, 1, 1)), 0)
    assert (core.role, core.term) == ("leader", 2)
    follower = Core(1, Config(), EMPTY, random.Random(1), 0)
    follower.step(peer.Header(CLUSTER, 2, 3, 50, 1), vote, 0)
    follower.step(peer.Header(CLUSTER, 2, 3, 50, 1), peer.Heartbeat(0, 0, 0), 0)
    assert (follower.term, follower.vote, follower.leader_id) == (0, 0, 0)


def test_a_second_leader_of_a_term_is_a_bug() -> None:
    """It must stop the node, not be believed."""
    core = leader()
    with pytest.raises(AssertionError, match="leads term 2 too"):
        core.step(peer.Header(CLUSTER, 2, 1, 2, 1), peer.Heartbeat(0, 0, 0), 0)


def test_refusals_name_the_leader() -> None:
    """A follower knows where to go, a node without a leader says so."""
    core = Core(1, Config(), EMPTY, random.Random(1), 0)
    core.bootstrap(voters((1, 2, 3)), 0, 0)
    assert core.propose(NO_ORIGIN, b"", 0, 0) == Refusal("no-leader", 0)
    core.step(peer.Header(CLUSTER, 2, 1, 5, 1), peer.Heartbeat(0, 0, 0), 0)
    assert core.propose(NO_ORIGIN, b"", 0, 0) == Refusal("not-leader", 2)


def test_a_heartbeat_commits_only_what_is_verified() -> None:
    """After a restart a follower's log may differ from the leader's, whatever commit index it hears (PITFALLS 17)."""
    recovered = EMPTY._replace(hard_state=HardState(2, 0), last_index=5, runs=((1, 1), (4, 2)))
    core = Core(1, Config(), recovered, random.Random(1), 0)
    header = peer.Header(CLUSTER, 2, 1, 3, 1)
    core.step(header, peer.Heartbeat(0, 5, 0), 0)
    assert core.commit_index == 0
    core.step(header, peer.AppendEntries(4, 2, 5, 0, ()), 0)
    assert core.commit_index == 4


def test_what_is_purged_matches() -> None:
    """A message that begins below the purged index is no conflict (openraft 71a290cd)."""
    recovered = EMPTY._replace(hard_state=HardState(2, 0), purged_index=5, purged_term=2, last_index=5)
    core = Core(1, Config(), recovered, random.Random(1), 0)
    entries = tuple(entry(index, 2) for index in range(3, 8))
    core.step(peer.Header(CLUSTER, 2, 1, 2, 1), peer.AppendEntries(2, 1, 5, 0, entries), 0)
    write = core.take_output().write
    assert write is not None
    assert (write.truncate_from, write.entries) == (0, entries[3:])
    core.durable(write.seq, 0)
    assert core.take_output().messages[0].message == peer.AppendReply(True, 7, 0, 0, True)


def test_a_configuration_goes_with_its_entry() -> None:
    """Active at append; when another leader cuts the entry off, the one before is active again."""
    core = Core(1, Config(), EMPTY, random.Random(1), 0)
    core.bootstrap(voters((1, 2, 3)), 0, 0)
    change = entry(2, 1)._replace(kind=KIND_CONFIGURATION, payload=pack_configuration(voters((1, 2))))
    core.step(peer.Header(CLUSTER, 2, 1, 1, 1), peer.AppendEntries(1, 1, 0, 0, (change,)), 0)
    assert core.configuration == voters((1, 2))
    core.step(peer.Header(CLUSTER, 3, 1, 2, 1), peer.AppendEntries(1, 1, 0, 0, (entry(2, 2),)), 0)
    assert core.configuration == voters((1, 2, 3))


def test_a_vote_is_not_given_while_a_leader_is_heard() -> None:
    """A node that was cut off, or has been removed, cannot depose a leader by a higher term."""
    core = Core(1, Config(), EMPTY, random.Random(1), 0)
    core.step(peer.Header(CLUSTER, 2, 1, 5, 1), peer.Heartbeat(0, 0, 0), 100)
    request = peer.RequestVote(9, 5, False)
    core.step(peer.Header(CLUSTER, 3, 1, 6, 1), request, 1_099)
    assert (core.term, core.vote, core.leader_id) == (5, 0, 2)
    core.step(peer.Header(CLUSTER, 3, 1, 6, 1), request, 1_100)
    assert (core.term, core.vote, core.leader_id) == (6, 3, 0)


def test_acks_that_were_never_asked_for_are_a_bug() -> None:
    """An ack for a write of another boot must not make anything durable."""
    core = leader()
    with pytest.raises(AssertionError):
        core.durable(99, 0)


def test_an_ack_in_the_turn_of_a_truncation_vouches_only_for_what_is_left() -> None:
    """The ABA race within one turn: the write that cuts off is not even issued when the old write's ack comes."""
    core = Core(1, Config(), EMPTY, random.Random(1), 0)
    core.bootstrap(voters((1, 2, 3)), 0, 0)
    core.step(peer.Header(CLUSTER, 2, 1, 2, 1), peer.AppendEntries(1, 1, 1, 0, (entry(2, 2), entry(3, 2))), 0)
    first = core.take_output().write
    assert first is not None
    core.step(peer.Header(CLUSTER, 3, 1, 3, 1), peer.AppendEntries(1, 1, 1, 0, (entry(2, 3),)), 0)
    core.durable(first.seq, 0)
    assert (core.last_index, core.durable_index) == (2, 1)
    output = core.take_output()
    assert not output.messages, "nothing is acknowledged yet"
    assert output.write is not None
    core.durable(output.write.seq, 0)
    assert core.durable_index == 2
    assert [send.message for send in core.take_output().messages] == [peer.AppendReply(True, 2, 0, 0, True)]


def test_removed_and_learner_nodes_do_not_campaign() -> None:
    """A learner waits for its leader; it stops believing in it, without asking for votes."""
    core = Core(1, Config(), EMPTY, random.Random(1), 0)
    core.bootstrap(Configuration((Member(1, LEARNER, "a", "b"), Member(2, VOTER, "c", "d"))), 0, 0)
    core.loaded(0, 0)
    core.step(peer.Header(CLUSTER, 2, 1, 5, 1), peer.Heartbeat(0, 0, 0), 0)
    assert core.leader_id == 2
    core.timer(10_000)
    assert (core.role, core.leader_id, core.next_timer()) == ("follower", 0, None)
    core.step(peer.Header(CLUSTER, 2, 1, 5, 1), peer.Heartbeat(0, 0, 0), 10_000)
    assert core.next_timer() is not None


def test_log_terms_against_a_plain_list() -> None:
    """Runs, truncation and the hint search against the obvious way."""
    source = random.Random(7)
    for _ in range(300):
        recovered = EMPTY._replace(purged_index=3, purged_term=2, last_index=3)
        log, terms = Log(recovered, 1 << 20), {3: 2}
        for _ in range(source.randrange(1, 30)):
            if log.last_index > 3 and source.random() < 0.2:
                first = source.randint(4, log.last_index)
                log.truncate(first)
                terms = {index: term for index, term in terms.items() if index < first}
            log.append(entry(log.last_index + 1, log.last_term + source.choice((0, 0, 1, 2))))
            terms[log.last_index] = log.last_term
        assert {index: log.term(index) for index in range(3, log.last_index + 1)} == terms
        for index in range(3, log.last_index + 3):
            for term in range(log.last_term + 2):
                fits = [i for i, t in terms.items() if i <= index and t <= term]
                assert log.last_at_most(index, term) == max(fits, default=3)


def test_cache_keeps_what_is_not_durable() -> None:
    """What could not be read back is never dropped; the rest goes, oldest first."""
    log = Log(EMPTY, 300)
    for index in range(1, 11):
        log.append(entry(index, 1, bytes(36)))
    log.evict(durable_index=4)
    assert (log.cache_first, log.get(4), log.get(5)) == (5, None, entry(5, 1, bytes(36)))
    log.evict(durable_index=10)
    assert log.cache_first == 8
    log.request(2, 50)
    log.request(2, 50)
    assert log.requests == [local.ReadLog(2, 7, 50)]
    assert log.answered(2, (entry(2, 1), entry(3, 9))) == (entry(2, 1),), "what disagrees is not used"


def test_membership_by_index() -> None:
    """Active at append, gone with a truncation, and who may campaign meanwhile (cowsql/raft#150)."""
    membership = Membership(((1, pack_configuration(voters((1, 2, 3)))),))
    membership.append(5, voters((2, 3)))
    assert membership.voters == (2, 3)
    assert membership.may_campaign(1, commit_index=4), "the configuration without it may never be committed"
    assert not membership.may_campaign(1, commit_index=5)
    membership.append(7, Configuration(voters((2, 3, 4)).members, outgoing=(2, 3)))
    assert membership.others(2) == (3, 4)
    membership.truncate(6)
    assert (membership.voters, membership.outgoing) == ((2, 3), ())
    membership.truncate(1)
    assert membership.configuration == Configuration()
    assert not membership.may_campaign(1, 0)


def test_cluster_time_runs_with_the_clock_of_the_leader() -> None:
    clock = ClusterClock(100, 1_000)
    assert clock.read(5) == 100
    clock.observe(3, 150)
    clock.observe(3, 90)
    clock.lead(4, 120, 10)
    assert [clock.read(at) for at in (10, 500, 1_500, 2_501, 2_502)] == [150, 640, 1_640, 1_640, 1_641]
    clock.stop()
    assert clock.read(9_000) == 1_641


def test_whoever_leads_goes_on_from_the_time_of_the_newest_leader() -> None:
    """An earlier one that was alone for a while is ahead of the one that grants leases; going on from its time would end
    them early (worlds 1543 and 1587). But stamps along a log never fall."""
    for was_leader in (False, True):
        clock = ClusterClock(100, 1_000)
        if was_leader:
            clock.lead(5, 0, 0)
            clock.read(900)
            clock.stop()
        else:
            clock.observe(5, 1_000)
        assert clock.read(1_000) == 1_000
        clock.observe(6, 400)
        clock.lead(7, 0, 2_000)
        assert clock.read(2_050) == 450
        clock.stop()
        clock.observe(8, 300)
        clock.lead(9, 350, 3_000)
        assert clock.read(3_000) == 350


def test_the_wall_clock_rides_along_and_moves_nothing() -> None:
    """Pitfall 43: leases would end whenever somebody sets the clock of a leader."""
    core = leader()
    core.propose((1, 1, 1), b"v", 1_700_000_000_000, 40)
    write = core.take_output().write
    assert write is not None
    (entry,) = write.entries
    assert (entry.stamp_ms, entry.wall_ms) == (40, 1_700_000_000_000)
    assert core.cluster_time(40) == 40


def test_same_seed_same_cluster() -> None:
    """Nothing in the core depends on anything but its inputs."""
    from .chaos import Chaos

    runs = []
    for _ in range(2):
        chaos = Chaos(42, 3)
        chaos.run(1_500)
        runs.append((chaos.committed, chaos.leaders, chaos.world.flight))
    assert runs[0] == runs[1]


def test_cost_of_a_proposal() -> None:
    """Propose, durable, committed, applied for one voter: the aim is 15 µs; 5 times that means something broke."""
    core = leader()
    payload = bytes(1_000_000)
    count = 2_000
    started = time.perf_counter()
    for now in range(1, count + 1):
        core.propose((1, 1, now), payload, 0, now)
        write = core.take_output().write
        assert write is not None
        core.durable(write.seq, now)
        core.applied(core.take_output().committed[-1].index)
    cost_us = (time.perf_counter() - started) / count * 1e6
    print(f"{cost_us:.1f} µs per proposal")
    assert cost_us < 75


def test_a_node_without_a_configuration_votes() -> None:
    """A node that knows no configuration answers, and never campaigns."""
    core = Core(7, Config(), EMPTY, random.Random(1), 0)
    core.loaded(0, 0)
    core.timer(5_000)
    assert (core.role, core.next_timer()) == ("follower", None)
    core.step(peer.Header(CLUSTER, 1, 7, 3, 1), peer.RequestVote(5, 2, False), 5_000)
    output = core.take_output()
    assert output.write is not None
    assert not output.messages
    core.durable(output.write.seq, 5_000)
    assert [send.message for send in core.take_output().messages] == [peer.VoteReply(True)]
