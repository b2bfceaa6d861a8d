"""The asynchronous store behind the surface of the synchronous one, so that one test speaks to both.

Every call runs on an event loop in a thread of its own and waits for the outcome. Watches, handles and listings
come back wrapped in the same way; attributes that are no methods come back as they are.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeAlias

from danube_raft import AsyncLeadershipHandle, AsyncMetadataStore, AsyncWatch, Listing, MetadataStore

LIMIT_S = 30.0

Make: TypeAlias = Callable[..., MetadataStore]
"""Opens a store of either kind."""


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Its outcome."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT_S)

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        self.loop.close()


class Blocking:
    """Something asynchronous, whose methods wait."""

    def __init__(self, thread: LoopThread, inner: Any) -> None:
        self._thread = thread
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name.startswith("_") or not inspect.ismethod(found):
            return found
        return lambda *args, **named: self._thread.run(self._outcome(found, args, named))

    async def _outcome(self, method: Callable[..., Any], args: Any, named: Any) -> Any:
        result = method(*args, **named)
        if inspect.isasyncgen(result):
            return [item async for item in result]
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, Listing):
            return result._replace(watch=Blocking(self._thread, result.watch))
        if isinstance(result, AsyncWatch | AsyncLeadershipHandle):
            return Blocking(self._thread, result)
        return result

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._thread.run(self._inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End it."""
        self._thread.run(self._inner.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingStore(Blocking):
    """An AsyncMetadataStore on the loop of that thread, which outlives it."""

    def __init__(self, thread: LoopThread, *args: Any, **settings: Any) -> None:
        super().__init__(thread, AsyncMetadataStore(*args, **settings))


def closed(store: MetadataStore) -> bool:
    """Whether all that a store of either kind had open is released."""
    sockets: Any = store._inner._channel if isinstance(store, BlockingStore) else store._pool
    return bool(sockets.context.closed)
