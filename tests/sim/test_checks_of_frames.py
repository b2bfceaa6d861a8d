"""The check of what a node sends to a watch finds what our own client would drop in silence: old events, repeats, a
revision that stops half-way. One watch, which has asked for everything from revision 5 on.
"""

from __future__ import annotations

from typing import Any

import pytest

from danube_raft.client.stream import Options
from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.facts import Framed, Subscribed, Violation
from danube_raft.sim.history import WatchLog
from danube_raft.wire.client import DELETE_EVENT, FRAME_EVENTS, FRAME_PROGRESS


class Watch:
    """What reaches it."""

    def __init__(self) -> None:
        self.checks = Checks((1, 2, 3))
        self.log = WatchLog(1, Options(("/a/",)), 5)
        self.subscribe(5)

    def subscribe(self, revision: int) -> None:
        self.checks.tell(Subscribed(self.log, revision))

    def events(self, *named: tuple[str, int], last: int | None = None, more: bool = False) -> None:
        """(key, revision) of each; `last`: what the frame says of itself, if not what is true."""
        events = tuple((DELETE_EVENT, (key, None, 0, each, 0, 0, 0), None) for key, each in named)
        self._frame(FRAME_EVENTS, events, named[-1][1] if last is None else last, more)

    def mark(self, revision: int) -> None:
        self._frame(FRAME_PROGRESS, revision)

    def _frame(self, *result: Any) -> None:
        self.checks.tell(Framed(self.log, result))


def test_whole_revisions_and_one_in_three_frames_and_marks_between() -> None:
    watch = Watch()
    watch.mark(4)
    watch.events(("/a/1", 5), ("/a/2", 5), ("/a/1", 7))
    watch.mark(7)
    watch.mark(7)
    watch.events(("/a/1", 9), ("/a/1", 10), more=True)
    watch.mark(9)
    watch.events(("/a/2", 10), more=True)
    watch.events(("/a/3", 10), ("/a/1", 11))
    watch.mark(15)
    watch.events(("/a/1", 16))
    assert (watch.checks.frames.split, watch.checks.frames.early) == (2, 0)


def test_a_revision_that_the_node_does_not_have_yet_is_waited_for() -> None:
    watch = Watch()
    watch.mark(2)
    watch.mark(3)
    watch.events(("/a/1", 5))
    assert watch.checks.frames.early == 2


def test_events_from_before_the_revision_that_was_asked_for() -> None:
    watch = Watch()
    watch.mark(2)
    with pytest.raises(Violation, match="sent /a/1 of revision 4 after 4 was complete"):
        watch.events(("/a/1", 4), ("/a/1", 5))


@pytest.mark.parametrize("again", [("/a/1", 5), ("/a/2", 6), ("/a/3", 6)])
def test_what_an_earlier_frame_has_completed(again: tuple[str, int]) -> None:
    watch = Watch()
    watch.events(("/a/1", 5), ("/a/1", 6), ("/a/2", 6))
    with pytest.raises(Violation, match=r"after 6 was complete"):
        watch.events(again)


def test_events_that_go_back_within_a_frame() -> None:
    with pytest.raises(Violation, match="revision 6 after 6 was complete"):
        Watch().events(("/a/1", 6), ("/a/1", 7), ("/a/2", 6))


def test_an_event_that_a_mark_has_covered() -> None:
    watch = Watch()
    watch.mark(8)
    with pytest.raises(Violation, match="revision 8 after 8 was complete"):
        watch.events(("/a/1", 8))


def test_the_head_of_a_split_revision_again() -> None:
    watch = Watch()
    watch.events(("/a/1", 5), ("/a/2", 5), more=True)
    with pytest.raises(Violation, match="sent /a/1 of revision 5 twice"):
        watch.events(("/a/1", 5), ("/a/2", 5), ("/a/3", 5))


def test_a_split_revision_that_does_not_go_on() -> None:
    watch = Watch()
    watch.events(("/a/1", 5), more=True)
    with pytest.raises(Violation, match="5 was to go on, and 6 came instead"):
        watch.events(("/a/1", 6))


def test_a_mark_that_covers_a_revision_which_goes_on() -> None:
    watch = Watch()
    watch.events(("/a/1", 5), more=True)
    with pytest.raises(Violation, match="5 is told as complete while revision 5 goes on"):
        watch.mark(5)


def test_a_frame_that_does_not_end_where_it_says() -> None:
    for last in (5, 7):
        with pytest.raises(Violation, match=f"does not end with {last}"):
            Watch().events(("/a/1", 5), ("/a/1", 6), last=last)
    watch = Watch()
    watch.events(("/a/1", 5), more=True)
    with pytest.raises(Violation, match="does not end with 5"):
        watch.events(last=5)


def test_another_subscription_may_bring_again_what_it_asks_for_and_no_more() -> None:
    watch = Watch()
    watch.events(("/a/1", 5), ("/a/1", 6), more=True)
    watch.subscribe(6)
    watch.events(("/a/1", 6), ("/a/2", 6))
    watch.subscribe(7)
    with pytest.raises(Violation, match="revision 6 after 6 was complete"):
        watch.events(("/a/2", 6))
