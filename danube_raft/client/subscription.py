"""A watch with its link and without the waiting: connect, subscribe, drain, go on elsewhere.

What a watch remembers and decides about frames is in `stream.py`; here it meets its socket. Every method that may
have to wait is a generator of `Steps`, which `Watch` drives with a thread and `AsyncWatch` with a task, so that
both resume by the same rules: when the connection is gone, and when a node falls silent, the next endpoint is asked
for everything from the first revision that has not arrived.

One driver at a time. `closed` may be set by anybody; whoever waits must then be woken, and gets nothing more.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import zmq

from danube_raft.client.call import CONNECT_MS, Endpoints
from danube_raft.client.channel import now_ms
from danube_raft.client.link import Link, Steps, Wait
from danube_raft.client.record import Event
from danube_raft.client.stream import Stream
from danube_raft.wire import codec
from danube_raft.wire.client import unpack_replies

CANCEL_LINGER_MS = 200
"""How long the goodbye to the node may take, in the background."""


class Subscription:
    """One watch."""

    def __init__(self, context: zmq.Context[Any], stream: Stream, endpoints: Endpoints) -> None:
        self.revision = stream.next_revision - 1
        self.closed = False
        self._context = context
        self._stream = stream
        self._names = endpoints.names
        self._place = endpoints.place
        self._link: Link | None = None
        self._events: deque[Event] = deque()

    @property
    def connected(self) -> bool:
        """Whether a node serves it at the moment, as far as is known."""
        return self._stream.connected

    def next_event(self) -> Steps[Event | None]:
        """The next event; None when it is closed."""
        if not self._events:
            self._events.extend((yield from self._next_revision(None)))
        if not self._events:
            return None
        event = self._events.popleft()
        if not self._events:
            self.revision = event.revision
        return event

    def changes(self, timeout_ms: int | None) -> Steps[list[Event]]:
        """All events of the next revision; empty when none came in time, or it is closed."""
        deadline = None if timeout_ms is None else now_ms() + timeout_ms
        # What iterating has begun comes first: the rest of its revision.
        events = list(self._events) or (yield from self._next_revision(deadline))
        self._events.clear()
        if events:
            self.revision = events[-1].revision
        return events

    def release(self) -> None:
        """Say goodbye to the node and close the sockets; nobody drives it any more."""
        if self._link is not None:
            heard = self._stream.connected and self._link.send(self._stream.cancel())
            self._link.close(CANCEL_LINGER_MS if heard else 0)
            self._link = None

    # ---------------------------------------------------------------- inside

    def _next_revision(self, deadline: float | None) -> Steps[list[Event]]:
        stream = self._stream
        while not self.closed:
            if stream.ready:
                taken = stream.take()
                self._send_due()
                return taken.events
            if stream.error is not None:
                raise stream.error
            if deadline is not None and now_ms() >= deadline:
                break
            self.revision = max(self.revision, stream.next_revision - 1)
            if self._link is None or not stream.connected:
                yield from self._connect(deadline)
            else:
                yield from self._turn(self._link, deadline)
        return []

    def _connect(self, deadline: float | None) -> Steps[None]:
        """Subscribe at the next endpoint; when there is no connection in time, the one after it is next."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if now_ms() < self._stream.retry_at:
            yield Wait(_earlier(self._stream.retry_at, deadline))
            return
        link = self._link = Link(self._context, self._names[self._place])
        self._place = (self._place + 1) % len(self._names)
        yield Wait(now_ms() + CONNECT_MS, link, zmq.POLLOUT)
        if self.closed:
            return
        if not link.connected or not link.send(self._stream.subscribe(now_ms())):
            self._stream.lost(now_ms())

    def _turn(self, link: Link, deadline: float | None) -> Steps[None]:
        yield Wait(_earlier(self._stream.next_timer(), deadline), link)
        gone = link.lost
        self._drain(link)
        now = now_ms()
        if self._stream.connected and (gone or self._stream.silent(now) or not self._send_due()):
            self._stream.lost(now)

    def _drain(self, link: Link) -> None:
        """Take what has arrived, one message at a time until there is something to hand out."""
        stream = self._stream
        while not stream.ready and stream.connected and stream.error is None:
            body = link.receive()
            if body is None:
                return
            size = len(body)
            try:
                for reply in unpack_replies(body):
                    size = stream.receive(reply, size, now_ms())
            except codec.Malformed:
                stream.lost(now_ms())

    def _send_due(self) -> bool:
        body = self._stream.due(now_ms()) if self._link is not None and self._stream.connected else None
        return body is None or self._link is None or self._link.send(body)


def _earlier(timer: float, deadline: float | None) -> float:
    return timer if deadline is None else min(timer, deadline)
