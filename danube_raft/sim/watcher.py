"""A program that watches: the decisions of `client/stream.py`, over connections that the world makes.

It does what `client/subscription.py` does with sockets: connects, subscribes, drains, gives credit, notices a dead node by
its end or by its silence, and goes on at the next endpoint from the first revision that has not arrived. Around that it
behaves as a program would, by its seed:

- It begins at the present, after a listing of what is there, or in the past; after Compacted it lists again.
- Now and then it stops to read for a while, and nothing of the watch happens meanwhile, as with a thread that is busy.
- Now and then it closes the watch, with or without a goodbye, and opens another from where it stood.

What it was told is in `watches`; nothing is judged here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from danube_raft import errors
from danube_raft.client.call import CONNECT_MS
from danube_raft.client.stream import CREDIT_BYTES, Options, Stream
from danube_raft.client.value import RAW
from danube_raft.sim.checks.facts import Fact, Framed, HandedOut, Marked, Subscribed
from danube_raft.sim.client import Client
from danube_raft.sim.connections import Connection, Connections
from danube_raft.sim.history import OK, Operation, WatchLog
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.trace import Trace
from danube_raft.wire import client as wire
from danube_raft.wire import codec

PRESENT = "present"
LISTING = "listing"
PAST = "past"

BEGIN_MS = 5_000
"""Deadline of the request that a watch begins with."""


class Habits(NamedTuple):
    """What a watching program is like. Chances are per revision that is handed out."""

    options: Options
    begin: str
    """One of PRESENT, LISTING (of its first prefix) and PAST."""
    pause_chance: float
    pause_max_s: float
    reopen_chance: float


_PREFIXES = (("/k/0",), ("/k/",), ("/k/",), ("",), ("",), ("/ttl/", "/counters/"), ("/k/0", "/ttl/", "/k/"))


def choose_habits(source: random.Random) -> Habits:
    """One of many kinds of programs."""
    prefixes = source.choice(_PREFIXES)
    puts, deletes = source.choice((*3 * ((True, True),), (True, False), (False, True)))
    options = Options(
        prefixes,
        prev=source.random() < 0.4,
        keys_only=source.random() < 0.2,
        puts=puts,
        deletes=deletes,
        credit_bytes=source.choice((400, 4_000, CREDIT_BYTES)),
    )
    begins = (PRESENT, PAST, LISTING) if len(prefixes) == 1 else (PRESENT, PAST)
    return Habits(
        options,
        source.choice(begins),
        pause_chance=source.choice((0.0, 0.02, 0.1)),
        pause_max_s=source.choice((0.3, 3.0, 8.0)),
        reopen_chance=source.choice((0.0, 0.02, 0.1)),
    )


class Surface(NamedTuple):
    """What a watcher lives in."""

    schedule: Schedule
    trace: Trace
    connections: Connections
    tell: Callable[[Fact], None]


class Watcher:
    """One program with one watch at a time. `machine`: whose cuts it shares; `store`: asks what a watch begins with."""

    def __init__(
        self,
        store: Client,
        machine: int,
        endpoints: tuple[str, ...],
        habits: Habits,
        around: Surface,
        source: random.Random,
    ) -> None:
        self.store = store
        self.watches: list[WatchLog] = []
        self.counts: Counter[str] = Counter()
        self._machine = machine
        self._endpoints = endpoints
        self._place = source.randrange(len(endpoints))
        self._habits = habits
        self._around = around
        self._random = source
        self._stream: Stream | None = None
        self._connection: Connection | None = None
        self._connect_until = 0.0
        self._served_by = 0
        self._watch_id = 0
        """Request id of its subscription."""
        self._step = 0
        self._paused = False
        self._steady = False

    def start(self) -> None:
        """Begin to watch, from where the habits say."""
        if self._habits.begin == PAST:
            self._open(1)
        else:
            self._ask(self._habits.begin)

    def settle(self) -> None:
        """From now on read without pause, and keep the watch."""
        self._steady = True
        if self._paused:
            self._resume(self._step)

    # ---------------------------------------------------------------- where to begin

    def _ask(self, begin: str) -> None:
        if begin == LISTING:
            limit = self._random.choice((None, 1, 3))
            self.store.list_prefix(self._habits.options.prefixes[0], limit, None, BEGIN_MS)
        else:
            self.store.begin("get", ("/",), None, BEGIN_MS)

    def told(self, operation: Operation) -> None:
        """An operation of the store has ended: it says where to begin, or is asked again."""
        if operation.outcome != OK:
            begin = LISTING if operation.kind == "range" else PRESENT
            self._around.schedule.after(100 * MS, self._ask, begin)
        elif operation.kind == "range":
            if not self.store.list_on(BEGIN_MS):
                self._open(operation.result[2] + 1)
        else:
            self._open(operation.revision + 1)

    def _open(self, revision: int) -> None:
        self.watches.append(WatchLog(self.store.number, self._habits.options, revision))
        session = self.store.program.session
        cluster_id = 0 if session.token is None else session.token[0]
        self._stream = Stream(session, RAW, self._habits.options, revision, cluster_id, self._now())
        self._around.trace.add(self._around.schedule.now, "watch", self.store.number, revision)
        self._go_on()

    # ---------------------------------------------------------------- one watch

    def _now(self) -> float:
        return self._around.schedule.now / MS

    def _wake(self) -> None:
        """Something arrived or ended."""
        if not self._paused:
            self._go_on()

    def _timer(self, step: int) -> None:
        if step == self._step and not self._paused:
            self._go_on()

    def _wait(self, until_ms: float) -> None:
        schedule = self._around.schedule
        self._step += 1
        schedule.at(max(round(until_ms * MS) + 1, schedule.now), self._timer, self._step)

    def _go_on(self) -> None:
        """As far as it goes without waiting."""
        while (stream := self._stream) is not None and not self._paused:
            if stream.ready:
                self._hand_out(stream)
            elif stream.error is not None:
                self._failed(stream.error)
            else:
                self._mark(stream)
                if not (self._turn(stream) if stream.connected else self._connect(stream)):
                    return

    def _hand_out(self, stream: Stream) -> None:
        taken = stream.take()
        self._send_due(stream)
        watch, events = self.watches[-1], tuple(taken.events)
        self._around.tell(HandedOut(watch, taken.revision, events))
        self._around.trace.add(
            self._around.schedule.now, "events", self.store.number, taken.revision, len(events)
        )
        watch.changes.append((taken.revision, events))
        watch.revision = taken.revision
        self.store.program.saw(taken.revision)
        self.counts["watch_events"] += len(events)
        if not self._steady:
            self._digress()

    def _digress(self) -> None:
        """What programs do beside reading."""
        habits, schedule = self._habits, self._around.schedule
        if self._random.random() < habits.pause_chance:
            self.counts["watch_pauses"] += 1
            self._paused = True
            self._step += 1
            length = round(self._random.uniform(0, habits.pause_max_s) * SECOND)
            schedule.after(length, self._resume, self._step)
        elif self._random.random() < habits.reopen_chance:
            self.counts["watches_reopened"] += 1
            self._close()
            schedule.after(self._random.randrange(SECOND), self._open, self.watches[-1].revision + 1)

    def _resume(self, step: int) -> None:
        if self._paused and step == self._step:
            self._paused = False
            self._go_on()

    def _close(self) -> None:
        connection, stream = self._connection, self._stream
        assert stream is not None
        self.watches[-1].closed = True
        if connection is not None and stream.connected and self._random.random() < 0.5:
            connection.send(stream.cancel())
        self._drop_connection()
        self._stream = None

    def _failed(self, error: errors.DanubeRaftError) -> None:
        watch = self.watches[-1]
        watch.error = f"{type(error).__name__}: {error.message}"
        if isinstance(error, errors.Compacted):
            watch.compacted = int(error.details)
            self.counts["watches_compacted"] += 1
        self._drop_connection()
        self._stream = None
        # Several prefixes cannot be listed at once; what the program would do with each is no matter here.
        self._ask(LISTING if len(self._habits.options.prefixes) == 1 else PRESENT)

    def _mark(self, stream: Stream) -> None:
        """Nothing waits to be handed out: what has arrived is complete."""
        watch, revision = self.watches[-1], stream.next_revision - 1
        if revision > watch.revision:
            self._around.tell(Marked(watch, revision))
            watch.marks.append((len(watch.changes), revision))
            watch.revision = revision
            self.store.program.saw(revision)
            self.counts["watch_marks"] += 1

    # ---------------------------------------------------------------- the connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, stream: Stream) -> bool:
        """One step towards a subscription at the next endpoint; False: wait."""
        connection, now = self._connection, self._now()
        if connection is None or self._connect_until == 0:
            self._drop_connection()
            if now < stream.retry_at:
                self._wait(stream.retry_at)
                return False
            endpoint = self._endpoints[self._place]
            self._place = (self._place + 1) % len(self._endpoints)
            self._connection = self._around.connections.open(self._machine, endpoint, self._wake)
            self._connect_until = now + CONNECT_MS
        elif connection.connected:
            self._connect_until = 0
            body = stream.subscribe(now)
            if connection.send(body):
                self._subscribed(connection, body)
            else:
                stream.lost(now)
        elif now >= self._connect_until:
            self._connect_until = 0
            stream.lost(now)
        else:
            self._wait(self._connect_until)
            return False
        return True

    def _subscribed(self, connection: Connection, body: bytes) -> None:
        request = next(codec.unpack_stream(body))
        self._watch_id = request[wire.REQUEST_ID]
        self._around.tell(Subscribed(self.watches[-1], request[wire.ARGS + 1]))
        if self._served_by not in (0, connection.node_id) and self.watches[-1].changes:
            self.counts["watches_resumed_elsewhere"] += 1
        self._served_by = connection.node_id

    def _turn(self, stream: Stream) -> bool:
        """Take what has arrived, say what is due, see whether the node is still there; False: wait."""
        connection = self._connection
        assert connection is not None
        gone = connection.lost
        self._drain(stream, connection)
        now = self._now()
        if stream.connected and (gone or stream.silent(now) or not self._send_due(stream)):
            self.counts["watches_silent"] += not gone and stream.silent(now)
            stream.lost(now)
        if stream.ready or stream.error is not None or not stream.connected:
            return True
        self._mark(stream)
        self._wait(stream.next_timer())
        return False

    def _drain(self, stream: Stream, connection: Connection) -> None:
        """One message at a time until there is something to hand out."""
        while not stream.ready and stream.connected and stream.error is None:
            if not connection.inbox:
                return
            body = connection.inbox.popleft()
            size = len(body)
            try:
                for reply in wire.unpack_replies(body):
                    if reply[wire.R_REQUEST_ID] == self._watch_id and reply[wire.R_STATUS] == wire.STATUS_OK:
                        self._around.tell(Framed(self.watches[-1], reply[wire.R_RESULT :]))
                    size = stream.receive(reply, size, self._now())
            except codec.Malformed:
                stream.lost(self._now())

    def _send_due(self, stream: Stream) -> bool:
        connection = self._connection
        if connection is None or not stream.connected:
            return True
        body = stream.due(self._now())
        return body is None or connection.send(body)
