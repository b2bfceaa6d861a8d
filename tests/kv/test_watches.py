"""Watches: every event of the prefixes, in order, once, without a gap, or Compacted; and at a sane cost."""

from __future__ import annotations

from typing import Any

import pytest
from kv_driver import CREDIT, Driver, request

from danube_raft.errors import Compacted, InvalidArgument
from danube_raft.kv import events as kv_events
from danube_raft.kv import watches as kv_watches
from danube_raft.kv.events import Selection
from danube_raft.kv.history import History
from danube_raft.kv.watches import Options, Watches
from danube_raft.wire import codec


@pytest.fixture
def store() -> Driver:
    return Driver()


def _short(events: list[Any]) -> list[Any]:
    return [(e if e == "compacted" else (e[0], e[1][0], e[1][3])) for e in events]


def _frames(store: Driver, max_bytes: int = 1 << 20) -> list[tuple[Any, list[Any], int, bool]]:
    return [
        (keys, [e[1][0] for e in fields[1]], fields[2], fields[3])
        for keys, frame in store.watches.collect(max_bytes).frames
        if (fields := list(codec.unpack_stream(frame)))
    ]


def test_put_and_delete_are_seen_in_order_and_nothing_of_other_prefixes(store: Driver) -> None:
    store.watch("w", "/a/")
    store.do("put", "/a/1", b"x")
    store.do("put", "/ab", b"x")
    store.do("delete", "/a/1")
    store.do("put", "/b", b"x")
    assert {k: _short(v) for k, v in store.events().items()} == {"w": [(0, "/a/1", 2), (1, "/a/1", 4)]}
    assert store.watches.progress("w") == 5


def test_a_deleted_record_has_no_value_and_the_revision_of_the_delete(store: Driver) -> None:
    store.do("put", "/a", b"x")
    store.watch("w", "/a", prev=True)
    store.do("delete", "/a")
    assert store.events()["w"] == [
        (1, ("/a", None, 0, 3, 0, 0, 0), ("/a", b"x", 2, 2, 1, 0, store_wall(store)))
    ]


def store_wall(store: Driver) -> int:
    return 1_700_000_000_000 + store.now


def test_a_watch_from_the_past_replays_and_goes_on(store: Driver) -> None:
    for n in range(3):
        store.do("put", f"/a{n}", b"x")
    store.watch("w", "/a", 3)
    assert _short(store.events()["w"]) == [(0, "/a1", 3), (0, "/a2", 4)]
    store.do("put", "/a9", b"x")
    assert _short(store.events()["w"]) == [(0, "/a9", 5)]


def test_a_watch_from_the_future_waits_and_gets_nothing_older(store: Driver) -> None:
    """Pitfall 44, etcd#20221."""
    store.watch("w", "", 5)
    assert store.watches.progress("w") == 1
    for n in range(3):
        store.do("put", f"/a{n}", b"x")
        assert store.events() == {}
    assert store.watches.progress("w") == 4
    store.do("put", "/five", b"x")
    store.do("put", "/six", b"x")
    assert _short(store.events()["w"]) == [(0, "/five", 5), (0, "/six", 6)]


def test_a_watch_begins_after_the_present_even_if_nothing_was_collected_yet(store: Driver) -> None:
    store.watch("old", "")
    store.do("put", "/a", b"x")
    assert store.watch("new", "") == 3
    assert list(store.events()) == ["old"]
    store.do("put", "/b", b"x")
    assert {k: len(v) for k, v in store.events().items()} == {"old": 1, "new": 1}


def test_a_watch_below_compaction_is_told_so_at_once(store: Driver) -> None:
    for _ in range(5):
        store.do("put", "/a", b"x")
    store.do("compact", 4)
    for revision in (1, 4):
        with pytest.raises(Compacted) as caught:
            store.watch("w", "/none", revision)
        assert caught.value.details == 4
    assert len(store.watches) == 0
    store.watch("w", "/a", 5)
    assert [e[2] for e in _short(store.events()["w"])] == [5, 6]


