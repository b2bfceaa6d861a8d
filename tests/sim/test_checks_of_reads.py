"""The checks of bounded reads and of errors find what they are there for: a lag that is not true, a state that is too old,
an error that no client need see. Three nodes, of which node 1 leads.
"""

from __future__ import annotations

import pytest

from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.bounded import check_bounded, check_bounded_in_time
from danube_raft.sim.checks.facts import Booted, Delivered, Ended, Judged, Received, Synced, Told, Violation
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.sim.schedule import MS
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_BATCH, NO_ORIGIN, Entry, HardState

REVISIONS = [1, 1, 2, 3, 4]
"""By index: a no-op, then a write each."""


def read(
    level: int | str, lag_ms: int, *, node: int = 2, answered_ms: int, revision: int, took_ms: int = 2
) -> Operation:
    invoked = (answered_ms - took_ms) * MS
    operation = Operation(1, "get", ("/k/0",), level, invoked)
    operation.node, operation.answered = node, answered_ms * MS
    return operation.end(OK, answered_ms * MS + 500, (None, lag_ms), revision)


def write(at_ms: int, revision: int) -> Operation:
    return Operation(2, "put", ("/k/0", b"a"), None, at_ms * MS - 500).end(OK, at_ms * MS, (), revision)


class Facts:
    """Node 2 follows node 1; `hear` is a sign of life of a leader."""

    def __init__(self, *ids: int, drift_ppm: int = 0) -> None:
        self.checks = Checks(ids or (1, 2, 3), drift_ppm)
        for node in ids or (1, 2, 3):
            self.checks.tell(Booted(node, 1))
            self.checks.tell(Judged(node, suspect=False))
        self.role(2, "follower", 1)

    def role(self, node: int, role: str, term: int) -> None:
        if role == "leader":
            for voter in self.checks.view.voters:
                self.checks.tell(Synced(voter, local.Write(1, 0, (), HardState(term, node))))
        self.checks.tell(Told(node, local.Role(role, term, 1, 0, 0, 0)))

    def receive(
        self, at_ms: int, message: peer.Message, node: int = 2, sender: int = 1, term: int = 1
    ) -> None:
        self.checks.tell(Received(node, at_ms * MS, peer.Header(77, sender, node, term, 1), message))

    def hear(self, at_ms: int, commit: int, term: int = 1) -> None:
        self.receive(at_ms, peer.Heartbeat(0, commit, 0), term=term)

    def end(self, *operations: Operation) -> None:
        for operation in operations:
            self.checks.tell(Ended(operation))
        check_bounded(self.checks.bounded.demands, REVISIONS)


def test_a_lag_that_is_true_and_what_was_known_then() -> None:
    facts = Facts()
    facts.hear(100, 2)
    facts.hear(150, 4)
    facts.end(read(100, 60, answered_ms=160, revision=2))
    facts.end(read(100, 10, answered_ms=160, revision=4))
    assert facts.checks.bounded.heard == 2


def test_a_lag_beyond_the_bound() -> None:
    facts = Facts()
    facts.hear(100, 2)
    with pytest.raises(Violation, match="not within the bound"):
        facts.end(read(100, 101, answered_ms=201, revision=2))


def test_a_lag_that_is_made_up() -> None:
    facts = Facts()
    facts.hear(100, 2)
    with pytest.raises(Violation, match="heard no leader 50 ms before"):
        facts.end(read(100, 50, answered_ms=200, revision=4))


@pytest.mark.parametrize(("drift_ppm", "is_true"), [(20_000, True), (10_000, False), (0, False)])
def test_a_lag_by_a_clock_that_runs_slow(drift_ppm: int, is_true: bool) -> None:
    """1,783 ms are 1,747 ms by a clock that is two percent slow."""
    facts = Facts(drift_ppm=drift_ppm)
    facts.hear(217, 2)
    slow = read(3_000, 1_747, answered_ms=2_000, revision=2)
    if is_true:
        facts.end(slow)
    else:
        with pytest.raises(Violation, match="heard no leader"):
            facts.end(slow)


def test_a_bounded_read_before_what_was_heard_is_applied() -> None:
    facts = Facts()
    facts.hear(100, 4)
    with pytest.raises(Violation, match="told of revision 4"):
        facts.end(read(100, 20, answered_ms=120, revision=3))


def test_what_was_known_before_a_leader_told_less_is_still_known() -> None:
    facts = Facts()
    facts.hear(90, 4)
    facts.hear(100, 2)
    with pytest.raises(Violation, match="told of revision 4"):
        facts.end(read(100, 20, answered_ms=120, revision=3))


def test_what_a_deposed_leader_tells_is_not_demanded_nor_what_came_before_a_restart() -> None:
    facts = Facts()
    facts.role(2, "follower", 2)
    facts.hear(100, 4, term=1)
    facts.hear(101, 2, term=2)
    facts.end(read(100, 9, answered_ms=110, revision=2))
    facts.checks.tell(Booted(2, 2))
    facts.checks.tell(Judged(2, suspect=False))
    facts.hear(120, 4, term=2)
    facts.role(2, "follower", 2)
    facts.hear(125, 2, term=2)
    facts.end(read(100, 5, answered_ms=130, revision=2))


