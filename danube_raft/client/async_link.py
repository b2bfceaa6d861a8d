"""Driving the steps of a link (see `link.py`) with an event loop instead of a thread.

The descriptor of a ZeroMQ socket says that something has happened to it, and not what; it says so again only after
the socket was asked for its events. So both sockets of the link are asked right before their descriptors are handed
to the loop, nothing touches them in between, and after each sign they are asked again.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import zmq

from danube_raft.client.channel import now_ms
from danube_raft.client.link import Link, Steps, Wait

T = TypeVar("T")


def set_once(future: asyncio.Future[None]) -> None:
    """For timers and descriptors that may all fire for the same future."""
    if not future.done():
        future.set_result(None)


class LoopWaiter:
    """Waits in the calling task; `wake` ends that early, for good."""

    def __init__(self) -> None:
        self._woken = False
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Nothing is waited for any more."""
        self._woken = True
        if self._future is not None:
            set_once(self._future)

    async def run(self, steps: Steps[T]) -> T:
        """Drive to the end; its result or error. When the task is cancelled, the steps are abandoned."""
        try:
            while True:
                await self._wait(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _wait(self, wait: Wait) -> None:
        loop = asyncio.get_running_loop()
        while not self._woken:
            if wait.link is not None and wait.link.ready(wait.flags):
                return
            left = (wait.until - now_ms()) / 1000
            if left <= 0:
                return
            future = self._future = loop.create_future()
            timer = loop.call_later(left, set_once, future)
            descriptors = () if wait.link is None else _descriptors(wait.link)
            for descriptor in descriptors:
                loop.add_reader(descriptor, set_once, future)
            try:
                await future
            finally:
                self._future = None
                timer.cancel()
                for descriptor in descriptors:
                    loop.remove_reader(descriptor)


def _descriptors(link: Link) -> tuple[int, ...]:
    return tuple(int(socket.getsockopt(zmq.FD)) for socket in (link.socket, link.monitor))
