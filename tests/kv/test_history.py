"""What is kept of the past, what it costs, and what compaction leaves."""

from __future__ import annotations

import pytest
from kv_driver import Driver

from danube_raft.kv.record import cost


@pytest.fixture
def store() -> Driver:
    return Driver()


def _counted(store: Driver) -> tuple[int, int]:
    history = store.machine.history
    held = [*history.records.values(), *(r for chain in history.chains.values() for r in chain)]
    return sum(map(cost, history.events)), sum(map(cost, held))


def test_the_size_counters_say_what_is_there(store: Driver) -> None:
    history = store.machine.history
    for n in range(40):
        store.do("put", f"/k{n % 7}", b"x" * n)
        if n % 5 == 0:
            store.do("delete", f"/k{(n + 3) % 7}")
        if n % 11 == 10:
            store.do("compact", history.revision - 6)
        assert (history.event_bytes, history.state_bytes) == _counted(store)
    store.do("delete_prefix", "/")
    store.do("compact", history.revision)
    assert (history.event_bytes, history.state_bytes) == (0, 0)
    assert (history.events, history.chains, history.records) == ([], {}, {})
    assert list(history.past_keys("", None)) == []


def test_compaction_leaves_what_a_read_at_its_revision_needs(store: Driver) -> None:
    store.do("put", "/old", b"1")  # 2
    store.do("put", "/gone", b"1")  # 3
    store.do("delete", "/gone")  # 4
    store.do("put", "/a", b"1")  # 5
    store.do("put", "/late", b"1")  # 6
    store.do("put", "/a", b"2")  # 7
    store.do("delete", "/late")  # 8
    store.do("compact", 6)
    history = store.machine.history
    assert [r[1] for r in history.chains["/a"]] == [b"1"]
    assert "/gone" not in history.chains
    assert [(key, store.value(key, 6)) for key in ("/old", "/gone", "/a", "/late")] == [
        ("/old", b"1"), ("/gone", None), ("/a", b"1"), ("/late", b"1"),
    ]  # fmt: skip
    assert [r[0] for r in store.read("range", "", None, None, 6)[0]] == ["/a", "/late", "/old"]
    store.do("compact", 8)
    assert history.chains == {}
    assert [r[0] for r in store.read("range", "", None, None, 8)[0]] == ["/a", "/old"]


def test_compaction_is_wanted_when_a_quarter_too_much_is_kept(store: Driver) -> None:
    history = store.machine.history
    for n in range(12):
        store.do("put", f"/k{n}", b"x")
        assert history.wants_compaction(10, 1 << 30) is None
    store.do("put", "/k", b"x")
    wanted = history.wants_compaction(10, 1 << 30)
    assert wanted == 4
    store.do("compact", wanted)
    assert len(history.events) == 10
    assert history.wants_compaction(10, 1 << 30) is None


def test_compaction_by_bytes_keeps_the_newest(store: Driver) -> None:
    history = store.machine.history
    for n in range(10):
        store.do("put", f"/k{n}", b"x" * 10_000)
    size = cost(history.events[0])
    assert history.wants_compaction(1_000, size * 8) is None
    wanted = history.wants_compaction(1_000, size * 5)
    assert wanted is not None
    store.do("compact", wanted)
    assert len(history.events) == 5
    assert history.wants_compaction(1_000, 1) is not None


def test_a_revision_is_never_split_by_compaction(store: Driver) -> None:
    history = store.machine.history
    for n in range(8):
        store.do("put", f"/k{n}", b"x")
    store.do("compact", 9)
    store.do("delete_prefix", "/k")
    assert history.wants_compaction(4, 1 << 30) is None
    for n in range(2):
        store.do("put", f"/l{n}", b"x")
    assert history.wants_compaction(4, 1 << 30) is None
    for n in range(4):
        store.do("put", f"/m{n}", b"x")
    assert history.wants_compaction(4, 1 << 30) == 12


def test_a_key_string_is_shared_by_all_its_versions(store: Driver) -> None:
    for _ in range(3):
        store.do("put", "/some/" + "key", b"x")
    store.do("delete", "/some/key")
    assert len({id(event[0]) for event in store.machine.history.events[:3]}) == 1


def test_a_key_last_written_at_the_compaction_revision_keeps_no_past(store: Driver) -> None:
    for _ in range(3):
        store.do("put", "/a", b"x")
    store.do("compact", 4)
    assert store.machine.history.chains == {}
    assert store.value("/a", 4) == b"x"
