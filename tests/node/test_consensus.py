"""Consensus among peers: what it forwards, what it refuses, whom it listens to, how a founded cluster begins."""

from __future__ import annotations

import logging

import pytest
from lone_consensus import FOUNDING, Alone

from danube_raft.node.endpoints import Peers, Unsent
from danube_raft.node.handler import KV, LINKS, LOG
from danube_raft.node.leaderless import SAY_MS
from danube_raft.wire import local, peer
from danube_raft.wire.entry import (
    KIND_BATCH,
    KIND_NOOP,
    Entry,
)

# ---------------------------------------------------------------- batches


def test_a_follower_passes_a_batch_on_to_the_leader() -> None:
    node = Alone()
    node.follow(1)
    node.receive(KV, local.Propose(3, b"batch"))
    node.turn()
    assert node.take(LINKS, peer.ForwardBatch) == [(1, peer.ForwardBatch((2, 4, 3), b"batch"))]
    assert not node.take(LOG, local.Write)
    assert not node.take(KV, local.ProposeRejected)


def test_without_a_leader_a_batch_surely_did_not_leave() -> None:
    node = Alone()
    node.receive(KV, local.Propose(3, b"batch"))
    node.turn()
    assert node.take(KV, local.ProposeRejected) == [local.ProposeRejected(3, "no-leader", 0, left=False)]


def test_a_batch_that_its_link_did_not_take_surely_did_not_leave() -> None:
    node = Alone()
    node.follow(1)
    node.receive(KV, local.Propose(3, b"batch"))
    node.turn()
    (sent,) = [item for edge, item in node.sent if edge == LINKS]
    node.receive(LINKS, Unsent(*sent))
    node.turn()
    assert node.take(KV, local.ProposeRejected) == [local.ProposeRejected(3, "no-leader", 0, left=False)]


def test_a_forwarded_batch_is_never_forwarded_again() -> None:
    """Two nodes that take each other for the leader would send it back and forth for ever (PITFALLS 40, 45)."""
    node = Alone()
    node.follow(1)
    node.hear(3, peer.ForwardBatch((3, 1, 1), b"batch"))
    assert node.take(LINKS, peer.ForwardBatch) == []
    assert node.take(LINKS, peer.ForwardRejected) == [(3, peer.ForwardRejected((3, 1, 1), "not-leader", 1))]


def test_a_leader_appends_a_forwarded_batch_once_however_often_it_comes() -> None:
    node = Alone()
    node.lead()
    for _ in range(3):
        node.hear(3, peer.ForwardBatch((3, 1, 1), b"batch"))
    entries = [entry for write in node.take(LOG, local.Write) for entry in write.entries]
    assert [(entry.kind, entry.origin, entry.payload) for entry in entries] == [
        (KIND_BATCH, (3, 1, 1), b"batch")
    ]
    node.hear(3, peer.ForwardBatch((3, 2, 1), b"after a restart"))
    assert len(node.take(LOG, local.Write)) == 2, "a new boot epoch counts anew"


def test_a_batch_that_speaks_for_another_node_is_refused() -> None:
    node = Alone()
    node.lead()
    node.hear(3, peer.ForwardBatch((1, 1, 1), b"batch"))
    assert node.refused == 1
    assert not node.take(LOG, local.Write)


def test_a_refusal_of_the_leader_does_not_say_that_no_copy_is_under_way() -> None:
    node = Alone()
    node.follow(1)
    node.hear(1, peer.ForwardRejected((2, 4, 3), "overloaded", 0))
    assert node.take(KV, local.ProposeRejected) == [local.ProposeRejected(3, "overloaded", 0, left=True)]
    node.hear(1, peer.ForwardRejected((2, 3, 3), "overloaded", 0))
    assert len(node.take(KV, local.ProposeRejected)) == 1, "that was the boot before"


# ---------------------------------------------------------------- reads


