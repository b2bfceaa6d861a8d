"""What clients ask for: writes and reads of every kind over few keys, so that they meet.

- Every value is written once, so a value names the operation that wrote it. (A renewal repeats the value of its key.)
- `/k/…` are registers: put, compare_and_swap (also of what is absent), delete, delete_prefix, reads of every level. `/ttl/…`
  have an owner each, who alone writes and reads them, with one TTL; now and then it clears that and deletes the key at
  last, or deletes it under its TTL. Swaps grant and clear TTLs as well. `ids` is a counter. Listings of all of these come in pages.
- Half of the leases are renewed at the last moment and looked at right after: expiry and renewal shall meet.
- A client does one operation after the other, with pauses; several of them run beside each other, and may be one program.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from danube_raft.sim.bare_client import BareClient
from danube_raft.sim.client import Client
from danube_raft.sim.history import OK, Operation
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.wire.client import LINEARIZABLE, STALE

COUNTER = "ids"
TTL_MAX_MS = 3_000

_OPERATIONS = (
    ("put", 22), ("get", 12), ("get linearizable", 18), ("get stale", 5), ("swap", 15), ("delete", 5),
    ("allocate", 8), ("ttl", 18), ("create", 4), ("delete prefix", 3), ("list", 5), ("past", 4),
)  # fmt: skip


class Workload:
    """Keeps all clients busy until `stop`. `rate`: operations per second, all clients together."""

    def __init__(
        self, schedule: Schedule, source: random.Random, keys: int, rate: float, padding_bytes: int
    ) -> None:
        self.keys = tuple(f"/k/{number}" for number in range(keys))
        self._schedule = schedule
        self._random = source
        self._rate = rate
        self._padding_bytes = padding_bytes
        self._clients: dict[int, Client] = {}
        self._bare: BareClient | None = None
        self._seen: dict[tuple[int, str], Any] = {}
        self._leased: dict[int, tuple[str, bytes, int]] = {}
        self._cleared: dict[int, tuple[str, bytes, int]] = {}
        """As `_leased`, of keys whose TTL was cleared."""
        self._plans: dict[int, int] = {}
        self._to_look_at: set[int] = set()
        """Clients that have just renewed their lease."""
        self._written = 0
        self._running = True

    def add(self, client: Client) -> None:
        """Let this client work too."""
        self._clients[client.number] = client
        self._plan(client, self._pause(), self._next)

    def add_bare(self, client: BareClient) -> None:
        """Let this client write too, without a session."""
        self._bare = client
        self._schedule.after(self._pause(), self._next_bare)

    def stop(self) -> None:
        """No new operations from now on."""
        self._running = False

    def value(self, client: Client | BareClient) -> bytes:
        """One that nobody has written before."""
        self._written += 1
        padding = b"." * (self._random.randrange(self._padding_bytes) if self._padding_bytes else 0)
        return b"%d.%d" % (client.number, self._written) + padding

    def ended(self, operation: Operation) -> None:
        """The client of this operation is free for the next one."""
        if self._bare is not None and operation.client == self._bare.number:
            self._schedule.after(self._pause(), self._next_bare)
        if operation.client not in self._clients:
            return
        client = self._clients[operation.client]
        self._learn(client, operation)
        if not self._running:
            return
        if client.number in self._to_look_at:
            self._to_look_at.remove(client.number)
            self._plan(client, self._random.randrange(100, 5 * MS), self._look)
        elif operation.kind == "range" and operation.outcome == OK and operation.result[1] is not None:
            self._plan(client, self._pause() // 4, self._list_on)
        else:
            self._plan(client, self._pause(), self._next)

    def _plan(self, client: Client, delay: int, step: Callable[[Client], None]) -> None:
        """What the client does next, in place of what was planned before."""
        plan = self._plans[client.number] = self._plans.get(client.number, 0) + 1
        self._schedule.after(delay, self._do, client, plan, step)

    def _do(self, client: Client, plan: int, step: Callable[[Client], None]) -> None:
        # A client that is busy by now goes on when that ends.
        if self._running and not client.busy and self._plans[client.number] == plan:
            step(client)

    def _pause(self) -> int:
        return round(self._random.expovariate(self._rate / max(1, len(self._clients))) * SECOND)

    def _learn(self, client: Client, operation: Operation) -> None:
        if operation.outcome != OK:
            return
        if operation.kind == "put_with_ttl":
            if self._random.random() < 0.5:
                due = operation.invoked + operation.args[2] * MS - self._random.randrange(-5 * MS, 20 * MS)
                self._schedule.at(max(due, self._schedule.now), self._renew, client, operation.args)
        elif operation.kind == "compare_and_swap" and operation.key.startswith("/ttl/"):
            if not operation.result[0]:
                # It had ended before: the next one gets another name.
                self._cleared.pop(operation.client, None)
        elif operation.kind == "get" and operation.past is None:
            record = operation.result[0]
            if operation.key.startswith("/k/"):
                self._seen[operation.client, operation.key] = record
            elif record is None:
                # Gone: the next one gets another name.
                self._leased.pop(operation.client, None)
                self._cleared.pop(operation.client, None)

    # ---------------------------------------------------------------- the next operation

    def _next(self, client: Client) -> None:
        names = [name for name, _ in _OPERATIONS]
        name = self._random.choices(names, [weight for _, weight in _OPERATIONS])[0]
        key = self._random.choice(self.keys)
        timeout_ms = self._random.choice((300, 1_000, 5_000, 5_000))
        if name == "put":
            client.begin("put", (key, self.value(client)), None, timeout_ms)
        elif name == "delete":
            client.begin("delete", (key,), None, timeout_ms)
        elif name == "allocate":
            client.begin("allocate_id", (COUNTER, self._random.randrange(1, 4)), None, timeout_ms)
        elif name == "delete prefix":
            client.begin("delete_prefix", (self._random.choice((key, "/k/")),), None, timeout_ms)
        elif name == "create":
            client.begin("compare_and_swap", (key, None, self.value(client)), None, timeout_ms)
        elif name == "list":
            self._list(client, timeout_ms)
        elif name == "swap":
            self._swap(client, key, timeout_ms)
        elif name == "ttl":
            self._ttl(client, timeout_ms)
        elif name == "past":
            self._past(client, key, timeout_ms)
        else:
            level: str | int | None = None
            if name == "get linearizable":
                level = LINEARIZABLE
            elif name == "get stale":
                level = self._random.choice((STALE, 100, 3_000))
            # Now and then from any node, which may be behind what this client has seen.
            elsewhere = self._random.randrange(client.endpoint_count) if self._random.random() < 0.4 else None
            client.begin("get", (key,), level, timeout_ms, endpoint=elsewhere)

    def _next_bare(self) -> None:
        if self._running and self._bare is not None and not self._bare.busy:
            timeout_ms = self._random.choice((100, 1_000, 5_000))
            self._bare.put(self._random.choice(self.keys), self.value(self._bare), timeout_ms)

    def _swap(self, client: Client, key: str, timeout_ms: int) -> None:
        """Expect what this client saw last, by value or by revision; the checks are told the value."""
        record = self._seen.get((client.number, key))
        new = self.value(client)
        known = None if record is None else record[1]
        expected = record[3] if record is not None and self._random.random() < 0.4 else known
        client.begin("compare_and_swap", (key, expected, new), None, timeout_ms, (key, known, new))

    def _past(self, client: Client, key: str, timeout_ms: int) -> None:
        """As it was at a revision that this client knows to have been."""
        revision = max(1, client.program.seen - self._random.randrange(30))
        if self._random.random() < 0.5:
            client.begin("get", (key, revision), None, timeout_ms)
        else:
            client.begin("range", ("/k/", None, None, revision, False, False, False), None, timeout_ms)

    def _list(self, client: Client, timeout_ms: int) -> None:
        choice = self._random.choice
        prefix = choice(("/k/", "/k/", "/ttl/", "/counters/", ""))
        level = choice((None, LINEARIZABLE, LINEARIZABLE, STALE))
        client.list_prefix(prefix, choice((None, 1, 2)), level, timeout_ms, reverse=choice((False, True)))

    def _list_on(self, client: Client) -> None:
        client.list_on(5_000)

    def _renew(self, client: Client, leased: tuple[str, bytes, int]) -> None:
        if self._running and not client.busy and self._leased.get(client.number) == leased:
            self._to_look_at.add(client.number)
            client.begin("put_with_ttl", leased, None, 1_000)

    def _look(self, client: Client) -> None:
        if client.number in self._leased:
            client.begin("get", (self._leased[client.number][0],), LINEARIZABLE, 1_000)
        else:
            self._next(client)

    def _ttl(self, client: Client, timeout_ms: int) -> None:
        leased = self._leased.get(client.number)
        if client.number in self._cleared:
            self._without_ttl(client, timeout_ms)
            return
        if leased is None:
            value = self.value(client)
            leased = (f"/ttl/{client.number}/{self._written}", value, self._random.randrange(200, TTL_MAX_MS))
            self._leased[client.number] = leased
            if self._random.random() < 0.25:
                created = (leased[0], None, value, leased[2])
                client.begin("compare_and_swap", created, None, timeout_ms)
                return
        elif self._random.random() < 0.5:
            level = LINEARIZABLE if self._random.random() < 0.5 else None
            client.begin("get", (leased[0],), level, timeout_ms)
            return
        elif self._random.random() < 0.5:
            self._end_lease(client, leased, timeout_ms)
            return
        client.begin("put_with_ttl", leased, None, timeout_ms)

    def _end_lease(self, client: Client, leased: tuple[str, bytes, int], timeout_ms: int) -> None:
        """The key loses its TTL, or is deleted under it."""
        key, value, _ = self._leased.pop(client.number)
        chance = self._random.random()
        if chance < 0.2:
            client.begin("delete", (key,), None, timeout_ms)
            return
        self._cleared[client.number] = leased
        if chance < 0.6:
            client.begin("put", (key, self.value(client)), None, timeout_ms)
        else:
            client.begin("compare_and_swap", (key, value, self.value(client)), None, timeout_ms)

    def _without_ttl(self, client: Client, timeout_ms: int) -> None:
        """Look at the key, grant it its TTL again, or be done with it."""
        key, _, ttl_ms = self._cleared[client.number]
        chance = self._random.random()
        if chance < 0.6:
            client.begin("get", (key,), None if chance < 0.3 else LINEARIZABLE, timeout_ms)
            return
        del self._cleared[client.number]
        if chance < 0.8:
            client.begin("delete", (key,), None, timeout_ms)
        else:
            leased = self._leased[client.number] = (key, self.value(client), ttl_ms)
            client.begin("put_with_ttl", leased, None, timeout_ms)
