"""Every check finds the violation that it is there for, in a stream of facts made by hand; and lets the good one pass.

Three nodes, as `good` in tests/support/facts.py leaves them.
"""

from __future__ import annotations

import pytest
from facts import Stream, entry, good

from danube_raft.kv.machine import Machine
from danube_raft.kv.record import tombstone
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.deletes import check_lives
from danube_raft.sim.checks.facts import (
    Applied,
    Booted,
    Delivered,
    Ended,
    ReadAnswered,
    ReadAsked,
    Violation,
)
from danube_raft.sim.checks.once import check_once
from danube_raft.sim.checks.registers import check_registers
from danube_raft.sim.checks.replay import check_reads, check_replicas, replay
from danube_raft.sim.checks.revisions import check_revisions
from danube_raft.sim.checks.unique_ids import check_unique_ids
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.wire import peer
from danube_raft.wire.client import LINEARIZABLE, pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry, HardState


def test_a_good_run_passes() -> None:
    stream = good()
    stream.checks.tell(Booted(2, 2))
    stream.elect(2, 2, entry(3, 2))
    stream.role(1, "follower", 2, 2, commit=2)


def test_two_leaders_of_one_term() -> None:
    with pytest.raises(Violation, match="both lead term 1"):
        good().role(2, "leader", 1, 2)
    with pytest.raises(Violation, match="both lead term 1"):
        good().send(3, 2, 1, peer.Heartbeat(1, 0, 0))


def test_a_leader_that_a_majority_has_not_voted_for() -> None:
    stream = good()
    stream.write(3, state=HardState(2, 3))
    with pytest.raises(Violation, match="node 3 leads term 2 with the votes of 1 of 3 disks"):
        stream.role(3, "leader", 2, 3)


def test_one_place_in_the_log_with_two_contents() -> None:
    with pytest.raises(Violation, match="log matching"):
        good().write(3, entry(2, 1, b"other"))


def test_one_entry_after_two_different_ones() -> None:
    stream = good()
    stream.write(3, entry(2, 2), entry(3, 3))
    with pytest.raises(Violation, match="log matching"):
        stream.write(2, entry(3, 3))


def test_cluster_time_that_goes_back_along_a_log() -> None:
    stream = Stream()
    with pytest.raises(Violation, match="goes back"):
        stream.write(1, entry(1, 1, stamp=9), entry(2, 1, stamp=8))


def test_a_leader_that_lacks_what_is_committed() -> None:
    with pytest.raises(Violation, match="leader completeness"):
        good().elect(3, 2, entry(2, 2))


def test_a_late_leader_of_an_old_term_may_lack_it() -> None:
    stream = good()
    stream.write(1, state=HardState(2, 3))
    stream.elect(2, 4, entry(3, 4))
    stream.elect(3, 2, entry(2, 2))


def test_two_entries_applied_at_one_index() -> None:
    stream = good()
    stream.write(3, entry(2, 3), state=HardState(3, 0))
    with pytest.raises(Violation, match="state machine safety"):
        stream.checks.tell(Delivered(3, (entry(1, 1), entry(2, 3))))


def test_an_index_left_out_or_applied_twice() -> None:
    stream = good()
    with pytest.raises(Violation, match="instead of 1"):
        stream.checks.tell(Delivered(2, (entry(2, 1, b"x"),)))
    with pytest.raises(Violation, match="instead of 3"):
        stream.checks.tell(Delivered(1, (entry(2, 1, b"x"),)))


def test_an_entry_applied_before_it_is_on_the_own_disk() -> None:
    stream = good()
    stream.write(3, entry(2, 1, b"x"), sync=False)
    with pytest.raises(Violation, match="not on its own disk"):
        stream.checks.tell(Delivered(3, (entry(1, 1), entry(2, 1, b"x"))))


def test_a_commit_that_a_majority_does_not_hold() -> None:
    stream = good()
    stream.write(1, entry(3, 1))
    with pytest.raises(Violation, match="1 of 3 disks"):
        stream.checks.tell(Delivered(1, (entry(3, 1),)))
    stream = good()
    stream.write(1, entry(3, 1))
    with pytest.raises(Violation, match="1 of 3 disks"):
        stream.send(1, 2, 1, peer.AppendEntries(3, 1, 3, 0, ()))


def test_an_old_entry_committed_by_counting() -> None:
    """Figure 8: it lies on a majority and is not safe."""
    stream = Stream()
    stream.elect(1, 1, entry(1, 1))
    stream.write(2, entry(1, 1))
    stream.elect(2, 2, entry(2, 2))
    with pytest.raises(Violation, match="by counting"):
        stream.send(2, 3, 2, peer.AppendEntries(1, 1, 1, 0, ()))
    stream = Stream()
    stream.elect(1, 1, entry(1, 1))
    stream.write(2, entry(1, 1))
    stream.elect(2, 2, entry(2, 2))
    with pytest.raises(Violation, match="by counting"):
        stream.send(2, 3, 2, peer.Heartbeat(1, 1, 0))


