"""The confirmed read that the kv-server makes for whoever asks whether the node is ready."""

from __future__ import annotations

import itertools

from stepped import SteppedNode

from danube_raft.node.handler import CONSENSUS
from danube_raft.node.read_probe import PATIENCE_MS, ReadProbe
from danube_raft.node.reads import READ_RETRY_MS
from danube_raft.wire.local import ReadConfirmed, ReadIndex, Role


def probe() -> ReadProbe:
    numbers = itertools.count(1)
    return ReadProbe(lambda: next(numbers))


def test_nobody_asks_nothing_happens() -> None:
    """Rounds without end would keep an idle cluster busy."""
    node = SteppedNode()
    before = node.sent[ReadIndex]
    node.advance(60_000)
    assert node.sent[ReadIndex] == before
    assert node.told == []


def test_one_question_is_one_round_and_one_answer() -> None:
    node = SteppedNode()
    before = node.sent[ReadIndex]
    node.ask_for_confirmed_read()
    node.settle()
    commit_index = node.consensus.status(node.now)["commit_index"]
    assert node.told == [ReadConfirmed(node.now, commit_index, commit_index)]
    node.advance(60_000)
    assert (node.sent[ReadIndex] - before, len(node.told)) == (1, 1)


def test_a_round_that_is_not_confirmed_is_tried_again_until_nobody_can_be_waiting() -> None:
    asked = probe()
    asked.ask(0)
    rounds = []
    for now in range(0, 2 * PATIENCE_MS, 50):
        rounds += [(now, message.id) for message in asked.flush(now)]
        if rounds and rounds[-1][0] == now:
            assert asked.confirmed(rounds[-1][1], -1, 9) is None
    assert rounds == [(now, 1 + now // READ_RETRY_MS) for now in range(0, PATIENCE_MS, READ_RETRY_MS)]
    assert asked.next_timer() is None


def test_a_late_answer_to_an_earlier_round_is_not_taken_for_the_newer() -> None:
    """It would say that reads were confirmed at a moment at which nobody was asked."""
    asked = probe()
    asked.ask(0)
    assert asked.flush(0) == [ReadIndex(1)]
    assert asked.flush(READ_RETRY_MS) == [ReadIndex(2)]
    assert asked.confirmed(1, 7, 7) is None
    assert asked.confirmed(2, 8, 7) == ReadConfirmed(READ_RETRY_MS, 8, 7)
    assert asked.confirmed(2, 8, 7) is None
    assert asked.next_timer() is None


def test_a_new_leader_is_asked_at_once() -> None:
    asked = probe()
    asked.again(0)
    assert asked.flush(0) == []
    asked.ask(0)
    asked.flush(0)
    asked.again(10)
    assert asked.flush(10) == [ReadIndex(2)]


def test_questions_that_come_while_one_is_open_share_its_round() -> None:
    node = SteppedNode()
    before = node.sent[ReadIndex]
    node.paused.add(CONSENSUS)
    for _ in range(5):
        node.ask_for_confirmed_read()
        node.settle()
    assert node.sent[ReadIndex] - before == 1
    node.paused.clear()
    node.settle()
    assert len(node.told) == 1


def test_the_kv_server_tries_again_when_its_round_is_not_answered_and_at_once_for_a_new_leader() -> None:
    node = SteppedNode()
    node.paused.add(CONSENSUS)
    before = node.sent[ReadIndex]
    node.ask_for_confirmed_read()
    node.settle()
    assert node.kv.next_timer() == node.now + READ_RETRY_MS, "nothing else would wake it"
    node.advance(READ_RETRY_MS)
    assert node.sent[ReadIndex] - before == 2
    node.kv.receive(CONSENSUS, Role("follower", 9, 5, 0, 0, 0), node.now)
    node.settle()
    assert node.sent[ReadIndex] - before == 3
