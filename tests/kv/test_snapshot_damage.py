"""Snapshots that are damaged: refused with a reason, or else a state that every command can work on.

Damage is done both to bytes at random and to single facts, packed again, because a random flip rarely makes
something that is well-formed and wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kv_driver import Driver, request
from kv_snapshots import grown, whole

from danube_raft.errors import Corrupt, NewerFormat
from danube_raft.kv import snapshot
from danube_raft.kv.machine import Machine
from danube_raft.kv.record import LEASE
from danube_raft.kv.restorer import restore
from danube_raft.kv.snapshot import (
    EVENTS,
    LEASE_KEYS,
    LEASES,
    ORIGINS,
    PAST,
    PRESENT,
    RESULTS,
    SESSIONS,
    encode,
)
from danube_raft.sim.digest import digest
from danube_raft.wire import codec
from danube_raft.wire.entry import KIND_BATCH, NO_ORIGIN, Entry


@pytest.fixture(scope="module")
def rich() -> bytes:
    """A snapshot that has items in every section."""
    machine = grown()
    data = whole(machine)
    assert min(taken_apart(data)[0][-1]) > 2
    return data


def taken_apart(data: bytes) -> tuple[list[Any], list[list[Any]]]:
    """The header as a list and the items of each section."""
    header, *blocks = codec.unpack_stream(data[1:])
    items: list[list[Any]] = [[] for _ in snapshot.SECTIONS]
    for section, _, found in blocks:
        items[section] += found
    return list(header), items


def put_together(header: list[Any], items: list[list[Any]]) -> bytes:
    """The reverse, with the counts that the items have."""
    header[-1] = tuple(map(len, items))
    blocks = [codec.pack((section, 0, found)) for section, found in enumerate(items) if found]
    return bytes((snapshot.FORMAT,)) + codec.pack(header) + b"".join(blocks)


def tried(data: bytes) -> Machine | None:
    """What comes of any bytes: a machine, or None for a refusal."""
    try:
        return restore([data])
    except (Corrupt, NewerFormat):
        return None


def exercise(machine: Machine) -> None:
    """Everything that commands can do to what is there; must not fail in any other way than by refusing."""
    again = restore(encode(machine))
    assert digest(again) == digest(machine)
    for key in list(machine.history.past_keys("", None)):
        machine.history.at(key, max(1, machine.history.compaction_revision))
    commands = [
        request("expire", tuple(machine.leases.due(1 << 62, 1_000))[:1_000]),
        *(request("put_with_ttl", key, b"x", 5) for key in writable(machine)),
        *(request("allocate_id", key[10:], 1) for key in machine.history.keys("/counters/", "/counters0")),
        request("delete_prefix", "/"),
        *(request("delete", key) for key in writable(machine)),
    ]
    apply(machine, commands)
    apply(machine, [request("compact", min(machine.revision, 1 << 53))])


def writable(machine: Machine) -> list[str]:
    return [key for key in machine.history.keys("", None) if not key.startswith("/counters/")]


def apply(machine: Machine, commands: list[Any]) -> None:
    index = machine.applied_index + 1
    machine.apply(Entry(index, 9, KIND_BATCH, machine.cluster_ms, 0, NO_ORIGIN, b""), commands)


def test_taking_apart_and_putting_together_is_harmless(rich: bytes) -> None:
    """Else the tests below would pass for a reason of their own."""
    machine = tried(put_together(*taken_apart(rich)))
    assert machine is not None
    assert digest(machine) == digest(grown())
    exercise(machine)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_bytes_are_there_is_a_refusal_or_a_state_that_commands_can_work_on(
    rich: bytes, seed: int
) -> None:
    rng = random.Random(seed)
    accepted = 0
    for _ in range(1_500):
        data = bytearray(rich)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            damage(rng, data)
        machine = tried(bytes(data))
        if machine is not None:
            accepted += 1
            exercise(machine)
    # Flips inside values are for the checksums on disk; all else should be noticed here.
    assert 0 < accepted < 900


def damage(rng: random.Random, data: bytearray) -> None:
    """Change some bytes: a bit, a byte, a range zeroed, cut out, doubled."""
    place = rng.randrange(len(data))
    size = rng.choice((1, 2, 8, 60))
    kind = rng.randrange(6)
    if kind == 0:
        data[place] = rng.randrange(256)
    elif kind == 1:
        data[place : place + size] = bytes(len(data[place : place + size]))
    elif kind == 2:
        del data[place : place + size]
    elif kind == 3:
        data[place:place] = data[place : place + size]
    else:
        data[place] ^= 1 << rng.randrange(8)
    if not data:
        data.append(0)


def test_random_bytes_and_deep_nesting_are_refused() -> None:
    rng = random.Random(5)
    start = bytes((snapshot.FORMAT,))
    for _ in range(2_000):
        assert tried(start + rng.randbytes(rng.randrange(1, 80))) is None
    for deep in (b"\x91" * 100_000, b"\xdd\x7f\xff\xff\xff" * 100, b"\xdc\x10\x00" * 2_000):
        assert tried(start + deep) is None
    assert tried(b"") is None
    assert tried(bytes(500)) is None


def test_a_snapshot_that_is_cut_short_anywhere_is_refused(rich: bytes) -> None:
    for size in range(len(rich)):
        assert tried(rich[:size]) is None, size
    for more in (b"\0", b"\xc0", b"\x93", b"\xc4", rich, rich[1:]):
        assert tried(rich + more) is None


def test_a_newer_format_is_told_apart_from_damage(rich: bytes) -> None:
    with pytest.raises(NewerFormat, match="format 2, this version reads up to 1"):
        restore([b"\x02" + rich[1:]])
    with pytest.raises(Corrupt, match="zeroed"):
        restore([b"\0" + rich[1:]])


def test_chunks_that_are_dropped_doubled_or_swapped_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1)
    monkeypatch.setattr(snapshot, "BLOCK_ITEMS", 5)
    chunks = list(encode(grown()))
    assert len(chunks) > 50
    for place in range(len(chunks)):
        assert tried(b"".join(chunks[:place] + chunks[place + 1 :])) is None
        assert tried(b"".join(chunks[: place + 1] + chunks[place:])) is None
        if place:
            swapped = [*chunks[: place - 1], chunks[place], chunks[place - 1], *chunks[place + 1 :]]
            assert tried(b"".join(swapped)) is None
    assert tried(b"".join(chunks)) is not None


def changed(place: int, field: int, value: Any) -> Callable[[list[Any]], None]:
    """Set a field of an item."""

    def change(items: list[Any]) -> None:
        item = list(items[place])
        item[field] = value(item[field]) if callable(value) else value
        items[place] = tuple(item)

    return change


def plus(number: int) -> Callable[[int], int]:
    return lambda value: value + number


def at_first(
    wanted: Callable[[Any], bool], change: Callable[[list[Any], int], None]
) -> Callable[[list[Any]], None]:
    """Do something to the first item that is wanted."""
    return lambda items: change(items, next(place for place, item in enumerate(items) if wanted(item)))


def is_reference(item: Any) -> bool:
    return type(item) is str


def is_delete(item: Any) -> bool:
    return type(item) is tuple and len(item) == 2


def is_version(item: Any) -> bool:
    return type(item) is tuple and len(item) == 7


FAULTS: list[tuple[int, str, Callable[[list[Any]], Any]]] = [
    (PRESENT, "keys are not in order", lambda x: x.reverse()),
    (PRESENT, "keys are not in order", lambda x: x.insert(1, x[0])),
    (PRESENT, "seven fields|7 fields", lambda x: x.insert(0, x[0][:6])),
    (PRESENT, "keys are strings", changed(0, 0, b"/a")),
    (PRESENT, "keys are strings", changed(0, 0, "")),
    (PRESENT, "values are bytes", changed(0, 1, None)),
    (PRESENT, "values are bytes", changed(0, 1, "1")),
    (PRESENT, "integers", changed(0, 4, True)),
    (PRESENT, "integers", changed(0, 5, -1)),
    (PRESENT, "integers", changed(0, 6, 1 << 63)),
    (PRESENT, "created", changed(0, 2, plus(100_000))),
    (PRESENT, "created", changed(0, 2, 1)),
    (PRESENT, "newer than the store", changed(0, 3, 100_000)),
    (PRESENT, "versions begin", changed(0, 4, 0)),
    (PRESENT, "counter is no number", lambda x: changed(counter_place(x), 1, b"1x")(x)),
    (PRESENT, "counter is no number", lambda x: changed(counter_place(x), 1, b"9" * 5_000)(x)),
    (PRESENT, "refer", lambda x: x.pop()),
    (PRESENT, "lease", at_first(lambda r: r[LEASE] > 0, lambda x, n: changed(n, LEASE, 0)(x))),
    (PRESENT, "lease", at_first(lambda r: r[LEASE] == 0, lambda x, n: changed(n, LEASE, 1)(x))),
    (PRESENT, "refer to them", lambda x: x.append(("~", b"", 249, 249, 1, 0, 0))),
    (PAST, "keys are not in order", lambda x: x.append(x[-1])),
    (PAST, "above the compaction", changed(0, 3, 249)),
    (PAST, "does not follow", lambda x: x.clear()),
    (PAST, "does not follow", lambda x: [changed(n, 4, plus(1))(x) for n in range(len(x))]),
    (PAST, "neither present nor deleted", lambda x: x.append(("zzz", b"", 2, 2, 1, 0, 0))),
    (EVENTS, "comes after revision", lambda x: x.reverse()),
    (EVENTS, "comes after revision", lambda x: x.pop(0)),
    (EVENTS, "end at revision", lambda x: x.pop()),
    (EVENTS, "two events of one key|comes after", lambda x: x.append(x[-1])),
    (EVENTS, "refers to a record", at_first(is_reference, lambda x, n: x.__setitem__(n, "/none"))),
    (EVENTS, "a delete is a key", at_first(is_delete, lambda x, n: changed(n, 0, 7)(x))),
    (EVENTS, "a delete is a key", at_first(is_delete, lambda x, n: changed(n, 1, "7")(x))),
    (EVENTS, "does not follow", at_first(is_delete, lambda x, n: changed(n, 0, "/none")(x))),
    (EVENTS, "does not follow", at_first(is_version, lambda x, n: changed(n, 4, plus(1))(x))),
    (EVENTS, "does not follow", at_first(is_version, lambda x, n: changed(n, 6, plus(1))(x))),
    (EVENTS, "fields", at_first(is_version, lambda x, n: x.__setitem__(n, x[n][:5]))),
    (EVENTS, "an event is", at_first(is_version, lambda x, n: x.__setitem__(n, 5))),
    (EVENTS, "size of the state|size of the events", at_first(is_version, lambda x, n: changed(n, 1, b"longer")(x))),
    (LEASES, "leases are not in order", lambda x: x.reverse()),
    (LEASES, "integers", changed(0, 2, None)),
    (LEASES, "private", changed(0, 4, 1)),
    (LEASES, "one key", changed(0, 5, 2)),
    (LEASES, "without time", changed(0, 1, 0)),
    (LEASES, "above the next", changed(-1, 0, 1 << 40)),
    (LEASES, "keys of no lease", lambda x: x.pop()),
    (LEASES, "another lease", lambda x: x.insert(0, (1, *x[0][1:]))),
    (LEASES, "keys of lease", lambda x: x.append((*x.pop()[:4], False, 2))),
    (LEASE_KEYS, "keys are strings", lambda x: x.__setitem__(0, b"/a")),
    (LEASE_KEYS, "do not match", lambda x: x.pop()),
    (LEASE_KEYS, "another lease", lambda x: x.reverse()),
    (LEASE_KEYS, "not there", lambda x: x.__setitem__(0, "/none")),
    (ORIGINS, "not in order", lambda x: x.append(x[0])),
    (ORIGINS, "integers", changed(0, 2, "1")),
    (SESSIONS, "sessions are not in order", changed(0, 1, plus(1_000_000))),
    (SESSIONS, "in the future", changed(-1, 1, plus(1_000_000))),
    (SESSIONS, "two sessions", lambda x: changed(0, 0, x[1][0])(x)),
    (SESSIONS, "results", lambda x: x.pop()),
    (SESSIONS, "below the floor", lambda x: changed(largest(x), 2, plus(1_000))(x)),
    (RESULTS, "results of a session", lambda x: x.pop()),
    (RESULTS, "results of a session|below the floor", lambda x: x.reverse()),
    (RESULTS, "newer than the store", changed(0, 2, 100_000)),
    (RESULTS, "integers", changed(0, 1, None)),
    (RESULTS, "has fields", changed(0, 3, None)),
    (RESULTS, "of no kind", changed(0, 3, (1.5,))),
    (RESULTS, "fields", changed(0, 3, ((1, 2),))),
    (RESULTS, "larger", changed(0, 3, (("/a", b"x" * 70_000, 2, 2, 1, 0, 0),))),
    (RESULTS, "size of the results", changed(0, 3, (("/a", b"x" * 7_000, 2, 2, 1, 0, 0),))),
]  # fmt: skip


def counter_place(items: list[Any]) -> int:
    return next(place for place, item in enumerate(items) if item[0].startswith("/counters/"))


def largest(items: list[Any]) -> int:
    """Place of the session with most results."""
    return max(range(len(items)), key=lambda place: items[place][3])


@pytest.mark.parametrize(("section", "said", "change"), FAULTS, ids=[f"{s}-{t[:20]}" for s, t, _ in FAULTS])
def test_a_fact_that_does_not_fit_the_others_is_named(
    rich: bytes, section: int, said: str, change: Callable[[list[Any]], Any]
) -> None:
    header, items = taken_apart(rich)
    change(items[section])
    with pytest.raises(Corrupt, match=said):
        restore([put_together(header, items)])


def test_a_present_record_that_is_no_event_has_no_past() -> None:
    driver = Driver()
    driver.do("put", "/a", b"1")
    driver.do("compact", 2)
    header, items = taken_apart(whole(driver.machine))
    items[PAST].append(("/a", b"0", 2, 2, 1, 0, 0))
    with pytest.raises(Corrupt, match="do not end with its present record"):
        restore([put_together(header, items)])


def test_a_key_changes_once_in_a_revision() -> None:
    driver = Driver()
    driver.do("put", "/a", b"1")
    driver.do("delete", "/a")
    header, items = taken_apart(whole(driver.machine))
    assert items[EVENTS][1] == ("/a", 3)
    items[EVENTS][1] = ("/a", 2)
    header[snapshot.Header._fields.index("revision")] = 2
    with pytest.raises(Corrupt, match="two events of one key at revision 2"):
        restore([put_together(header, items)])


@pytest.mark.parametrize("field", range(len(snapshot.Header._fields) - 1))
@pytest.mark.parametrize("value", [None, -1, True, 1 << 63, "1", 1.0])
def test_a_header_of_other_types_is_refused(rich: bytes, field: int, value: Any) -> None:
    header, items = taken_apart(rich)
    header[field] = value
    assert tried(put_together(header, items)) is None


@pytest.mark.parametrize("field", range(4, len(snapshot.Header._fields) - 1))
def test_a_header_that_does_not_fit_the_state_is_refused(rich: bytes, field: int) -> None:
    header, items = taken_apart(rich)
    header[field] = 1 if snapshot.Header._fields[field] == "next_lease_id" else header[field] + 1
    assert tried(put_together(header, items)) is None


@pytest.mark.parametrize("section", range(len(snapshot.SECTIONS)))
def test_counts_that_do_not_match_are_refused(rich: bytes, section: int) -> None:
    header, items = taken_apart(rich)
    made = put_together(header, items)
    packed = codec.pack(header)
    for more in (1, -1):
        counts = list(header[-1])
        counts[section] += more
        wrong = made[:1] + codec.pack([*header[:-1], tuple(counts)]) + made[1 + len(packed) :]
        with pytest.raises(Corrupt, match=f"{snapshot.SECTIONS[section]}.*"):
            restore([wrong])


def test_blocks_of_unknown_sections_and_shapes_are_refused(rich: bytes) -> None:
    header, items = taken_apart(rich)
    start = bytes((snapshot.FORMAT,)) + codec.pack(header)
    present = tuple(items[PRESENT])
    blocks: list[Any] = [
        None, (), (0, 0), (0, 0, present, 0), (8, 0, present), (-1, 0, present), ("0", 0, present), (0, 1, present),
        (0, True, present), (0, 0, ()), (0, 0, {}), (1, 0, present), (0, 0, b"items"), (0, 0, (*present, None)),
    ]  # fmt: skip
    for block in blocks:
        with pytest.raises(Corrupt, match="damaged at byte"):
            restore([start + codec.pack(block)])


def test_the_errors_of_whoever_reads_the_chunks_come_through(rich: bytes) -> None:
    def failing() -> Iterator[bytes]:
        yield rich[:100]
        raise Corrupt("frame 2 does not match its checksum")

    with pytest.raises(Corrupt, match="frame 2"):
        restore(failing())
