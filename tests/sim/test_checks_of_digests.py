"""The check of digests finds what it is there for, in a stream of facts made by hand."""

from __future__ import annotations

import pytest
from facts import Stream, entry, good

from danube_raft.kv.snapshot import FORMAT
from danube_raft.sim.checks.facts import Booted, Delivered, Ended, FoundOdd, Loaded, LoadTold, Violation
from danube_raft.sim.history import OK, Operation
from danube_raft.wire.client import pack_request
from danube_raft.wire.entry import Entry


def right(stream: Stream, index: int = 2) -> bytes:
    return bytes.fromhex(stream.checks.digests._reference.digest_at(index))


def report(stream: Stream, index: int, node: int, sha256: bytes, of: int = 2) -> None:
    made = entry(index, 1, pack_request("digest_report", 1, of, FORMAT, sha256))._replace(
        origin=(node, 1, index)
    )
    deliver(stream, made)


def deliver(stream: Stream, made: Entry) -> None:
    stream.write(1, made)
    stream.write(2, made)
    stream.checks.tell(Delivered(1, (made,)))


def answered(stream: Stream, node: int, kind: str = "get", at: int = 10) -> None:
    operation = Operation(1, kind, ("/a",), "stale")
    operation.node, operation.answered = node, at
    stream.checks.digests.take(Ended(operation.end(OK, at, (None,), 0)))


def test_equal_reports_of_what_the_log_makes_pass_and_are_counted() -> None:
    stream = good()
    for node in (1, 2, 3):
        report(stream, 2 + node, node, right(stream))
    assert (stream.checks.digests.reported, stream.checks.digests.compared) == (3, 1)


def test_a_hash_of_another_state() -> None:
    """As of an entry later, on every node alike."""
    stream = good()
    report(stream, 3, 1, right(stream))
    with pytest.raises(Violation, match="digest of 2 that the log does not make"):
        report(stream, 4, 2, right(stream, 3))


def test_two_hashes_of_one_node() -> None:
    stream = good()
    stream.checks.view.falsified.add(1)
    report(stream, 3, 1, bytes(32))
    with pytest.raises(Violation, match="two digests"):
        report(stream, 4, 1, right(stream))


def test_a_report_of_what_is_not_there_yet() -> None:
    with pytest.raises(Violation, match="a digest of 3 in entry 3"):
        report(good(), 3, 1, bytes(32), of=3)


def test_a_node_that_accuses_itself_wrongly() -> None:
    with pytest.raises(Violation, match="takes its state for wrong"):
        good().checks.tell(FoundOdd(2, 2))


def falsified() -> Stream:
    stream = good()
    stream.checks.view.falsified.add(2)
    stream.checks.tell(FoundOdd(2, 2))
    return stream


def test_one_that_was_made_wrong_may_say_so_and_has_to_be_silent() -> None:
    stream = falsified()
    answered(stream, 1)
    answered(stream, 2, "put")
    with pytest.raises(Violation, match="knows that its state is wrong, and answers"):
        answered(stream, 2)


def begin(stream: Stream, digest: str, *, odd: bool) -> None:
    stream.checks.tell(Booted(2, 2))
    if odd:
        stream.checks.tell(FoundOdd(2, 2))
    stream.checks.tell(LoadTold(2, 2, 1, installed=False))
    stream.checks.tell(Loaded(2, 2, digest))


@pytest.mark.parametrize("odd", [True, False])
def test_the_next_start_ends_it_only_with_a_right_state_and_without_the_mark(odd: bool) -> None:
    stream = falsified()
    begin(stream, stream.checks.snapshots._reference.digest_at(2), odd=odd)
    assert stream.checks.digests.replaced == (not odd)
    assert stream.checks.digests.odd == ({2} if odd else set())
    if odd:
        with pytest.raises(Violation, match="answers"):
            answered(stream, 2)
    else:
        answered(stream, 2)


def test_a_wrong_state_again_without_the_mark_is_no_end_of_it() -> None:
    stream = falsified()
    begin(stream, "another", odd=False)
    with pytest.raises(Violation, match="answers"):
        answered(stream, 2)
