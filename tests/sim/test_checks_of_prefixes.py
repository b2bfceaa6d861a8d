"""The checks of what covers many keys find what they are there for: a listing of no single revision, a delete of half a
prefix; and the others take both as what they are, an operation on each of their keys.
"""

from __future__ import annotations

from typing import Any

import pytest

from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Ended, Violation
from danube_raft.sim.checks.prefixes import check_prefixes
from danube_raft.sim.checks.registers import check_registers
from danube_raft.sim.checks.removals import check_removals
from danube_raft.sim.checks.replay import check_reads, replay
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.wire.client import LINEARIZABLE, pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry

K0 = ("/k/0", b"a", 2, 2, 1, 0, 0)
K1 = ("/k/1", b"b", 3, 3, 1, 0, 0)
TOKEN = b"after /k/0"
PUTS = (pack_request("put", 1, "/k/0", b"a"), pack_request("put", 2, "/k/1", b"b"))
DELETE = pack_request("delete_prefix", 3, "/k/")


def archive(*payloads: bytes) -> Archive:
    made = Archive()
    replay([Entry(i, 1, KIND_BATCH, 0, 0, (1, 1, i), p) for i, p in enumerate(payloads, start=1)], None, made)
    return made


def done(
    kind: str, *args: Any, result: tuple[Any, ...] = (), revision: int = 3, at: tuple[int, int] = (1, 2),
    level: str | None = None, outcome: str = OK, seen: int = 0,
) -> Operation:  # fmt: skip
    operation = Operation(1, kind, args, level, at[0])
    operation.seen_before = seen
    return operation.end(outcome, at[1], result, revision)


def page(
    *records: Any, following: bytes | None = None, token: bytes | None = None, shows: int = 3, **more: Any
) -> Operation:
    limit, reverse = more.pop("limit", None), more.pop("reverse", False)
    args = ("/k/", limit, token, None if token is None else shows, False, False, reverse)
    return done("range", *args, result=(records, following, shows, len(records)), **more)


def removed(count: int, revision: int = 4, outcome: str = OK, at: tuple[int, int] = (5, 6)) -> Operation:
    return done("delete_prefix", "/k/", result=(count,), revision=revision, outcome=outcome, at=at)


def test_a_listing_is_what_was_there_at_its_revision() -> None:
    log = archive(*PUTS, DELETE)
    check_prefixes([page(K0, K1), page(K1, K0, reverse=True), page(K0, shows=2), page(shows=4)], log)
    for wrong in (page(K0), page(K1, K0), page(K0, K1, shows=2), page(K0, K1, shows=4), page(K0, K0, K1)):
        with pytest.raises(Violation, match="has "):
            check_prefixes([wrong], log)
    with pytest.raises(Violation, match="not committed"):
        check_prefixes([page(shows=5)], log)


def test_the_pages_of_a_listing_show_one_revision_and_leave_nothing_out() -> None:
    log = archive(*PUTS, DELETE)
    first = page(K0, following=TOKEN, limit=1)
    check_prefixes([first, page(K1, token=TOKEN, limit=1)], log)
    for wrong in (page(token=TOKEN), page(K0, K1, token=TOKEN)):
        with pytest.raises(Violation, match="came before"):
            check_prefixes([first, wrong], log)
    with pytest.raises(Violation, match="came before"):
        check_prefixes([page(K0, K1, following=TOKEN)], log)
    with pytest.raises(Violation, match="more than 1"):
        check_prefixes([page(K0, K1, limit=1)], log)
    strayed = page(K1, token=TOKEN)
    strayed.result = ((K1,), None, 4, 1)
    with pytest.raises(Violation, match="a listing of 3"):
        check_prefixes([first, strayed], log)


