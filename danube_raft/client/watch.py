"""A watch as an iterator of events for threads; what it does on its socket is in `subscription.py`.

The thread that iterates does the waiting and the sending. `close` may come from any other thread: it writes to a
pipe that the waiting thread polls too, and releases the sockets once that thread has left them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from danube_raft.client.call import Endpoints
from danube_raft.client.channel import Pool
from danube_raft.client.link import Steps, Waiter
from danube_raft.client.record import Event
from danube_raft.client.stream import Stream
from danube_raft.client.subscription import Subscription

T = TypeVar("T")


class Watch:
    """Events in order of revision, without gap or duplicate; iterate over it, or call `changes`.

    Ends when `close` is called. Raises Compacted (`details`: the compaction revision) when the revision to go on
    from is not kept any more, and ClusterIdMismatch when the endpoints belong to another cluster now. One thread
    iterates at a time; others wait.
    """

    def __init__(
        self, pool: Pool, stream: Stream, endpoints: Endpoints, on_close: Callable[[Watch], None]
    ) -> None:
        self._pool = pool
        self._on_close = on_close
        self._inside = False
        self._release_later = False
        self._lock = threading.RLock()
        self._close_lock = threading.Lock()
        pool.hold()
        self._subscription = Subscription(pool.context, stream, endpoints)
        self._wake_read, self._wake_write = os.pipe()
        self._waiter = Waiter(self._wake_read)

    # ---------------------------------------------------------------- for the caller

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        with self._lock:
            event = self._run(self._subscription.next_event())
        if event is None:
            raise StopIteration
        return event

    def changes(self, timeout_ms: int | None = None) -> list[Event]:
        """All events of the next revision. Empty when none came in time, or the watch is closed."""
        with self._lock:
            return self._run(self._subscription.changes(timeout_ms))

    @property
    def revision(self) -> int:
        """The last revision all of whose events were handed out, or of a progress mark: resume from the next."""
        return self._subscription.revision

    @property
    def connected(self) -> bool:
        """Whether a node serves the watch at the moment, as far as is known."""
        return self._subscription.connected

    def close(self) -> None:
        """End the watch, from any thread; whoever waits in it gets the end of the iteration."""
        with self._close_lock:
            if self._subscription.closed:
                return
            self._subscription.closed = True
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

    def _run(self, steps: Steps[T]) -> T:
        self._inside = True
        try:
            return self._waiter.run(steps)
        finally:
            self._inside = False
            if self._release_later:
                self._release_later = False
                self._release()

    def _release(self) -> None:
        self._subscription.release()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._on_close(self)
        self._pool.release()
