"""Consensus on a node whose state is wrong, and on its leader: who asks for a snapshot, who sends one, and when it is taken.

The handler alone is stepped; the test plays its kv-server, its log-writer and its peers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from consensus_snapshots import (
    CHAIN,
    SHA,
    TINY,
    done,
    entries,
    leading,
    led,
    piece,
    read,
    recovered,
    sent_to,
    stage,
    take_snapshots,
    wait,
)
from lone_consensus import Alone

from danube_raft.config import Config
from danube_raft.node.handler import KV, LINKS, LOG
from danube_raft.node.snapshot_replacement import ASK_MS, SHUN_MS
from danube_raft.node.snapshot_sender import ASKED_MS
from danube_raft.wire import local, peer

OTHER_CHAIN = bytes(16)


def odd(index: int = 12, config: Config = TINY) -> Alone:
    """A follower of node 1 that has applied 20 entries, whose state the digest at `index` has shown to be wrong."""
    node = led(config)
    node.receive(KV, local.Odd(index, True))
    node.turn()
    return node


def asked(node: Alone) -> list[tuple[int, int]]:
    """(whom, up to where), taken."""
    return [(to, message.index) for to, message in sent_to(node, LINKS, peer.AskSnapshot)]


# ---------------------------------------------------------------- the odd one asks


def test_it_asks_its_leader_again_and_again() -> None:
    node = odd()
    assert asked(node) == [(1, 12)]
    node.now += ASK_MS - 1
    node.turn()
    assert asked(node) == []
    node.now += 1
    node.turn()
    assert asked(node) == [(1, 12)]
    assert (node.handler.next_timer() or 0) > node.now, "it spins"


def test_it_asks_for_what_its_log_goes_on_from() -> None:
    node = led()
    take_snapshots(node, 10, 15)
    node.receive(KV, local.Odd(3, True))
    node.turn()
    assert asked(node) == [(1, 10)]


def test_without_a_leader_it_waits_for_one() -> None:
    node = Alone(recovered=recovered(), points=(), load=False)
    node.receive(KV, local.Odd(3, True))
    node.turn()
    assert asked(node) == []
    assert (node.handler.next_timer() or node.now + 1) > node.now, "it spins"
    node.follow(1)
    node.now += ASK_MS
    node.turn()
    assert asked(node) == [(1, 3)]


# ---------------------------------------------------------------- and takes what fits its log


def test_a_snapshot_of_an_entry_that_it_has_is_staged_compared_and_taken() -> None:
    node = odd()
    node.hear(1, piece(15))
    (staged,) = node.take(LOG, local.StagePiece)
    assert (staged.index, staged.term, staged.offset) == (15, 2, 0)
    stage(node, 100, complete=True, index=15)
    assert node.take(LOG, local.InstallPoint) == [], "its log stays as it is"
    assert node.take(LOG, local.ReadPoint) == [local.ReadPoint(15)]
    assert node.take(KV, local.ReplaceState) == []
    node.receive(LOG, local.PointRead(15, 2, CHAIN))
    node.turn()
    assert node.take(KV, local.ReplaceState) == [local.ReplaceState(15, 2, SHA)]
    assert node.take(KV, local.PointRead) == []


def test_one_whose_chain_is_not_that_of_this_log_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    node = odd()
    node.hear(1, piece(15))
    stage(node, 100, complete=True, index=15)
    node.receive(LOG, local.PointRead(15, 2, OTHER_CHAIN))
    node.turn()
    assert node.take(KV, local.ReplaceState) == []
    assert "is not of this log" in caplog.text


def test_a_point_that_was_asked_for_before_is_not_mistaken() -> None:
    node = odd()
    node.hear(1, piece(15))
    stage(node, 100, complete=True, index=15)
    node.receive(LOG, local.PointRead(14, 2, CHAIN))
    node.turn()
    assert node.take(KV, local.ReplaceState) == []
    node.receive(LOG, local.PointRead(15, 2, CHAIN))
    node.turn()
    assert len(node.take(KV, local.ReplaceState)) == 1


def test_one_from_before_the_digest_is_of_no_use() -> None:
    """It may be of the time when the leader was wrong, for all that the digest says."""
    node = odd(12)
    node.hear(1, piece(11))
    assert node.take(LOG, local.StagePiece) == []
    assert node.take(LINKS, peer.InstallSnapshotReply) == [(1, peer.InstallSnapshotReply(11, 2, 100, True))]


def test_one_that_is_ahead_of_its_log_is_installed() -> None:
    node = odd()
    node.hear(1, piece(30))
    stage(node, 100, complete=True, index=30)
    (point,) = node.take(LOG, local.InstallPoint)
    node.receive(LOG, local.Durable(point.seq))
    node.turn()
    assert node.take(KV, local.InstallSnapshot) == [local.InstallSnapshot(30, 2)]


def test_a_sound_node_takes_nothing_that_it_has() -> None:
    node = led()
    node.hear(1, piece(15))
    assert node.take(LOG, local.StagePiece) == []


# ---------------------------------------------------------------- meanwhile


def test_it_votes_and_acknowledges_and_forgets_nothing() -> None:
    node = odd()
    assert take_snapshots(node, 10, 15, 20) == []
    node.hear(1, peer.AppendEntries(20, 2, 21, 0, entries(21, 22)))
    acks = [message for _, message in node.take(LINKS, peer.AppendReply)]
    assert [(ack.success, ack.match_index, ack.counted) for ack in acks] == [(True, 22, True)]
    node.hear(3, peer.RequestVote(22, 2, True), term=3)
    assert [message.granted for _, message in node.take(LINKS, peer.VoteReply)] == [True]


def test_it_hands_leadership_over_and_hands_out_no_snapshot() -> None:
    node = leading()
    assert len(read(node)) == 1
    node.sent.clear()
    node.receive(KV, local.Odd(12, True))
    node.hear(1, peer.AppendReply(True, 20, 0, 0, True))
    node.turn()
    assert [to for to, _ in node.take(LINKS, peer.TimeoutNow)] == [1]
    node.hear(3, peer.InstallSnapshotReply(15, 2, 100, False))
    wait(node, 3_000)
    assert node.take(LOG, local.ReadPiece) == []
    node.hear(1, peer.AskSnapshot(12))
    assert node.take(KV, local.WantSnapshot) == []
    assert node.take(LOG, local.ReadPiece) == []


def test_it_hands_over_and_sends_nothing_before_it_can_be_replaced() -> None:
    """While a snapshot of the wrong state is still being made, or the mark is not on the disk yet, it asks for none."""
    node = leading()
    node.sent.clear()
    node.receive(KV, local.Odd(12))
    node.hear(1, peer.AppendReply(True, 20, 0, 0, True))
    node.turn()
    assert [to for to, _ in node.take(LINKS, peer.TimeoutNow)] == [1]
    wait(node, 3_000)
    assert node.take(LOG, local.ReadPiece) == []
    node = led()
    node.receive(KV, local.Odd(12))
    assert take_snapshots(node, 10, 15, 20) == [], "it forgets nothing"
    node.hear(1, piece(15))
    assert node.take(LOG, local.StagePiece) == []
    assert asked(node) == []
    node.receive(KV, local.Odd(12, True))
    node.turn()
    assert asked(node) == [(1, 12)]


def test_two_that_are_wrong_do_not_pass_leadership_to_each_other() -> None:
    """The other one asks whoever leads for a snapshot, which this one cannot give; its id is the lower one."""
    node = Alone(config=TINY)
    node.lead()
    for index in (1, 3):
        node.hear(index, peer.AppendReply(True, 2, 0, 0, True))
    node.receive(KV, local.Odd(2, True))
    node.hear(1, peer.AskSnapshot(2))
    assert [to for to, _ in node.take(LINKS, peer.TimeoutNow)] == [3]


def test_one_that_asks_no_more_may_lead() -> None:
    node = Alone(config=TINY)
    node.lead()
    node.hear(1, peer.AppendReply(True, 2, 0, 0, True))
    node.receive(KV, local.Odd(2, True))
    node.hear(1, peer.AskSnapshot(2))
    assert node.take(LINKS, peer.TimeoutNow) == [], "there is only that one"
    node.now += SHUN_MS
    node.hear(1, peer.AppendReply(True, 2, 0, 0, True))
    assert [to for to, _ in node.take(LINKS, peer.TimeoutNow)] == [1]


def test_a_damaged_mark_asks_for_any_snapshot() -> None:
    """Even of a leader that has none: 0 would be reached by none at all."""
    node = odd(0)
    assert asked(node) == [(1, 1)]


# ---------------------------------------------------------------- its leader


def level(snapshots: tuple[int, ...] = (10, 15)) -> Alone:
    """Node 2 leads, and node 1 has all of its log."""
    node = leading(snapshots=snapshots)
    node.sent.clear()
    return node


def test_the_leader_sends_what_reaches_far_enough() -> None:
    node = leading()
    assert [to for to, _ in read(node)] == [3]
    node.sent.clear()
    node.hear(1, peer.AskSnapshot(12))
    assert node.take(KV, local.WantSnapshot) == []
    assert [(to, message.index) for to, message in read(node)] == [(1, 15)]


def test_it_has_one_made_where_there_is_none() -> None:
    node = level()
    node.hear(1, peer.AskSnapshot(18))
    assert node.take(KV, local.WantSnapshot) == [local.WantSnapshot(18)]
    assert 1 not in node.handler._snapshots._sender.offsets
    node.receive(KV, done(20))
    node.turn()
    node.sent.clear()
    node.hear(1, peer.AskSnapshot(18))
    assert node.take(KV, local.WantSnapshot) == []
    wait(node, 100)
    assert 1 in node.handler._snapshots._sender.offsets


def test_who_asks_no_more_gets_no_more() -> None:
    node = level()
    node.hear(1, peer.AskSnapshot(12))
    sender = node.handler._snapshots._sender
    assert 1 in sender.offsets
    wait(node, ASKED_MS + 100)
    assert 1 not in sender.offsets


def test_who_has_begun_with_it_gets_no_more() -> None:
    node = level()
    node.hear(1, peer.AskSnapshot(12))
    node.hear(1, peer.InstallSnapshotReply(15, 2, 250, True))
    node.turn()
    assert 1 not in node.handler._snapshots._sender.offsets


def test_a_follower_is_not_asked() -> None:
    node = led(replace(TINY))
    node.hear(3, peer.AskSnapshot(12))
    assert node.take(KV, local.WantSnapshot) == []