def test_a_page_may_be_compacted_if_its_revision_is() -> None:
    refused = page(K1, token=TOKEN, outcome=REJECTED)
    refused.error = "Compacted: gone"
    check_prefixes([refused], archive(*PUTS, DELETE, pack_request("compact", 4, 4)))
    Checks((1, 2, 3)).tell(Ended(refused))
    with pytest.raises(Violation, match="never compacted beyond 3"):
        check_prefixes([refused], archive(*PUTS, DELETE, pack_request("compact", 4, 3)))
    other = done("get", "/k/0", outcome=REJECTED)
    other.error = "Compacted: gone"
    with pytest.raises(Violation, match="need not see"):
        Checks((1, 2, 3)).tell(Ended(other))


def test_a_delete_of_a_prefix_removes_all_of_it_in_one_revision() -> None:
    check_prefixes([removed(2)], archive(*PUTS, DELETE))
    check_prefixes([removed(0, revision=1)], archive(*PUTS))
    one_by_one = archive(*PUTS, pack_request("delete", 3, "/k/0"), pack_request("delete", 4, "/k/1"))
    for count, revision, log in (
        (1, 4, archive(*PUTS, DELETE)),
        (2, 4, one_by_one),
        (1, 4, one_by_one),
        (2, 3, archive(*PUTS, DELETE)),
    ):
        with pytest.raises(Violation, match="removed"):
            check_prefixes([removed(count, revision)], log)
    with pytest.raises(Violation, match="something to remove"):
        check_prefixes([removed(0, revision=3)], archive(*PUTS, DELETE))


def test_it_is_a_delete_of_each_key_and_counts_once() -> None:
    gone = archive(*PUTS, DELETE)
    check_removals([removed(2)], gone)
    check_removals([removed(2, outcome=UNCERTAIN)], gone)
    check_removals([removed(0, revision=1)], archive(*PUTS))
    for other in ([], [removed(2, outcome=REJECTED)], [removed(0)], [removed(2, revision=3)]):
        with pytest.raises(Violation, match="nobody deleted /k/0: 1 times"):
            check_removals(other, gone)
    again = archive(*PUTS, DELETE, pack_request("put", 4, "/k/0", b"c"), DELETE)
    check_removals([removed(2), removed(1, revision=6)], again)
    check_removals([removed(2), removed(1, outcome=UNCERTAIN)], again)
    with pytest.raises(Violation, match="nobody deleted /k/0: 1 times up to revision 6"):
        check_removals([removed(2)], again)


# ---------------------------------------------------------------- registers


def puts() -> list[Operation]:
    return [done("put", "/k/0", b"a", at=(1, 2)), done("put", "/k/1", b"b", at=(3, 4))]


def read(key: str, value: bytes | None, at: tuple[int, int] = (7, 8)) -> Operation:
    return done("get", key, result=(None if value is None else (key, value),), level=LINEARIZABLE, at=at)


def test_a_register_is_empty_after_the_delete_of_its_prefix() -> None:
    for key in ("/k/0", "/k/1"):
        check_registers([*puts(), removed(2), read(key, None)])
        with pytest.raises(Violation, match=f"{key} is not linearizable"):
            check_registers([*puts(), removed(2), read(key, b"a" if key == "/k/0" else b"b")])
    check_registers([*puts(), removed(2, outcome=UNCERTAIN), read("/k/0", b"a"), read("/k/1", None)])


def test_the_number_that_was_removed_tells_what_was_there_if_it_is_all_or_nothing() -> None:
    with pytest.raises(Violation, match="not linearizable"):
        check_registers([*puts(), removed(0)])
    check_registers([*puts(), removed(1), read("/k/0", None)])
    with pytest.raises(Violation, match="not linearizable"):
        check_registers([*puts(), removed(2), removed(2, at=(7, 8))])


def test_a_listing_is_a_read_of_each_key_that_it_covers() -> None:
    def listed(*records: Any, at: tuple[int, int] = (7, 8), **more: Any) -> Operation:
        return page(*records, level=LINEARIZABLE, at=at, **more)

    check_registers([*puts(), listed(K0, K1), removed(2, at=(9, 10)), listed(at=(11, 12))])
    check_registers([*puts(), listed(K0, following=TOKEN)])
    check_registers([*puts(), listed(K1, following=TOKEN, reverse=True)])
    check_registers([*puts(), page(at=(7, 8))])
    for stale in (listed(K0), listed(K1), listed(K1, following=TOKEN), listed(K0, K1, at=(0, 0))):
        with pytest.raises(Violation, match="not linearizable"):
            check_registers([*puts(), stale])
    with pytest.raises(Violation, match="not linearizable"):
        check_registers([*puts(), listed(K0, following=TOKEN, reverse=True)])
    later = page(token=TOKEN, level=LINEARIZABLE, at=(7, 8))
    check_registers([*puts(), later])


