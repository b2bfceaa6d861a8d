"""Digests in the state machine: they change nothing, nobody reports for another one, and who is odd follows from one rule."""

from __future__ import annotations

import pytest
from kv_snapshots import grown, whole

from danube_raft.errors import InvalidArgument
from danube_raft.kv.digests import KEPT, Digests, Report, judge
from danube_raft.kv.machine import Machine
from danube_raft.kv.restorer import restore
from danube_raft.wire.client import STATUS_OK, pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry

A, B, C = (Report(1, bytes([number]) * 32) for number in range(3))
OTHER_FORMAT = Report(2, bytes(32))


def apply(machine: Machine, payload: bytes, origin: tuple[int, int, int]) -> list[tuple[int, int, object]]:
    index = machine.applied_index + 1
    entry = Entry(index, machine.applied_term, KIND_BATCH, machine.cluster_ms, 0, origin, payload)
    results = machine.apply(entry)
    assert results is not None
    return list(results)


def report(index: int, report: Report) -> bytes:
    return pack_request("digest_report", 1, index, *report)


# ---------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("reports", "voters", "settled", "hopeful", "differ", "odd"),
    [
        ({}, (1, 2, 3), False, True, False, ()),
        ({1: A}, (1,), True, False, False, ()),
        ({1: A, 2: A, 3: A}, (1, 2, 3), True, False, False, ()),
        ({1: A, 2: A, 3: B}, (1, 2, 3), True, False, True, (3,)),
        ({1: A, 2: A}, (1, 2, 3), True, False, False, ()),
        ({1: A, 2: B}, (1, 2, 3), False, True, True, ()),
        ({1: A, 2: B}, (1, 2), False, False, True, ()),
        ({1: A, 2: B, 3: C}, (1, 2, 3), False, False, True, ()),
        # The most are no majority: half is not enough, nor is the most of those who have reported.
        ({1: A, 2: A, 3: B, 4: C}, (1, 2, 3, 4), False, False, True, ()),
        ({1: A, 2: A, 3: B}, (1, 2, 3, 4, 5), False, True, True, ()),
        ({1: A, 2: A, 3: B, 4: B, 5: C}, (1, 2, 3, 4, 5), False, False, True, ()),
        ({1: A, 2: A, 3: A, 4: B, 5: C}, (1, 2, 3, 4, 5), True, False, True, (4, 5)),
        # A learner is compared and does not count.
        ({1: A, 2: A, 9: B}, (1, 2, 3), True, False, True, (9,)),
        ({1: A, 8: A, 9: A, 2: B}, (1, 2, 3), False, True, True, ()),
        # Of another format: neither odd nor different.
        ({1: A, 2: A, 3: OTHER_FORMAT}, (1, 2, 3), True, False, False, ()),
        ({1: A, 2: A, 3: B, 4: OTHER_FORMAT}, (1, 2, 3), True, False, True, (3,)),
    ],
)
def test_odd_is_who_differs_from_more_than_half_of_the_voters(
    reports: dict[int, Report],
    voters: tuple[int, ...],
    settled: bool,
    hopeful: bool,
    differ: bool,
    odd: tuple[int, ...],
) -> None:
    assert judge(reports, voters) == (settled, hopeful, differ, odd)


# ---------------------------------------------------------------- what is heard


def test_what_a_node_reported_first_stays_and_is_news_once() -> None:
    digests = Digests()
    digests.report(7, 1, A)
    assert digests.of(7) == {}, "nobody asked"
    digests.ask(7)
    digests.report(7, 1, A)
    digests.report(7, 1, B)
    digests.report(7, 2, B)
    assert digests.of(7) == {1: A, 2: B}
    assert digests.take_news() == [7]
    assert digests.take_news() == []


def test_only_the_newest_are_kept() -> None:
    digests = Digests()
    for index in range(1, KEPT + 3):
        digests.ask(index)
        digests.report(index, 1, A)
    assert [index for index in range(1, KEPT + 3) if digests.of(index)] == list(range(3, KEPT + 3))


# ---------------------------------------------------------------- commands


def test_a_digest_says_where_it_is_and_changes_nothing() -> None:
    machine, plain = grown(), grown()
    revision = machine.revision
    (result,) = apply(machine, pack_request("digest", 1), (7, 1, 1))
    assert result == (STATUS_OK, revision, (143,))
    assert machine.digests.asked_index == 143
    (result,) = apply(machine, report(143, A), (7, 1, 2))
    assert result == (STATUS_OK, revision, ())
    for seq in (1, 2):
        apply(plain, b"", (7, 1, seq))
    assert whole(machine) == whole(plain)


def test_a_report_is_of_the_node_that_made_the_batch() -> None:
    machine = grown()
    apply(machine, pack_request("digest", 1), (7, 1, 1))
    apply(machine, report(143, A), (8, 1, 1))
    apply(machine, report(143, B) + report(143, C), (9, 4, 1))
    assert machine.digests.of(143) == {8: A, 9: B}


def test_a_bad_report_is_refused_everywhere_alike() -> None:
    machine = grown()
    payload = pack_request("digest_report", 1, 143, 1, bytes(31))
    ((status, _, _),) = apply(machine, payload, (7, 1, 1))
    assert status == InvalidArgument.code


def test_a_state_that_was_loaded_has_heard_nothing() -> None:
    machine = grown()
    apply(machine, pack_request("digest", 1), (7, 1, 1))
    apply(machine, report(143, A), (8, 1, 1))
    restored = restore(iter([whole(machine)]))
    assert restored.digests.asked_index == 0
    assert restored.digests.of(143) == {}
