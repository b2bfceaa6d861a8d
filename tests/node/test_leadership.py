"""Long polls for who leads: at once when it is news, else when it changes, else in time; bounded, and never twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stepped import NODE_ID, SteppedNode

from danube_raft import errors
from danube_raft.config import Config
from danube_raft.node.handler import CONSENSUS, LOG
from danube_raft.wire.local import Role

TERM = 2
"""Of the first leadership in a cluster."""


def role(node: SteppedNode, name: str, term: int, leader_id: int) -> None:
    """Consensus says so, as far as the kv-server can tell."""
    node.kv.receive(CONSENSUS, Role(name, term, leader_id, 0, node.now, 0), node.now)
    node.settle()


@pytest.mark.parametrize("known", [(), (0, 0), (TERM, 0), (TERM, NODE_ID + 1), (TERM + 1, NODE_ID)])
def test_what_is_not_known_is_told_at_once(known: tuple[int, ...]) -> None:
    node = SteppedNode()
    wait = (60_000,) if known else ()
    assert node.ask("leadership_poll", *known, *wait)[2:] == (NODE_ID, TERM, "leader")


def test_a_poll_that_does_not_wait_is_answered_though_nothing_is_new() -> None:
    node = SteppedNode()
    assert node.ask("leadership_poll", TERM, NODE_ID)[2:] == (NODE_ID, TERM, "leader")


def test_what_is_known_is_told_again_when_the_wait_is_over_and_not_before() -> None:
    node = SteppedNode()
    soon = node.send("leadership_poll", TERM, NODE_ID, 300)
    late = node.send("leadership_poll", TERM, NODE_ID, 500)
    endless = node.send("leadership_poll", TERM, NODE_ID, 2**53)
    node.settle()
    node.advance(299)
    assert node.take(soon) == []
    node.advance(1)
    assert node.take(soon)[0][7:] == (NODE_ID, TERM, "leader")
    assert node.take(late) == []
    node.advance(200)
    assert len(node.take(late)) == 1
    node.advance(node.config.request_timeout_max_ms - 501)
    assert node.take(endless) == []
    node.advance(1)
    assert len(node.take(endless)) == 1


def test_a_change_of_term_or_leader_is_pushed_to_all_who_wait_and_once() -> None:
    node = SteppedNode()
    for name, term, leader_id in (("follower", 3, 0), ("follower", 3, 7), ("follower", 4, 7)):
        known = node.ask("leadership_poll")
        polls = [node.send("leadership_poll", known[3], known[2], 60_000) for _ in range(3)]
        node.settle()
        assert [node.take(poll) for poll in polls] == [[], [], []]
        role(node, name, term, leader_id)
        for poll in polls:
            ((*_, leader, number, own),) = node.take(poll)
            assert (leader, number, own) == (leader_id, term, name)
    node.advance(61_000)
    assert [node.take(poll) for poll in polls] == [[], [], []]


def test_another_role_under_the_same_leader_is_no_news() -> None:
    node = SteppedNode()
    role(node, "follower", 2, 0)
    poll = node.send("leadership_poll", 2, 0, 60_000)
    node.settle()
    role(node, "pre-candidate", 2, 0)
    assert node.take(poll) == []
    role(node, "candidate", 3, 0)
    assert node.take(poll)[0][7:] == (0, 3, "candidate")


def test_a_leader_that_steps_down_says_so_though_nobody_leads() -> None:
    node = SteppedNode()
    poll = node.send("leadership_poll", TERM, NODE_ID, 60_000)
    node.send("put", "/a", b"1", timeout_ms=60_000)
    node.paused = {LOG}
    node.settle()
    node.advance(node.config.election_max_ms + 2 * node.config.heartbeat_ms)
    ((*_, leader, _, own),) = node.take(poll)
    assert leader == 0
    assert own != "leader"


def test_no_more_polls_wait_than_commands_may() -> None:
    node = SteppedNode(replace(Config(), waiting_max_commands=2))
    for _ in range(2):
        node.send("leadership_poll", TERM, NODE_ID, 200)
    assert node.ask("leadership_poll", TERM, NODE_ID, 200)[0] == errors.Overloaded.code
    assert node.ask("leadership_poll")[2:] == (NODE_ID, TERM, "leader"), "news does not wait"
    node.advance(200)
    waiting = node.send("leadership_poll", TERM, NODE_ID, 200)
    node.settle()
    assert node.take(waiting) == []


def test_a_node_without_polls_wants_no_timer_for_them() -> None:
    node = SteppedNode()
    assert node.kv._leadership.next_timer() is None
    node.send("leadership_poll", TERM, NODE_ID, 200)
    node.settle()
    assert node.kv._leadership.next_timer() == node.now + 200
    assert node.kv.next_timer() is not None
