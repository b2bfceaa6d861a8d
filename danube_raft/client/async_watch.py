"""A watch as an asynchronous iterator of events; what it does on its socket is in `subscription.py`.

The task that iterates does the waiting and the sending; nothing runs in the background. A task that is cancelled
while it waits loses nothing: the next one goes on where it was. `aclose` may come from any other task: it wakes the
one that waits, and releases the sockets when that one has left them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar

from danube_raft.client.async_link import LoopWaiter
from danube_raft.client.link import Steps
from danube_raft.client.record import Event
from danube_raft.client.subscription import Subscription

T = TypeVar("T")


class AsyncWatch:
    """Events in order of revision, without gap or duplicate; iterate over it, or call `changes`.

    It begins when it is first awaited, entered or iterated: by then, at the latest, its first revision is fixed.
    Ends when `aclose` is called. Raises Compacted (`details`: the compaction revision) when the revision to go on
    from is not kept any more, and ClusterIdMismatch when the endpoints belong to another cluster now. One task
    iterates at a time; others wait.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[Subscription]],
        from_revision: int | None,
        on_close: Callable[[AsyncWatch], None],
    ) -> None:
        self._begin = begin
        self._from_revision = from_revision
        self._on_close = on_close
        self._subscription: Subscription | None = None
        self._closed = False
        self._waiter = LoopWaiter()
        self._lock = asyncio.Lock()

    # ---------------------------------------------------------------- for the caller

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        async with self._lock:
            await self._begun()
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._run(Subscription.next_event, None)
        if event is None:
            raise StopAsyncIteration
        return event

    async def changes(self, timeout_ms: int | None = None) -> list[Event]:
        """All events of the next revision. Empty when none came in time, or the watch is closed."""
        return await self._run(lambda subscription: subscription.changes(timeout_ms), [])

    @property
    def revision(self) -> int:
        """The last revision all of whose events were handed out, or of a progress mark: resume from the next."""
        if self._subscription is not None:
            return self._subscription.revision
        return 0 if self._from_revision is None else self._from_revision - 1

    @property
    def connected(self) -> bool:
        """Whether a node serves the watch at the moment, as far as is known."""
        return self._subscription is not None and self._subscription.connected

    async def aclose(self) -> None:
        """End the watch; whoever waits in it gets the end of the iteration."""
        if self._closed:
            return
        self._closed = True
        if self._subscription is not None:
            self._subscription.closed = True
        self._waiter.wake()
        self._on_close(self)
        # Whoever is inside releases the sockets when it leaves, even if this task does not wait for it.
        async with self._lock:
            self._release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---------------------------------------------------------------- inside

    async def _run(self, steps: Callable[[Subscription], Steps[T]], otherwise: T) -> T:
        """What the steps come to; `otherwise` when the watch is closed already."""
        async with self._lock:
            try:
                subscription = await self._begun()
                return otherwise if subscription is None else await self._waiter.run(steps(subscription))
            finally:
                if self._closed:
                    self._release()

    def _release(self) -> None:
        if self._subscription is not None:
            self._subscription.release()

    async def _begun(self) -> Subscription | None:
        """The subscription, begun now if it was not yet; None when the watch is closed."""
        if self._subscription is None and not self._closed:
            self._subscription = await self._begin()
            # It may have been closed meanwhile; whoever did that waits for the lock.
            self._subscription.closed = self._closed
        return None if self._closed else self._subscription