def test_a_read_answered_below_what_was_committed() -> None:
    stream = good()
    stream.checks.tell(ReadAsked(3, 7))
    stream.checks.tell(ReadAnswered(3, 7, -1))
    with pytest.raises(Violation, match="may answer a read at 1"):
        stream.checks.tell(ReadAnswered(3, 7, 1))


def test_a_term_or_a_vote_that_is_taken_back() -> None:
    with pytest.raises(Violation, match="on disk"):
        good().write(2, state=HardState(1, 3))
    with pytest.raises(Violation, match="on disk"):
        good().write(2, state=HardState(0, 0))
    with pytest.raises(Violation, match="term of node 1 goes back"):
        good().role(1, "follower", 0, 0)


def test_two_votes_in_one_term() -> None:
    stream = good()
    stream.checks.tell(Booted(2, 2))
    with pytest.raises(Violation, match="votes for 1 and 3"):
        stream.send(2, 3, 1, peer.VoteReply(True))


def test_a_commit_or_applied_index_that_goes_back() -> None:
    stream = good()
    with pytest.raises(Violation, match="applied index of node 1"):
        stream.checks.tell(Applied(1, 1))
    stream.role(2, "follower", 1, 1, commit=2)
    with pytest.raises(Violation, match="commit index of node 2"):
        stream.role(2, "follower", 1, 0, commit=1)


@pytest.mark.parametrize("earlier", [peer.AppendEntries(2, 1, 2, 0, ()), peer.Heartbeat(1, 2, 0)])
@pytest.mark.parametrize("later", [peer.AppendEntries(2, 1, 1, 0, ()), peer.Heartbeat(2, 1, 0)])
def test_a_commit_index_that_goes_back_in_what_is_sent(earlier: peer.Message, later: peer.Message) -> None:
    """Whoever it is sent to, and in a later term as well; after a restart it may."""
    stream = good()
    stream.send(1, 2, 1, earlier)
    stream.send(1, 3, 1, earlier)
    stream.send(3, 1, 5, later)
    for receiver, term in ((3, 1), (2, 2)):
        with pytest.raises(Violation, match="commit index sent of node 1 goes back from 2 to 1"):
            stream.send(1, receiver, term, later)
    stream.checks.tell(Booted(1, 2))
    stream.send(1, 2, 2, later)


def test_a_commit_past_the_log_and_an_apply_of_what_was_not_handed_on() -> None:
    with pytest.raises(Violation, match="past its log"):
        good().role(3, "follower", 1, 1, commit=2)
    with pytest.raises(Violation, match="was not handed"):
        good().checks.tell(Applied(1, 3))


def test_a_committed_entry_that_is_cut_from_too_many_disks() -> None:
    stream = good()
    stream.write(3, entry(2, 1, b"x"))
    stream.write(2, cut=2)
    with pytest.raises(Violation, match="too few disks are left"):
        stream.write(3, cut=2)


def test_a_boot_epoch_that_comes_again() -> None:
    stream = good()
    stream.checks.tell(Booted(1, 2))
    with pytest.raises(Violation, match="boot epoch"):
        stream.checks.tell(Booted(1, 1))


def test_a_vote_that_is_not_on_disk() -> None:
    stream = good()
    stream.write(3, state=HardState(2, 1), sync=False)
    with pytest.raises(Violation, match="on disk is"):
        stream.send(3, 1, 2, peer.VoteReply(True))
    with pytest.raises(Violation, match="on disk is"):
        good().send(3, 1, 2, peer.RequestVote(1, 1, False))


def test_an_ack_for_what_is_not_on_disk() -> None:
    stream = good()
    stream.write(3, entry(2, 1, b"x"), sync=False)
    with pytest.raises(Violation, match="acks index 2"):
        stream.send(3, 1, 1, peer.AppendReply(True, 2, 0, 0, True))
    with pytest.raises(Violation, match="acks index 2"):
        stream.send(3, 1, 1, peer.HeartbeatReply(1, 2, 2, True))


def test_a_vote_that_never_was_on_disk_though_a_newer_term_is() -> None:
    stream = good()
    stream.write(3, state=HardState(3, 0))
    with pytest.raises(Violation, match="on disk is"):
        stream.send(3, 1, 2, peer.VoteReply(True))
    stream = good()
    stream.write(3, state=HardState(2, 1))
    stream.write(3, state=HardState(3, 0))
    stream.send(3, 1, 2, peer.VoteReply(True))