def test_a_follower_asks_the_leader_for_a_read_index() -> None:
    node = Alone()
    node.follow(1)
    node.receive(KV, local.ReadIndex(8))
    node.turn()
    assert node.take(LINKS, peer.ForwardReadIndex) == [(1, peer.ForwardReadIndex((2, 4, 8)))]
    node.hear(1, peer.ForwardReadReply((2, 4, 8), 17))
    node.hear(1, peer.ForwardReadReply((2, 3, 9), 18))
    assert node.take(KV, local.ReadReady) == [local.ReadReady(8, 17)]


def test_a_read_index_is_refused_when_its_link_does_not_take_it_and_when_nobody_leads() -> None:
    node = Alone()
    node.receive(KV, local.ReadIndex(7))
    node.turn()
    assert node.take(KV, local.ReadReady) == [local.ReadReady(7, -1)]
    assert not node.take(LINKS, peer.ForwardReadIndex)
    node.follow(1)
    node.receive(KV, local.ReadIndex(8))
    node.turn()
    (sent,) = [item for edge, item in node.sent if edge == LINKS]
    node.receive(LINKS, Unsent(*sent))
    node.turn()
    assert node.take(KV, local.ReadReady) == [local.ReadReady(8, -1)]


def test_a_node_that_does_not_lead_confirms_no_read_of_another() -> None:
    node = Alone()
    node.follow(1)
    node.hear(3, peer.ForwardReadIndex((3, 1, 1)))
    assert node.take(LINKS, peer.ForwardReadReply) == [(3, peer.ForwardReadReply((3, 1, 1), -1))]


def test_a_leader_confirms_a_read_of_another_with_a_round_of_heartbeats() -> None:
    node = Alone()
    node.lead()
    node.hear(3, peer.AppendReply(True, 2, 0, 0, True))
    node.hear(3, peer.ForwardReadIndex((3, 1, 1)))
    assert not node.take(LINKS, peer.ForwardReadReply)
    node.hear(3, peer.HeartbeatReply(1, 2, 2, True))
    assert node.take(LINKS, peer.ForwardReadReply) == [(3, peer.ForwardReadReply((3, 1, 1), 2))]


def test_how_fresh_this_node_is() -> None:
    node = Alone()
    node.receive(KV, local.AskFresh(1))
    node.turn()
    assert node.take(KV, local.FreshAnswer) == [local.FreshAnswer(1, -1, 0)]
    node.follow(1)

    def answer(number: int) -> tuple[int, int]:
        node.receive(KV, local.AskFresh(number))
        node.turn()
        (found,) = [item for item in node.take(KV, local.FreshAnswer) if item.id == number]
        return found.heard_at_ms, found.index

    node.hear(1, peer.Heartbeat(0, 1, 0))
    assert answer(2) == (-1, 0), (
        "entry 1 is of an older term: a new leader does not know what else was committed"
    )
    noop = Entry(2, 2, KIND_NOOP, 0, 0, (0, 0, 0), b"")
    node.hear(1, peer.AppendEntries(1, 1, 2, 0, (noop,)))
    heard_at = node.now
    node.now += 70
    assert answer(3) == (heard_at, 2)
    node.hear(1, peer.Heartbeat(0, 9, 0))
    assert answer(4) == (-1, 0), "what is at 9 is not here"


def test_a_leader_is_as_fresh_as_the_last_answer_of_a_quorum() -> None:
    """One that is cut off does not know that it is: it must not vouch for the present."""
    node = Alone()
    node.lead()
    node.hear(3, peer.AppendReply(True, 2, 0, 0, True))
    heard_at = node.now
    node.now += 70
    node.receive(KV, local.AskFresh(1))
    node.turn()
    assert node.take(KV, local.FreshAnswer) == [local.FreshAnswer(1, heard_at, 2)]


# ---------------------------------------------------------------- peers