def test_a_lag_is_not_counted_from_a_deposed_leader() -> None:
    facts = Facts()
    facts.hear(90, 2, term=2)
    facts.hear(100, 2, term=1)
    facts.end(read(100, 20, answered_ms=110, revision=2))
    with pytest.raises(Violation, match="heard no leader 10 ms before"):
        facts.end(read(100, 10, answered_ms=110, revision=2))
    facts = Facts()
    facts.role(2, "follower", 2)
    facts.hear(100, 2, term=1)
    with pytest.raises(Violation, match="heard no leader 10 ms before"):
        facts.end(read(100, 10, answered_ms=110, revision=2))


def test_a_leader_goes_on_though_a_newer_term_was_asked_for_in_vain() -> None:
    """A request for a vote is ignored while a leader is heard."""
    facts = Facts()
    facts.hear(90, 2)
    facts.receive(95, peer.RequestVote(0, 0, False), sender=3, term=7)
    facts.hear(100, 2)
    facts.end(read(100, 10, answered_ms=110, revision=2))


def test_a_lag_is_not_counted_from_before_the_log_was_recovered() -> None:
    """What comes between the log-writer's word and consensus' first may have been taken, or not."""
    facts = Facts()
    facts.checks.tell(Booted(2, 2))
    facts.hear(100, 2, term=9)
    facts.checks.tell(Judged(2, suspect=False))
    facts.hear(103, 2, term=9)
    facts.hear(108, 2, term=2)
    facts.role(2, "follower", 2)
    for lag_ms in (5, 10):
        facts.end(read(100, lag_ms, answered_ms=113, revision=2))
    with pytest.raises(Violation, match="heard no leader 13 ms before"):
        facts.end(read(100, 13, answered_ms=113, revision=2))


def test_a_confirmed_read_below_what_was_acknowledged() -> None:
    facts = Facts()
    facts.end(write(100, 3), read(100, 0, answered_ms=120, revision=3))
    with pytest.raises(Violation, match="told of revision 3"):
        facts.end(read(100, 0, answered_ms=130, revision=2))


def test_what_is_acknowledged_while_a_read_is_under_way_is_not_demanded() -> None:
    Facts().end(write(119, 3), read(100, 0, answered_ms=120, revision=1))


def test_a_leader_has_to_be_heard_by_a_quorum() -> None:
    facts = Facts()
    facts.role(1, "leader", 1)
    entries = tuple(Entry(index, 1, KIND_BATCH, 0, 0, NO_ORIGIN, b"x") for index in (1, 2))
    facts.checks.bounded.take(Delivered(1, entries))
    facts.receive(100, peer.HeartbeatReply(0, 0, 0, True), node=1, sender=3)
    facts.end(read(100, 50, node=1, answered_ms=150, revision=2))
    with pytest.raises(Violation, match="told of revision 2"):
        facts.end(read(100, 50, node=1, answered_ms=150, revision=1))
    facts = Facts()
    facts.role(1, "leader", 2)
    facts.receive(100, peer.HeartbeatReply(0, 0, 0, True), node=1, sender=3, term=1)
    with pytest.raises(Violation, match="heard no leader"):
        facts.end(read(100, 50, node=1, answered_ms=150, revision=4))


def test_a_single_node_hears_itself() -> None:
    facts = Facts(1, 2)
    single = Checks((1,))
    single.tell(Ended(write(100, 3)))
    single.tell(Ended(read(100, 3, node=1, answered_ms=120, revision=2)))
    with pytest.raises(Violation, match="told of revision 3"):
        check_bounded(single.bounded.demands, REVISIONS)
    with pytest.raises(Violation, match="heard no leader"):
        facts.end(read(100, 3, node=1, answered_ms=120, revision=3))


def test_a_bounded_read_that_is_too_old_in_real_time() -> None:
    late = read(100, 50, answered_ms=1_000, revision=2)
    assert check_bounded_in_time([late, write(899, 3)], slack_us=0) == 0
    assert check_bounded_in_time([write(897, 3), late], slack_us=1 * MS) == 0
    assert check_bounded_in_time([write(897, 2), late], slack_us=0) == 1
    with pytest.raises(Violation, match="revision 3 had been acknowledged 100 "):
        check_bounded_in_time([late, write(897, 3)], slack_us=0)
    check_bounded_in_time([read("stale", 0, answered_ms=1_000, revision=2), write(897, 3)], slack_us=0)


@pytest.mark.parametrize("kind", ["NoConnection", "Uncertain", "Timeout", "NoLeader", "Overloaded"])
def test_an_error_that_a_fault_explains(kind: str) -> None:
    failed = Operation(1, "put", ("/k/0", b"a"))
    failed.error = f"{kind}: whatever"
    Facts().end(failed.end(UNCERTAIN, 5))


@pytest.mark.parametrize(
    "kind", ["InvalidArgument", "Fatal", "Corrupt", "NotLeader", "StaleSerial", "AssertionError"]
)
def test_an_error_that_no_client_need_see(kind: str) -> None:
    failed = Operation(1, "put", ("/k/0", b"a"))
    failed.error = f"{kind}: whatever"
    with pytest.raises(Violation, match="need not see"):
        Facts().end(failed.end(REJECTED, 5))