@pytest.mark.parametrize(
    ("revisions", "wrong"),
    [
        ((2, 4), "a gap: 4"),
        ((3,), "a gap: 3"),
        ((2, 2), "more than one"),
        ((2, 3, 3), "more than one"),
        ((2,), "without"),
    ],
)
def test_revisions_with_a_gap_or_with_two_changes(revisions: tuple[int, ...], wrong: str) -> None:
    archive = Archive()
    archive.attach(replay(()).history)
    archive.events = [(f"/k/{revision}", b"", revision, revision, 1, 0, 0) for revision in revisions]
    with pytest.raises(Violation, match=wrong):
        check_revisions(archive)


def test_an_ack_for_another_entry_than_the_leaders() -> None:
    """The ABA race: the index is durable, with what was there before."""
    stream = good()
    stream.write(3, entry(2, 3), state=HardState(3, 0))
    stream.elect(2, 4, entry(3, 4))
    stream.write(3, state=HardState(4, 0))
    with pytest.raises(Violation, match="acks index 2"):
        stream.send(3, 2, 4, peer.AppendReply(True, 2, 0, 0, True))


def test_an_ack_in_a_term_that_is_not_on_disk() -> None:
    with pytest.raises(Violation, match="term that is not durable"):
        good().send(3, 2, 5, peer.AppendReply(True, 1, 0, 0, True))


# ---------------------------------------------------------------- what clients saw


def done(
    kind: str,
    *args: object,
    result: tuple[object, ...] = (),
    revision: int = 2,
    at: tuple[int, int] = (1, 2),
    **more: object,
) -> Operation:
    operation = Operation(1, kind, args, more.get("level"), at[0])  # type: ignore[arg-type]
    operation.seen_before = int(str(more.get("seen", 0)))
    return operation.end(str(more.get("outcome", OK)), at[1], result, revision)


def entries(*payloads: bytes) -> list[Entry]:
    return [Entry(i, 1, KIND_BATCH, 0, 0, (1, 1, i), payload) for i, payload in enumerate(payloads, start=1)]


def machine(*payloads: bytes) -> Machine:
    return replay(entries(*payloads))


def archive(*payloads: bytes) -> Archive:
    made = Archive()
    replay(entries(*payloads), None, made)
    return made


PUT_A = pack_request("put", 1, "/k", b"a")
RECORD_A = ("/k", b"a", 2, 2, 1, 0, 0)


def test_a_client_that_is_taken_back() -> None:
    tell = Stream().checks.tell
    tell(Ended(done("get", "/k", result=(RECORD_A,), revision=7, seen=7)))
    tell(Ended(done("get", "/k", result=(RECORD_A,), revision=6, seen=7, level="stale")))
    with pytest.raises(Violation, match="taken back"):
        tell(Ended(done("get", "/k", result=(RECORD_A,), revision=6, seen=7)))


def test_a_lease_that_ends_early() -> None:
    tell = Stream().checks.tell
    tell(Ended(done("put_with_ttl", "/ttl/1", b"a", 10, result=(2, 1, None, False), at=(1_000, 2_000))))
    tell(Ended(done("put_with_ttl", "/ttl/1", b"a", 10, at=(3_000, 4_000), outcome=UNCERTAIN)))
    tell(Ended(done("get", "/ttl/1", result=(None,), at=(9_000, 11_000))))
    with pytest.raises(Violation, match=r"gone 0\.001 ms before"):
        tell(Ended(done("get", "/ttl/1", result=(None,), at=(9_000, 10_999))))


def test_a_key_whose_history_has_no_order() -> None:
    first = done("put", "/k", b"a", at=(1, 2))
    check_registers([first, done("get", "/k", result=(RECORD_A,), level=LINEARIZABLE, at=(3, 4))])
    check_registers([first, done("get", "/k", result=(None,), at=(3, 4))])
    with pytest.raises(Violation, match="not linearizable"):
        check_registers([first, done("get", "/k", result=(None,), level=LINEARIZABLE, at=(3, 4))])


def test_an_acknowledged_write_that_is_lost() -> None:
    events = machine(PUT_A).history.events
    check_once([done("put", "/k", b"a", result=(2, 1, None))], events)
    with pytest.raises(Violation, match="acknowledged and lost"):
        check_once(
            [done("put", "/k", b"a", result=(2, 1, None)), done("put", "/k", b"b", result=(3, 2, None))],
            events,
        )


