"""Reads: the present, the past, pages at one revision, and what a read may cost."""

from __future__ import annotations

from typing import Any

import pytest
from kv_driver import BOUNDS, Driver, request

from danube_raft.errors import Compacted, FutureRevision, InvalidArgument
from danube_raft.kv import reads
from danube_raft.wire import codec


@pytest.fixture
def store() -> Driver:
    return Driver()


def _fill(store: Driver, *keys: str) -> None:
    for key in keys:
        store.do("put", key, key.encode())


def _keys(answer: tuple[Any, ...]) -> list[str]:
    return [record[0] for record in answer[0]]


def _pages(store: Driver, op: str, *args: Any, limit: int, **more: Any) -> list[list[Any]]:
    """All pages of a read whose arguments after the first are limit, token, revision, …"""
    first, *rest = args
    pages, token = [], None
    while True:
        answer = store.read(op, first, limit, token, *rest, **more)
        pages.append(answer[0])
        token = answer[1]
        if token is None:
            return pages


def test_get_of_a_missing_key_is_none(store: Driver) -> None:
    assert store.read("get", "/a") == (None,)


def test_prefix_read_returns_every_match_in_order(store: Driver) -> None:
    """The seed returned the first match only."""
    _fill(store, "/b", "/a/2", "/a/10", "/a", "/ab", "/a/1")
    assert _keys(store.read("range", "/a")) == ["/a", "/a/1", "/a/10", "/a/2", "/ab"]
    assert _keys(store.read("range", "/a/")) == ["/a/1", "/a/10", "/a/2"]
    assert _keys(store.read("range", "")) == ["/a", "/a/1", "/a/10", "/a/2", "/ab", "/b"]


def test_the_last_code_points_are_in_the_ranges_they_belong_to(store: Driver) -> None:
    top = "\U0010ffff"
    _fill(store, "a\ud7ff", "a\ue000", f"a{top}", f"a{top}{top}", "b", top, f"{top}x")
    assert _keys(store.read("range", "a")) == ["a\ud7ff", "a\ue000", f"a{top}", f"a{top}{top}"]
    assert _keys(store.read("range", "a\ud7ff")) == ["a\ud7ff"]
    assert _keys(store.read("range", f"a{top}")) == [f"a{top}", f"a{top}{top}"]
    assert _keys(store.read("range", top)) == [top, f"{top}x"]


def test_start_and_end_narrow_a_prefix(store: Driver) -> None:
    _fill(store, "/a", "/b", "/c", "/d", "0")
    tail = (None, None, None, False, False, False)
    assert _keys(store.read("range", "", *tail, "/b", "/d")) == ["/b", "/c"]
    assert _keys(store.read("range", "", *tail, "/c", None)) == ["/c", "/d", "0"]
    assert _keys(store.read("range", "/", *tail, "/c", "1")) == ["/c", "/d"]
    assert _keys(store.read("range", "/", *tail, "", "/b")) == ["/a"]
    assert _keys(store.read("range", "", *tail, "/c", "/b")) == []
    assert store.read("range", "", None, None, None, False, True, False, "/c", "/b")[3] == 0


