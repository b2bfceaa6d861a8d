"""When a read may be answered: session, linearizable and stale, and what happens at the deadline."""

from __future__ import annotations

from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.errors import ClusterIdMismatch, DanubeRaftError, NoLeader, Timeout
from danube_raft.node.endpoints import Envelope
from danube_raft.node.reads import READ_RETRY_MS, Position, Reads
from danube_raft.wire.client import Request, check, pack_request
from danube_raft.wire.codec import unpack
from danube_raft.wire.local import AskFresh, FreshAnswer, ReadIndex

CLUSTER = 77
ENVELOPE: Envelope = (b"client", b"")
HERE = Position(revision=10, applied_index=5)


class Seen:
    """What a test's reads were answered with, by request id."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.lags: list[int | None] = []
        self.refused: dict[int, type[DanubeRaftError]] = {}
        self.reads = Reads(Config(), CLUSTER, self._answer, self._refuse)

    def _answer(self, request: Request, envelope: Envelope, lag_ms: int | None) -> None:
        assert envelope == ENVELOPE
        self.answered.append(request[2])
        self.lags.append(lag_ms)

    def _refuse(self, request: Request, envelope: Envelope, error: DanubeRaftError) -> None:
        assert envelope == ENVELOPE
        self.refused[request[2]] = type(error)

    def ask(self, number: int, position: Position = HERE, deadline: int = 1_000, **level: Any) -> None:
        request = check(unpack(pack_request("get", number, "/k", **level)))
        self.reads.serve(request, ENVELOPE, deadline, position)


def test_a_session_read_is_answered_at_once_when_its_revision_is_here() -> None:
    seen = Seen()
    seen.ask(1)
    seen.ask(2, min_revision=(CLUSTER, 10))
    assert seen.answered == [1, 2]
    assert seen.reads.next_timer() is None


def test_a_session_read_waits_for_what_its_client_has_seen() -> None:
    seen = Seen()
    seen.ask(1, min_revision=(CLUSTER, 12))
    seen.ask(2, min_revision=(CLUSTER, 11))
    assert seen.answered == [], "neither is here, not even the next revision"
    seen.reads.advance(HERE._replace(revision=11), 0)
    assert seen.answered == [2]
    seen.reads.advance(HERE._replace(revision=12), 0)
    assert seen.answered == [2, 1]
    assert seen.reads.waiting == 0


def test_a_session_read_is_a_timeout_at_its_deadline() -> None:
    seen = Seen()
    seen.ask(1, min_revision=(CLUSTER, 12), deadline=100)
    assert seen.reads.next_timer() == 100
    seen.reads.tick(99)
    assert not seen.refused
    seen.reads.tick(100)
    assert seen.refused == {1: Timeout}


def test_a_token_of_another_cluster_is_refused() -> None:
    seen = Seen()
    with pytest.raises(ClusterIdMismatch):
        seen.ask(1, min_revision=(CLUSTER + 1, 1))


def test_linearizable_reads_of_a_turn_share_a_round_and_wait_for_its_index() -> None:
    seen = Seen()
    seen.ask(1, consistency="linearizable")
    seen.ask(2, consistency="linearizable")
    assert seen.reads.flush(0) == [ReadIndex(1)]
    assert seen.reads.flush(0) == []
    seen.reads.confirmed(1, 7, 0)
    seen.reads.advance(HERE._replace(applied_index=6), 0)
    assert seen.answered == []
    seen.reads.advance(HERE._replace(applied_index=7), 0)
    assert seen.answered == [1, 2]


def test_a_read_never_joins_a_round_that_was_sent_before_it_came() -> None:
    """The round's index may be older than a write that finished before the read began."""
    seen = Seen()
    seen.ask(1, consistency="linearizable")
    assert seen.reads.flush(0) == [ReadIndex(1)]
    seen.ask(2, consistency="linearizable")
    seen.reads.confirmed(1, 5, 0)
    seen.reads.advance(HERE, 0)
    assert seen.answered == [1]
    assert seen.reads.flush(1) == [ReadIndex(2)]


def test_a_round_without_answer_is_asked_again_under_a_new_id_and_its_late_answer_is_ignored() -> None:
    seen = Seen()
    seen.ask(1, consistency="linearizable")
    assert seen.reads.flush(0) == [ReadIndex(1)]
    seen.reads.tick(READ_RETRY_MS)
    assert seen.reads.flush(READ_RETRY_MS) == [ReadIndex(2)]
    seen.reads.confirmed(1, 3, 0)
    seen.reads.advance(HERE, 0)
    assert seen.answered == []
    seen.reads.confirmed(2, 5, 0)
    seen.reads.advance(HERE, 0)
    assert seen.answered == [1]


