"""A snapshot: the whole replicated state as bytes, the same bytes on every replica.

    byte 0    format
    then      MessagePack objects back to back: the header, then blocks of items
    block     [section, how many items of the section came before, items]; up to 4,096 items or 512 KiB (or one item)

Sections come in the order of their numbers, and each has as many items as the header says. An item is

    PRESENT      a record, in key order
    PAST         a version at or below the compaction revision that a read may still need, in key order
    EVENTS       a change above the compaction revision, in order: the key alone where it is the present record of that
                 key, [key, revision] for a delete, else the whole superseded version
    LEASES       [id, ttl_ms, deadline_ms, generation, private, number of keys], by id
    LEASE_KEYS   a key; those of the first lease sorted, then those of the second, …
    ORIGINS      [node id, boot epoch, batch seq], by node
    SESSIONS     [client id, used_ms, floor, number of results], the one that wrote longest ago first
    RESULTS      [serial, status, revision, fields]; those of the first session by serial, then …

Nothing in it depends on how a replica came to its state: an order that decides something (events, sessions) is kept,
every other one is sorted away. What can be made from the rest (chains, indexes, sizes, the heap of deadlines) is not in
it. The bytes are cut into chunks for whoever writes them; a reader may get them cut anywhere.

How they become a state again is in `kv/restorer.py`; how they lie on disk, with checksums, is none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from danube_raft.kv.machine import Machine
from danube_raft.kv.record import KEY, MOD_REVISION, VALUE, Record
from danube_raft.wire import codec

FORMAT = 1

PRESENT: Final = 0
PAST: Final = 1
EVENTS: Final = 2
LEASES: Final = 3
LEASE_KEYS: Final = 4
ORIGINS: Final = 5
SESSIONS: Final = 6
RESULTS: Final = 7
SECTIONS = ("present", "past", "events", "leases", "lease keys", "origins", "sessions", "results")

BLOCK_ITEMS = 4096
BLOCK_BYTES = 512 << 10
MAX_ITEM_BYTES = 64 << 20
"""Far above any record, which fits in a message. A reader refuses more, so a writer must not make it."""
CHUNK_BYTES = 512 << 10
"""A chunk is given out when it has so many bytes."""


class Header(NamedTuple):
    """The first object. `counts`: number of items by section; the sizes are what the reader must come to as well."""

    applied_index: int
    applied_term: int
    cluster_ms: int
    configuration: bytes
    revision: int
    compaction_revision: int
    next_lease_id: int
    state_bytes: int
    event_bytes: int
    kept_bytes: int
    counts: tuple[int, ...]


def encode(machine: Machine) -> Iterator[bytes]:
    """The state as it is now, in chunks of 512 KiB to 1 MiB (or one larger item).

    The machine may go on while the chunks are taken: what can change is copied before this returns, at a cost of
    some 0.5 s for a million records.
    """
    sections = _sections(machine)
    history = machine.history
    header = Header(
        machine.applied_index,
        machine.applied_term,
        machine.cluster_ms,
        machine.configuration,
        history.revision,
        history.compaction_revision,
        machine.leases.next_id,
        history.state_bytes,
        history.event_bytes,
        machine.sessions.kept_bytes,
        tuple(map(len, sections)),
    )
    return _chunks(bytes((FORMAT,)) + codec.pack(header), sections)


def _sections(machine: Machine) -> list[list[Any]]:
    """The items of each section, by its number."""
    history, leases, sessions = machine.history, machine.leases.all(), machine.sessions.by_client
    records, compaction_revision = history.records, history.compaction_revision
    oldest = [(key, chain[0]) for key, chain in history.chains.items()]
    return [
        [records[key] for key in history.keys("", None)],
        [first for _, first in sorted(oldest) if first[MOD_REVISION] <= compaction_revision],
        [_event(event, records) for event in history.events],
        [(x.id, x.ttl_ms, x.deadline_ms, x.generation, x.private, len(x.keys)) for x in leases],
        [key for lease in leases for key in sorted(lease.keys)],
        [(node, boot, seq) for node, (boot, seq) in sorted(machine.origins.items())],
        [(client_id, x.used_ms, x.floor, len(x.results)) for client_id, x in sessions.items()],
        [(serial, *result) for x in sessions.values() for serial, result in sorted(x.results.items())],
    ]


def _event(event: Record, records: dict[str, Record]) -> str | tuple[Any, ...]:
    if event[VALUE] is None:
        return event[KEY], event[MOD_REVISION]
    return event[KEY] if records.get(event[KEY]) is event else event


def _chunks(start: bytes, sections: list[list[Any]]) -> Iterator[bytes]:
    chunk, size = [start], len(start)
    for section, items in enumerate(sections):
        for block in _blocks(section, items):
            chunk.append(block)
            size += len(block)
            if size >= CHUNK_BYTES:
                yield b"".join(chunk)
                chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def _blocks(section: int, items: Iterable[Any]) -> Iterator[bytes]:
    """The packed blocks of a section."""
    pack = codec.packer()
    before = size = 0
    block: list[bytes] = []
    for item in items:
        packed = pack(item)
        if block and (size + len(packed) > BLOCK_BYTES or len(block) == BLOCK_ITEMS):
            yield _join(section, before, block)
            before += len(block)
            block, size = [], 0
        block.append(packed)
        size += len(packed)
    if block:
        yield _join(section, before, block)


def _join(section: int, before: int, block: list[bytes]) -> bytes:
    assert len(block) > 1 or len(block[0]) <= MAX_ITEM_BYTES, "the item is larger than any message"
    head = (codec.array_header(3), codec.pack(section), codec.pack(before), codec.array_header(len(block)))
    return b"".join((*head, *block))
