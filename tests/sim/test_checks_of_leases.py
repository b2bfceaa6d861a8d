"""The checks of leases find one that ended early, whoever noticed: a renewal that was none, or the log of the cluster."""

from __future__ import annotations

from typing import Any

import pytest
from facts import Stream, entry

from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.expiries import ROUNDING_US, HandedOver, check_expiries
from danube_raft.sim.checks.facts import Delivered, Ended, Violation
from danube_raft.sim.checks.replay import replay
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.sim.schedule import MS
from danube_raft.wire.client import pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry

TTL_MS = 10


def grant(
    at: tuple[int, int] = (1_000, 2_000),
    value: bytes = b"a",
    outcome: str = OK,
    renewed: bool = False,
    revision: int = 2,
    ttl_ms: int = TTL_MS,
) -> Operation:
    operation = Operation(1, "put_with_ttl", ("/ttl/1", value, ttl_ms), None, at[0])
    return operation.end(outcome, at[1], (2, 1, None, renewed) if outcome == OK else (), revision)


def other(kind: str, *args: Any, outcome: str = OK) -> Operation:
    return Operation(1, kind, ("/ttl/1", *args), None, 2_500).end(outcome, 2_600, (3, 2, None), 3)


# ---------------------------------------------------------------- renewals


def test_a_renewal_before_the_end_is_answered_as_one() -> None:
    tell = Stream().checks.tell
    tell(Ended(grant()))
    tell(Ended(grant((3_000, 10_999), renewed=True)))
    tell(Ended(grant((4_000, 13_000))))
    with pytest.raises(Violation, match=r"written anew 0\.001 ms before its time"):
        tell(Ended(grant((5_000, 13_999))))


@pytest.mark.parametrize(
    "before",
    [
        [],
        [grant(outcome=UNCERTAIN)],
        [grant(outcome=REJECTED)],
        [grant(value=b"b")],
        [grant(), other("put", b"b")],
        [grant(), other("put", b"b", outcome=UNCERTAIN)],
        [grant(), grant(value=b"b", outcome=UNCERTAIN)],
        [grant(), other("delete")],
        [grant(), other("delete", outcome=UNCERTAIN)],
    ],
)
def test_a_grant_may_be_new_where_the_key_may_have_had_another_value(before: list[Operation]) -> None:
    tell = Stream().checks.tell
    for operation in [*before, grant((3_000, 4_000))]:
        tell(Ended(operation))


def test_a_grant_of_unknown_outcome_that_repeats_the_value_changes_nothing() -> None:
    tell = Stream().checks.tell
    tell(Ended(grant()))
    tell(Ended(grant((2_100, 2_200), outcome=UNCERTAIN)))
    with pytest.raises(Violation, match="written anew"):
        tell(Ended(grant((3_000, 4_000))))


# ---------------------------------------------------------------- swaps


def swap(*args: Any, swapped: bool = True, at: tuple[int, int] = (3_000, 4_000)) -> Operation:
    operation = Operation(1, "compare_and_swap", ("/ttl/1", *args), None, at[0])
    return operation.end(OK, at[1], (swapped, 3, 2, None), 3)


def gone(at: int) -> Ended:
    return Ended(Operation(1, "get", ("/ttl/1",), None, at - 1).end(OK, at, (None,), 4))


def test_a_swap_with_a_ttl_is_a_grant() -> None:
    tell = Stream().checks.tell
    tell(Ended(swap(None, b"a", TTL_MS)))
    with pytest.raises(Violation, match=r"gone 0\.001 ms before"):
        tell(gone(12_999))
    tell(Ended(grant((5_000, 6_000), renewed=True)))
    with pytest.raises(Violation, match="written anew"):
        tell(Ended(grant((6_000, 7_000))))


def test_a_swap_without_a_ttl_clears_it() -> None:
    tell = Stream().checks.tell
    tell(Ended(grant()))
    tell(Ended(swap(b"a", b"b")))
    with pytest.raises(Violation, match="its TTL was cleared"):
        tell(gone(90_000))


