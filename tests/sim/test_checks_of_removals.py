"""The check of removals finds a delete that was acknowledged and not done, and one that nobody asked for; whether the key had
a TTL before, or still has one.
"""

from __future__ import annotations

import pytest

from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.checks.removals import check_removals
from danube_raft.sim.checks.replay import replay
from danube_raft.sim.history import OK, PENDING, REJECTED, UNCERTAIN, Operation
from danube_raft.wire.client import pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry

KEY = "/ttl/1"
PUT = pack_request("put", 1, KEY, b"a")
GRANT = pack_request("put_with_ttl", 2, KEY, b"b", 10)
EXPIRE = pack_request("expire", 3, ((1, 0),))
DELETE = pack_request("delete", 4, KEY)
DELETE_PREFIX = pack_request("delete_prefix", 5, "/ttl/")
OTHER = pack_request("put", 6, "/ttl/10", b"c")


def archive(*payloads: bytes) -> Archive:
    """Payload n makes revision n + 1, at a time at which a lease of before has ended."""
    made = Archive()
    entries = [
        Entry(i, 1, KIND_BATCH, 100 * i, 0, (1, 1, i), payload) for i, payload in enumerate(payloads, start=1)
    ]
    replay(entries, None, made)
    assert made.revision == len(payloads) + 1
    return made


def deleted(count: int, revision: int, key: str = KEY, kind: str = "delete") -> Operation:
    result = (count, None) if kind == "delete" else (count,)
    return Operation(1, kind, (key,), None, 1).end(OK, 2, result, revision)


def unknown(outcome: str = UNCERTAIN, key: str = KEY, kind: str = "delete", seen: int = 0) -> Operation:
    operation = Operation(1, kind, (key,), None, 1)
    operation.seen_before = seen
    return operation if outcome == PENDING else operation.end(outcome, 2)


CLEARED = (GRANT, PUT)
"""Revision 3 is a key without a TTL that had one."""


def test_an_acknowledged_delete_of_a_cleared_key_that_is_not_in_the_log() -> None:
    check_removals([deleted(1, 4)], archive(*CLEARED, DELETE))
    with pytest.raises(Violation, match="acknowledged and not done"):
        check_removals([deleted(1, 4)], archive(*CLEARED, OTHER))
    with pytest.raises(Violation, match="not committed"):
        check_removals([deleted(1, 4)], archive(*CLEARED))


def test_an_acknowledged_delete_is_in_the_revision_of_its_answer_and_alone_there() -> None:
    with pytest.raises(Violation, match="acknowledged and not done"):
        check_removals([deleted(1, 3)], archive(*CLEARED, DELETE))
    with pytest.raises(Violation, match="acknowledged and not done"):
        check_removals([deleted(1, 4)], archive(PUT, OTHER, DELETE_PREFIX))
    with pytest.raises(Violation, match="acknowledged and not done"):
        check_removals([deleted(1, 4, "/ttl/10")], archive(*CLEARED, DELETE))
    with pytest.raises(Violation, match="acknowledged and not done"):
        check_removals([deleted(1, 1)], archive(PUT))


def test_an_acknowledged_delete_that_found_nothing() -> None:
    check_removals([deleted(0, 1), deleted(1, 4), deleted(0, 4)], archive(*CLEARED, DELETE))
    check_removals([deleted(0, 3)], archive(GRANT, EXPIRE))
    for revision in (2, 3):
        with pytest.raises(Violation, match="there was"):
            check_removals([deleted(1, 4), deleted(0, revision)], archive(*CLEARED, DELETE))


def test_one_removal_is_not_the_work_of_two_deletes() -> None:
    again = archive(PUT, DELETE, PUT, DELETE)
    check_removals([deleted(1, 3), deleted(1, 5)], again)
    with pytest.raises(Violation, match="answered to two deletes"):
        check_removals([deleted(1, 3), deleted(1, 5), deleted(1, 5)], again)
    with pytest.raises(Violation, match="answered to two deletes"):
        check_removals([deleted(1, 3), deleted(1, 3, "/ttl/", "delete_prefix")], archive(PUT, DELETE))


@pytest.mark.parametrize("before", [CLEARED, (OTHER, PUT)])
def test_an_end_of_a_key_without_a_ttl_that_nobody_asked_for(before: tuple[bytes, ...]) -> None:
    gone = archive(*before, DELETE)
    for cause in (
        unknown(),
        unknown(PENDING),
        unknown(seen=3),
        unknown(kind="delete_prefix", key="/ttl/"),
        unknown(kind="delete_prefix", key=""),
    ):
        check_removals([cause], gone)
    for other in (
        [],
        [unknown(REJECTED)],
        [deleted(0, 1)],
        [unknown(key="/ttl/")],
        [unknown(key="/ttl/10"), unknown(kind="delete_prefix", key="/k/")],
        [unknown(seen=4)],
        [unknown(kind="put")],
    ):
        with pytest.raises(
            Violation, match=r"nobody deleted /ttl/1: 1 times up to revision 4, for 0 deletes"
        ):
            check_removals(other, gone)


def test_a_delete_of_unknown_outcome_ends_a_key_once() -> None:
    again = archive(PUT, DELETE, PUT, DELETE)
    check_removals([unknown(), unknown()], again)
    check_removals([unknown(), deleted(1, 3)], again)
    check_removals([unknown(), deleted(1, 5)], again)
    for outcome in (UNCERTAIN, PENDING):
        with pytest.raises(Violation, match="2 times up to revision 5, for 1 deletes"):
            check_removals([unknown(outcome)], again)


def test_a_delete_of_unknown_outcome_of_a_prefix_ends_each_of_its_keys() -> None:
    gone = archive(PUT, OTHER, DELETE_PREFIX)
    assert [event[0] for event in gone.of(4)] == [KEY, "/ttl/10"]
    check_removals([unknown(kind="delete_prefix", key="/ttl/")], gone)
    check_removals([deleted(2, 4, "/ttl/", "delete_prefix")], gone)
    with pytest.raises(Violation, match="nobody deleted /ttl/10"):
        check_removals([unknown()], gone)


def test_a_lease_may_end_by_itself() -> None:
    check_removals([], archive(GRANT, EXPIRE))
    check_removals([], archive(PUT, GRANT, EXPIRE))