def test_a_listing_does_not_take_a_client_back() -> None:
    tell = Checks((1, 2, 3)).tell
    tell(Ended(page(K0, shows=3, revision=9, seen=3)))
    tell(Ended(page(K0, token=TOKEN, shows=3, seen=7)))
    with pytest.raises(Violation, match="taken back"):
        tell(Ended(page(K0, shows=3, revision=9, seen=4)))


# ---------------------------------------------------------------- keys whose TTL was cleared


def granted(at: tuple[int, int] = (1_000, 2_000), outcome: str = OK) -> Operation:
    return done("put_with_ttl", "/ttl/1", b"a", 10, result=(2, 1, None, False), at=at, outcome=outcome)


def cleared(outcome: str = OK) -> Operation:
    return done("put", "/ttl/1", b"b", result=(3, 2, None), at=(3_000, 4_000), outcome=outcome)


def gone(at: int = 90_000) -> Operation:
    return done("get", "/ttl/1", result=(None,), at=(at, at + 1))


def test_a_put_clears_the_ttl_for_good() -> None:
    checks = Checks((1, 2, 3))
    for operation in (granted(), cleared()):
        checks.tell(Ended(operation))
    with pytest.raises(Violation, match="its TTL was cleared"):
        checks.tell(Ended(gone()))
    assert checks.ttl.seen_cleared == 1


@pytest.mark.parametrize(
    "before",
    [
        [granted(outcome=UNCERTAIN), cleared()],
        [granted(), cleared(UNCERTAIN)],
        [granted(), cleared(REJECTED)],
        [granted(), cleared(), done("delete", "/ttl/1", result=(1, None))],
        [granted(), cleared(), done("delete", "/ttl/1", outcome=UNCERTAIN)],
        [granted(), cleared(), granted(at=(5_000, 6_000))],
        [granted(), cleared(), granted(at=(5_000, 6_000), outcome=UNCERTAIN)],
    ],
)
def test_it_may_end_if_it_was_granted_again_or_deleted_or_never_cleared(before: list[Operation]) -> None:
    tell = Checks((1, 2, 3)).tell
    for operation in [*before, gone()]:
        tell(Ended(operation))


# ---------------------------------------------------------------- the past


def test_a_read_of_the_past_shows_what_was_there_then() -> None:
    log = archive(*PUTS, DELETE)
    check_reads(
        [
            done("get", "/k/0", 2, result=(K0,), revision=4),
            done("get", "/k/0", 4, result=(None,), revision=4),
        ],
        log,
    )
    for revision, found in ((2, None), (4, K0)):
        with pytest.raises(Violation, match=f"at revision {revision} the key was"):
            check_reads([done("get", "/k/0", revision, result=(found,), revision=4)], log)


def test_the_past_is_refused_only_if_it_was_compacted() -> None:
    read = done("get", "/k/0", 2, outcome=REJECTED)
    read.error = "Compacted: the history begins at 3"
    Checks((1, 2, 3)).tell(Ended(read))
    log = archive(*PUTS, DELETE)
    with pytest.raises(Violation, match="never compacted beyond 2"):
        check_prefixes([read], log)
    log.compacted_to(3)
    check_prefixes([read], log)
    read.args = ("/k/0",)
    with pytest.raises(Violation, match="need not see"):
        Checks((1, 2, 3)).tell(Ended(read))


def test_a_listing_of_the_past_is_no_step_back() -> None:
    listing = done(
        "range", "/k/", None, None, 2, False, False, False, result=((K0,), None, 2, 1), revision=9, seen=9
    )
    Checks((1, 2, 3)).tell(Ended(listing))