def test_a_swap_that_expects_what_is_there_is_not_refused_before_its_end() -> None:
    tell = Stream().checks.tell
    tell(Ended(grant()))
    tell(Ended(swap(b"c", b"b", swapped=False)))
    tell(Ended(swap(b"a", b"b", swapped=False, at=(3_000, 11_000))))
    with pytest.raises(Violation, match=r"refused 0\.001 ms before"):
        tell(Ended(swap(b"a", b"b", swapped=False, at=(3_000, 10_999))))


def test_a_swap_that_was_refused_changes_nothing() -> None:
    tell = Stream().checks.tell
    tell(Ended(grant()))
    tell(Ended(swap(b"c", b"b", swapped=False)))
    tell(gone(11_000))
    with pytest.raises(Violation, match="gone"):
        tell(gone(10_999))


# ---------------------------------------------------------------- expiries in the log


def log_of_a_lease() -> tuple[Archive, list[int]]:
    """Revision 2 is the grant, revision 3 its end: indexes 1 and 2."""
    granting = pack_request("put_with_ttl", 1, "/ttl/1", b"a", TTL_MS)
    ending = pack_request("expire", 2, ((1, 0),))
    entries = [
        Entry(1, 1, KIND_BATCH, 0, 0, (1, 1, 1), granting),
        Entry(2, 1, KIND_BATCH, TTL_MS, 0, (1, 1, 2), ending),
    ]
    archive = Archive()
    revisions: list[int] = []
    replay(entries, revisions, archive)
    assert revisions == [1, 2, 3]
    return archive, revisions


def check(ended: int, *operations: Operation, drift_ppm: int = 0) -> int:
    return check_expiries(operations, *log_of_a_lease(), [0, 1_500, ended], drift_ppm)


DUE = 1_000 + TTL_MS * MS - ROUNDING_US


def test_an_expiry_before_its_time() -> None:
    assert check(DUE, grant()) == 1
    with pytest.raises(Violation, match=r"ended early: by 0\.001 ms in revision 3"):
        check(DUE - 1, grant())
    with pytest.raises(Violation, match="ended early"):
        check(DUE, grant(), grant((1_100, 1_200), renewed=True))


def test_clocks_that_run_fast_may_end_it_sooner() -> None:
    assert check(DUE - 100, grant(), drift_ppm=10_000) == 1
    with pytest.raises(Violation, match="ended early"):
        check(DUE - 101, grant(), drift_ppm=10_000)


@pytest.mark.parametrize(
    "operations",
    [
        [grant(outcome=UNCERTAIN)],
        [grant(revision=3)],
        [grant(), grant((1_100, 1_200), outcome=UNCERTAIN, ttl_ms=1)],
        [grant(), other("delete", outcome=UNCERTAIN)],
        [grant(), Operation(1, "delete_prefix", ("/ttl/",), None, 1)],
    ],
)
def test_what_nobody_was_promised_may_end_at_any_time(operations: list[Operation]) -> None:
    check(2_100, *operations)


def test_the_delete_of_a_key_excuses_no_key_whose_name_goes_on_from_there() -> None:
    """As `/ttl/3/12` and `/ttl/3/120`."""
    shorter = Operation(1, "delete", ("/ttl/",), None, 2_500).end(OK, 2_600, (1, None), 4)
    with pytest.raises(Violation, match="ended early"):
        check(DUE - 1, grant(), shorter)


def test_a_swap_counts_as_a_grant_if_it_was_one() -> None:
    created = Operation(1, "compare_and_swap", ("/ttl/1", None, b"a", TTL_MS), None, 1_000)
    created.end(OK, 2_000, (True, 2, 1, None), 2)
    with pytest.raises(Violation, match="ended early"):
        check(DUE - 1, created)
    created.result = (False, 2, 1, None)
    assert check(DUE - 1, created) == 0


def test_entries_are_handed_over_when_the_first_node_has_them() -> None:
    now = [5]
    handed = HandedOver(lambda: now[0])
    handed.take(Delivered(1, (entry(1, 1), entry(2, 1))))
    now[0] = 7
    handed.take(Delivered(2, (entry(1, 1), entry(2, 1), entry(3, 1))))
    handed.take(Delivered(1, (entry(3, 1),)))
    assert handed.at == [0, 5, 5, 7]