def test_compaction_in_the_same_batch_takes_no_event_from_a_watch_that_keeps_up(store: Driver) -> None:
    """Pitfall 44: events lost by compaction races."""
    store.do("put", "/a", b"0")
    store.watch("w", "/a", prev=True)
    store.events()
    put = [request("put", "/a", b"%d" % n) for n in range(1, 4)]
    store.batch([*put, request("compact", 5), request("put", "/a", b"4")])
    found = store.events()["w"]
    assert [(e[1][1], e[2][1]) for e in found] == [(b"1", b"0"), (b"2", b"1"), (b"3", b"2"), (b"4", b"3")]


def test_a_slow_watch_whose_events_are_gone_gets_compacted_and_is_removed(store: Driver) -> None:
    store.watches.add("slow", "/a", None, 0)
    store.watches.add("idle", "/b", None, 0)
    store.events()
    for _ in range(4):
        store.do("put", "/a", b"x")
        assert store.events() == {}
    assert (store.watches.progress("slow"), store.watches.progress("idle")) == (1, 5)
    store.do("compact", 3)
    assert store.events() == {"slow": ["compacted"]}
    assert store.watches.progress("slow") is None
    assert len(store.watches) == 1


def test_without_credit_nothing_is_sent_and_nothing_is_lost(store: Driver) -> None:
    store.watches.add("w", "/a", None, 1)
    store.events()
    for n in range(3):
        store.do("put", f"/a{n}", b"x")
        found = store.events()
        assert _short(found.get("w", [])) == ([(0, "/a0", 2)] if n == 0 else [])
    assert store.watches.progress("w") == 2
    store.watches.credit("w", 1 << 20, 1 << 21)
    assert _short(store.events()["w"]) == [(0, "/a1", 3), (0, "/a2", 4)]
    assert store.watches.progress("w") == 4


def test_credit_falls_by_what_was_sent_and_is_capped(store: Driver) -> None:
    store.watches.add("w", "", None, 100)
    store.events()
    store.do("put", "/a", b"x" * 50)
    size = len(store.watches.collect(1 << 20).frames[0][1])
    assert store.watches._watchers["w"].credit == 100 - size
    store.watches.credit("w", 10_000, 500)
    assert store.watches._watchers["w"].credit == 500
    store.watches.credit("nobody", 5, 5)


def test_one_frame_is_packed_for_all_that_stand_together(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1_000):
        store.watch(n, ("/b", "/a"))
    store.watch("other", ("/a", "/b"), prev=True)
    store.watch("covered", ("/a", "/a/x", "/b"))
    store.events()
    packed: list[int] = []

    def counted(events: list[Any], more: bool) -> bytes:
        packed.append(1)
        return kv_events.pack_frame(events, more)

    monkeypatch.setattr(kv_watches, "pack_frame", counted)
    store.do("put", "/a/x", b"x")
    frames = store.watches.collect(1 << 20).frames
    assert [len(keys) for keys, _ in frames] == [1_001, 1]
    assert len(packed) == 2


def test_a_thousand_prefixes_do_not_cost_a_thousand_compares_per_event(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1_000):
        store.watch(n, f"/topics/{n:04d}/")
    store.events()
    compared: list[str] = []
    real = Selection.wants

    def counted(self: Selection, event: Any) -> bool:
        compared.append(event[0])
        return real(self, event)

    monkeypatch.setattr(Selection, "wants", counted)
    store.batch([request("put", f"/topics/{n:04d}/x", b"x") for n in range(300)])
    assert len(store.events()) == 300
    assert len(compared) == 300
    assert store.watches.progress(999) == 301


def test_a_large_revision_goes_in_frames_that_say_more(store: Driver) -> None:
    for n in range(10):
        store.do("put", f"/k{n}", b"x")
    store.watch("front", "/k")
    store.events()
    store.do("delete_prefix", "/k")
    store.do("put", "/k", b"x")
    store.watch("past", "/k", 12)
    frames: dict[Any, list[Any]] = {"front": [], "past": []}
    for _ in range(20):
        for keys, names, last, more in _frames(store, 200):
            for key in keys:
                frames[key].append((names, last, more))
        if store.watches.progress("front") == store.watches.progress("past") == 13:
            break
    assert frames["front"] == frames["past"]
    names = [name for names, _, _ in frames["front"] for name in names]
    assert names == [*(f"/k{n}" for n in range(10)), "/k"]
    assert [(last, more) for _, last, more in frames["front"]] == [*[(12, True)] * 3, (13, False)]