def test_reverse_keys_only_and_count(store: Driver) -> None:
    _fill(store, "/a", "/b", "/c")
    assert _keys(store.read("range", "", None, None, None, False, False, True)) == ["/c", "/b", "/a"]
    records, token, revision, count = store.read("range", "", None, None, None, True)
    assert ([r[:2] for r in records], token, revision, count) == (
        [("/a", None), ("/b", None), ("/c", None)], None, 4, 3,
    )  # fmt: skip
    assert store.read("range", "/", None, None, None, False, True) == ([], None, 4, 3)
    assert store.read("range", "/b", None, None, None, False, True) == ([], None, 4, 1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_show_one_revision_whatever_happens_meanwhile(store: Driver, limit: int, reverse: bool) -> None:
    keys = [f"/k{n}" for n in range(7)]
    _fill(store, *keys)
    found: list[str] = []
    token, revision = None, None
    for turn in range(10):
        answer = store.read("range", "/k", limit, token, None, False, False, reverse)
        assert answer[2] == (revision := revision or answer[2])
        found += [record[1].decode() for record in answer[0]]
        token = answer[1]
        if token is None:
            break
        store.do("put", f"/k{turn}x", b"new")
        store.do("put", "/k3", b"changed")
        store.do("delete", f"/k{6 - turn}" if turn < 7 else "/none")
    assert found == sorted(keys, reverse=reverse)


def test_a_page_is_bounded_in_bytes_and_holds_one_record_at_least(store: Driver) -> None:
    for n in range(4):
        store.do("put", f"/k{n}", b"x" * 1_000)
    bounds = reads.Bounds(5_000, 2_200)
    token, sizes = None, []
    while True:
        records, token, _, _ = store.read("range", "/k", None, token, bounds=bounds)
        sizes.append(len(records))
        if token is None:
            break
    assert sizes == [2, 2]
    assert len(store.read("range", "/k", bounds=reads.Bounds(5_000, 1))[0]) == 1
    assert len(store.read("range", "/k", bounds=reads.Bounds(3, 1 << 20))[0]) == 3
    assert len(store.read("range", "/k", None, None, None, True, bounds=bounds)[0]) == 4


def test_a_page_that_was_compacted_away_is_refused_and_never_mixed(store: Driver) -> None:
    _fill(store, "/a", "/b", "/c")
    token = store.read("range", "/", 1)[1]
    _fill(store, "/d")
    store.do("compact", 4)
    assert _keys(store.read("range", "/", 1, token)) == ["/b"]
    store.do("compact", 5)
    with pytest.raises(Compacted) as caught:
        store.read("range", "/", 1, token)
    assert caught.value.details == 5


def test_a_token_from_a_node_that_is_ahead_is_a_future_revision(store: Driver) -> None:
    _fill(store, "/a", "/b")
    token = codec.pack((1, 9, "/b", False))
    with pytest.raises(FutureRevision):
        store.read("range", "/", 1, token)


@pytest.mark.parametrize(
    "token",
    [
        b"", b"\xc1", b"x" * 99, codec.pack(7), codec.pack((1, 2, "/b")), codec.pack((2, 2, "/b", False)),
        codec.pack((1, 0, "/b", False)), codec.pack((1, "2", "/b", False)), codec.pack((1, 2, b"/b", False)),
        codec.pack((1, 2, "/b", True)), codec.pack((1, 2, "0", False)), codec.pack((1, 2, "+", False)),
        codec.pack((True, 2, "/b", False)), codec.pack((1, 2, "/b", 0)), b"\x91" * 2_000,
    ],
)  # fmt: skip
def test_a_token_that_no_page_gave_is_refused(store: Driver, token: bytes) -> None:
    _fill(store, "/a", "/b", "0")
    with pytest.raises(InvalidArgument):
        store.read("range", "/", 1, token)


def test_a_token_goes_with_its_own_revision_only(store: Driver) -> None:
    _fill(store, "/a", "/b")
    token = store.read("range", "/", 1)[1]
    assert _keys(store.read("range", "/", 1, token, 3)) == ["/b"]
    with pytest.raises(InvalidArgument):
        store.read("range", "/", 1, token, 2)


def test_children_stop_at_the_boundary(store: Driver) -> None:
    """The seed listed /ab under /a."""
    _fill(store, "/a", "/a/1", "/a/1/x", "/a/2", "/ab", "/a0", "b")
    assert store.read("get_children", "/a") == (["/a/1", "/a/1/x", "/a/2"], None, 8)
    assert store.read("get_children", "/a/") == store.read("get_children", "/a")
    assert store.read("get_children", "/")[0] == ["/a", "/a/1", "/a/1/x", "/a/2", "/a0", "/ab"]
    assert store.read("get_children", "/none") == ([], None, 8)
    assert _pages(store, "get_children", "/a", limit=2) == [["/a/1", "/a/1/x"], ["/a/2"]]


def test_bulk_gives_key_value_and_version(store: Driver) -> None:
    _fill(store, "/a", "/b", "/b", "c")
    assert store.read("get_bulk", "/") == ([("/a", b"/a", 1), ("/b", b"/b", 2)], None, 5)
    assert _pages(store, "get_bulk", "/", limit=1) == [[("/a", b"/a", 1)], [("/b", b"/b", 2)]]


def test_the_past_is_read_as_it_was(store: Driver) -> None:
    store.do("put", "/a", b"1")
    store.do("put", "/b", b"1")
    store.do("delete", "/a")
    store.do("put", "/a", b"2")
    assert [store.value("/a", revision) for revision in range(1, 6)] == [None, b"1", b"1", None, b"2"]
    assert [_keys(store.read("range", "/", None, None, r)) for r in range(1, 6)] == [
        [], ["/a"], ["/a", "/b"], ["/b"], ["/a", "/b"],
    ]  # fmt: skip
    counts = [store.read("range", "", None, None, r, False, True)[3] for r in range(1, 6)]
    assert counts == [0, 1, 2, 1, 2]
    assert store.read("get_children", "/", None, None, 3)[0] == ["/a", "/b"]


def test_below_compaction_is_compacted_and_above_the_present_is_future(store: Driver) -> None:
    for _ in range(5):
        store.do("put", "/a", b"x")
    store.do("compact", 4)
    assert store.value("/a", 4) == b"x"
    for op in ("get", "range", "get_children", "get_bulk"):
        rest = () if op == "get" else (None, None)
        with pytest.raises(Compacted) as gone:
            store.read(op, "/a", *rest, 3)
        assert gone.value.details == 4
        with pytest.raises(FutureRevision) as future:
            store.read(op, "/a", *rest, 7)
        assert future.value.details == 6


def test_counting_the_past_and_with_a_limit_goes_in_pages(store: Driver) -> None:
    _fill(store, *[f"/k{n}" for n in range(5)])
    store.do("delete_prefix", "/k")
    bounds = reads.Bounds(2, 1 << 20)
    token, counts = None, []
    while True:
        _, token, revision, count = store.read("range", "/", None, token, 6, False, True, bounds=bounds)
        assert revision == 6
        counts.append(count)
        if token is None:
            break
    assert counts == [2, 2, 1]
    _fill(store, "/k1", "/k2", "/k3")
    _, token, _, count = store.read("range", "/", 2, None, None, False, True)
    assert count == 2
    assert store.read("range", "/", 2, token, None, False, True)[1:] == (None, 10, 1)


def test_the_present_never_walks_over_deleted_keys(store: Driver) -> None:
    """A prefix whose keys come and go must not get slower with every key that went."""
    _fill(store, "/k/1", "/k/2", "/k/3")
    store.do("delete", "/k/2")
    store.machine.history._dead = None
    assert _keys(store.read("range", "/k")) == ["/k/1", "/k/3"]
    assert store.read("range", "/k", None, None, None, False, True)[3] == 2


def test_answers_have_the_shape_of_the_operation_table(store: Driver) -> None:
    _fill(store, "/a")
    assert len(reads.answer(store.machine.history, request("range", ""), BOUNDS)) == 4
    assert codec.unpack(codec.pack(store.read("range", ""))) == ((store.read("get", "/a")[0],), None, 2, 1)
