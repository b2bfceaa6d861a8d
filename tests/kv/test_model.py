"""The whole state machine against a dict: any commands in any order, and what reads and watches then show.

The model keeps a full copy of the store for every revision and the plain list of all events; it knows nothing of
chains, cursors, heaps or generations. Two replicas run beside it, see `tests/support/kv_driver.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kv_driver import CREDIT, NODE, WALL_MS, Driver, dump, request

from danube_raft.errors import Compacted, FutureRevision
from danube_raft.kv import limits, reads
from danube_raft.kv.restorer import restore
from danube_raft.kv.snapshot import encode
from danube_raft.kv.watches import Options

KEYS = st.sampled_from(["/a", "/a/x", "/a/y", "/ab", "/b", "/b/é", "c"])
VALUES = st.sampled_from([b"", b"1", b"2"])
PREFIXES = st.sampled_from(["", "/", "/a", "/a/", "/b", "/counters/", "c", "none"])
TTLS = st.sampled_from([10, 50, 200])

COMMANDS = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("put_with_ttl"), KEYS, VALUES, TTLS),
    st.tuples(st.just("put_with_ttl"), KEYS, st.just(b"1"), TTLS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("delete_prefix"), st.sampled_from(["/", "/a", "/a/", "/b", "c"])),
    st.tuples(st.just("compare_and_swap"), KEYS, st.none() | VALUES | st.integers(1, 12), VALUES, st.none() | TTLS),
    st.tuples(st.just("allocate_id"), st.sampled_from(["n", "m"]), st.integers(1, 5)),
)  # fmt: skip


class Model:
    """What the store must show. A record is [value, create, mod, version, deadline or None, created_at]."""

    def __init__(self) -> None:
        self.revision = 1
        self.compaction = 0
        self.now = 0
        self.live: dict[str, list[Any]] = {}
        self.past: dict[int, dict[str, list[Any]]] = {1: {}}
        self.events: list[tuple[int, str, bytes | None, int, bytes | None]] = []

    def snap(self) -> None:
        """Remember the store as it is at this revision."""
        self.past[self.revision] = {key: list(record) for key, record in self.live.items()}

    def write(self, key: str, value: bytes, ttl: int | None) -> tuple[int, int]:
        """A put of any kind."""
        self.revision += 1
        old = self.live.get(key)
        deadline = None if ttl is None else self.now + ttl
        create, version, created = (
            (self.revision, 0, WALL_MS + self.now) if old is None else (old[1], old[3], old[5])
        )
        self.live[key] = [value, create, self.revision, version + 1, deadline, created]
        self.events.append((0, key, value, self.revision, None if old is None else old[0]))
        self.snap()
        return self.revision, version + 1

    def remove(self, keys: list[str]) -> int:
        """Delete `keys`, which exist, in one revision."""
        if keys:
            self.revision += 1
            for key in sorted(keys):
                self.events.append((1, key, None, self.revision, self.live.pop(key)[0]))
            self.snap()
        return len(keys)

    def run(self, op: str, *args: Any) -> tuple[Any, ...]:
        """The result fields that the command must have."""
        key = args[0]
        old = self.live.get(key)
        if op == "put":
            return (*self.write(key, args[1], None), None)
        if op == "put_with_ttl":
            if old is not None and old[4] is not None and old[0] == args[1]:
                old[4] = self.now + args[2]
                return old[2], old[3], None, True
            return (*self.write(key, args[1], args[2]), None, False)
        if op == "delete":
            return self.remove([key] if old else []), None
        if op == "delete_prefix":
            matches = [k for k in self.live if k.startswith(key) and not k.startswith("/counters/")]
            return (self.remove(matches),)
        if op == "compare_and_swap":
            return self.swap(key, old, *args[1:])
        assert op == "allocate_id"
        counter = self.live.get("/counters/" + key)
        last = 0 if counter is None else int(counter[0])
        self.write("/counters/" + key, b"%d" % (last + args[1]), None)
        return (last + 1,)

    def swap(self, key: str, old: Any, expected: Any, new: bytes, ttl: int | None) -> tuple[Any, ...]:
        """compare_and_swap; the current record is checked by its value alone."""
        present = None if old is None else old[0] if isinstance(expected, bytes) else old[2]
        if present == expected:
            return (True, *self.write(key, new, ttl), None)
        return (False, 0, 0, None) if old is None else (False, old[2], old[3], old[0])


class Comparison(RuleBasedStateMachine):
    """Rules do to both what a cluster could do; invariants compare what can be seen."""

    @initialize()
    def begin(self) -> None:
        self.driver = Driver()
        self.model = Model()
        self.serial = 0
        self.done: dict[int, tuple[Any, Any]] = {}
        self.proposed: tuple[tuple[int, int], ...] = ()
        self.watching: dict[int, tuple[Any, ...]] = {}
        self.got: dict[int, list[Any]] = {}
        self.watch_ids = 0
        self.model.now = self.driver.now

    def expected(self, fields: tuple[Any, ...]) -> tuple[Any, ...]:
        """A result with a record in it cut down to that record's value."""
        return tuple(item[1] if isinstance(item, tuple) else item for item in fields)

    @rule(commands=st.lists(COMMANDS, min_size=1, max_size=5), session=st.booleans())
    def batch(self, commands: list[tuple[Any, ...]], session: bool) -> None:
        requests = []
        for command in commands:
            self.serial += 1
            header: dict[str, Any] = {
                "client_id": 1,
                "serial": self.serial,
                "low_water": max(1, self.serial - 20),
            }
            requests.append(request(*command[:1], *command[1:], **(header if session else {})))
        results = self.driver.batch(requests)
        assert results is not None
        for command, sent, (status, revision, fields) in zip(commands, requests, results, strict=True):
            assert status == 0
            assert self.expected(fields) == self.model.run(*command)
            assert revision == self.model.revision
            if session:
                self.done[sent[7]] = (sent, (status, revision, fields))

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Any kept serial, on whatever node: the first result, and nothing happens."""
        floor = self.driver.machine.sessions.by_client[1].floor
        serial = data.draw(st.sampled_from(sorted(self.done)))
        sent, result = self.done[serial]
        results = self.driver.batch([sent])
        assert results is not None
        (again,) = results
        if serial >= floor:
            assert again == result
        else:
            assert again[0] == 23

    @precondition(lambda self: self.driver.seq)
    @rule()
    def copy_of_a_batch(self) -> None:
        assert self.driver.batch([request("put", "/a", b"copy")], (NODE, 1, self.driver.seq)) is None

    @rule(ms=st.sampled_from([1, 10, 40, 150]))
    def time_goes_on(self, ms: int) -> None:
        self.driver.tick(ms)
        self.model.now = self.driver.now

    @rule()
    def leader_proposes_expiry(self) -> None:
        self.proposed = tuple(self.driver.machine.leases.due(self.driver.now, 3))

    @rule()
    def expiry_is_applied(self) -> None:
        """It may have been proposed long ago; renewed keys survive, and none goes before its time."""
        held = {record[5]: record[0] for record in self.driver.machine.history.records.values() if record[5]}
        for lease, generation in self.proposed:
            live = self.driver.machine.leases.get(lease)
            if live is not None and live.generation == generation:
                key = held[lease]
                assert self.model.live[key][4] <= self.model.now
                self.model.remove([key])
        self.driver.do("expire", self.proposed)

    @rule(both=st.booleans())
    def a_snapshot_takes_their_place(self, both: bool) -> None:
        """A restart or an install: nobody notices, the watches neither."""
        driver = self.driver
        data = b"".join(encode(driver.machine))
        assert b"".join(encode(driver.twin)) == data
        driver.twin = restore([data])
        if both:
            driver.machine = restore([data])
            driver.watches.attach(driver.machine.history)

    @rule(back=st.integers(0, 12))
    def compact(self, back: int) -> None:
        revision = max(1, self.model.revision - back)
        if revision >= self.model.compaction:
            self.driver.do("compact", revision)
            self.model.compaction = revision
        else:
            with pytest.raises(Compacted):
                self.driver.do("compact", revision)
        with pytest.raises(FutureRevision):
            self.driver.do("compact", self.model.revision + 1)

    @rule(
        prefixes=PREFIXES | st.tuples(PREFIXES, PREFIXES),
        back=st.none() | st.integers(-3, 12),
        credit=st.sampled_from([0, 1, 400, CREDIT]),
        options=st.builds(Options, prev=st.booleans(), keys_only=st.booleans(), puts=st.booleans()),
    )
    def watch(self, prefixes: Any, back: int | None, credit: int, options: Options) -> None:
        start = None if back is None else max(1, self.model.revision - back)
        self.watch_ids += 1
        if start is not None and start <= self.model.compaction:
            with pytest.raises(Compacted):
                self.driver.watches.add(self.watch_ids, prefixes, start, credit, options)
            return
        first = self.driver.watches.add(self.watch_ids, prefixes, start, credit, options)
        assert first == (start or self.model.revision + 1)
        self.watching[self.watch_ids] = (prefixes, options, first)
        self.got[self.watch_ids] = []

    def must_see(self, prefixes: Any, options: Options, first: int) -> list[Any]:
        """Events of the model for a watch."""
        wanted = (options.puts, options.deletes)
        shows_before = options.prev and not options.keys_only
        return [
            (kind, key, None if options.keys_only else value, revision, before if shows_before else None)
            for kind, key, value, revision, before in self.model.events
            if revision >= first and key.startswith(prefixes) and wanted[kind]
        ]

    def receive(self, max_bytes: int) -> None:
        """Take what is sent, and check it against all events that there ever were."""
        for key, events in self.driver.events(max_bytes).items():
            assert isinstance(key, int)
            lost = events[-1] == "compacted"
            for kind, record, previous in events[: len(events) - lost]:
                before = None if previous is None else previous[1]
                self.got[key].append((kind, record[0], record[1], record[3], before))
            prefixes, options, first = self.watching[key]
            assert self.got[key] == self.must_see(prefixes, options, first)[: len(self.got[key])]
            if lost:
                reached = self.got[key][-1][3] if self.got[key] else first - 1
                assert reached <= self.model.compaction
                del self.watching[key]

    @rule(max_bytes=st.sampled_from([1, 150, 1 << 20]))
    def send(self, max_bytes: int) -> None:
        self.receive(max_bytes)
        for key, (prefixes, options, first) in self.watching.items():
            progress = self.driver.watches.progress(key)
            must = [event for event in self.must_see(prefixes, options, first) if event[3] <= progress]
            assert self.got[key][: len(must)] == must

    @precondition(lambda self: self.watching)
    @rule(data=st.data(), credit=st.sampled_from([1, 300, CREDIT]))
    def give_credit(self, data: st.DataObject, credit: int) -> None:
        self.driver.watches.credit(data.draw(st.sampled_from(sorted(self.watching))), credit, CREDIT)

    @precondition(lambda self: self.watching)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.watching)))
        del self.watching[key]
        assert self.driver.watches.remove(key)

    @rule(prefixes=PREFIXES, back=st.integers(0, 12), max_bytes=st.sampled_from([1, 300, 1 << 20]))
    def poll(self, prefixes: str, back: int, max_bytes: int) -> None:
        after = first = max(self.model.compaction, self.model.revision - back)
        seen: list[Any] = []
        more = True
        while more:
            events, after, more = self.driver.watches.poll(prefixes, after, Options(prev=True), max_bytes)
            seen += [(e[0], e[1][0], e[1][1], e[1][3], e[2] and e[2][1]) for e in events]
        assert after == self.model.revision
        assert seen == self.must_see(prefixes, Options(prev=True), first + 1)

    @rule(
        prefix=PREFIXES, back=st.none() | st.integers(0, 12), size=st.integers(1, 4), reverse=st.booleans(),
        by_bytes=st.booleans(),
    )  # fmt: skip
    def read_pages(self, prefix: str, back: int | None, size: int, reverse: bool, by_bytes: bool) -> None:
        revision = None if back is None else max(1, self.model.compaction, self.model.revision - back)
        bounds = reads.Bounds(100, 1) if by_bytes else reads.Bounds(size, 1 << 20)
        found: list[Any] = []
        counted, token = 0, None
        while True:
            answer = self.driver.read(
                "range", prefix, None, token, revision, False, False, reverse, bounds=bounds
            )
            found += answer[0]
            token = answer[1]
            if token is None:
                break
        while True:
            answer = self.driver.read(
                "range", prefix, None, token, revision, False, True, reverse, bounds=bounds
            )
            counted += answer[3]
            token = answer[1]
            if token is None:
                break
        then = self.model.past[revision or self.model.revision]
        keys = sorted((key for key in then if key.startswith(prefix)), reverse=reverse)
        assert [(r[0], r[1], r[2], r[3], r[4], r[6]) for r in found] == [
            (key, *then[key][:4], then[key][5]) for key in keys
        ]
        assert counted == len(keys)

    @rule(key=KEYS)
    def read_keys_at_all_revisions(self, key: str) -> None:
        for revision in range(max(1, self.model.compaction), self.model.revision + 1):
            record = self.model.past[revision].get(key)
            assert self.driver.value(key, revision) == (None if record is None else record[0])

    @rule(path=st.sampled_from(["/", "/a", "/a/", "/b", "none"]))
    def read_children(self, path: str) -> None:
        below = path.rstrip("/") + "/"
        assert self.driver.read("get_children", path)[0] == sorted(
            key for key in self.model.live if key.startswith(below)
        )

    @invariant()
    def the_present_is_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        machine, model = self.driver.machine, self.model
        assert machine.revision == model.revision
        assert {key: (*r[1:5], bool(r[5]), r[6]) for key, r in machine.history.records.items()} == {
            key: (*r[:4], r[4] is not None, r[5]) for key, r in model.live.items()
        }
        deadlines = [r[4] for r in model.live.values() if r[4] is not None]
        assert machine.leases.next_deadline() == min(deadlines, default=None)
        assert len(machine.leases) == len(deadlines)

    def teardown(self) -> None:
        """In the end everybody gets everything."""
        if not hasattr(self, "model"):
            return
        for key in self.watching:
            self.driver.watches.credit(key, CREDIT, CREDIT)
        self.receive(1 << 20)
        for key, (prefixes, options, first) in self.watching.items():
            assert self.got[key] == self.must_see(prefixes, options, first)
        assert dump(self.driver.machine) == dump(self.driver.twin)


Comparison.TestCase.settings = settings(
    max_examples=500,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAgainstTheModel = Comparison.TestCase


def test_the_model_runs_within_the_limits_it_does_not_know() -> None:
    """It keeps 20 serials of one session and little data; otherwise it would have to know the limits."""
    assert limits.MAX_SESSION_SERIALS > 30