def test_progress_never_claims_a_revision_that_is_half_delivered(store: Driver) -> None:
    """Pitfall 44, etcd#15220."""
    for n in range(10):
        store.do("put", f"/k{n}", b"x")
    store.watch("w", "/k")
    store.events()
    store.do("delete_prefix", "/k")
    collected = store.watches.collect(200)
    assert collected.more or store.watches.progress("w") == 11
    assert store.watches.progress("w") == 11
    while store.watches.collect(200).more:
        pass
    assert store.watches.progress("w") == 12


def test_an_event_larger_than_frame_and_credit_gets_through(store: Driver) -> None:
    store.watches.add("w", "", None, 10)
    store.events()
    store.do("put", "/a", b"x" * 300_000)
    assert len(store.events(1_000)["w"]) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"puts": False}, [(1, None)]), ({"deletes": False}, [(0, b"1"), (0, b"2")]),
        ({"keys_only": True}, [(0, None), (0, None), (1, None)]), ({"puts": False, "deletes": False}, []),
    ],
)  # fmt: skip
def test_options_choose_and_strip_events(
    store: Driver, options: dict[str, bool], expected: list[Any]
) -> None:
    store.watch("front", "/a", **options)
    store.events()
    store.do("put", "/a", b"1")
    store.do("put", "/a", b"2")
    store.do("delete", "/a")
    store.watch("past", "/a", 2, **options)
    found = store.events()
    for key in ("front", "past"):
        assert [(e[0], e[1][1]) for e in found.get(key, [])] == expected
        assert store.watches.progress(key) == 4


def test_keys_only_strips_the_previous_record_too(store: Driver) -> None:
    store.do("put", "/a", b"1")
    store.watch("w", "/a", keys_only=True, prev=True)
    store.do("put", "/a", b"2")
    ((_, record, previous),) = store.events()["w"]
    assert (record[1], previous[1], previous[3]) == (None, None, 2)


def test_a_removed_watch_gets_nothing_and_leaves_nothing(store: Driver) -> None:
    store.watch("w", ("/a", "/b"))
    store.watch("x", "/a")
    store.events()
    store.do("put", "/a", b"1")
    assert store.watches.remove("w") is True
    assert store.watches.remove("w") is False
    assert list(store.events()) == ["x"]
    store.watches.remove("x")
    watches = store.watches
    assert (watches._groups, watches._by_prefix, watches._lengths, watches._lagging) == ({}, {}, [], {})


def test_a_watch_id_is_used_once(store: Driver) -> None:
    store.watch("w", "/a")
    with pytest.raises(InvalidArgument):
        store.watch("w", "/b")


