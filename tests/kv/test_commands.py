"""What each command does to records, versions and revisions, and what the seed got wrong there."""

from __future__ import annotations

import pytest
from kv_driver import WALL_MS, Driver, code, request

from danube_raft.errors import Compacted, FutureRevision, InvalidArgument, NoSpace, ProtocolVersion
from danube_raft.kv import limits
from danube_raft.wire import arguments, client, codec
from danube_raft.wire.entry import KIND_CONFIGURATION, NO_ORIGIN, Entry


@pytest.fixture
def store() -> Driver:
    return Driver()


def test_an_empty_store_is_at_revision_1_and_the_first_change_takes_2(store: Driver) -> None:
    assert store.machine.revision == 1
    assert store.result("put", "/a", b"1") == (0, 2, (2, 1, None))


def test_version_grows_with_each_put_and_starts_again_after_a_delete(store: Driver) -> None:
    assert [store.do("put", "/a", b"x")[1] for _ in range(3)] == [1, 2, 3]
    store.do("delete", "/a")
    assert store.do("put", "/a", b"x") == (6, 1, None)
    assert store.read("get", "/a")[0][2] == 6


def test_a_record_keeps_when_it_was_created(store: Driver) -> None:
    store.do("put", "/a", b"1")
    created = WALL_MS + store.now
    store.now += 500
    store.do("put", "/a", b"2")
    assert store.read("get", "/a") == (("/a", b"2", 2, 3, 2, 0, created),)


def test_previous_records_are_returned_when_asked_for(store: Driver) -> None:
    store.do("put", "/a", b"1")
    old = store.read("get", "/a")[0]
    assert store.do("put", "/a", b"2", True) == (3, 2, old)
    old = store.read("get", "/a")[0]
    assert store.do("delete", "/a", True) == (1, old)


def test_delete_of_a_missing_key_is_no_error_no_revision_and_no_event(store: Driver) -> None:
    store.watch("w", "")
    assert store.result("delete", "/a", True) == (0, 1, (0, None))
    assert store.result("delete_prefix", "/a") == (0, 1, (0,))
    assert store.events() == {}


def test_delete_prefix_removes_all_matches_in_one_revision(store: Driver) -> None:
    for key in ("/a/1", "/a/2", "/b", "/a"):
        store.do("put", key, b"x")
    store.watch("w", "")
    assert store.result("delete_prefix", "/a/") == (0, 6, (2,))
    assert [(kind, record[0], record[1], record[3]) for kind, record, _ in store.events()["w"]] == [
        (1, "/a/1", None, 6),
        (1, "/a/2", None, 6),
    ]
    assert [r[0] for r in store.read("range", "")[0]] == ["/a", "/b"]


def test_compare_and_swap_takes_a_value_a_revision_or_absence(store: Driver) -> None:
    assert store.do("compare_and_swap", "/a", None, b"1") == (True, 2, 1, None)
    current = store.read("get", "/a")[0]
    assert store.do("compare_and_swap", "/a", None, b"2") == (False, 2, 1, current)
    assert store.do("compare_and_swap", "/a", b"0", b"2") == (False, 2, 1, current)
    assert store.do("compare_and_swap", "/a", 9, b"2") == (False, 2, 1, current)
    assert store.machine.revision == 2
    assert store.do("compare_and_swap", "/a", b"1", b"2") == (True, 3, 2, None)
    assert store.do("compare_and_swap", "/a", 3, b"3") == (True, 4, 3, None)
    current = store.read("get", "/a")[0]
    assert store.do("compare_and_swap", "/a", 3, b"4") == (False, 4, 3, current), "what is there is newer"
    assert store.do("compare_and_swap", "/none", b"", b"1") == (False, 0, 0, None)
    assert store.do("compare_and_swap", "/none", 4, b"1") == (False, 0, 0, None)


def test_ids_are_unique_and_increasing_and_begin_at_1(store: Driver) -> None:
    """Pitfall 46: they are reserved through the log, so nothing is reserved in memory that a leader could forget."""
    assert store.do("allocate_id", "topics") == (1,)
    assert store.do("allocate_id", "topics", 10) == (2,)
    assert store.do("allocate_id", "topics") == (12,)
    assert store.do("allocate_id", "others") == (1,)
    assert store.value("/counters/topics") == b"12"


def test_a_counter_is_watched_and_listed_like_a_key(store: Driver) -> None:
    store.watch("w", "/counters/")
    store.do("allocate_id", "c", 5)
    assert [(k, r[0], r[1]) for k, r, _ in store.events()["w"]] == [(0, "/counters/c", b"5")]
    assert store.read("get_children", "/counters")[0] == ["/counters/c"]


@pytest.mark.parametrize("prefix", ["/", "/c", "/counters", "/counter"])
def test_nothing_but_allocate_id_touches_a_counter(store: Driver, prefix: str) -> None:
    store.do("allocate_id", "c")
    store.do("put", "/counter", b"x")
    store.do("delete_prefix", prefix)
    assert store.value("/counters/c") == b"1"
    for op, *args in (
        ("put", "/counters/c", b"0"), ("put_with_ttl", "/counters/c", b"0", 5), ("delete", "/counters/c"),
        ("delete_prefix", "/counters/"), ("compare_and_swap", "/counters/c", b"1", b"0"),
    ):  # fmt: skip
        raw = client.pack_request(op, 1, *args)
        assert store.raw(raw)[0][0] == code(InvalidArgument)
    assert store.do("allocate_id", "c") == (2,)