def test_a_write_that_happened_twice() -> None:
    with pytest.raises(Violation, match="written 2 times"):
        check_once([done("put", "/k", b"a", outcome=UNCERTAIN)], machine(PUT_A, PUT_A).history.events)


def test_a_lease_that_is_written_more_often_than_it_was_asked_for() -> None:
    def grant(revision: int, *, renewed: bool = False, outcome: str = OK) -> Operation:
        return done("put_with_ttl", "/ttl/1", b"a", 10, result=(revision, 1, None, renewed), outcome=outcome)

    once = [("/ttl/1", b"a", 2, 2, 1, 1, 0)]
    twice = [*once, ("/ttl/1", None, 0, 3, 0, 0, 0), ("/ttl/1", b"a", 4, 4, 1, 2, 0)]
    check_once([grant(2), grant(2, renewed=True)], once)
    check_once([grant(2), grant(4, outcome=UNCERTAIN)], twice)
    for other in ([], [grant(2, renewed=True)], [grant(3, outcome=REJECTED)]):
        with pytest.raises(Violation, match="written 2 times for 1 writes"):
            check_once([grant(2), *other], twice)


def test_a_rejected_write_that_happened_and_one_that_nobody_made() -> None:
    with pytest.raises(Violation, match="nobody wrote it"):
        check_once([done("put", "/k", b"a", outcome=REJECTED)], machine(PUT_A).history.events)
    with pytest.raises(Violation, match="nobody wrote it"):
        check_once([], machine(PUT_A).history.events)


def test_a_refused_swap_that_happened() -> None:
    with pytest.raises(Violation, match="swap that was refused"):
        check_once(
            [done("compare_and_swap", "/k", None, b"a", result=(False, 0, 0, None))],
            machine(PUT_A).history.events,
        )


def test_an_allocation_that_happened_twice() -> None:
    allocate = pack_request("allocate_id", 1, "ids", 2)
    one = done("allocate_id", "ids", 2, result=(1,))
    check_once([one], machine(allocate).history.events)
    with pytest.raises(Violation, match="moved 2 times"):
        check_once([one], machine(allocate, allocate).history.events)


def test_ids_that_are_handed_out_twice_or_out_of_order() -> None:
    first = done("allocate_id", "ids", 3, result=(1,), at=(1, 2))
    check_unique_ids([first, done("allocate_id", "ids", 1, result=(4,), at=(3, 4))])
    with pytest.raises(Violation, match="twice"):
        check_unique_ids([first, done("allocate_id", "ids", 1, result=(3,), at=(3, 4))])
    later = done("allocate_id", "ids", 3, result=(1,), at=(3, 4))
    with pytest.raises(Violation, match="a lower id"):
        check_unique_ids([done("allocate_id", "ids", 1, result=(9,), at=(1, 2)), later])


def test_a_life_of_a_key_that_ends_twice_or_goes_on_after_its_end() -> None:
    put, again = ("/a", b"1", 2, 2, 1, 0, 0), ("/a", b"2", 2, 3, 2, 0, 0)
    gone, anew = tombstone("/a", 4), ("/a", b"3", 5, 5, 1, 0, 0)
    check_lives([put, again, gone, anew])
    for events in ([put, gone, gone], [gone], [put, gone, again], [put, anew], [put, put]):
        with pytest.raises(Violation, match=r"was not there|does not follow"):
            check_lives(events)


def test_a_read_of_what_was_never_there() -> None:
    reference = archive(PUT_A)
    check_reads(
        [done("get", "/k", result=(RECORD_A,), revision=2), done("get", "/k", result=(None,), revision=1)],
        reference,
    )
    with pytest.raises(Violation, match="the key was"):
        check_reads([done("get", "/k", result=(None,), revision=2)], reference)
    with pytest.raises(Violation, match="not committed"):
        check_reads([done("get", "/k", result=(RECORD_A,), revision=3)], reference)


def test_a_read_of_what_was_compacted_later_is_still_looked_at() -> None:
    reference = archive(PUT_A, pack_request("delete", 2, "/k"), pack_request("compact", 3, 3))
    assert (reference.revision, reference.compactions) == (3, [3])
    check_reads([done("get", "/k", result=(RECORD_A,), revision=2)], reference)
    with pytest.raises(Violation, match="the key was"):
        check_reads([done("get", "/k", result=(None,), revision=2)], reference)


def test_a_replica_that_is_behind_or_different() -> None:
    reference = machine(PUT_A)
    check_replicas({1: machine(PUT_A)}, reference)
    with pytest.raises(Violation, match="has applied 0"):
        check_replicas({1: machine()}, reference)
    with pytest.raises(Violation, match="not what the committed log makes"):
        check_replicas({1: machine(pack_request("put", 2, "/k", b"b"))}, reference)