def test_few_who_are_far_behind_do_not_hold_up_the_others(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 44: starvation. One turn looks at a bounded number of old events; everybody gets a turn."""
    monkeypatch.setattr(kv_watches, "MAX_SCANNED_EVENTS", 30)
    for n in range(100):
        store.do("put", f"/k{n:02d}", b"x")
    for n in range(20):
        store.watch(f"past{n}", f"/k{n:02d}", 2)
    store.watch("now", "/k")
    store.do("put", "/k", b"x")
    turns = 0
    seen: dict[Any, int] = {}
    more = True
    while more:
        turns += 1
        frames, _, more = store.watches.collect(1 << 20)
        for keys, _ in frames:
            for key in keys:
                seen.setdefault(key, turns)
    assert len(seen) == 21
    assert max(seen.values()) <= 21
    assert 60 <= turns <= 90


def test_watches_go_on_over_an_installed_snapshot(store: Driver) -> None:
    """Pitfall 44, etcd#15271: not back in time; what the snapshot no longer has is Compacted."""
    ahead = Driver()
    for target in (store, ahead):
        for n in range(3):
            target.do("put", "/a", b"%d" % n)
    store.watch("front", "/a")
    store.watches.add("slow", "/a", 3, 0)
    store.watch("future", "/a", 6)
    store.events()
    ahead.do("put", "/a", b"new")
    ahead.do("put", "/a", b"newer")
    ahead.do("compact", 3)
    store.watches.attach(ahead.machine.history)
    found = {k: _short(v) for k, v in store.events().items()}
    assert found == {"front": [(0, "/a", 5), (0, "/a", 6)], "slow": ["compacted"], "future": [(0, "/a", 6)]}


def test_an_installed_snapshot_that_lacks_events_says_compacted(store: Driver) -> None:
    store.watch("front", "/none")
    store.events()
    ahead = Driver()
    for _ in range(5):
        ahead.do("put", "/a", b"x")
    ahead.do("compact", 4)
    store.watches.attach(ahead.machine.history)
    assert store.events() == {"front": ["compacted"]}


# ---------------------------------------------------------------- long poll


def test_a_poll_returns_whole_revisions_and_where_to_go_on(store: Driver) -> None:
    for n in range(4):
        store.do("put", f"/k{n}", b"x" * 100)
    store.do("delete_prefix", "/k")
    store.do("put", "/z", b"x")
    after, seen = 1, []
    for _ in range(10):
        events, after, more = store.watches.poll("/k", after, Options(), 400)
        seen.append(([e[1][3] for e in events], after, more))
        if not more:
            break
    assert seen == [([2, 3], 3, True), ([4, 5], 5, True), ([6, 6, 6, 6], 7, False)]
    assert store.watches.poll("/k", 7) == ([], 7, False)
    assert store.watches.poll("/k", 99) == ([], 99, False)
    assert store.watches.poll("/k", 5, Options(), 1)[0] == store.watches.poll("/k", 5)[0]


def test_a_poll_below_compaction_says_so(store: Driver) -> None:
    for _ in range(4):
        store.do("put", "/a", b"x")
    store.do("compact", 3)
    assert [e[1][3] for e in store.watches.poll("/a", 3)[0]] == [4, 5]
    with pytest.raises(Compacted):
        store.watches.poll("/a", 2)


def test_a_poll_over_much_that_does_not_match_moves_on_in_steps(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_events, "MAX_SCANNED_EVENTS", 3)
    for _ in range(5):
        store.do("put", "/a", b"x")
    assert store.watches.poll("/b", 1) == ([], 4, True)
    assert store.watches.poll("/b", 4) == ([], 6, False)


def test_a_watch_with_no_history_at_all(store: Driver) -> None:
    watches = Watches(History())
    watches.add("w", "", 1, CREDIT)
    assert watches.collect(1 << 20) == ([], [], False)
    assert watches.progress("w") == 1


def test_what_one_turn_may_look_at_never_ends_inside_a_revision(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a frame would call a revision complete whose rest comes with the next turn."""
    for n in range(10):
        store.do("put", f"/k{n}", b"x")
    store.do("delete_prefix", "/k")
    store.do("put", "/k", b"x")
    store.watch("w", "/k", 12)
    monkeypatch.setattr(kv_watches, "MAX_SCANNED_EVENTS", 3)
    monkeypatch.setattr(kv_events, "MAX_SCANNED_EVENTS", 3)
    assert [(len(names), last, more) for _, names, last, more in _frames(store)] == [(10, 12, False)]
    assert [(len(names), last, more) for _, names, last, more in _frames(store)] == [(1, 13, False)]
    assert len(store.watches.poll("/k", 11)[0]) == 10


def test_progress_waits_for_events_that_were_dealt_out_but_not_sent(store: Driver) -> None:
    """Compaction deals them out early; until they are collected the watch does not have them."""
    store.watch("w", "/a")
    store.events()
    store.batch([request("put", "/b", b"x"), request("put", "/a", b"x"), request("compact", 3)])
    assert store.watches.progress("w") == 2
    store.events()
    assert store.watches.progress("w") == 3


def test_a_watch_without_credit_moves_over_what_does_not_concern_it(store: Driver) -> None:
    for _ in range(3):
        store.do("put", "/a", b"x")
    store.watches.add("poor", "/b", 2, 0)
    store.watches.add("rich", "/b", 2, 100)
    store.events()
    assert (store.watches.progress("poor"), store.watches.progress("rich")) == (4, 4)