def test_a_counter_ends_before_its_ids_are_too_large_for_json(store: Driver) -> None:
    key = "/counters/c"
    value = b"%d" % (arguments.MAX_INTEGER - 1)
    store.machine.history.put(None, (key, value, 2, 2, 1, 0, 0))
    store.twin.history.put(None, (key, value, 2, 2, 1, 0, 0))
    assert store.result("allocate_id", "c", 2)[0] == code(InvalidArgument)
    assert store.do("allocate_id", "c") == (arguments.MAX_INTEGER,)


def test_compact_refuses_what_is_gone_and_what_is_to_come(store: Driver) -> None:
    for _ in range(5):
        store.do("put", "/a", b"x")
    assert store.result("compact", 7) == (
        code(FutureRevision),
        6,
        ("the store is at revision 6", 6),
    )
    assert store.result("compact", 4) == (0, 6, (4,))
    assert store.result("compact", 3)[0] == code(Compacted)
    assert store.result("compact", 4) == (0, 6, (4,))


def test_a_bad_command_is_an_error_of_its_own_and_the_others_apply(store: Driver) -> None:
    """Pitfall 41: never an exception, and the same words on every replica."""
    good = client.pack_request("put", 1, "/a", b"1")
    results = store.raw(good + client.pack_request("put", 1, "/a") + codec.pack(5) + good)
    assert [status for status, _, _ in results] == [0, code(InvalidArgument), code(InvalidArgument), 0]
    assert store.read("get", "/a")[0][4] == 2


@pytest.mark.parametrize(
    "garbage", [b"\xc1", b"\x93\x01", b"\xa5ab", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000]
)
def test_garbage_ends_a_batch_with_one_error(store: Driver, garbage: bytes) -> None:
    good = client.pack_request("put", 1, "/a", b"1")
    results = store.raw(good + garbage)
    assert results == [(0, 2, (2, 1, None)), (code(InvalidArgument), 2, ("the batch is broken here", None))]


def test_a_deeply_nested_request_is_refused_and_not_a_recursion_error(store: Driver) -> None:
    nested = b"\x91" * 1015 + b"\x01"
    for raw in (b"\x93" + nested + b"\xa3put\x01", b"\x93\x01" + nested + b"\x01"):
        assert store.raw(raw)[0][0] == code(ProtocolVersion)


def test_a_read_in_a_batch_is_refused(store: Driver) -> None:
    assert store.result("get", "/a")[0] == code(InvalidArgument)


def test_a_copy_of_a_batch_changes_nothing(store: Driver) -> None:
    """Pitfall 40: kv-server proposes a batch again after silence, and both copies may be committed."""
    put = [request("put", "/a", b"1")]
    assert store.batch(put, (3, 1, 5)) is not None
    assert store.batch(put, (3, 1, 5)) is None
    assert store.batch(put, (3, 1, 4)) is None
    assert store.read("get", "/a")[0][4] == 1
    assert store.batch(put, (4, 1, 4)) is not None
    assert store.batch(put, (3, 2, 1)) is not None
    assert store.batch(put, (3, 1, 6)) is None
    assert store.machine.origins == {3: (2, 1), 4: (1, 4)}
    store.check_equal()


def test_an_entry_that_is_not_the_next_one_stops_the_node(store: Driver) -> None:
    entry = Entry(5, 1, KIND_CONFIGURATION, 0, 0, NO_ORIGIN, b"")
    with pytest.raises(AssertionError):
        store.machine.apply(entry)


def test_a_bug_in_apply_is_never_swallowed(store: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 41: an exception that one replica skips makes it another store."""
    monkeypatch.setattr(store.machine.history, "records", None)
    with pytest.raises(AttributeError):
        store.do("put", "/a", b"1")


def test_a_configuration_is_remembered_for_the_snapshot(store: Driver) -> None:
    assert store.machine.apply(Entry(1, 3, KIND_CONFIGURATION, 9, 0, NO_ORIGIN, b"conf")) == []
    assert (store.machine.configuration, store.machine.applied_term, store.machine.cluster_ms) == (
        b"conf",
        3,
        9,
    )


def test_cluster_time_never_goes_back(store: Driver) -> None:
    store.tick(100)
    store.now -= 500
    store.tick(0)
    assert store.machine.cluster_ms == 1_100


def test_a_full_store_takes_what_makes_room_and_nothing_else(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.do("put", "/a", b"1")
    store.do("put_with_ttl", "/t", b"1", 50)
    store.do("put", "/x", b"1")
    monkeypatch.setattr(limits, "MAX_STATE_BYTES", store.machine.state_bytes)
    for op, *args in (
        ("put", "/a", b"2"), ("put_with_ttl", "/t", b"2", 5), ("compare_and_swap", "/a", b"1", b"2"),
        ("allocate_id", "c"),
    ):  # fmt: skip
        assert store.result(op, *args)[0] == code(NoSpace)
    assert store.do("put_with_ttl", "/t", b"1", 70)[3] is True
    assert store.do("delete", "/a") == (1, None)
    assert store.do("delete_prefix", "/x") == (1,)
    store.now += 100
    assert store.expire() == 1
    assert store.result("put", "/a", b"2")[0] == code(NoSpace)
    store.do("compact", store.machine.revision)
    assert store.machine.state_bytes == 0
    assert store.result("put", "/a", b"2")[0] == 0
    store.check_equal()
