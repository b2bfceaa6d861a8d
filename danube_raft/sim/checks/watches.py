"""What a watch promises (SEMANTICS "Watch"; PITFALLS 44; etcd's "Watch APIs guarantees"): ordered by revision, unique,
atomic, gap-free, resumable from any kept revision on any node; progress in step with events; Compacted instead of silence.

- Followed event by event: each revision handed out is above all before it, was asked for, is above all that was already
  said to be complete, and is made of single events that the watch asked for.
- At the end, against the committed log: what was handed out is exactly what the log makes, filtered and dressed as the
  watch asked, from its start to the revision that it says it has reached. So nothing is missing, nothing is made up, no
  revision came in parts, previous records are right, and no mark was ahead of an event.
- A node feeds no watch of a connection that it was told is gone.
- A watch ends with an error only for what is really compacted: a revision that the log has compacted the store to,
  and not below what the watch still had to get. (`history_max_events` and `history_max_bytes` say when a leader proposes it.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from danube_raft.client.record import DELETE, PUT, Event
from danube_raft.client.record import Record as ClientRecord
from danube_raft.kv.record import KEY, MOD_REVISION, VALUE, Record, without_value
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Fact, HandedOut, Marked, Violation
from danube_raft.sim.checks.view import View
from danube_raft.sim.history import WatchLog

Seen = tuple[str, Record, Record | None]
"""(kind, record, previous record): an event as plain values."""


class WatchOrder:
    """Looks at what a watch hands out, when it does."""

    wants = (HandedOut, Marked)

    def __init__(self, _view: View) -> None:
        self.events = 0
        self.marks = 0

    def take(self, fact: Fact) -> None:
        """It goes on from what was told before, and is what was asked for."""
        if isinstance(fact, Marked):
            self.marks += 1
            if fact.revision < fact.watch.revision:
                raise Violation(f"progress goes back to {fact.revision}: {fact.watch}")
            return
        assert isinstance(fact, HandedOut)
        self.events += len(fact.events)
        watch, revision = fact.watch, fact.revision
        if revision <= watch.revision:
            raise Violation(f"revision {revision} comes after {watch.revision} was complete: {watch}")
        keys = [event.key for event in fact.events]
        if not keys or len(set(keys)) < len(keys):
            raise Violation(f"revision {revision} has no event, or one twice: {keys}, {watch}")
        for event in fact.events:
            if event.revision != revision or not _wanted(watch, event.key, event.kind):
                raise Violation(f"not an event of revision {revision} that was asked for: {event}, {watch}")


def _wanted(watch: WatchLog, key: str, kind: str) -> bool:
    options = watch.options
    return key.startswith(options.prefixes) and (options.puts if kind == PUT else options.deletes)


def _plain(record: ClientRecord | None) -> Record | None:
    if record is None:
        return None
    return (
        record.key, record.raw, record.create_revision, record.mod_revision, record.version, record.lease,
        record.created_at_ms,
    )  # fmt: skip


def _seen(event: Event) -> Seen:
    record = _plain(event.record)
    assert record is not None
    return event.kind, record, _plain(event.previous)


def _expected(watch: WatchLog, archive: Archive) -> Iterator[tuple[int, tuple[Seen, ...]]]:
    """(revision, its events) that the log makes for this watch."""
    events: list[Seen] = []
    for event in archive.since(watch.start):
        if events and events[0][1][MOD_REVISION] != event[MOD_REVISION]:
            yield events[0][1][MOD_REVISION], tuple(events)
            events = []
        kind = DELETE if event[VALUE] is None else PUT
        if _wanted(watch, event[KEY], kind):
            events.append(_dressed(watch, archive, kind, event))
    if events:
        yield events[0][1][MOD_REVISION], tuple(events)


def _dressed(watch: WatchLog, archive: Archive, kind: str, event: Record) -> Seen:
    previous = archive.previous(event) if watch.options.prev else None
    if watch.options.keys_only:
        return kind, without_value(event), None if previous is None else without_value(previous)
    return kind, event, previous


def check_watches(watches: Sequence[WatchLog], archive: Archive) -> None:
    """`archive` is what the whole committed log makes."""
    for watch in watches:
        if watch.revision > archive.revision:
            raise Violation(
                f"told up to a revision that is not committed, the last is {archive.revision}: {watch}"
            )
        expected = [each for each in _expected(watch, archive) if each[0] <= watch.revision]
        _compare([(each, tuple(map(_seen, events))) for each, events in watch.changes], expected, watch)
        _check_marks(watch)
        if watch.error:
            _check_compacted(watch, archive)


def _compare(found: list[tuple[int, Any]], expected: list[tuple[int, Any]], watch: WatchLog) -> None:
    for place, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            raise Violation(f"change {place} is {one} instead of {other}: {watch}")
    if len(found) != len(expected):
        left = (found if len(found) > len(expected) else expected)[min(len(found), len(expected)) :]
        what = "nothing makes" if len(found) > len(expected) else "it never got"
        raise Violation(f"{what}: {left[0]}, {watch}")


def _check_marks(watch: WatchLog) -> None:
    """What was handed out is right as a whole, so a mark was ahead if any of it at or below the mark came later."""
    for before, revision in watch.marks:
        if before < len(watch.changes) and watch.changes[before][0] <= revision:
            raise Violation(
                f"{revision} was told as complete before revision {watch.changes[before][0]} came: {watch}"
            )


def _check_compacted(watch: WatchLog, archive: Archive) -> None:
    if not watch.compacted:
        raise Violation(f"a watch ended with an error that it need not see: {watch}")
    if watch.compacted not in archive.compactions:
        raise Violation(f"the store was never compacted to {watch.compacted}: {watch}")
    if watch.revision >= watch.compacted:
        raise Violation(
            f"all up to {watch.compacted} had been handed out, and it ended as compacted: {watch}"
        )


def check_progress(watches: Sequence[WatchLog], revision: int) -> bool:
    """Whether all that are open have reached `revision`."""
    return all(watch.revision >= revision for watch in watches if watch.open)


def check_fed(node: int, watches: int, connections: int) -> None:
    """`connections` are those of this node that it has not been told to be gone, with one watch each at most."""
    if watches > connections:
        raise Violation(f"node {node} feeds {watches} watches over {connections} connections")
