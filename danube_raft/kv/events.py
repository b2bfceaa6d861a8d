"""Events as a reader of changes asks for them: which ones, how dressed, how many fit one message.

Watches and the long poll choose and dress events in the same way, so both live on this. A `Selection` is a set of
prefixes with options; a dressed event is an event of `wire/client.py`. Everything reads the history from a place
in its list of events, in revision order, and stops in such a way that the reader can go on without a gap:

- a frame of a watch may end inside a revision, and then says that more of it follows;
- a poll returns whole revisions only, however large one is.

Where a reader stands, and what it may still send, belongs to `kv/watches.py`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from danube_raft.errors import Compacted
from danube_raft.kv.history import History
from danube_raft.kv.record import KEY, MOD_REVISION, VALUE, Record, wire_bytes, without_value
from danube_raft.wire import codec
from danube_raft.wire.client import DELETE_EVENT, FRAME_EVENTS, PUT_EVENT

MAX_SCANNED_EVENTS = 50_000
"""Events of the past that one call looks at; what is left comes with the next. About 5 ms."""

WireEvent: TypeAlias = tuple[int, Record, Record | None]
"""(kind, record, previous record or None)"""


class Options(NamedTuple):
    """What a reader wants of each event, and which kinds."""

    prev: bool = False
    keys_only: bool = False
    puts: bool = True
    deletes: bool = True


ALL = Options()
"""Every event, as it is."""


class Selection:
    """The events of some prefixes, by options. `prefixes` are sorted, and no key matches two of them."""

    __slots__ = ("options", "prefixes")

    def __init__(self, prefixes: str | tuple[str, ...], options: Options = ALL) -> None:
        kept: list[str] = []
        for prefix in (prefixes,) if isinstance(prefixes, str) else sorted(prefixes):
            if not kept or not prefix.startswith(kept[-1]):
                kept.append(prefix)
        self.prefixes = tuple(kept)
        self.options = options

    def wants(self, event: Record) -> bool:
        """Whether the options let the event through."""
        return self.options.deletes if event[VALUE] is None else self.options.puts

    def matches(self, event: Record) -> bool:
        """Whether it is one of these events."""
        return event[KEY].startswith(self.prefixes) and self.wants(event)

    def dress(self, history: History, event: Record) -> WireEvent:
        """The event as it goes out. Its previous version must be kept still: dress before compaction."""
        kind = DELETE_EVENT if event[VALUE] is None else PUT_EVENT
        previous = history.previous(event) if self.options.prev else None
        if self.options.keys_only:
            event = without_value(event)
            previous = None if previous is None else without_value(previous)
        return kind, event, previous


def event_bytes(event: WireEvent) -> int:
    """Upper bound of what the event takes in a message."""
    _, record, previous = event
    return wire_bytes(record) if previous is None else wire_bytes(record) + wire_bytes(previous)


def revision_of(event: WireEvent) -> int:
    """The revision of a dressed event."""
    return event[1][MOD_REVISION]


def fill(events: list[WireEvent], max_bytes: int) -> tuple[int, bool]:
    """(how many of `events` fit one frame, at least one; whether the last one's revision goes on after them)."""
    taken = 0
    for event in events:
        max_bytes -= event_bytes(event)
        if taken and max_bytes < 0:
            return taken, revision_of(event) == revision_of(events[taken - 1])
        taken += 1
    return taken, False


def pack_frame(events: list[WireEvent], more: bool) -> bytes:
    """The result fields of a watch reply that carries `events`, packed one after the other."""
    # The server puts the fields into its own array: the one byte that opens this one is cut off.
    return codec.pack((FRAME_EVENTS, events, revision_of(events[-1]), more))[1:]


def scan(
    history: History, selection: Selection, place: int, budget: int, max_bytes: int
) -> tuple[list[WireEvent], int, bool]:
    """What fits one frame from `place` in the list of events on.

    Returns (events, place to go on from, whether the revision of the last one goes on there). Looks at `budget`
    events, and then only as far as the revision goes.
    """
    events, matches = history.events, selection.matches
    found: list[WireEvent] = []
    stop = place + budget
    while place < len(events):
        event = events[place]
        if place >= stop and event[MOD_REVISION] != events[place - 1][MOD_REVISION]:
            break
        if matches(event):
            dressed = selection.dress(history, event)
            max_bytes -= event_bytes(dressed)
            if found and max_bytes < 0:
                return found, place, revision_of(found[-1]) == event[MOD_REVISION]
            found.append(dressed)
        place += 1
    return found, place, False


def poll(
    history: History, selection: Selection, after_revision: int, max_bytes: int
) -> tuple[list[WireEvent], int, bool]:
    """Events after a revision, in whole revisions: (events, revision to ask after next, more already here).

    One revision is returned however large it is. A revision of the future is waited for: no events, and it is asked
    after again. Raises Compacted.
    """
    if after_revision < history.compaction_revision:
        raise compacted(history)
    if after_revision >= history.revision:
        return [], after_revision, False
    start = history.position(after_revision + 1)
    found, place, split = scan(history, selection, start, MAX_SCANNED_EVENTS, max_bytes)
    if split:
        place = _make_whole(history, selection, found, place)
    if place == len(history.events):
        return found, history.revision, False
    return found, history.events[place][MOD_REVISION] - 1, True


def _make_whole(history: History, selection: Selection, found: list[WireEvent], place: int) -> int:
    """Let `found`, which was cut at `place` inside a revision, end with a whole one; returns where it ends now."""
    revision = revision_of(found[-1])
    if revision_of(found[0]) != revision:
        while revision_of(found[-1]) == revision:
            found.pop()
        return history.position(revision)
    end = history.position(revision + 1)
    rest = [event for event in history.events[place:end] if selection.matches(event)]
    found.extend(selection.dress(history, event) for event in rest)
    return end


def compacted(history: History) -> Compacted:
    """The error of a reader whose next events are gone."""
    return Compacted(
        f"events up to revision {history.compaction_revision} are compacted", history.compaction_revision
    )
