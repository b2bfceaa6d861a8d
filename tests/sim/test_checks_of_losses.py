"""The checks of disks that forget find what they are there for, in facts made by hand; and let the good run pass.

Three nodes, as `good` in tests/support/facts.py leaves them: entries 1 and 2 lie on nodes 1 and 2 and are committed.
"""

from __future__ import annotations

import pytest
from facts import Stream, entry, good

from danube_raft.sim.checks.facts import Booted, Cleared, Delivered, Forgot, Judged, MarkSynced, Violation
from danube_raft.wire import peer
from danube_raft.wire.entry import HardState

PROMISED = HardState(1, 1)


def forgetful(terms: tuple[int, ...] = ()) -> Stream:
    """Node 2 came back with less, and knows it."""
    stream = good()
    stream.checks.tell(Forgot(2, 0, terms, PROMISED))
    stream.checks.tell(Booted(2, 2))
    stream.checks.tell(Judged(2, True))
    return stream


def recovered() -> Stream:
    """Node 1 leads again, in a term in which it has told node 2 all there is."""
    stream = forgetful()
    stream.write(2, state=HardState(2, 0))
    stream.write(3, state=HardState(3, 1))
    stream.write(1, entry(3, 3), state=HardState(3, 1))
    stream.role(1, "leader", 3, 1)
    stream.write(3, entry(2, 1, b"x"), entry(3, 3))
    stream.write(2, entry(1, 1), entry(2, 1, b"x"), entry(3, 3), state=HardState(3, 0))
    stream.checks.tell(Delivered(1, (entry(3, 3),)))
    stream.checks.tell(Cleared(2))
    return stream


def test_a_node_that_is_brought_up_to_date_passes() -> None:
    stream = recovered()
    stream.send(2, 1, 3, peer.AppendReply(True, 3, 0, 0, True))
    stream.checks.tell(MarkSynced(2, False))
    stream.checks.tell(Booted(2, 3))
    stream.checks.tell(Judged(2, False))


def test_a_node_that_does_not_know_that_it_forgot() -> None:
    stream = good()
    stream.checks.tell(Forgot(2, 0, (), PROMISED))
    stream.checks.tell(Booted(2, 2))
    with pytest.raises(Violation, match="node 2 takes itself for sound, and its disk forgot"):
        stream.checks.tell(Judged(2, False))


def test_a_node_that_forgets_at_the_next_start_that_it_forgot() -> None:
    stream = forgetful()
    stream.checks.tell(Booted(2, 3))
    with pytest.raises(Violation, match="sound, and its disk forgot"):
        stream.checks.tell(Judged(2, False))


def test_a_sound_node_that_is_suspect() -> None:
    stream = good()
    stream.checks.tell(Booted(3, 2))
    with pytest.raises(Violation, match="node 3 takes itself for SUSPECT, and its disk is sound"):
        stream.checks.tell(Judged(3, True))


def test_the_end_may_be_forgotten_until_it_is_in_the_mark() -> None:
    stream = recovered()
    stream.checks.tell(Booted(2, 3))
    stream.checks.tell(Judged(2, True))
    stream = recovered()
    stream.checks.tell(MarkSynced(2, False))
    stream.checks.tell(Booted(2, 3))
    with pytest.raises(Violation, match="its disk is sound"):
        stream.checks.tell(Judged(2, True))


@pytest.mark.parametrize(
    "message",
    [
        peer.VoteReply(True),
        peer.PreVoteReply(2, True),
        peer.RequestPreVote(2, 0, 0),
        peer.HeartbeatReply(1, 0, 0, True),
        peer.AppendReply(False, 2, 0, 0, True),
    ],
)
def test_a_suspect_node_that_counts(message: peer.Message) -> None:
    with pytest.raises(Violation, match="is of a SUSPECT node, and counts"):
        forgetful().send(2, 1, 1, message)


def test_a_suspect_node_that_does_not_count_may_speak() -> None:
    stream = forgetful()
    stream.send(2, 1, 1, peer.VoteReply(False))
    stream.send(2, 1, 1, peer.HeartbeatReply(1, 0, 0, False))


def test_a_commit_counts_what_was_acknowledged_before_the_loss_and_nothing_after_it() -> None:
    def acked(before: bool) -> Stream:
        stream = good()
        stream.write(1, entry(3, 1))
        if before:
            stream.write(2, entry(3, 1))
        stream.checks.tell(Forgot(2, 0, (1, 1), PROMISED))
        if not before:
            stream.write(2, entry(3, 1))
        return stream

    acked(True).checks.tell(Delivered(1, (entry(3, 1),)))
    with pytest.raises(Violation, match="takes index 3 of term 1 for committed; 1 of 3 disks"):
        acked(False).checks.tell(Delivered(1, (entry(3, 1),)))


def test_a_node_that_votes_again_without_what_is_committed() -> None:
    """With node 3 it could elect a leader that has not heard of entry 2."""
    with pytest.raises(Violation, match="node 2 is SUSPECT no more, and too few disks are left"):
        forgetful((1,)).checks.tell(Cleared(2))


def test_a_promise_may_be_forgotten_only_if_it_was_none() -> None:
    stream = good()
    stream.write(3, state=HardState(5, 3))
    stream.checks.tell(Forgot(3, 0, (), HardState(1, 0)))
    stream.write(3, state=HardState(2, 0))
    with pytest.raises(Violation, match="replaces"):
        stream.write(3, state=HardState(1, 0))
