"""Watches: cursors over the shared history, without a buffer per watcher.

A watcher is a cursor and a credit in bytes. It gets every event of its prefixes from its cursor on, in revision
order, each once, without a gap, or Compacted when events it still had to get are gone; never silence.

- Watchers with equal prefixes and options form a group. Those of a group that stand at the same place share one
  frame, packed once.
- Most watchers are *in front*: they have everything up to `_frontier`, so new events are dealt out to the groups by
  a lookup of each key's prefixes, and a group without a match costs nothing. All others are *behind*, by cursor:
  (next revision, how many events of that revision are behind them).
- A frame goes to a watcher whose credit is above 0, and takes its size from it, below 0 if need be; so a single
  event that is larger than all credit still gets through.
- Not replicated: watchers belong to a node, and nothing here changes the history.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeAlias

from danube_raft.errors import InvalidArgument
from danube_raft.kv.events import (
    ALL,
    MAX_SCANNED_EVENTS,
    Options,
    Selection,
    WireEvent,
    compacted,
    fill,
    pack_frame,
    poll,
    revision_of,
    scan,
)
from danube_raft.kv.history import History
from danube_raft.kv.record import KEY, MOD_REVISION

__all__ = ["Collected", "Options", "Watches"]

Cursor: TypeAlias = tuple[int, int]
"""(next revision, events of that revision already passed)"""


class Collected(NamedTuple):
    """`frames`: (watch keys, result fields of a watch reply, packed back to back without an array header).
    `compacted`: watches that lost events and were removed. `more`: call again, there is more to send already."""

    frames: list[tuple[tuple[Hashable, ...], bytes]]
    compacted: list[Hashable]
    more: bool


class _Watcher:
    """`cursor` None: in front."""

    __slots__ = ("credit", "cursor", "group")

    def __init__(self, group: _Group, credit: int) -> None:
        self.group = group
        self.credit = credit
        self.cursor: Cursor | None = None


class _Group:
    """Watchers of one selection. `pending`: events for those in front, not sent yet."""

    __slots__ = ("behind", "front", "pending", "selection")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.front: dict[Hashable, _Watcher] = {}
        self.behind: dict[Cursor, dict[Hashable, _Watcher]] = {}
        self.pending: list[WireEvent] = []


class Watches:
    """All watches of a node, by an opaque key of the caller's."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._frontier = history.revision
        self._watchers: dict[Hashable, _Watcher] = {}
        self._groups: dict[tuple[tuple[str, ...], Options], _Group] = {}
        self._by_prefix: dict[str, list[_Group]] = {}
        self._lengths: list[int] = []
        self._touched: dict[_Group, None] = {}
        self._lagging: dict[_Group, None] = {}
        history.before_compaction = self._deal

    def __len__(self) -> int:
        return len(self._watchers)

    def attach(self, history: History) -> None:
        """Go on over the history of an installed snapshot, which is newer. Cursors stay."""
        self._deal()
        self._history.before_compaction = None
        assert history.revision >= self._frontier
        self._history = history
        history.before_compaction = self._deal

    # ---------------------------------------------------------------- watchers

    def add(
        self,
        key: Hashable,
        prefixes: str | tuple[str, ...],
        from_revision: int | None = None,
        credit: int = 0,
        options: Options = ALL,
    ) -> int:
        """Begin a watch; None: from after the present. Returns the first revision that it may get.

        A revision of the future is waited for. Raises Compacted when events from `from_revision` on are gone,
        InvalidArgument when the key is in use.
        """
        if key in self._watchers:
            raise InvalidArgument("a watch with this id is open already")
        history = self._history
        start = history.revision + 1 if from_revision is None else from_revision
        if start <= history.compaction_revision:
            raise compacted(history)
        selection = Selection(prefixes, options)
        group = self._groups.get((selection.prefixes, options))
        if group is None:
            group = self._groups[selection.prefixes, options] = _Group(selection)
            for prefix in selection.prefixes:
                self._by_prefix.setdefault(prefix, []).append(group)
            self._measure()
        watcher = self._watchers[key] = _Watcher(group, credit)
        self._place(key, watcher, (start, 0))
        return start

    def remove(self, key: Hashable) -> bool:
        """End a watch; whether there was one."""
        watcher = self._watchers.pop(key, None)
        if watcher is None:
            return False
        group = watcher.group
        self._lift(key, watcher)
        if not group.front and not group.behind:
            prefixes, options = group.selection.prefixes, group.selection.options
            del self._groups[prefixes, options]
            self._touched.pop(group, None)
            self._lagging.pop(group, None)
            for prefix in prefixes:
                self._by_prefix[prefix].remove(group)
                if not self._by_prefix[prefix]:
                    del self._by_prefix[prefix]
            self._measure()
        return True

    def credit(self, key: Hashable, added_bytes: int, max_bytes: int) -> None:
        """Let the watch send that much more, up to `max_bytes` in all. An unknown key is nobody's any more."""
        watcher = self._watchers.get(key)
        if watcher is not None:
            watcher.credit = min(watcher.credit + added_bytes, max_bytes)

    def progress(self, key: Hashable) -> int | None:
        """The revision up to which the watch was given everything; None for an unknown key."""
        watcher = self._watchers.get(key)
        if watcher is None:
            return None
        if watcher.cursor is not None:
            return min(watcher.cursor[0] - 1, self._history.revision)
        pending = watcher.group.pending
        return revision_of(pending[0]) - 1 if pending else self._frontier

    def poll(
        self,
        prefixes: str | tuple[str, ...],
        after_revision: int,
        options: Options = ALL,
        max_bytes: int = 1 << 20,
    ) -> tuple[list[WireEvent], int, bool]:
        """A long poll's answer at once, see `kv/events.py`: (events, revision to ask after next, more already)."""
        return poll(self._history, Selection(prefixes, options), after_revision, max_bytes)

    def _measure(self) -> None:
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix})

    def _lift(self, key: Hashable, watcher: _Watcher) -> None:
        """Take a watcher from its place."""
        group = watcher.group
        if watcher.cursor is None:
            del group.front[key]
            return
        together = group.behind[watcher.cursor]
        del together[key]
        if not together:
            del group.behind[watcher.cursor]

    def _place(self, key: Hashable, watcher: _Watcher, cursor: Cursor | None) -> None:
        """Put a watcher that has no place at `cursor`."""
        group = watcher.group
        watcher.cursor = cursor
        if cursor is None:
            group.front[key] = watcher
        else:
            group.behind.setdefault(cursor, {})[key] = watcher
            self._lagging[group] = None

    def _move(self, keys: Iterable[Hashable], cursor: Cursor | None) -> None:
        for key in keys:
            watcher = self._watchers[key]
            self._lift(key, watcher)
            self._place(key, watcher, cursor)

    # ---------------------------------------------------------------- sending

    def collect(self, max_frame_bytes: int) -> Collected:
        """What can be sent now, a frame or so per watcher; frames of one watcher are in order.

        To be called after entries were applied, after credit was given and after a watch was added.
        """
        self._deal()
        collected = Collected([], [], False)
        for group in self._touched:
            self._send_front(group, max_frame_bytes, collected)
        self._touched = {}
        more = self._catch_up(max_frame_bytes, collected)
        for key in collected.compacted:
            self.remove(key)
        return collected._replace(more=more)

    def _deal(self) -> None:
        """Hand the events since the frontier to the groups in front that match them."""
        history, frontier = self._history, self._frontier
        self._frontier = history.revision
        if frontier == history.revision or not self._lengths:
            return
        if frontier < history.compaction_revision:
            # Only after an installed snapshot: events that nobody here has seen are gone.
            for group in self._groups.values():
                start = revision_of(group.pending[0]) if group.pending else frontier + 1
                self._move(list(group.front), (start, 0))
            return
        by_prefix, lengths, touched = self._by_prefix, self._lengths, self._touched
        for event in history.events[history.position(frontier + 1) :]:
            key = event[KEY]
            size = len(key)
            for length in lengths:
                if length > size:
                    break
                for group in by_prefix.get(key[:length], ()):
                    if group.front and group.selection.wants(event):
                        group.pending.append(group.selection.dress(history, event))
                        touched[group] = None

    def _send_front(self, group: _Group, max_bytes: int, collected: Collected) -> None:
        events = group.pending
        group.pending = []
        if not group.front:
            return
        ready = [key for key, watcher in group.front.items() if watcher.credit > 0]
        without = [key for key, watcher in group.front.items() if watcher.credit <= 0]
        self._move(without, (revision_of(events[0]), 0))
        if not ready:
            return
        taken, more = fill(events, max_bytes)
        self._send(group.front, pack_frame(events[:taken], more), collected)
        if taken < len(events):
            self._move(ready, self._cursor_of(events[taken]))

    def _send(self, watchers: dict[Hashable, _Watcher], frame: bytes, collected: Collected) -> None:
        collected.frames.append((tuple(watchers), frame))
        size = len(frame)
        for watcher in watchers.values():
            watcher.credit -= size

    def _cursor_of(self, event: WireEvent) -> Cursor:
        """The cursor of a watcher whose next event this is."""
        history = self._history
        revision, key = revision_of(event), event[1][KEY]
        start = history.position(revision)
        for place in range(start, history.position(revision + 1)):
            if history.events[place][KEY] == key:
                return revision, place - start
        return revision, 0  # compacted meanwhile: the cursor is too, and says so

    def _catch_up(self, max_bytes: int, collected: Collected) -> bool:
        """Serve those behind; whether some of them can go on at once."""
        history = self._history
        budget = MAX_SCANNED_EVENTS
        more = False
        for group in list(self._lagging):
            for cursor in list(group.behind):
                if cursor[0] <= history.compaction_revision:
                    collected.compacted.extend(group.behind[cursor])
                elif cursor[0] == history.revision + 1:
                    self._move(list(group.behind[cursor]), None)
                elif cursor[0] > history.revision:
                    continue
                elif budget <= 0:
                    more = True
                else:
                    # To the end of the line, so that a few who are far behind do not starve the others.
                    self._lagging[group] = self._lagging.pop(group)
                    scanned, again = self._advance(group, cursor, budget, max_bytes, collected)
                    budget -= scanned
                    more = more or again
            if not group.behind:
                del self._lagging[group]
        return more

    def _advance(
        self, group: _Group, cursor: Cursor, budget: int, max_bytes: int, collected: Collected
    ) -> tuple[int, bool]:
        """Move the watchers at `cursor` on; returns (events scanned, whether they can go on at once)."""
        history, watchers = self._history, group.behind[cursor]
        ready = {key: watcher for key, watcher in watchers.items() if watcher.credit > 0}
        if not ready:
            return 0, False
        start = history.position(cursor[0]) + cursor[1]
        events, place, more = scan(history, group.selection, start, budget, max_bytes)
        if events:
            self._send(ready, pack_frame(events, more), collected)
        else:
            ready = dict(watchers)
        if place == len(history.events):
            self._move(ready, None)
            return place - start, False
        revision = history.events[place][MOD_REVISION]
        self._move(ready, (revision, place - history.position(revision)))
        return place - start, any(watcher.credit > 0 for watcher in ready.values())
