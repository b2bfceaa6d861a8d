"""Drives a state machine in tests: makes entries of commands, twice, as the origin and as any other replica.

`Driver.machine` is given the checked requests, as on the node where the batch was made; `Driver.twin` decodes the
payload, as everywhere else. Every result and, on request, the whole state of the two must be equal.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from danube_raft.errors import Rejected, from_wire
from danube_raft.kv import reads
from danube_raft.kv.machine import Machine
from danube_raft.kv.sessions import Result
from danube_raft.kv.watches import Options, Watches
from danube_raft.wire import client, codec
from danube_raft.wire.entry import KIND_BATCH, KIND_NOOP, NO_ORIGIN, Entry

NODE = 7
WALL_MS = 1_700_000_000_000
BOUNDS = reads.Bounds(5_000, 1 << 20)
CREDIT = 1 << 30


def request(op: str, *args: Any, **header: Any) -> client.Request:
    """A checked request, as it comes off the wire."""
    return client.check(codec.unpack(client.pack_request(op, 1, *args, **header)))


def dump(machine: Machine) -> dict[str, Any]:
    """All replicated state, with every order that could matter; those that decide nothing are sorted away."""
    history, sessions, leases = machine.history, machine.sessions, machine.leases
    return {
        "index": (machine.applied_index, machine.applied_term, machine.cluster_ms, machine.configuration),
        "origins": sorted(machine.origins.items()),
        "revision": (history.revision, history.compaction_revision, history.event_bytes, history.state_bytes),
        "records": sorted(history.records.items()),
        "chains": sorted(history.chains.items()),
        "events": list(history.events),
        "keys": (list(history.keys("", None)), list(history.past_keys("", None))),
        "leases": [
            (x.id, x.ttl_ms, x.deadline_ms, x.generation, x.private, sorted(x.keys)) for x in leases.all()
        ],
        "next_lease": leases.next_id,
        "sessions": [
            (client_id, s.used_ms, s.floor, sorted(s.results.items()), sorted(s.sizes.items()))
            for client_id, s in sessions.by_client.items()
        ],
        "kept_bytes": sessions.kept_bytes,
    }


class Driver:
    """Two replicas, cluster time in `now`, and the watches of the first."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.twin = Machine()
        self.watches = Watches(self.machine.history)
        self.now = 1_000
        self.seq = 0

    def batch(
        self, requests: list[client.Request], origin: tuple[int, int, int] | None = None
    ) -> list[Result] | None:
        """Apply one entry; None if it was a copy."""
        if origin is None:
            self.seq += 1
            origin = (NODE, 1, self.seq)
        payload = b"".join(codec.pack(r) for r in requests)
        entry = Entry(
            self.machine.applied_index + 1, 1, KIND_BATCH, self.now, WALL_MS + self.now, origin, payload
        )
        results = self.machine.apply(entry, requests)
        assert self.twin.apply(entry) == results
        return results

    def raw(self, payload: bytes) -> list[Result]:
        """Apply a batch of these very bytes, which no node would have made."""
        self.seq += 1
        entry = Entry(
            self.machine.applied_index + 1, 1, KIND_BATCH, self.now, 0, (NODE, 1, self.seq), payload
        )
        results = self.machine.apply(entry)
        assert results is not None
        assert self.twin.apply(entry) == results
        return results

    def tick(self, ms: int) -> None:
        """Cluster time goes on, with an entry that says so."""
        self.now += ms
        entry = Entry(self.machine.applied_index + 1, 1, KIND_NOOP, self.now, 0, NO_ORIGIN, b"")
        assert self.machine.apply(entry) == self.twin.apply(entry) == []

    def result(self, op: str, *args: Any, **header: Any) -> Result:
        """The result of one command in an entry of its own."""
        results = self.batch([request(op, *args, **header)])
        assert results is not None
        return results[0]

    def do(self, op: str, *args: Any, **header: Any) -> Any:
        """As `result`: its fields alone, or the error raised."""
        status, _, fields = self.result(op, *args, **header)
        if status:
            raise from_wire(status, *fields)
        return fields

    def read(self, op: str, *args: Any, bounds: reads.Bounds = BOUNDS) -> tuple[Any, ...]:
        """The result fields of a read."""
        return reads.answer(self.machine.history, request(op, *args), bounds)

    def value(self, key: str, revision: int | None = None) -> bytes | None:
        """The value of `key`."""
        record = self.read("get", key, revision)[0]
        return None if record is None else record[1]

    def expire(self) -> int:
        """Propose what is due now, as the leader's kv-server does; the number that had expired."""
        expired: int = self.do("expire", tuple(self.machine.leases.due(self.now, 1_000)))[0]
        return expired

    def watch(self, key: Hashable, prefixes: Any, start: int | None = None, **options: bool) -> int:
        """Open a watch with more credit than it will need."""
        return self.watches.add(key, prefixes, start, CREDIT, Options(**options))

    def events(self, max_bytes: int = 1 << 20) -> dict[Hashable, list[Any]]:
        """All that can be sent now: events by watch, or the word compacted."""
        found: dict[Hashable, list[Any]] = {}
        more = True
        while more:
            frames, lost, more = self.watches.collect(max_bytes)
            for keys, frame in frames:
                kind, events, last, _ = codec.unpack_stream(frame)
                assert kind == client.FRAME_EVENTS
                assert events[-1][1][3] == last
                for key in keys:
                    found.setdefault(key, []).extend(events)
            for key in lost:
                found.setdefault(key, []).append("compacted")
        return found

    def check_equal(self) -> None:
        """Both replicas hold the same."""
        assert dump(self.machine) == dump(self.twin)


def code(error: type[Rejected]) -> int:
    """The wire code of an error class."""
    return error.code
