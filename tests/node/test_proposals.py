"""Batches on their way through the log: repeats, fences, deadlines, and what may be promised about each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from danube_raft.config import Config
from danube_raft.errors import NoLeader, Overloaded, Timeout, Uncertain
from danube_raft.node.proposals import Proposals, Waiter
from danube_raft.wire.client import check, pack_request
from danube_raft.wire.codec import unpack
from danube_raft.wire.local import Propose

CONFIG = Config()


def put(proposals: Proposals, number: int, deadline: int = 5_000, size: int = 10) -> Waiter:
    chunk = pack_request("put", number, f"/k{number}", b"v" * size)
    waiter: Waiter = ((b"client", b""), number, deadline)
    proposals.add(check(unpack(chunk)), chunk, waiter)
    return waiter


def led(config: Config = CONFIG) -> Proposals:
    proposals = Proposals(config)
    assert list(proposals.leader_changed(known=True, now=0)) == []
    return proposals


def test_requests_of_one_turn_become_one_batch_of_the_same_bytes() -> None:
    proposals = led()
    put(proposals, 1)
    put(proposals, 2)
    (propose,) = proposals.flush(0)
    assert propose == Propose(
        1, pack_request("put", 1, "/k1", b"v" * 10) + pack_request("put", 2, "/k2", b"v" * 10)
    )
    assert list(proposals.flush(1)) == []


def test_a_batch_closes_before_its_limit_and_a_larger_command_travels_alone() -> None:
    proposals = led(replace(CONFIG, batch_max_bytes=2_048))
    for number in range(4):
        put(proposals, number, size=900)
    put(proposals, 9, size=5_000)
    sizes = [len(p.payload) for p in proposals.flush(0)]
    assert len(sizes) == 3
    assert all(size <= 2_048 for size in sizes[:2])
    assert sizes[2] > 5_000


def test_silence_is_answered_by_the_same_bytes_under_the_same_seq() -> None:
    proposals = led()
    put(proposals, 1)
    (first,) = proposals.flush(0)
    assert proposals.next_timer() == CONFIG.propose_retry_ms
    assert proposals.tick(CONFIG.propose_retry_ms - 1) == ([], [])
    assert proposals.tick(CONFIG.propose_retry_ms) == ([first], [])


def test_a_new_leader_gets_everything_that_waits() -> None:
    proposals = led()
    put(proposals, 1)
    list(proposals.flush(0))
    put(proposals, 2)
    list(proposals.flush(1))
    assert list(proposals.leader_changed(known=False, now=2)) == []
    assert [p.seq for p in proposals.leader_changed(known=True, now=3)] == [1, 2]


def test_a_batch_below_an_applied_one_gets_a_new_seq() -> None:
    """It can never be applied under the old one: the state machine takes rising seqs only."""
    proposals = led()
    put(proposals, 1)
    (first,) = proposals.flush(0)
    put(proposals, 2)
    list(proposals.flush(0))
    assert proposals.applied(2) is not None
    (again,) = proposals.fence(2, 1)
    assert (again.seq, again.payload) == (3, first.payload)
    assert proposals.applied(1) is None
    batch = proposals.applied(3)
    assert batch is not None
    assert proposals.waiting_commands == proposals.waiting_bytes == 0


def test_without_a_leader_a_request_waits_and_is_then_surely_not_applied() -> None:
    proposals = Proposals(CONFIG)
    early, late = put(proposals, 1, deadline=100), put(proposals, 2, deadline=900)
    assert list(proposals.flush(0)) == []
    assert proposals.next_timer() == 100
    again, expired = proposals.tick(100)
    assert not again
    assert [(waiter, type(error)) for waiter, error in expired] == [(early, NoLeader)]
    (propose,) = proposals.leader_changed(known=True, now=200)
    assert propose.payload == pack_request("put", 2, "/k2", b"v" * 10), (
        "the expired one is not in the batch any more"
    )
    batch = proposals.applied(propose.seq)
    assert batch is not None
    assert batch.waiters == [late]


def test_what_may_be_in_a_log_is_uncertain_at_its_deadline_and_stays_in_its_batch() -> None:
    proposals = led()
    waiter = put(proposals, 1, deadline=100)
    (propose,) = proposals.flush(0)
    _, expired = proposals.tick(100)
    assert [(w, type(error)) for w, error in expired] == [(waiter, Uncertain)]
    (again,) = proposals.tick(600)[0]
    assert again == propose
    batch = proposals.applied(1)
    assert batch is not None
    assert batch.waiters == [None]


def test_a_refused_proposal_never_left() -> None:
    proposals = led()
    waiter = put(proposals, 1, deadline=100)
    (propose,) = proposals.flush(0)
    proposals.rejected(propose.seq, "overloaded", False, 10)
    assert proposals.tick(10 + CONFIG.retry_min_ms - 1) == ([], [])
    (again,) = proposals.tick(10 + CONFIG.retry_min_ms)[0]
    assert again == propose
    proposals.rejected(propose.seq, "overloaded", False, 70)
    _, expired = proposals.tick(100)
    assert [(w, type(error)) for w, error in expired] == [(waiter, Timeout)]
    assert proposals.waiting_commands == 0
    assert proposals.next_timer() is None or proposals.tick(10_000) == ([], [])


def test_what_another_node_refused_may_have_a_copy_that_it_did_not() -> None:
    """Only this node knows of each proposal whether it left; a network may repeat a refusal."""
    proposals = led()
    put(proposals, 1, deadline=2_000)
    list(proposals.flush(0))
    for now in (10, 11):
        proposals.rejected(1, "not-leader", True, now)
    (again,) = proposals.tick(11 + CONFIG.retry_min_ms)[0]
    assert again.seq == 1
    _, expired = proposals.tick(2_000)
    assert [type(error) for _, error in expired] == [Uncertain]


def test_one_refusal_does_not_undo_an_earlier_proposal() -> None:
    proposals = led()
    put(proposals, 1, deadline=2_000)
    list(proposals.flush(0))
    proposals.tick(500)
    proposals.rejected(1, "not-leader", False, 501)
    _, expired = proposals.tick(2_000)
    assert [type(error) for _, error in expired] == [Uncertain]


def test_a_full_queue_refuses_and_frees_again() -> None:
    proposals = led(replace(CONFIG, waiting_max_commands=2))
    put(proposals, 1)
    put(proposals, 2)
    with pytest.raises(Overloaded):
        put(proposals, 3)
    list(proposals.flush(0))
    proposals.applied(1)
    put(proposals, 3)