@pytest.mark.parametrize(
    "header",
    [{"cluster_id": 8}, {"receiver": 3}, {"sender": 4}, {"sender": 2}],
    ids=["cluster", "receiver", "stranger", "self"],
)
def test_what_is_not_from_a_member_for_this_node_is_refused(header: dict[str, int]) -> None:
    node = Alone()
    node.hear(1, peer.Heartbeat(0, 0, 0), **header)
    assert node.refused == 1
    assert node.handler.status(node.now)["leader_id"] == 0


def test_only_the_initialiser_begins_the_log() -> None:
    first, second = Alone(1, log=False), Alone(2, log=False)
    (write, *_) = first.take(LOG, local.Write)
    assert [(entry.index, entry.payload) for entry in write.entries] == [(1, FOUNDING.configuration)]
    assert second.take(LOG, local.Write) == []
    second.now = second.handler.next_timer() or 0
    second.turn()
    assert second.handler.next_timer() == 10_000 + SAY_MS, (
        "who knows no configuration only says what it waits for"
    )
    assert second.take(LINKS, peer.RequestPreVote) == []


def test_a_founding_member_with_an_empty_log_hears_and_answers_the_others() -> None:
    node = Alone(2, log=False)
    assert node.take(LINKS, Peers) == [Peers(((1, "127.0.0.1:1"), (3, "127.0.0.1:3")))]
    node.term = 2
    entry = Entry(1, 1, 2, 0, 5, (0, 0, 0), FOUNDING.configuration)
    node.hear(1, peer.AppendEntries(0, 0, 0, 0, (entry,)))
    assert node.take(LINKS, peer.AppendReply) == [(1, peer.AppendReply(True, 1, 0, 0, True))]
    assert node.take(LINKS, Peers) == [Peers(((1, "127.0.0.1:1"), (3, "127.0.0.1:3")))], "nothing has changed"


def test_an_unreachable_peer_is_probed_again() -> None:
    node = Alone()
    node.lead()
    node.hear(3, peer.AppendReply(True, 2, 0, 0, True))
    node.receive(KV, local.Propose(1, b"x"))
    node.turn()
    lost = next(item for edge, item in node.sent if edge == LINKS and item.header.receiver == 3)
    node.receive(LINKS, Unsent(*lost))
    node.turn()
    node.sent.clear()
    node.now += 100
    node.hear(3, peer.HeartbeatReply(0, 2, 2, True))
    resent = [message.entries for to, message in node.take(LINKS, peer.AppendEntries) if to == 3]
    assert [entry.payload for entry in resent[0]] == [b"x"]


def test_members_as_the_leader_and_as_a_follower_see_them() -> None:
    node = Alone()
    node.lead()
    node.hear(3, peer.AppendReply(True, 1, 0, 0, True))
    rows = {row["node_id"]: row for row in node.handler.status(node.now)["members"]}
    assert [rows[id_]["is_leader"] for id_ in (1, 2, 3)] == [False, True, False]
    assert [rows[id_]["reachable"] for id_ in (1, 2, 3)] == [False, True, True]
    assert [rows[id_]["lag_entries"] for id_ in (1, 2, 3)] == [2, 0, 1]
    node.follow(1, 5)
    rows = {row["node_id"]: row for row in node.handler.status(node.now)["members"]}
    assert [rows[id_]["reachable"] for id_ in (1, 2, 3)] == [True, True, None]
    assert [rows[id_]["match_index"] for id_ in (1, 2, 3)] == [None, 2, None]


def test_a_node_without_a_leader_says_for_whom_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    """PITFALLS 37: not only while a cluster is formed; here one whose initialiser was lost at once."""
    node = Alone(2, log=False)
    with caplog.at_level(logging.INFO, logger="danube_raft.consensus"):
        for _ in range(40):
            wake = node.handler.next_timer()
            assert wake is not None
            node.now = max(node.now + 1, wake)
            node.hear(3, peer.PreVoteReply(9, False))
    said = [record.getMessage() for record in caplog.records if "no leader" in record.getMessage()]
    assert said
    assert set(said) == {"no leader; waiting for node 1 at 127.0.0.1:1 to answer"}
    node.follow(1)
    assert node.handler.next_timer() != node.now
