"""Clients of a real cluster that write down what they asked and what they were told.

Every client is a thread with a store of its own (so a session of its own) that prefers one node. In turn it puts and
swaps unique values under a few keys that all share, takes ids from one counter, and reads at two levels. Onlookers
only read, at the third level: with a bound on how old the answer may be. Each operation is one `Operation`, with the
time before it was sent and after it was answered. A watcher per node collects all events. `history_checks.py` says
what all this must look like.

Most clients wait longer than any fault lasts, so they must see no error. Hasty ones give up before an election is
over: what became of their requests is what the checks have to find out.

Values are `[client, n]` with n = 1, 2, 3… so each is written at most once and its writer can be told. An operation
that ended in an error is recorded with the error's name; `UNCERTAIN` ones may have happened. Keys and counter carry
the history's name, so that a cluster may have several, one after the other; between its first and its last revision
nobody else writes.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from real_node import until

from danube_raft import ABSENT, Event, MetadataStore, Record, Revision
from danube_raft.errors import DanubeRaftError, Uncertain

KEYS = ("k0", "k1", "k2", "k3")
PATIENCE_MS = 60_000
"""A log-writer that is stopped is noticed after 15 s, and a node with some 300,000 operations in its log takes as long
again to be back on a loaded machine: who asks only that node waits for more than half a minute."""
HASTE_MS = 500
PAUSE_S = 0.002
"""Between two operations of one client: the machine is to have time for elections too."""
LOOK_PAUSE_S = 0.02
BOUND_MS = 250
"""How old an answer an onlooker takes."""

PUT, SWAP, TAKE_ID, READ, SESSION_READ = "put", "swap", "take id", "read", "session read"
BOUNDED_READ = "bounded read"
WRITES = (PUT, SWAP)
OK, REJECTED, UNCERTAIN = "ok", "rejected", "uncertain"

Value = tuple[str, int]


class Operation(NamedTuple):
    """One request. `wrote` is what it wants to store; `found` and `revision` are the value and mod_revision that are
    there after it: those of its own write, or of the record that it read or lost to (None and 0: no record).
    `expected` is what a swap wants to find, by its revision (0: no record)."""

    client: str
    kind: str
    key: str
    begun: float
    ended: float
    outcome: str
    wrote: Value | None = None
    found: Value | None = None
    revision: int = 0
    version: int = 0
    id: int = 0
    expected: int = 0
    error: str = ""

    @property
    def changed(self) -> bool:
        """Whether it is a write that was acknowledged as done; a swap that lost is none."""
        return self.outcome == OK and self.wrote is not None and self.found == self.wrote


class Recorder(threading.Thread):
    """One client. One that `hops` asks another node each time and makes no pause: what it wrote through one it reads
    from the next, which may not have it yet. An onlooker makes bounded reads only."""

    def __init__(
        self,
        history: str,
        name: str,
        store: MetadataStore,
        enough: threading.Event,
        *,
        hops: int = 0,
        looks_on: bool = False,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._keys = [f"/{history}/{key}" for key in KEYS]
        self._counter = history
        self.operations: list[Operation] = []
        self.failure: BaseException | None = None
        self._store = store
        self._enough = enough
        self._hops = hops
        self._pause_s = LOOK_PAUSE_S if looks_on else 0 if hops else PAUSE_S
        # Which key comes next is no secret, and the same in every run.
        self._random = random.Random(name)
        self._numbers = itertools.count(1)
        self._last: dict[str, int] = dict.fromkeys(self._keys, 0)
        self._turns: tuple[Callable[[str], Operation], ...] = (
            self._put, self._read, self._swap, self._session_read, self._take_id
        )  # fmt: skip
        if looks_on:
            self._turns = (self._bounded_read,)

    def run(self) -> None:
        """Until told that it is enough."""
        try:
            for number, turn in enumerate(itertools.cycle(self._turns)):
                if self._enough.wait(self._pause_s):
                    return
                if self._hops:
                    # The order of preference is the store's own affair, but for this one.
                    self._store._terms.endpoints.place = self._random.randrange(self._hops)
                if number % len(self._turns) == 0:
                    key = self._random.choice(self._keys)
                operation = turn(key)
                self.operations.append(operation)
                if operation.outcome == OK and operation.kind != TAKE_ID:
                    self._last[operation.key] = operation.revision
        except BaseException as error:
            self.failure = error
            raise

    def wrote_after(self, moment: float) -> float | None:
        """When its first write that began after that moment was acknowledged; None: not yet."""
        found = None
        for one in reversed(list(self.operations)):
            if one.begun <= moment:
                break
            found = one.ended if one.changed else found
        return found

    def _value(self) -> Value:
        return self.name, next(self._numbers)

    def _put(self, key: str) -> Operation:
        value = self._value()

        def ask() -> dict[str, Any]:
            written = self._store.put(key, value)
            return {"found": value, "revision": written.revision, "version": written.version}

        return self._done(PUT, key, ask, value)

    def _swap(self, key: str) -> Operation:
        value = self._value()
        known = self._last[key]

        def ask() -> dict[str, Any]:
            swapped = self._store.compare_and_swap(key, Revision(known) if known else ABSENT, value)
            if not swapped:
                return _seen(swapped.current)
            return {"found": value, "revision": swapped.revision, "version": swapped.version}

        return self._done(SWAP, key, ask, value, known)

    def _take_id(self, _key: str) -> Operation:
        return self._done(
            TAKE_ID, self._counter, lambda: {"id": self._store.allocate_monotonic_id(self._counter)}
        )

    def _read(self, key: str) -> Operation:
        return self._done(READ, key, lambda: _seen(self._store.get(key, consistency="linearizable")))

    def _session_read(self, key: str) -> Operation:
        return self._done(SESSION_READ, key, lambda: _seen(self._store.get(key)))

    def _bounded_read(self, key: str) -> Operation:
        return self._done(BOUNDED_READ, key, lambda: _seen(self._store.get(key, consistency=BOUND_MS)))

    def _done(
        self,
        kind: str,
        key: str,
        ask: Callable[[], dict[str, Any]],
        wrote: Value | None = None,
        expected: int = 0,
    ) -> Operation:
        begun = time.monotonic()
        try:
            told = ask()
        except DanubeRaftError as error:
            outcome = UNCERTAIN if isinstance(error, Uncertain) else REJECTED
            name = f"{type(error).__name__}: {error.message}"
            return Operation(
                self.name, kind, key, begun, time.monotonic(), outcome, wrote, expected=expected, error=name
            )
        return Operation(self.name, kind, key, begun, time.monotonic(), OK, wrote, expected=expected, **told)


def _seen(record: Record | None) -> dict[str, Any]:
    if record is None:
        return {}
    client, number = record.value
    return {"found": (client, number), "revision": record.mod_revision, "version": record.version}


class Watcher(threading.Thread):
    """All events of the history, as one node tells them."""

    def __init__(self, history: str, endpoint: str, store: MetadataStore, from_revision: int) -> None:
        super().__init__(name=f"watcher of {endpoint}", daemon=True)
        self.changes: list[list[Event]] = []
        self.failure: BaseException | None = None
        self.watch = store.watch((f"/{history}/", f"/counters/{history}"), from_revision=from_revision)

    def run(self) -> None:
        """Until the watch is closed."""
        try:
            while changes := self.watch.changes():
                self.changes.append(changes)
        except BaseException as error:
            self.failure = error
            raise

    @property
    def revision(self) -> int:
        """The last that it has seen."""
        return self.changes[-1][-1].revision if self.changes else 0


class History:
    """The clients and watchers of one cluster, from the start of the test to its end.

    `endpoints` are those of the nodes. Every node is the first choice of a client that may go elsewhere (`roamers`)
    and the only choice of another (`residents`), which asks a node also while it is cut off from the rest, as does its
    onlooker. One more asks each node in turn. Two are hasty: one may go elsewhere, the other knows one node only.
    """

    def __init__(self, name: str, endpoints: list[str], patience_ms: int = PATIENCE_MS) -> None:
        self._name = name
        self._endpoints = endpoints
        self._patience_ms = patience_ms
        self._enough = threading.Event()
        self._stores: list[MetadataStore] = []
        with self._open(endpoints) as store:
            self.first_revision = store.put(f"/{name}/begin", ["begin", 1]).revision + 1
        self.roamers = [
            self._client(f"roamer {place}", [*endpoints[place:], *endpoints[:place]])
            for place in range(len(endpoints))
        ]
        self.residents = [
            self._client(f"resident {place}", [endpoint]) for place, endpoint in enumerate(endpoints)
        ]
        self.hasty = [
            self._client("hasty roamer", endpoints, HASTE_MS),
            self._client("hasty resident", endpoints[-1:], HASTE_MS),
        ]
        onlookers = [
            self._client(f"onlooker {place}", [endpoint], looks_on=True)
            for place, endpoint in enumerate(endpoints)
        ]
        hopper = self._client("hopper", endpoints, hops=len(endpoints))
        self.recorders = [*self.roamers, *self.residents, hopper, *self.hasty, *onlookers]
        # Each watcher knows its own node only: it has to come back to it.
        self.watchers = [
            Watcher(name, endpoint, self._kept([endpoint]), self.first_revision) for endpoint in endpoints
        ]
        self.end_revision = 0

    def start(self) -> History:
        """Begin."""
        for thread in (*self.watchers, *self.recorders):
            thread.start()
        return self

    def operations(self) -> list[Operation]:
        """All so far, in no order."""
        return [operation for recorder in self.recorders for operation in recorder.operations]

    def errors(self) -> list[str]:
        """What patient clients were told beside answers."""
        hasty = {client.name for client in self.hasty}
        return [
            f"{one.client} {one.kind}: {one.error}"
            for one in self.operations()
            if one.error and one.client not in hasty
        ]

    def given_up(self) -> list[Operation]:
        """What hasty clients asked and were not given."""
        return [one for client in self.hasty for one in list(client.operations) if one.outcome != OK]

    def next_write(self, after: float) -> float | None:
        """When the first write that began after that moment was acknowledged; None: not yet."""
        return min((ended for one in self.recorders if (ended := one.wrote_after(after))), default=None)

    def all_wrote(self, clients: list[Recorder], after: float) -> float | None:
        """When each of these had an acknowledged write that began after that moment; None: not yet."""
        ends = [ended for one in clients if (ended := one.wrote_after(after))]
        return max(ends) if len(ends) == len(clients) else None

    def fail_if_broken(self) -> None:
        """A client or watcher that ended by itself is a failure of the test, now."""
        threads: list[Recorder | Watcher] = [*self.recorders, *self.watchers]
        for thread in threads:
            if thread.failure is not None:
                raise AssertionError(f"{thread.name} ended: {thread.failure!r}") from thread.failure

    def finish(self) -> None:
        """Stop the clients; the watchers see everything to the end. The cluster must serve."""
        self._enough.set()
        for recorder in self.recorders:
            recorder.join(self._patience_ms / 1000 + 5)
            assert not recorder.is_alive(), f"{recorder.name} does not end"
        with self._open(self._endpoints) as store:
            self.end_revision = store.put(f"/{self._name}/end", ["end", 1]).revision
        until(
            lambda: (
                any(watcher.failure for watcher in self.watchers)
                or all(watcher.revision >= self.end_revision for watcher in self.watchers)
            ),
            "the watchers to see the end",
        )
        self.close()
        self.fail_if_broken()

    def close(self) -> None:
        """End everything, whatever has happened."""
        self._enough.set()
        for watcher in self.watchers:
            watcher.watch.close()
        for thread in (*self.watchers, *self.recorders):
            if thread.ident is not None:
                thread.join(self._patience_ms / 1000 + 5)
        for store in self._stores:
            store.close()

    def _open(self, endpoints: list[str], timeout_ms: int = 0) -> MetadataStore:
        return MetadataStore(endpoints, timeout_ms=timeout_ms or self._patience_ms)

    def _kept(self, endpoints: list[str], timeout_ms: int = 0) -> MetadataStore:
        self._stores.append(self._open(endpoints, timeout_ms))
        return self._stores[-1]

    def _client(self, name: str, endpoints: list[str], timeout_ms: int = 0, **settings: Any) -> Recorder:
        return Recorder(self._name, name, self._kept(endpoints, timeout_ms), self._enough, **settings)