def test_a_linearizable_read_without_a_leader_says_so_at_its_deadline() -> None:
    seen = Seen()
    seen.ask(1, consistency="linearizable", deadline=300)
    now = 0
    while now < 500 and not seen.refused:
        for round_ in seen.reads.flush(now):
            seen.reads.confirmed(round_.id, -1, 0)
        now = seen.reads.next_timer() or 10_000
        seen.reads.tick(now)
    assert seen.refused == {1: NoLeader}
    assert now == 300, "at its deadline, in whatever state its round is"
    assert seen.reads.waiting == 0


def test_a_stale_read_without_a_bound_is_answered_at_once() -> None:
    seen = Seen()
    seen.ask(1, consistency="stale")
    assert (seen.answered, seen.lags) == ([1], [None])


def test_a_bounded_read_waits_for_what_the_leader_had_committed_and_says_its_lag() -> None:
    seen = Seen()
    seen.ask(1, consistency=500)
    assert seen.reads.flush(1_000) == [AskFresh(1)]
    seen.reads.fresh(FreshAnswer(1, 900, 7), 1_000)
    seen.reads.advance(HERE._replace(applied_index=6), 1_010)
    assert seen.answered == []
    seen.reads.advance(HERE._replace(applied_index=7), 1_020)
    assert (seen.answered, seen.lags) == ([1], [120])
    assert seen.reads.waiting == 0


@pytest.mark.parametrize("heard_at", [-1, 499])
def test_a_bounded_read_that_is_too_old_is_confirmed_by_the_leader(heard_at: int) -> None:
    """Serving it anyway would break the bound, refusing it would help nobody."""
    seen = Seen()
    seen.ask(1, consistency=500)
    assert seen.reads.flush(1_000) == [AskFresh(1)]
    seen.reads.fresh(FreshAnswer(1, heard_at, 5), 1_000)
    seen.reads.advance(HERE, 1_000)
    assert seen.answered == []
    assert seen.reads.flush(1_000) == [ReadIndex(2)]
    seen.reads.confirmed(2, 5, 0)
    seen.reads.advance(HERE, 1_001)
    assert (seen.answered, seen.lags) == ([1], [0])


def test_a_bounded_read_whose_entries_come_too_late_is_confirmed_by_the_leader() -> None:
    seen = Seen()
    seen.ask(1, consistency=500, deadline=9_000)
    assert seen.reads.flush(1_000) == [AskFresh(1)]
    seen.reads.fresh(FreshAnswer(1, 900, 7), 1_000)
    seen.reads.advance(HERE._replace(applied_index=7), 1_401)
    assert seen.answered == []
    assert seen.reads.flush(1_401) == [ReadIndex(2)]


def test_a_bounded_read_without_a_leader_says_so_at_its_deadline() -> None:
    seen = Seen()
    seen.ask(1, consistency=500, deadline=1_300)
    assert seen.reads.flush(1_000) == [AskFresh(1)]
    seen.reads.fresh(FreshAnswer(1, 900, 9), 1_000)
    seen.reads.tick(1_300)
    assert seen.refused == {1: NoLeader}
    assert seen.reads.waiting == 0


def test_rounds_that_an_earlier_leader_was_asked_for_join_a_new_one_at_once() -> None:
    seen = Seen()
    seen.ask(1, consistency="linearizable")
    assert seen.reads.flush(0) == [ReadIndex(1)]
    seen.reads.leader_changed()
    assert seen.reads.flush(1) == [ReadIndex(2)]
    seen.reads.confirmed(1, 3, 0)
    seen.reads.advance(HERE, 1)
    assert seen.answered == []


def test_a_bounded_read_keeps_its_deadline_whatever_else_is_looked_at_meanwhile() -> None:
    """While consensus was asked, the deadline of another read made this one's be forgotten: it waited for ever."""
    seen = Seen()
    seen.ask(1, consistency="linearizable", deadline=100)
    seen.ask(2, consistency=60_000, deadline=5_000)
    assert len(seen.reads.flush(0)) == 2
    seen.reads.tick(100)
    seen.reads.tick(200)
    assert seen.refused == {1: NoLeader}
    assert seen.reads.next_timer() == 5_000
    seen.reads.fresh(FreshAnswer(2, 90, 50), 210)
    seen.reads.tick(5_000)
    assert seen.refused == {1: NoLeader, 2: NoLeader}
    assert seen.reads.waiting == 0
