"""The versions of all keys, as they come out of a snapshot, proven to fit together; and checks of columns of items.

`Versions` reads the first three sections of `kv/snapshot.py`, in order, and makes the history of them. Its rules are in
`kv/restorer.py`, with those of the other sections. Checks raise `codec.Malformed`, whose text says what is wrong.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from operator import le, lt
from typing import Any

from danube_raft.kv.history import History
from danube_raft.kv.record import (
    CREATE_REVISION,
    CREATED_AT_MS,
    KEY,
    MOD_REVISION,
    VALUE,
    VERSION,
    Record,
    prefix_end,
    tombstone,
)
from danube_raft.kv.snapshot import Header
from danube_raft.wire.arguments import COUNTERS, MAX_INTEGER
from danube_raft.wire.codec import Malformed, expect

INTEGER_LIMIT = 1 << 63
"""Integers stay below this, so that what grows from them can be packed again."""
_COUNTERS_END = prefix_end(COUNTERS)
assert _COUNTERS_END is not None
_COUNTER_DIGITS = len(str(MAX_INTEGER))


def naturals(values: Sequence[Any]) -> bool:
    """Whether all are integers from 0 on and below the limit."""
    return not values or (
        set(map(type, values)) == {int} and min(values) >= 0 and max(values) < INTEGER_LIMIT
    )


def columns(items: Sequence[Any], size: int, what: str) -> list[tuple[Any, ...]]:
    """The items' fields by place; each item must be an array of `size`."""
    expect(set(map(type, items)) == {tuple} and set(map(len, items)) == {size}, f"{what} has {size} fields")
    return list(zip(*items, strict=True))


def ascending(values: Sequence[Any]) -> bool:
    """Whether each is above the one before it."""
    return all(map(lt, values, islice(values, 1, None)))


class Versions:
    """What is known of the keys so far."""

    def __init__(self, header: Header) -> None:
        self.records: dict[str, Record] = {}
        """The present, in key order."""
        self.leased = 0
        """How many present records have a lease."""
        self._header = header
        self._versions: dict[str, list[Record]] = {}
        """All kept versions of the keys that have more than a present record which is no event."""
        self._names: dict[str, str] = {}
        """The one string of each key that is gone."""
        self._history: list[Record] = []
        self._unmet = 0
        """Present records above the compaction revision whose event has not come yet."""

    def check(self, items: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Their columns; each is a version with a value, by itself in order."""
        fields = columns(items, 7, "a record")
        keys, values, creates, mods, versions, _, _ = fields
        expect(set(map(type, keys)) == {str} and all(keys), "keys are strings and not empty")
        expect(set(map(type, values)) == {bytes}, "values are bytes")
        expect(all(map(naturals, fields[2:])), "the numbers of a record are integers from 0 on")
        expect(
            min(creates) > 1 and all(map(le, creates, mods)), "a record is created at or before its change"
        )
        expect(max(mods) <= self._header.revision, "a record is newer than the store")
        expect(min(versions) > 0, "versions begin at 1")
        return fields

    def present(self, items: Sequence[Any]) -> None:
        """Take items of the section PRESENT."""
        keys, values, _, mods, _, leases, _ = self.check(items)
        expect(next(reversed(self.records), "") < keys[0] and ascending(keys), "the keys are not in order")
        self.records.update(zip(keys, items, strict=True))
        self._unmet += sum(map(self._header.compaction_revision.__lt__, mods))
        self.leased += len(leases) - leases.count(0)
        for value in values[bisect_left(keys, COUNTERS) : bisect_left(keys, _COUNTERS_END)]:
            expect(
                value.isdigit() and len(value) <= _COUNTER_DIGITS and int(value) <= MAX_INTEGER,
                "a counter is no number",
            )

    def past(self, items: Sequence[Any]) -> None:
        """Take items of the section PAST."""
        keys, _, _, mods, *_ = self.check(items)
        expect(next(reversed(self._versions), "") < keys[0] and ascending(keys), "the keys are not in order")
        expect(
            max(mods) <= self._header.compaction_revision, "a past version is above the compaction revision"
        )
        for item in items:
            name = self.name(item[KEY])
            self._versions[name] = [(name, *item[1:])]

    def name(self, key: str) -> str:
        """The one string of that key."""
        record = self.records.get(key)
        return self._names.setdefault(key, key) if record is None else record[KEY]

    def events(self, items: Sequence[Any]) -> None:
        """Take items of the section EVENTS."""
        whole = [item for item in items if type(item) is tuple and len(item) != 2]
        if whole:
            self.check(whole)
        history, versions = self._history, self._versions
        revision = history[-1][MOD_REVISION] if history else max(self._header.compaction_revision, 1)
        for item in items:
            event = self._event(item)
            name, found = event[KEY], event[MOD_REVISION]
            if found != revision + 1 and not (history and found == revision):
                raise Malformed(f"an event of revision {found} comes after revision {revision}")
            revision = found
            chain = versions.setdefault(name, [])
            previous = chain[-1] if chain else None
            if previous is not None and previous[MOD_REVISION] >= revision:
                raise Malformed(f"two events of one key at revision {revision}")
            if not _follows(event, previous):
                raise Malformed(f"the event of revision {revision} does not follow the version before it")
            chain.append(event)
            history.append(event)

    def _event(self, item: Any) -> Record:
        if type(item) is str:
            record = self.records.get(item)
            if record is None:
                raise Malformed("an event refers to a record that is not there")
            self._unmet -= 1
            return record
        if type(item) is not tuple:
            raise Malformed("an event is a key, a delete or a version")
        if len(item) != 2:
            return (self.name(item[KEY]), *item[1:])
        key, revision = item
        if type(key) is not str or type(revision) is not int or not 0 < revision <= self._header.revision:
            raise Malformed("a delete is a key and a revision of the store")
        return tombstone(self.name(key), revision)

    def history(self) -> History:
        """The whole, once all items of the three sections are there."""
        header, records, chains = self._header, self.records, self._versions
        newest = self._history[-1][MOD_REVISION] if self._history else max(header.compaction_revision, 1)
        expect(
            newest == header.revision, f"the events end at revision {newest}, the store at {header.revision}"
        )
        expect(self._unmet == 0, "present records and the events that refer to them do not match")
        for name in list(chains):
            chain = chains[name]
            present, last = records.get(name), chain[-1]
            if present is None:
                expect(last[VALUE] is None, "a key is neither present nor deleted")
            else:
                expect(last is present, "a key's versions do not end with its present record")
                chain.pop()
                if not chain:
                    del chains[name]
        history = History.restore(header.revision, header.compaction_revision, records, chains, self._history)
        expect(history.state_bytes == header.state_bytes, "the size of the state is not the header's")
        expect(history.event_bytes == header.event_bytes, "the size of the events is not the header's")
        return history


def _follows(event: Record, previous: Record | None) -> bool:
    """Whether `event` can be what happened to `previous`, the version before it (None or a tombstone: no key)."""
    before = None if previous is None or previous[VALUE] is None else previous
    if event[VALUE] is None:
        return before is not None
    if before is None:
        return event[VERSION] == 1 and event[CREATE_REVISION] == event[MOD_REVISION]
    same_life = all(event[field] == before[field] for field in (CREATE_REVISION, CREATED_AT_MS))
    return same_life and event[VERSION] == before[VERSION] + 1
