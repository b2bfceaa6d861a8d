"""A watch as an iterator of events, with its sockets; what it decides is in `stream.py`.

The thread that iterates does the waiting and the sending. `close` may come from any other thread: it writes to a
pipe that the waiting thread polls too, and releases the sockets once that thread has left them. A watch has its own
DEALER, and a monitor on it that tells at once when the connection is gone: ZeroMQ reconnects by itself, but the node
at the other end knows nothing of a watch any more. Then, and when a node falls silent, the next endpoint is asked
for everything from the first revision that has not arrived.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import zmq

from danube_raft.client.call import CONNECT_MS, Endpoints
from danube_raft.client.channel import Pool, connect, no_socket, now_ms, whole_ms
from danube_raft.client.record import Event
from danube_raft.client.stream import Stream
from danube_raft.wire import codec
from danube_raft.wire.client import unpack_replies

CANCEL_LINGER_MS = 200
"""How long the goodbye to the node may take, in the background."""


class Link:
    """One connection of a watch, with a monitor that becomes readable when it is lost."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, wake: int) -> None:
        self.socket = connect(context, endpoint)
        try:
            self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        except zmq.ZMQError as error:
            self.socket.close()
            raise no_socket(error) from None
        self.poller = zmq.Poller()
        for source in (self.monitor, wake):
            self.poller.register(source, zmq.POLLIN)
        # Until the subscription is sent, what is waited for is a connection.
        self.poller.register(self.socket, zmq.POLLOUT)

    def wait(self, until: float) -> dict[Any, int]:
        """What is readable (or, at first, writable) until then."""
        return dict(self.poller.poll(whole_ms(until - now_ms())))

    def send(self, body: bytes) -> bool:
        """False: there is no connection."""
        try:
            self.socket.send_multipart((b"", body), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Close all."""
        self.socket.disable_monitor()
        self.socket.close(linger=linger_ms)
        self.monitor.close(linger=0)


class Watch:
    """Events in order of revision, without gap or duplicate; iterate over it, or call `changes`.

    Ends when `close` is called. Raises Compacted (`details`: the compaction revision) when the revision to go on
    from is not kept any more, and ClusterIdMismatch when the endpoints belong to another cluster now. One thread
    iterates at a time; others wait.
    """

    def __init__(
        self, pool: Pool, stream: Stream, endpoints: Endpoints, on_close: Callable[[Watch], None]
    ) -> None:
        self.revision = stream.next_revision - 1
        """The last revision all of whose events were handed out, or of a progress mark: resume from the next."""
        self._pool = pool
        self._stream = stream
        self._names = endpoints.names
        self._place = endpoints.place
        self._on_close = on_close
        self._link: Link | None = None
        self._events: deque[Event] = deque()
        self._closed = False
        self._inside = False
        self._release_later = False
        self._lock = threading.RLock()
        self._close_lock = threading.Lock()
        pool.hold()
        self._wake_read, self._wake_write = os.pipe()

    # ---------------------------------------------------------------- for the caller

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        with self._lock:
            if not self._events:
                self._events.extend(self._next_revision(None))
            if not self._events:
                raise StopIteration
            event = self._events.popleft()
            if not self._events:
                self.revision = event.revision
            return event

    def changes(self, timeout_ms: int | None = None) -> list[Event]:
        """All events of the next revision. Empty when none came in time, or the watch is closed."""
        deadline = None if timeout_ms is None else now_ms() + timeout_ms
        with self._lock:
            # What iterating has begun comes first: the rest of its revision.
            events = list(self._events) or self._next_revision(deadline)
            self._events.clear()
            if events:
                self.revision = events[-1].revision
            return events

    @property
    def connected(self) -> bool:
        """Whether a node serves the watch at the moment, as far as is known."""
        return self._stream.connected

    def close(self) -> None:
        """End the watch, from any thread; whoever waits in it gets the end of the iteration."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        os.write(self._wake_write, b"x")
        with self._lock:
            if self._inside:
                # A signal handler of the thread that waits: it must leave the sockets before they are closed.
                self._release_later = True
            else:
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _next_revision(self, deadline: float | None) -> list[Event]:
        self._inside = True
        try:
            if not self._wait(deadline):
                return []
            taken = self._stream.take()
            self._send_due()
            return taken.events
        finally:
            self._inside = False
            if self._release_later:
                self._release()

    def _wait(self, deadline: float | None) -> bool:
        stream = self._stream
        while not self._closed:
            if stream.ready:
                return True
            if stream.error is not None:
                raise stream.error
            if deadline is not None and now_ms() >= deadline:
                return False
            self.revision = max(self.revision, stream.next_revision - 1)
            if self._link is None or not stream.connected:
                self._connect(deadline)
            else:
                self._turn(self._link, deadline)
        return False

    def _connect(self, deadline: float | None) -> None:
        """Subscribe at the next endpoint; when there is no connection in time, the one after it is next."""
        self._drop()
        pause = zmq.Poller()
        pause.register(self._wake_read, zmq.POLLIN)
        until = self._stream.retry_at
        if pause.poll(whole_ms(min(until, deadline or until) - now_ms())) or now_ms() < until:
            return
        link = self._link = Link(self._pool.context, self._names[self._place], self._wake_read)
        self._place = (self._place + 1) % len(self._names)
        happened = link.wait(now_ms() + CONNECT_MS)
        if link.socket in happened and link.send(self._stream.subscribe(now_ms())):
            link.poller.modify(link.socket, zmq.POLLIN)
        else:
            self._stream.lost(now_ms())

    def _turn(self, link: Link, deadline: float | None) -> None:
        until = self._stream.next_timer()
        happened = link.wait(until if deadline is None else min(until, deadline))
        if link.socket in happened:
            self._drain(link.socket)
        now = now_ms()
        gone = link.monitor in happened or self._stream.silent(now)
        if self._stream.connected and (gone or not self._send_due()):
            self._stream.lost(now)

    def _drain(self, socket: zmq.Socket[bytes]) -> None:
        """Take what has arrived, one message at a time until there is something to hand out."""
        while not self._stream.ready and self._stream.connected and self._stream.error is None:
            try:
                body = socket.recv_multipart(zmq.NOBLOCK)[-1]
            except zmq.Again:
                return
            size = len(body)
            try:
                for reply in unpack_replies(body):
                    self._stream.receive(reply, size, now_ms())
                    size = 0  # several replies in one body used its bytes once
            except codec.Malformed:
                self._stream.lost(now_ms())

    def _send_due(self) -> bool:
        body = self._stream.due(now_ms()) if self._link is not None and self._stream.connected else None
        return body is None or self._link is None or self._link.send(body)

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _release(self) -> None:
        if self._link is not None:
            linger = (
                CANCEL_LINGER_MS if self._stream.connected and self._link.send(self._stream.cancel()) else 0
            )
            self._link.close(linger)
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._on_close(self)
        self._pool.release()
