"""The checks of watches find what they are there for: a gap, a double, half a revision, a mark that is ahead, an end that
need not be. The log of all tests: two keys under /a/ and one beside them, a delete of both at once, and one put after it.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from danube_raft.client.record import Event
from danube_raft.client.stream import Options, Stream
from danube_raft.client.value import RAW
from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import HandedOut, Marked, Violation
from danube_raft.sim.checks.replay import replay
from danube_raft.sim.checks.watches import check_fed, check_progress, check_watches
from danube_raft.sim.history import WatchLog
from danube_raft.sim.run import simulate
from danube_raft.sim.settings import Options as WorldOptions
from danube_raft.wire.client import DELETE_EVENT, PUT_EVENT, pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry

A1 = ("/a/1", b"x", 2, 2, 1, 0, 0)
B = ("/b", b"x", 3, 3, 1, 0, 0)
A2 = ("/a/2", b"y", 4, 4, 1, 0, 0)
A1_GONE = ("/a/1", None, 0, 5, 0, 0, 0)
A2_GONE = ("/a/2", None, 0, 5, 0, 0, 0)
A1_AGAIN = ("/a/1", b"z", 6, 6, 1, 0, 0)


def archive() -> Archive:
    payloads = (
        pack_request("put", 1, "/a/1", b"x"),
        pack_request("put", 2, "/b", b"x"),
        pack_request("put", 3, "/a/2", b"y"),
        pack_request("delete_prefix", 4, "/a/"),
        pack_request("compact", 5, 4),
        pack_request("put", 6, "/a/1", b"z"),
    )
    made = Archive()
    replay([Entry(i, 1, KIND_BATCH, 0, 0, (1, 1, i), p) for i, p in enumerate(payloads, start=1)], None, made)
    return made


def event(record: tuple[object, ...], previous: tuple[object, ...] | None = None) -> Event:
    return Event.of((DELETE_EVENT if record[1] is None else PUT_EVENT, record, previous), RAW)


def watch(
    *changes: Iterable[Event], start: int = 2, upto: int = 6, options: Options | None = None
) -> WatchLog:
    log = WatchLog(1, Options(("/a/",)) if options is None else options, start)
    log.changes = [(events[0].revision, events) for events in map(tuple, changes)]
    log.revision = upto
    return log


WHOLE = ([event(A1)], [event(A2)], [event(A1_GONE), event(A2_GONE)], [event(A1_AGAIN)])


def test_a_watch_that_got_everything_is_right() -> None:
    check_watches([watch(*WHOLE), watch(*WHOLE[1:], start=3), watch(*WHOLE[:2], upto=4)], archive())
    check_watches([watch(start=7), watch(*WHOLE[:1], upto=3)], archive())


def test_a_watch_gets_its_events_as_it_asked_for_them() -> None:
    before = Options(("/a/",), prev=True, puts=False)
    gone = [event(A1_GONE, A1), event(A2_GONE, A2)]
    check_watches([watch(gone, options=before)], archive())
    with pytest.raises(Violation, match="change 0 is"):
        check_watches([watch(WHOLE[2], options=before)], archive())
    put = Event("put", event((*B[:1], None, *B[2:])).record, None)
    keys = Options(("/b",), keys_only=True, deletes=False)
    check_watches([watch([put], options=keys)], archive())
    with pytest.raises(Violation, match="change 0 is"):
        check_watches([watch([event(B)], options=keys)], archive())


def test_a_gap() -> None:
    for place in range(4):
        with pytest.raises(Violation, match="instead of" if place < 3 else "it never got"):
            check_watches([watch(*WHOLE[:place], *WHOLE[place + 1 :])], archive())


def test_half_a_revision_and_one_out_of_order_within() -> None:
    for half in ([event(A1_GONE)], [event(A2_GONE)], [event(A2_GONE), event(A1_GONE)]):
        with pytest.raises(Violation, match="change 2 is"):
            check_watches([watch(*WHOLE[:2], half, WHOLE[3])], archive())


def test_what_nobody_wrote_and_what_was_not_yet_committed() -> None:
    with pytest.raises(Violation, match="instead of"):
        check_watches([watch([event((*A1[:1], b"other", *A1[2:]))], *WHOLE[1:])], archive())
    with pytest.raises(Violation, match="nothing makes"):
        check_watches([watch(*WHOLE, [event((*A1_AGAIN[:3], 6, 1, 0, 0))])], archive())
    with pytest.raises(Violation, match="not committed"):
        check_watches([watch(*WHOLE, upto=7)], archive())


def test_a_mark_before_an_event_that_it_covers() -> None:
    log = watch(*WHOLE)
    log.marks = [(0, 1), (1, 3), (4, 6)]
    check_watches([log], archive())
    log.marks = [(1, 4)]
    with pytest.raises(Violation, match="4 was told as complete before revision 4"):
        check_watches([log], archive())


def test_a_watch_ends_as_compacted_only_for_what_is_compacted_and_was_still_to_come() -> None:
    log = watch(*WHOLE[:1], upto=3)
    log.error, log.compacted = "Compacted: gone", 4
    check_watches([log], archive())
    log.compacted = 5
    with pytest.raises(Violation, match="never compacted to 5"):
        check_watches([log], archive())
    late = watch(*WHOLE[:2], upto=4)
    late.error, late.compacted = "Compacted: gone", 4
    with pytest.raises(Violation, match="had been handed out"):
        check_watches([late], archive())
    other = watch(*WHOLE[:1], upto=3)
    other.error = "InvalidArgument: what"
    with pytest.raises(Violation, match="need not see"):
        check_watches([other], archive())


def test_what_is_handed_out_goes_on_from_what_was_told() -> None:
    log = watch(*WHOLE[:1], upto=3)
    tell = Checks((1, 2, 3)).tell
    tell(HandedOut(log, 4, (event(A2),)))
    tell(Marked(log, 3))
    for revision, events, what in (
        (2, (event(A1),), "after 3 was complete"),
        (5, (), "no event"),
        (5, (event(A1_GONE), event(A1_GONE)), "one twice"),
        (4, (event(A1_GONE),), "not an event of revision 4"),
        (5, (event((*B[:3], 5, 2, 0, 0)),), "asked for"),
    ):
        with pytest.raises(Violation, match=what):
            tell(HandedOut(log, revision, events))
    with pytest.raises(Violation, match="goes back to 2"):
        tell(Marked(log, 2))


def test_kinds_that_were_not_asked_for() -> None:
    tell = Checks((1, 2, 3)).tell
    for options, refused in (
        (Options(("/a/",), puts=False), event(A1)),
        (Options(("/a/",), deletes=False), event(A1_GONE)),
    ):
        with pytest.raises(Violation, match="asked for"):
            tell(HandedOut(watch(upto=1, options=options), refused.revision, (refused,)))


def test_a_watch_that_is_behind_is_not_through() -> None:
    ended = watch(upto=3)
    ended.closed = True
    assert check_progress([watch(*WHOLE), ended], 6)
    assert not check_progress([watch(*WHOLE[:3], upto=5)], 6)


def test_a_watch_that_is_fed_though_nobody_is_there() -> None:
    check_fed(1, 2, 2)
    with pytest.raises(Violation, match="node 1 feeds 3 watches over 2"):
        check_fed(1, 3, 2)


def test_a_watch_that_stands_still_for_ever_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credit that never goes back: events end, while marks go on."""
    monkeypatch.setattr(Stream, "_credits", lambda _: b"")
    with pytest.raises(Violation, match="one is silent"):
        _run_some()


def _run_some() -> None:
    for seed in range(1, 20):
        simulate(WorldOptions(seed, 3, 4.0))


def test_the_archive_keeps_what_the_store_forgets() -> None:
    kept = archive()
    assert [record for record in kept.events if record[3] <= 4] == [A1, B, A2]
    assert (kept.compactions, kept.revision) == ([4], 6)
    assert kept.at("/a/1", 4) == A1
    assert kept.at("/a/1", 5) is None
    assert kept.at("/a/1", 1) is None
    assert kept.previous(A1_GONE) == A1
    assert kept.previous(A1_AGAIN) is None
    assert kept.keys("/", 4) == ["/a/1", "/a/2", "/b"]
    assert kept.keys("/a/", 6) == ["/a/1"]
    assert kept.of(5) == [A1_GONE, A2_GONE]
    assert kept.since(5) == [A1_GONE, A2_GONE, A1_AGAIN]
