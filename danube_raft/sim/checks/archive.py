"""Every change that the committed log makes, compacted or not: what the past really was.

A state machine forgets what it was told to compact; what clients saw before then still has to be right.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter

from danube_raft.kv.history import History
from danube_raft.kv.record import KEY, MOD_REVISION, VALUE, Record

_mod_revision = itemgetter(MOD_REVISION)


class Archive:
    """All events in order of revision, and all compactions. To be attached to a history before its first change."""

    def __init__(self) -> None:
        self.events: list[Record] = []
        self.compactions: list[int] = []
        """Every revision that the store was compacted to, in order."""
        self._chains: dict[str, list[Record]] = {}
        self._history = History()

    @property
    def revision(self) -> int:
        """The last one of the log."""
        return self._history.revision

    def attach(self, history: History) -> None:
        """Keep what this history forgets."""
        self._history = history
        history.before_compaction = self.collect

    def collect(self) -> None:
        """Take what is new in the history."""
        upto = self.events[-1][MOD_REVISION] if self.events else 0
        new = self._history.events[self._history.position(upto + 1) :]
        self.events += new
        for event in new:
            self._chains.setdefault(event[KEY], []).append(event)

    def compacted_to(self, revision: int) -> None:
        """The store was compacted to `revision`."""
        self.compactions.append(revision)

    def at(self, key: str, revision: int) -> Record | None:
        """The record of `key` at any revision, None when there was none."""
        chain = self._chains.get(key, [])
        place = bisect_right(chain, revision, key=_mod_revision)
        return chain[place - 1] if place and chain[place - 1][VALUE] is not None else None

    def previous(self, event: Record) -> Record | None:
        """The record that `event` took the place of."""
        return self.at(event[KEY], event[MOD_REVISION] - 1)

    def keys(self, prefix: str, revision: int) -> list[str]:
        """The keys under `prefix` that there were at a revision, sorted."""
        return sorted(
            key for key in self._chains if key.startswith(prefix) and self.at(key, revision) is not None
        )

    def since(self, revision: int) -> list[Record]:
        """All events at or above `revision`."""
        return self.events[bisect_left(self.events, revision, key=_mod_revision) :]

    def of(self, revision: int) -> list[Record]:
        """The events of one revision."""
        start = bisect_left(self.events, revision, key=_mod_revision)
        return self.events[start : bisect_right(self.events, revision, key=_mod_revision)]
