"""Whether a node leads, for tasks: the twin of `leadership.py`, with a task in the place of its thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from danube_raft.client.async_channel import AsyncChannel
from danube_raft.client.async_link import LoopWaiter
from danube_raft.client.attachment import Attachment, Leadership, attend
from danube_raft.client.channel import now_ms


class AsyncLeadershipHandle:
    """Who leads, seen from the node at one endpoint; made by `AsyncMetadataStore.leadership`, in a running loop.

    Nobody leads as long as that node cannot be reached, and from 3 s after its last sign of life at the latest; the
    handle connects again by itself.
    """

    def __init__(
        self, endpoint: str, channel: AsyncChannel, on_close: Callable[[AsyncLeadershipHandle], None]
    ) -> None:
        loop = channel.check_usable()
        self._owner = channel.owner
        self._on_close = on_close
        self._news = asyncio.Event()
        self._attachment = Attachment(self._tell)
        self._waiter = LoopWaiter()
        steps = attend(self._attachment, channel.context, endpoint)
        self._task = loop.create_task(self._waiter.run(steps), name="danube-raft-leadership")

    # ---------------------------------------------------------------- for the caller

    @property
    def state(self) -> Leadership:
        """All that is known, at one moment."""
        return self._attachment.at(now_ms(), self._owner)

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

    async def wait(self, timeout_ms: int | None = None, known: Leadership | None = None) -> Leadership | None:
        """The state as soon as it is another than `known` (None: than now). None in the end: nothing changed in
        time, or the handle is closed."""
        known = self.state if known is None else known
        deadline = None if timeout_ms is None else now_ms() + timeout_ms
        while not self._attachment.closed:
            state = self.state
            if state != known:
                return state
            left = None if deadline is None else (deadline - now_ms()) / 1000
            if left is not None and left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                break
        return None

    async def changes(self) -> AsyncIterator[Leadership]:
        """The state as it is, and then each other one; a slow reader is told the newest. Ends when it is closed."""
        state: Leadership | None = self.state
        while state is not None and not self._attachment.closed:
            yield state
            state = await self.wait(None, state)

    async def aclose(self) -> None:
        """End it; whoever waits in it gets the end. Idempotent."""
        if self._attachment.closed:
            return
        self._attachment.closed = True
        self._tell()
        self._waiter.wake()
        self._on_close(self)
        await asyncio.wait([self._task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---------------------------------------------------------------- inside

    def _tell(self) -> None:
        """All who wait now look again; those who come later wait for the next time."""
        self._news.set()
        self._news = asyncio.Event()
