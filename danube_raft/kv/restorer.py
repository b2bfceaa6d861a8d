"""From the bytes of a snapshot back to the state machine, or the reason why not.

The result is equal to the machine that was encoded, in what it holds and in what it will do. An event and the present
record of its key are one object again, and so are all strings of one key.

Whatever the bytes are, this raises Corrupt or NewerFormat or returns a state that the commands of `kv/machine.py` can
go on with. So everything that they rely on is checked here, in blocks, with as little work per record as possible:

- each section has the items that the header counts, none twice, in the order of `kv/snapshot.py`;
- 2 ≤ create_revision ≤ mod_revision ≤ revision for every version, and every revision above the compaction revision
  has an event;
- the versions of a key follow one another: each event has its predecessor, and the last is its present record or its
  delete; present records above the compaction revision are events, the others are not;
- a lease's keys have that lease, and every record with a lease is among them;
- counters are decimal numbers; integers are below 2^63;
- the sizes come out as the writer had them.

Values that were changed to other values of the same kind are not noticed: that is what checksums are for, where the
bytes are stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import le
from typing import Any

from danube_raft.errors import Corrupt, NewerFormat
from danube_raft.kv import limits
from danube_raft.kv.leases import Lease, Leases
from danube_raft.kv.machine import Machine
from danube_raft.kv.record import KEY, LEASE
from danube_raft.kv.sessions import Session, Sessions, record_cost
from danube_raft.kv.snapshot import BLOCK_ITEMS, FORMAT, MAX_ITEM_BYTES, SECTIONS, Header
from danube_raft.kv.versions import Versions, ascending, columns, naturals
from danube_raft.wire import codec
from danube_raft.wire.codec import Malformed, expect

_OTHER_FIELDS = ("configuration", "counts")
"""Fields of the header that are no numbers."""
_PLAIN = frozenset((type(None), bool, int, str, bytes))
"""What the fields of a kept result may be, besides a record."""


def restore(chunks: Iterable[bytes]) -> Machine:
    """The state in `chunks`, which may be cut anywhere. Raises Corrupt or NewerFormat, and what `chunks` raises.

    A caller with much to restore stops the garbage collector meanwhile.
    """
    pieces = (chunk for chunk in chunks if chunk)
    first = next(pieces, b"\0")
    if first[0] != FORMAT:
        _refuse_format(first[0])
    row = codec.Row(BLOCK_ITEMS, MAX_ITEM_BYTES)
    try:
        objects = _objects(row, first[1:], pieces)
        parts = _Parts(_header(next(objects, None)))
        for block in objects:
            parts.take(block)
        row.finish()
        return parts.machine()
    except Malformed as error:
        raise Corrupt(f"the snapshot is damaged at byte {row.end + 1}: {error}") from None


def _refuse_format(found: int) -> None:
    if found == 0:
        raise Corrupt("the snapshot is empty or zeroed")
    raise NewerFormat(f"the snapshot has format {found}, this version reads up to {FORMAT}")


def _objects(row: codec.Row, first: bytes, pieces: Iterator[bytes]) -> Iterator[Any]:
    yield from row.feed(first)
    for piece in pieces:
        yield from row.feed(piece)


def _header(value: Any) -> Header:
    expect(type(value) is tuple and len(value) == len(Header._fields), "the header has eleven fields")
    header = Header(*value)
    numbers = [field for name, field in zip(Header._fields, header, strict=True) if name not in _OTHER_FIELDS]
    expect(naturals(numbers), "the header's numbers are integers from 0 on")
    expect(type(header.configuration) is bytes, "the header's configuration is bytes")
    counts = header.counts
    expect(
        type(counts) is tuple and len(counts) == len(SECTIONS) and naturals(counts),
        "the header has a count for each section",
    )
    expect(header.revision >= 1 and header.next_lease_id >= 1, "revision and next lease id begin at 1")
    expect(header.compaction_revision <= header.revision, "the compaction revision is not above the revision")
    return header


class _Parts:
    """What has been read so far. `take` gets the blocks in order, `machine` makes the whole of them."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._seen = [0] * len(SECTIONS)
        self._section = 0
        self._versions = versions = Versions(header)
        self._readers: tuple[Callable[[Sequence[Any]], None], ...] = (
            versions.present, versions.past, versions.events, self._leases, self._lease_keys, self._origins,
            self._sessions, self._results,
        )  # fmt: skip
        self._leases_read: list[tuple[Lease, int]] = []
        self._keys_read: list[str] = []
        self._origins_read: dict[int, tuple[int, int]] = {}
        self._sessions_read: OrderedDict[int, tuple[Session, int]] = OrderedDict()
        self._results_read: list[tuple[Any, ...]] = []

    def take(self, block: Any) -> None:
        """Read one block; raises Malformed."""
        expect(type(block) is tuple and len(block) == 3, "a block has three fields")
        section, before, items = block
        expect(type(section) is int and 0 <= section < len(SECTIONS), "the block is of an unknown section")
        name = SECTIONS[section]
        expect(type(items) is tuple and len(items) > 0, f"a block of {name} has no items")
        while self._section < section:
            self._complete()
        expect(
            type(before) is int and before == self._seen[section],
            f"a block of {name} is missing, doubled or out of order: {self._seen[section]} items are read",
        )
        self._seen[section] += len(items)
        expect(self._seen[section] <= self._header.counts[section], f"more {name} than the header counts")
        try:
            self._readers[section](items)
        except Malformed as error:
            raise Malformed(f"{name} from {before} on: {error}") from None

    def _complete(self) -> None:
        """Leave a section, which must be whole."""
        seen, due = self._seen[self._section], self._header.counts[self._section]
        expect(seen == due, f"{seen} of {due} {SECTIONS[self._section]} are there")
        self._section += 1

    # ---------------------------------------------------------------- leases

    def _leases(self, items: Sequence[Any]) -> None:
        ids, ttls, deadlines, generations, privates, sizes = columns(items, 6, "a lease")
        expect(
            all(map(naturals, (ids, ttls, deadlines, generations, sizes))), "a lease's numbers are integers"
        )
        expect(set(map(type, privates)) == {bool}, "a lease is private or not")
        last = self._leases_read[-1][0].id if self._leases_read else 0
        expect(last < ids[0] and ascending(ids), "the leases are not in order")
        expect(ids[-1] < self._header.next_lease_id, "a lease is above the next lease id")
        expect(min(ttls) > 0, "a lease without time")
        for lease_id, ttl_ms, deadline_ms, generation, private, size in items:
            if private and size != 1:
                raise Malformed("a private lease has one key")
            self._leases_read.append((Lease(lease_id, ttl_ms, deadline_ms, private, generation), size))

    def _lease_keys(self, items: Sequence[Any]) -> None:
        expect(set(map(type, items)) == {str}, "keys are strings")
        self._keys_read.extend(items)

    def _make_leases(self) -> Leases:
        records, keys = self._versions.records, self._keys_read
        expect(
            self._versions.leased == len(keys), "records with a lease and the keys of the leases do not match"
        )
        start = 0
        for lease, size in self._leases_read:
            mine = keys[start : start + size]
            start += size
            expect(len(mine) == size and ascending(mine), f"the keys of lease {lease.id} are not in order")
            for key in mine:
                record = records.get(key)
                if record is None or record[LEASE] != lease.id:
                    raise Malformed(
                        f"lease {lease.id} has a key whose record has another lease or is not there"
                    )
                lease.keys[record[KEY]] = None
        expect(start == len(keys), "there are keys of no lease")
        return Leases.restore(self._header.next_lease_id, [lease for lease, _ in self._leases_read])

    # ---------------------------------------------------------------- origins and sessions

    def _origins(self, items: Sequence[Any]) -> None:
        found = columns(items, 3, "an origin")
        expect(all(map(naturals, found)), "an origin's numbers are integers from 0 on")
        nodes = found[0]
        last = next(reversed(self._origins_read), -1)
        expect(last < nodes[0] and ascending(nodes), "the origins are not in order")
        self._origins_read.update((node, (boot, seq)) for node, boot, seq in items)

    def _sessions(self, items: Sequence[Any]) -> None:
        found = columns(items, 4, "a session")
        expect(all(map(naturals, found)), "a session's numbers are integers from 0 on")
        used = found[1]
        last = next(reversed(self._sessions_read.values()))[0].used_ms if self._sessions_read else 0
        expect(last <= used[0] and all(map(le, used, islice(used, 1, None))), "the sessions are not in order")
        expect(used[-1] <= self._header.cluster_ms, "a session was used in the future")
        for client_id, used_ms, floor, size in items:
            if client_id in self._sessions_read:
                raise Malformed("a client has two sessions")
            self._sessions_read[client_id] = Session(used_ms, floor), size

    def _results(self, items: Sequence[Any]) -> None:
        serials, statuses, revisions, fields = columns(items, 4, "a result")
        expect(
            all(map(naturals, (serials, statuses, revisions))), "a result's numbers are integers from 0 on"
        )
        expect(max(revisions) <= self._header.revision, "a result is newer than the store")
        expect(set(map(type, fields)) == {tuple}, "a result has fields")
        self._results_read.extend(
            (serial, (status, revision, self._fields(found))) for serial, status, revision, found in items
        )

    def _fields(self, fields: tuple[Any, ...]) -> tuple[Any, ...]:
        """The fields of a result, its record with the one string of its key."""
        if set(map(type, fields)) <= _PLAIN:
            return fields
        checked = []
        for field in fields:
            if type(field) is tuple:
                self._versions.check((field,))
                checked.append((self._versions.name(field[KEY]), *field[1:]))
            else:
                expect(type(field) in _PLAIN, "a field of a result is of no kind that results have")
                checked.append(field)
        size = record_cost(tuple(checked))
        expect(
            size is not None and size <= limits.MAX_KEPT_RESULT_BYTES,
            "a result is larger than any that is kept",
        )
        return tuple(checked)

    def _make_sessions(self) -> Sessions:
        results = iter(self._results_read)
        total = 0
        for session, size in self._sessions_read.values():
            total += size
            mine = list(islice(results, size))
            serials = [serial for serial, _ in mine]
            expect(len(mine) == size and ascending(serials), "the results of a session are not in order")
            expect(not serials or serials[0] >= session.floor, "a result is below the floor of its session")
            session.results.update(mine)
        expect(total == len(self._results_read), "there are results of no session")
        by_client = OrderedDict(
            (client_id, session) for client_id, (session, _) in self._sessions_read.items()
        )
        sessions = Sessions.restore(by_client)
        expect(sessions.kept_bytes == self._header.kept_bytes, "the size of the results is not the header's")
        return sessions

    def machine(self) -> Machine:
        """The whole, once all blocks are there; raises Malformed."""
        while self._section < len(SECTIONS):
            self._complete()
        header = self._header
        return Machine.restore(
            (header.applied_index, header.applied_term),
            header.cluster_ms,
            header.configuration,
            self._versions.history(),
            self._make_leases(),
            self._make_sessions(),
            self._origins_read,
        )
