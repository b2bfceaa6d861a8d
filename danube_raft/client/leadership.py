"""Whether a node leads, for threads: a handle that always has the answer, and tells when it changes.

A thread in the background polls the one node that the handle is attached to; reading costs no request. What is
known and for how long is decided in `attachment.py`. A handle may be made from a store, which then closes it, or by
itself for one endpoint. In a child that was forked from the process that opened it, nobody leads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from danube_raft.client.attachment import Attachment, Leadership, attend
from danube_raft.client.call import Endpoints
from danube_raft.client.channel import Pool, now_ms
from danube_raft.client.link import Waiter


class LeadershipHandle:
    """Who leads, seen from the node at `endpoint` (host:port).

    Nobody leads as long as that node cannot be reached, and from 3 s after its last sign of life at the latest; the
    handle connects again by itself. Thread-safe.
    """

    def __init__(
        self,
        endpoint: str,
        pool: Pool | None = None,
        on_close: Callable[[LeadershipHandle], None] | None = None,
    ) -> None:
        (self._endpoint,) = Endpoints((endpoint,)).names
        self._pool = Pool() if pool is None else pool
        self._owns_pool = pool is None
        self._on_close = on_close
        self._news = threading.Condition()
        self._attachment = Attachment(self._tell)
        self._pool.hold()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._attend, name="danube-raft-leadership", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- for the caller

    @property
    def state(self) -> Leadership:
        """All that is known, at one moment."""
        return self._attachment.at(now_ms(), self._pool.owner)

    @property
    def is_leader(self) -> bool:
        """Whether the node leads."""
        return self.state.is_leader

    @property
    def current_leader(self) -> int | None:
        """The node id of the leader; None when none is known."""
        return self.state.current_leader

    @property
    def node_id(self) -> int | None:
        """The node that the handle is attached to; None until it was first heard."""
        return self.state.node_id

    @property
    def term(self) -> int:
        """The last term known."""
        return self.state.term

    def wait(self, timeout_ms: int | None = None, known: Leadership | None = None) -> Leadership | None:
        """The state as soon as it is another than `known` (None: than now). None in the end: nothing changed in
        time, or the handle is closed."""
        deadline = None if timeout_ms is None else now_ms() + timeout_ms
        with self._news:
            known = self.state if known is None else known
            while not self._attachment.closed and not self._pool.owner.forked:
                state = self.state
                if state != known:
                    return state
                left = None if deadline is None else (deadline - now_ms()) / 1000
                if left is not None and left <= 0:
                    break
                self._news.wait(left)
        return None

    def changes(self) -> Iterator[Leadership]:
        """The state as it is, and then each other one; a slow reader is told the newest. Ends when it is closed."""
        state: Leadership | None = self.state
        while state is not None and not self._attachment.closed:
            yield state
            state = self.wait(None, state)

    def close(self) -> None:
        """End it, from any thread; whoever waits in it gets the end. Idempotent."""
        with self._news:
            if self._attachment.closed:
                return
            self._attachment.closed = True
            if self._pool.owner.forked:
                # The pipe and the sockets are those of the parent, and so is the thread.
                return
            self._news.notify_all()
            os.write(self._wake_write, b"x")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)
        if self._on_close is not None:
            self._on_close(self)
        if self._owns_pool:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _attend(self) -> None:
        """The thread: nobody else touches the sockets."""
        try:
            Waiter(self._wake_read).run(attend(self._attachment, self._pool.context, self._endpoint))
        finally:
            self._pool.release()
