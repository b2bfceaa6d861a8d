"""What a node sends to a watch is right by itself, before the client has dropped anything (SEMANTICS "Watch": ordered by
revision, no duplicate, progress means that all up to it was delivered; `watch` in wire/operations.py; PITFALLS 44,
etcd#20221: a future revision gets old events). Our own client drops what it knows already. Others need not.

Within one subscription, frame by frame:

- No event is of a revision before the one asked from, or of one that is complete: by a frame that ends with it, by a later
  event, or by a progress mark.
- No key comes twice in a revision.
- A frame says the revision that it ends with, and whether that goes on: then it does, and no mark covers it before.

After a break a client asks anew, and a node may send again whatever is asked for: that is another subscription.
"""

from __future__ import annotations

from typing import Any

from danube_raft.kv.record import KEY, MOD_REVISION
from danube_raft.sim.checks.facts import Fact, Framed, Subscribed, Violation
from danube_raft.sim.checks.view import View
from danube_raft.sim.history import WatchLog
from danube_raft.wire.client import FRAME_EVENTS


class _Subscription:
    """`complete`: nothing up to here may come. `goes_on`: the rest of `revision` has to come next."""

    __slots__ = ("complete", "goes_on", "keys", "revision")

    def __init__(self, start: int) -> None:
        self.complete = start - 1
        self.revision = 0
        self.keys: set[str] = set()
        self.goes_on = False


class WatchFrames:
    """Looks at every frame that reaches a watch."""

    wants = (Subscribed, Framed)

    def __init__(self, _view: View) -> None:
        self.split = 0
        """Frames that ended inside a revision."""
        self.early = 0
        """Marks that told a subscription of less than what was before it: its node did not have that yet."""
        self._by_watcher: dict[int, _Subscription] = {}

    def take(self, fact: Fact) -> None:
        """The frame goes on from those before."""
        if isinstance(fact, Subscribed):
            self._by_watcher[fact.watch.watcher] = _Subscription(fact.revision)
            return
        assert isinstance(fact, Framed)
        subscription = self._by_watcher[fact.watch.watcher]
        if fact.result[0] == FRAME_EVENTS:
            _, events, last, more = fact.result
            _take_events(subscription, events, last, more, fact.watch)
            self.split += more
        else:
            mark = fact.result[1]
            self.early += mark < subscription.complete
            _take_mark(subscription, mark, fact.watch)


def _take_mark(subscription: _Subscription, mark: int, watch: WatchLog) -> None:
    if subscription.goes_on and mark >= subscription.revision:
        raise Violation(f"{mark} is told as complete while revision {subscription.revision} goes on: {watch}")
    subscription.complete = max(subscription.complete, mark)


def _take_events(subscription: _Subscription, events: Any, last: int, more: bool, watch: WatchLog) -> None:
    for _, record, _ in events:
        key, revision = record[KEY], record[MOD_REVISION]
        if revision <= subscription.complete:
            raise Violation(
                f"sent {key} of revision {revision} after {subscription.complete} was complete: {watch}"
            )
        if revision != subscription.revision:
            if subscription.goes_on:
                raise Violation(
                    f"revision {subscription.revision} was to go on, and {revision} came instead: {watch}"
                )
            subscription.complete, subscription.revision = revision - 1, revision
            subscription.keys.clear()
        if key in subscription.keys:
            raise Violation(f"sent {key} of revision {revision} twice: {watch}")
        subscription.keys.add(key)
        subscription.goes_on = False
    if not events or last != subscription.revision:
        raise Violation(f"a frame that does not end with {last}, as it says: {events}, {watch}")
    subscription.goes_on = more
    if not more:
        subscription.complete = last
